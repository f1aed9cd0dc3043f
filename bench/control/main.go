//go:build linux

// Command control measures how many hosts one control plane node holds, beside
// opamp-go's own server used plainly, in the same run:
//
//	go run ./bench/control [--hosts 2000] [--beats 10s] [--json]
//
// Server and hosts are two processes on this machine and share its cores. The
// hosts are real uplinks with mutual TLS, certificates of their own and a
// heartbeat a second. What decides is left out: the control plane behind the
// server is a counter. The plain server is opamp-go's, started as its examples
// do, with the same TLS and the same hosts.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"text/tabwriter"
	"time"
)

// figures are what one server did.
type figures struct {
	Server         string  `json:"server"`
	Hosts          int     `json:"hosts"`
	Connected      int     `json:"connected"`
	ConnectS       float64 `json:"connect_s"`             // until all were connected
	ConnectCPU     float64 `json:"connect_cpu_ms_each"`   // the server's CPU per connection
	KBEach         float64 `json:"kb_resident_each"`      // of the server's memory, at rest
	HeapKBEach     float64 `json:"kb_heap_each"`          // of that, live heap and stacks
	BeatsPerSecond float64 `json:"heartbeats_per_second"` // arrived
	BeatCPU        float64 `json:"heartbeat_cpu_us_each"`
	OfferP50       float64 `json:"offer_p50_ms"` // from the hint to the host's hands
	OfferP99       float64 `json:"offer_p99_ms"`
	OfferAll       float64 `json:"offer_all_ms"` // to the last host; 0 if some never got it
	Offered        int     `json:"offered"`
	StormS         float64 `json:"reconnect_storm_s"` // the server was killed and came back: until all were connected again
	StormCPU       float64 `json:"reconnect_storm_cpu_s"`
	StormBack      int     `json:"reconnect_storm_back"`
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		if err := serve(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench/control serve:", err)
			os.Exit(1)
		}
		return
	}
	hosts := flag.Int("hosts", 2000, "how many hosts")
	beats := flag.Duration("beats", 10*time.Second, "how long to count heartbeats")
	limit := flag.Duration("limit", 5*time.Minute, "how long one step may take")
	asJSON := flag.Bool("json", false, "print one JSON object")
	only := flag.String("only", "", "measure only this server: holdfast or plain")
	flag.Parse()
	if err := run(*hosts, *beats, *limit, *asJSON, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench/control:", err)
		os.Exit(1)
	}
}

func run(hosts int, beats, limit time.Duration, asJSON bool, only string) error {
	dir, err := os.MkdirTemp("", "holdfast-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Fprintf(os.Stderr, "enrolling %d hosts\n", hosts)
	fleet, err := enrolAll(dir, hosts)
	if err != nil {
		return err
	}
	var all []figures
	for _, kind := range []string{"holdfast", "plain"} {
		if only != "" && only != kind {
			continue
		}
		fmt.Fprintf(os.Stderr, "measuring %s\n", kind)
		f, err := measure(dir, kind, fleet, beats, limit)
		if err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		all = append(all, f)
	}
	if asJSON {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		return e.Encode(all)
	}
	table(all)
	return nil
}

func table(all []figures) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	defer w.Flush()
	row := func(name string, value func(figures) string) {
		fmt.Fprintf(w, "%s\t", name)
		for _, f := range all {
			fmt.Fprintf(w, "%s\t", value(f))
		}
		fmt.Fprintln(w)
	}
	row("", func(f figures) string { return f.Server })
	row("hosts connected", func(f figures) string { return fmt.Sprintf("%d of %d", f.Connected, f.Hosts) })
	row("all connected after, s", func(f figures) string { return fmt.Sprintf("%.1f", f.ConnectS) })
	row("CPU per connection, ms", func(f figures) string { return fmt.Sprintf("%.2f", f.ConnectCPU) })
	row("resident per connection, KB", func(f figures) string { return fmt.Sprintf("%.1f", f.KBEach) })
	row("of it live heap and stacks, KB", func(f figures) string { return fmt.Sprintf("%.1f", f.HeapKBEach) })
	row("heartbeats/s", func(f figures) string { return fmt.Sprintf("%.0f", f.BeatsPerSecond) })
	row("CPU per heartbeat, µs", func(f figures) string { return fmt.Sprintf("%.1f", f.BeatCPU) })
	row("offer p50, ms", func(f figures) string { return fmt.Sprintf("%.0f", f.OfferP50) })
	row("offer p99, ms", func(f figures) string { return fmt.Sprintf("%.0f", f.OfferP99) })
	row("offer to all, ms", func(f figures) string { return fmt.Sprintf("%.0f (%d)", f.OfferAll, f.Offered) })
	row("storm: all back after, s", func(f figures) string { return fmt.Sprintf("%.1f (%d)", f.StormS, f.StormBack) })
	row("storm: server CPU, s", func(f figures) string { return fmt.Sprintf("%.1f", f.StormCPU) })
}

// child is a server process that takes one command a line and answers each
// with one line of JSON.
type child struct {
	cmd *exec.Cmd
	in  *bufio.Writer
	out *bufio.Scanner
}

func startChild(dir, kind, address string) (*child, string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	c := &child{cmd: exec.Command(self, "serve", kind, filepath.Join(dir, "ca"), address)}
	c.cmd.Stderr = os.Stderr
	in, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, "", err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, "", err
	}
	c.in, c.out = bufio.NewWriter(in), bufio.NewScanner(out)
	var at struct{ Address string }
	if err := c.hear(&at); err != nil {
		c.kill()
		return nil, "", err
	}
	return c, at.Address, nil
}

func (c *child) hear(v any) error {
	if !c.out.Scan() {
		return fmt.Errorf("the server process ended: %v", c.out.Err())
	}
	return json.Unmarshal(c.out.Bytes(), v)
}

func (c *child) ask(command string, v any) error {
	if _, err := c.in.WriteString(command + "\n"); err != nil {
		return err
	}
	if err := c.in.Flush(); err != nil {
		return err
	}
	return c.hear(v)
}

func (c *child) kill() {
	_ = c.cmd.Process.Kill() // it may have ended
	_ = c.cmd.Wait()
}
