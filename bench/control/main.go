//go:build linux

// Command control measures how many hosts one control plane holds, beside
// opamp-go's own server used plainly, in the same run:
//
//	go run ./bench/control [--hosts 18000] [--bin bin] [--json]
//
// Server and hosts are two processes on this machine and share its cores, each
// with as many descriptors as connections. The hosts are real uplinks with
// mutual TLS and certificates of their own. Three servers are measured, each in
// a process of its own, with the same hosts:
//
//   - holdfastd: the program, with its store, its fleet and its decisions.
//   - edge/opamp: only what holds the connections; behind it is a counter.
//   - opamp-go: its server started as its examples do, with a plain tls.Config
//     that requires and verifies the same certificates; behind it is a counter.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"
)

// plan is what is measured.
type plan struct {
	hosts     int
	atOnce    int           // hosts connecting at once while the fleet is built up
	heartbeat time.Duration // of every host
	beats     time.Duration // how long heartbeats are counted
	settle    time.Duration // how long the server is left alone before its memory is read
	limit     time.Duration // of one step
	bin       string
}

// figures are what one server did. A pointer is nil where a server has no such
// figure.
type figures struct {
	Server         string   `json:"server"`
	Hosts          int      `json:"hosts"`
	Connected      int      `json:"connected"`
	ConnectS       float64  `json:"connect_s"`                  // until all were connected
	ConnectCPU     float64  `json:"connect_cpu_ms_each"`        // the server's
	KBEach         float64  `json:"kb_resident_each"`           // growth of the process, left alone
	RestKBEach     *float64 `json:"kb_resident_each_collected"` // the same after a collection that gives freed memory back
	MB             float64  `json:"mb_resident"`                // of the whole process, left alone
	EmptyMB        float64  `json:"mb_resident_before"`         // of it before the first connection
	BeatsPerSecond float64  `json:"heartbeats_per_second"`
	BeatCPU        float64  `json:"heartbeat_cpu_us_each"` // the server's
	BeatCores      float64  `json:"heartbeat_cores"`       // the same as cores in use
	Offered        *int     `json:"offered"`
	OfferP50       *float64 `json:"offer_p50_ms"` // from the hint to the host's hands
	OfferP99       *float64 `json:"offer_p99_ms"`
	OfferAll       *float64 `json:"offer_all_ms"`       // to the last host; nil if some never got it
	StormBack      int      `json:"reconnect_back"`     // of the hosts
	StormS         float64  `json:"reconnect_s"`        // the server was killed and started again: from then until all were back
	StormCPU       float64  `json:"reconnect_cpu_s"`    // the server's
	StormMB        float64  `json:"reconnect_mb_after"` // resident, when all were back
}

// result is what one run prints as JSON.
type result struct {
	Hosts            int       `json:"hosts"`
	HeartbeatSeconds float64   `json:"heartbeat_s"`
	Cores            int       `json:"cores"`
	Load             string    `json:"load_average"` // of the machine, at the start and at the end
	Servers          []figures `json:"servers"`
}

var kinds = []string{"holdfastd", "edge/opamp", "opamp-go"}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		if err := serve(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench/control serve:", err)
			os.Exit(1)
		}
		return
	}
	var p plan
	flag.IntVar(&p.hosts, "hosts", 18_000, "how many hosts; a process has 20,000 descriptors on many machines")
	flag.IntVar(&p.atOnce, "at-once", 400, "how many hosts connect at once while the fleet is built up")
	flag.DurationVar(&p.heartbeat, "heartbeat", 15*time.Second, "how often each host speaks (production: 1m)")
	flag.DurationVar(&p.beats, "beats", 30*time.Second, "how long to count heartbeats")
	flag.DurationVar(&p.settle, "settle", 10*time.Second, "how long to leave the server alone before its memory is read")
	flag.DurationVar(&p.limit, "limit", 10*time.Minute, "how long one step may take")
	flag.StringVar(&p.bin, "bin", "bin", "folder of holdfastd")
	only := flag.String("only", strings.Join(kinds, ","), "servers to measure")
	asJSON := flag.Bool("json", false, "print one JSON object")
	flag.Parse()
	if err := run(p, strings.Split(*only, ","), *asJSON); err != nil {
		fmt.Fprintln(os.Stderr, "bench/control:", err)
		os.Exit(1)
	}
}

func run(p plan, servers []string, asJSON bool) error {
	var err error
	if p.bin, err = filepath.Abs(p.bin); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "holdfast-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	r := result{Hosts: p.hosts, HeartbeatSeconds: p.heartbeat.Seconds(), Cores: runtime.NumCPU(), Load: load()}
	fleet, err := enrolAll(dir, p.hosts)
	if err != nil {
		return err
	}
	for _, kind := range servers {
		f, err := p.measure(dir, kind, fleet)
		if err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		r.Servers = append(r.Servers, f)
	}
	r.Load += " to " + load()
	if asJSON {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	r.table()
	return nil
}

// load is the machine's load average over a minute.
func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(b), " ")
	return one
}

// say tells a person who waits what is going on.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s  %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}

func (r result) table() {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	defer w.Flush()
	row := func(name string, value func(figures) string) {
		fmt.Fprintf(w, "%s\t", name)
		for _, f := range r.Servers {
			fmt.Fprintf(w, "%s\t", value(f))
		}
		fmt.Fprintln(w)
	}
	number := func(name, format string, value func(figures) float64) {
		row(name, func(f figures) string { return fmt.Sprintf(format, value(f)) })
	}
	maybe := func(name, format string, value func(figures) *float64) {
		row(name, func(f figures) string {
			if v := value(f); v != nil {
				return fmt.Sprintf(format, *v)
			}
			return "–"
		})
	}
	fmt.Fprintf(w, "%d hosts, a heartbeat every %.0f s, %d cores, load %s\n", r.Hosts, r.HeartbeatSeconds, r.Cores, r.Load)
	row("", func(f figures) string { return f.Server })
	row("connections held", func(f figures) string { return fmt.Sprint(f.Connected) })
	number("all connected after, s", "%.1f", func(f figures) float64 { return f.ConnectS })
	number("server CPU per connection, ms", "%.2f", func(f figures) float64 { return f.ConnectCPU })
	number("resident per connection, KB", "%.1f", func(f figures) float64 { return f.KBEach })
	maybe("the same, collected, KB", "%.1f", func(f figures) *float64 { return f.RestKBEach })
	number("whole process, MB", "%.0f", func(f figures) float64 { return f.MB })
	number("of it before the first connection, MB", "%.0f", func(f figures) float64 { return f.EmptyMB })
	number("heartbeats/s", "%.0f", func(f figures) float64 { return f.BeatsPerSecond })
	number("server CPU per heartbeat, µs", "%.1f", func(f figures) float64 { return f.BeatCPU })
	number("cores in use by them", "%.2f", func(f figures) float64 { return f.BeatCores })
	maybe("offer p50, ms", "%.0f", func(f figures) *float64 { return f.OfferP50 })
	maybe("offer p99, ms", "%.0f", func(f figures) *float64 { return f.OfferP99 })
	maybe("offer to all, ms", "%.0f", func(f figures) *float64 { return f.OfferAll })
	row("storm: hosts back", func(f figures) string { return fmt.Sprint(f.StormBack) })
	number("storm: all back after, s", "%.1f", func(f figures) float64 { return f.StormS })
	number("storm: server CPU, s", "%.1f", func(f figures) float64 { return f.StormCPU })
	number("storm: whole process after it, MB", "%.0f", func(f figures) float64 { return f.StormMB })
}
