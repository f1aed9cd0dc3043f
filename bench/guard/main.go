// Command guard measures holdfast-guard: the size of its binary, what it holds
// resident, and how long a host is without its previous generation after new
// content crashes, exits, is killed, or hangs in evaluation.
//
//	go run ./bench/guard [--faults 50] [--json]
//
// The guard is the real program with production's limits. The worker is this
// program: it plays an agent whose start costs nothing, so that what is measured
// is the guard.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/lifeline"
)

var kinds = []string{"panic", "exit", "kill", "hang"}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "run" {
		os.Exit(work(os.Args[2:]))
	}
	faults := flag.Int("faults", 50, "how many faults to try, in turn: "+strings.Join(kinds, ", "))
	asJSON := flag.Bool("json", false, "print one JSON object")
	program := flag.String("guard", "", "the holdfast-guard to measure; built if not given")
	flag.Parse()
	if err := run(*faults, *asJSON, *program); err != nil {
		fmt.Fprintln(os.Stderr, "bench/guard:", err)
		os.Exit(1)
	}
}

// result is what --json prints.
type result struct {
	BinaryBytes   int64   `json:"binary_bytes"`
	ResidentBytes uint64  `json:"resident_bytes"` // after the last fault
	PeakBytes     uint64  `json:"peak_resident_bytes"`
	Faults        int     `json:"faults"`
	P50           float64 `json:"recovery_p50_s"`
	P95           float64 `json:"recovery_p95_s"`
	Max           float64 `json:"recovery_max_s"`
	HangP95       float64 `json:"recovery_hang_p95_s"` // of the hangs alone, the time to notice included
}

func run(faults int, asJSON bool, program string) error {
	dir, err := os.MkdirTemp("", "holdfast-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if program == "" {
		program = filepath.Join(dir, "holdfast-guard")
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "github.com/holdfast-security/holdfast/cmd/holdfast-guard")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return err
		}
	}
	info, err := os.Stat(program)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(dir, "content"), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "left"), []byte(strconv.Itoa(faults)), 0o600); err != nil {
		return err
	}
	guard := exec.Command(program, "--state", dir, "--worker", self, "--config", filepath.Join(dir, "agent.json"),
		"--probation", "300ms", "--probation-events", "1", "--log", "warn")
	guard.Stderr = nil // a worker that panics says so
	if err := guard.Start(); err != nil {
		return err
	}
	end := time.Now().Add(time.Duration(faults+10) * 4 * time.Second)
	for !has(filepath.Join(dir, "done")) && time.Now().Before(end) {
		time.Sleep(50 * time.Millisecond)
	}
	r := result{BinaryBytes: info.Size()}
	r.ResidentBytes, r.PeakBytes = resident(guard.Process.Pid)
	_ = guard.Process.Signal(syscall.SIGTERM)
	_ = guard.Wait()
	if err := r.read(filepath.Join(dir, "log")); err != nil {
		return err
	}
	if r.Faults != faults {
		return fmt.Errorf("%d of %d faults were recovered from in time", r.Faults, faults)
	}
	if asJSON {
		return json.NewEncoder(os.Stdout).Encode(r)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "binary\t%.2f MB\tgoal 6\n", float64(r.BinaryBytes)/1e6)
	fmt.Fprintf(w, "resident\t%.2f MB (peak %.2f)\tgoal 8\n", float64(r.ResidentBytes)/1e6, float64(r.PeakBytes)/1e6)
	fmt.Fprintf(w, "fault → previous generation runs\tp50 %.3f s, p95 %.3f s, max %.3f s over %d (hangs alone: p95 %.3f s)\tgoal p95 2 s\n", r.P50, r.P95, r.Max, r.Faults, r.HangP95)
	return w.Flush()
}

// read pairs each fault with the next worker of the previous generation that is
// ready.
func (r *result) read(log string) error {
	data, err := os.ReadFile(log)
	if err != nil {
		return err
	}
	var all, hangs []float64
	var at int64
	var kind string
	for line := range strings.Lines(string(data)) {
		var what string
		var ns int64
		if _, err := fmt.Sscan(line, &what, &ns); err != nil {
			return fmt.Errorf("log: %q: %w", line, err)
		}
		switch {
		case what == "good" && at != 0:
			s := float64(ns-at) / 1e9
			all, at = append(all, s), 0
			if kind == "hang" {
				hangs = append(hangs, s)
			}
		case what != "good":
			at, kind = ns, what
		}
	}
	r.Faults = len(all)
	r.P50, r.P95, r.Max, r.HangP95 = quantile(all, .5), quantile(all, .95), quantile(all, 1), quantile(hangs, .95)
	return nil
}

func quantile(xs []float64, q float64) float64 {
	if len(xs) == 0 {
		return 0
	}
	slices.Sort(xs)
	return xs[min(len(xs)-1, int(q*float64(len(xs))))]
}

// resident reads what a process holds, now and at most.
func resident(pid int) (now, peak uint64) {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(data)) {
		var kb uint64
		switch name, value, _ := strings.Cut(line, ":"); name {
		case "VmRSS":
			fmt.Sscan(value, &kb)
			now = kb << 10
		case "VmHWM":
			fmt.Sscan(value, &kb)
			peak = kb << 10
		}
	}
	return now, peak
}

// work is the worker: without content it releases good content; with good
// content it proposes the next fault; with a fault it has it.
func work(args []string) int {
	f := flag.NewFlagSet("run", flag.ExitOnError)
	config := f.String("config", "", "")
	generation := f.String("generation", "", "")
	f.Bool("safe", false, "")
	_ = f.Parse(args)
	dir := filepath.Dir(*config)
	line, err := lifeline.Open()
	if err != nil {
		return 2
	}
	play := ""
	_, hex, ok := strings.Cut(*generation, "rules=sha256:")
	if ok {
		data, err := os.ReadFile(filepath.Join(dir, "content", hex))
		if err != nil {
			return 2
		}
		play, _, _ = strings.Cut(string(data), " ")
	}
	if line.Ready() != nil {
		return 2
	}
	if play == "good" {
		tell(dir, "good")
	}
	proposed := false
	for n := uint64(1); ; n++ {
		line.Beat(n)
		select {
		case m, open := <-line.Messages():
			switch {
			case !open || m.Kind == lifeline.Drain:
				return 0
			case m.Kind == lifeline.Tell && !m.Status.Probation && m.Status.Running[holdfast.Rules].Hex() == hex && !proposed && (play == "" || play == "good"):
				proposed = true
				next(dir, play, line)
			}
		case <-time.After(10 * time.Millisecond):
		}
		if n > 10 && play != "good" && play != "" {
			tell(dir, play)
			fail(play)
		}
	}
}

// next proposes the next content, or ends the run.
func next(dir, play string, line *lifeline.Worker) {
	content := "good content"
	if play == "good" {
		data, _ := os.ReadFile(filepath.Join(dir, "left"))
		left, _ := strconv.Atoi(string(data))
		if left == 0 {
			_ = os.WriteFile(filepath.Join(dir, "done"), nil, 0o600)
			return
		}
		_ = os.WriteFile(filepath.Join(dir, "left"), []byte(strconv.Itoa(left-1)), 0o600)
		content = fmt.Sprintf("%s %d", kinds[left%len(kinds)], left)
	}
	d := holdfast.DigestOf([]byte(content))
	_ = os.WriteFile(filepath.Join(dir, "content", d.Hex()), []byte(content), 0o600)
	_ = line.Propose("bench", holdfast.Rules, d)
}

func fail(kind string) {
	switch kind {
	case "panic":
		panic("as the content says")
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "hang":
		time.Sleep(time.Hour)
	}
	os.Exit(1)
}

func tell(dir, what string) {
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		os.Exit(2)
	}
	fmt.Fprintf(log, "%s %d\n", what, time.Now().UnixNano())
	log.Close()
}

func has(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
