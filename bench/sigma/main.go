// Command sigma measures the detection engine against the two Sigma engines
// there are for Go and against a plain Aho-Corasick pass, on the same rules and
// the same generated events, in one run on one core.
//
// It is a module of its own, so that the peers never enter the product.
package main

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"time"

	"github.com/holdfast-security/holdfast/internal/language/detect"
	"github.com/holdfast-security/holdfast/internal/language/scan"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// report is what one run prints.
type report struct {
	Seed      uint64  `json:"seed"`
	Rules     int     `json:"rules"`
	Compiled  int     `json:"rules_compiled"`
	LinuxOnly int     `json:"rules_linux"`
	Hostile   float64 `json:"hostile_share"`

	AllRouted   float64 `json:"events_per_second_all_routed"`
	AllUnrouted float64 `json:"events_per_second_all_unrouted"`
	Linux       float64 `json:"events_per_second_linux"`
	HeapMB      float64 `json:"heap_mb"`
	ParseS      float64 `json:"parse_s"`
	CompileS    float64 `json:"compile_s"`
	CompileCPU  float64 `json:"compile_processor_s"`
	Allocs      float64 `json:"allocs_per_event"`

	Details map[string]figures `json:"details"`
	Bound   bound              `json:"aho_corasick"`
	Peers   map[string]peer    `json:"peers"`
}

func main() {
	runtime.GOMAXPROCS(1)
	var (
		data    = flag.String("data", os.Getenv("HOLDFAST_DATA"), "directory with sigmahq/rules… (HOLDFAST_DATA)")
		seed    = flag.Uint64("seed", 1, "of the generator")
		events  = flag.Int("events", 1_000_000, "distinct events for each of our runs")
		sample  = flag.Int("sample", 200, "events for each peer's run with all rules; five times as many with the Linux rules")
		hostile = flag.Float64("hostile", 0.01, "share of events written to match a rule")
		only    = flag.String("only", "", "instead, look into one of our runs (routed, unrouted, linux): the fastest of many passes over each group of events")
		profile = flag.String("cpuprofile", "", "with -only, write a profile of that run here")
		compare = flag.Int("agree", 0, "instead, compare verdicts with the naive reference and sigma-go on the regression data and so many generated events; prints Markdown")
		hot     = flag.Bool("hot", false, "print which rules are evaluated most, and leave the rest out")
		asJSON  = flag.Bool("json", false, "print one JSON object")
	)
	flag.Parse()
	if *data == "" {
		fmt.Fprintln(os.Stderr, "bench/sigma: set HOLDFAST_DATA to a directory with sigmahq/rules (SigmaHQ's rules are not part of this repository)")
		os.Exit(2)
	}
	if *compare > 0 {
		if err := agree(os.Stdout, filepath.Join(*data, "sigmahq"), *seed, *compare); err != nil {
			fmt.Fprintln(os.Stderr, "bench/sigma:", err)
			os.Exit(1)
		}
		return
	}
	if *hot {
		printHot(filepath.Join(*data, "sigmahq"), *seed, *events, *hostile)
		return
	}
	if *only != "" {
		if err := measureOnly(*only, filepath.Join(*data, "sigmahq"), *seed, *events, *hostile, *profile); err != nil {
			fmt.Fprintln(os.Stderr, "bench/sigma:", err)
			os.Exit(1)
		}
		return
	}
	r, err := run(filepath.Join(*data, "sigmahq"), *seed, *events, *sample, *hostile)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/sigma:", err)
		os.Exit(1)
	}
	if *asJSON {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		e.Encode(r)
		return
	}
	r.print()
}

var ruleDirs = []string{"rules", "rules-emerging-threats", "rules-threat-hunting"}

func load(dir string) (sigma.Set, error) {
	var set sigma.Set
	for _, sub := range ruleDirs {
		s, _, err := sigma.Load(os.DirFS(dir), sub)
		if err != nil {
			return set, err
		}
		set.Add(s)
	}
	return set, nil
}

func linuxOnly(set sigma.Set) sigma.Set {
	var some sigma.Set
	for _, r := range set.Rules {
		if r.LogSource.Product == "linux" && r.LogSource.Category == "process_creation" {
			some.Rules = append(some.Rules, r)
		}
	}
	return some
}

func run(dir string, seed uint64, events, sample int, hostile float64) (*report, error) {
	r := &report{Seed: seed, Hostile: hostile, Details: map[string]figures{}, Peers: map[string]peer{}}
	start := time.Now()
	set, err := load(dir)
	if err != nil {
		return nil, err
	}
	r.ParseS = time.Since(start).Seconds()
	linux := linuxOnly(set)
	r.Rules, r.LinuxOnly = len(set.Rules), len(linux.Rules)

	r.compileFigures(set)
	generate := func(only bool) *generator {
		rules := set.Rules
		if only {
			rules = linux.Rules
		}
		return newGenerator(seed, rules, hostile, only)
	}
	routed, _ := measure(set, generate(false), events, false)
	unrouted, _ := measure(set, generate(false), events, true)
	exec, v := measure(linux, generate(true), events, false)
	r.Details["all_routed"], r.Details["all_unrouted"], r.Details["linux"] = routed, unrouted, exec
	r.AllRouted, r.AllUnrouted, r.Linux = routed.EventsPerSecond, unrouted.EventsPerSecond, exec.EventsPerSecond
	r.Allocs = max(routed.AllocsPerEvent, unrouted.AllocsPerEvent, exec.AllocsPerEvent)
	r.Bound = plainPass(v.Engine(), linux, generate(true), events/2, exec.EventsPerSecond)
	return r, r.peers(dir, generate, sample)
}

// measureOnly makes one run, to look into it.
func measureOnly(which, dir string, seed uint64, events int, hostile float64, profile string) error {
	linux, unrouted := which == "linux", which == "unrouted"
	if !linux && !unrouted && which != "routed" {
		return fmt.Errorf("there is no run %q: -only takes routed, unrouted or linux", which)
	}
	start := time.Now()
	set, err := load(dir)
	if err != nil {
		return err
	}
	parsed := time.Since(start)
	if linux {
		set = linuxOnly(set)
	}
	r := &report{}
	r.compileFigures(set)
	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	each, candidates := guide(set, newGenerator(seed, set.Rules, hostile, linux), unrouted, max(events/batch, 1), max(20, 300_000/events))
	fmt.Printf("%s: %v an event at its fastest, candidates %.2f; parse %.2f s, compile %.2f s (%.2f s of processor time), heap %.0f MB\n",
		which, each, candidates, parsed.Seconds(), r.CompileS, r.CompileCPU, r.HeapMB)
	return nil
}

// compileFigures times the compiler on rules that are parsed, and weighs what
// it makes.
func (r *report) compileFigures(set sigma.Set) {
	layout := scan.NewLayout(set)
	debug.FreeOSMemory()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c := startClock()
	classes := layout.Classes[:0:0]
	for _, c := range layout.Classes {
		if c != layout.Unknown { // with routing, every event says what it is
			classes = append(classes, c)
		}
	}
	engine, problems := compileFor(set, classes)
	wall, cpu := c.stop()
	r.CompileS, r.CompileCPU = wall.Seconds(), cpu.Seconds()
	evaluator := engine.NewEvaluator()
	debug.FreeOSMemory()
	runtime.ReadMemStats(&after)
	r.HeapMB = float64(after.HeapAlloc-before.HeapAlloc) / 1e6
	failed := map[string]bool{}
	for _, p := range problems {
		failed[p.Rule] = !p.Warning
	}
	r.Compiled = len(set.Rules) - len(failed)
	runtime.KeepAlive(evaluator)
}

func (r *report) print() {
	fmt.Printf("%d rules of SigmaHQ (%d compiled), %d of them Linux process_creation; seed %d, GOMAXPROCS=1\n", r.Rules, r.Compiled, r.LinuxOnly, r.Seed)
	fmt.Printf("parse %.2f s, compile %.2f s (%.2f s of processor time), heap %.0f MB\n\n", r.ParseS, r.CompileS, r.CompileCPU, r.HeapMB)
	fmt.Printf("%-34s %14s %14s %9s %10s %8s\n", "holdfast", "events/s", "per CPU s", "hit rate", "candidates", "allocs")
	for _, name := range []string{"all_routed", "all_unrouted", "linux"} {
		f := r.Details[name]
		fmt.Printf("  %-32s %14.0f %14.0f %8.2f%% %10.2f %8.4f   (%d distinct events, %.0f bytes of text each)\n", name, f.EventsPerSecond, f.PerCPUSecond, 100*f.HitRate, f.Candidates, f.AllocsPerEvent, f.Events, f.BytesPerEvent)
	}
	b := r.Bound
	fmt.Printf("\nplain Aho-Corasick over the same bytes for the same %d literals: %.0f events/s; the engine does %.2f× that\n", b.Literals, b.EventsPerSecond, b.Ratio)
	for _, name := range peerNames {
		p := r.Peers[name]
		fmt.Printf("\n%s\n", name)
		fmt.Printf("  %-32s %14.1f   (%d events, %d rules)   holdfast: %.0f× routed, %.0f× unrouted\n", "all rules", p.All, p.Sample, p.AllRules, r.AllRouted/p.All, r.AllUnrouted/p.All)
		fmt.Printf("  %-32s %14.1f   (%d events, %d rules)   holdfast: %.0f×\n", "linux", p.Linux, p.LinuxSample, p.LinuxRules, r.Linux/p.Linux)
		fmt.Printf("  compile %.2f s, heap %.0f MB, %.0f allocations an event\n", p.CompileS, p.HeapMB, p.Allocs)
	}
}

// printHot shows which rules the index keeps from the fewest events.
func printHot(dir string, seed uint64, events int, hostile float64) {
	set, err := load(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/sigma:", err)
		os.Exit(1)
	}
	for _, only := range []bool{false, true} {
		if only {
			set = linuxOnly(set)
		}
		_, v := measure(set, newGenerator(seed, set.Rules, hostile, only), events, false)
		costs := v.Costs()
		slices.SortFunc(costs, func(a, b detect.Cost) int { return cmp.Compare(b.Candidate, a.Candidate) })
		for _, c := range costs[:min(len(costs), 40)] {
			fmt.Printf("%6.2f %% of events, %6.1f ns an event: %s (%s)\n", 100*c.Candidate, c.NsPerEvent, c.Rule.Title, c.Rule.File)
		}
		fmt.Println()
	}
}
