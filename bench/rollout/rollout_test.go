//go:build unix

// Package rollout measures the controller: a step over 2,000 strata and eight
// signals, one harm event, a coverage plan for 200,000 hosts, and a whole
// rollout over 8.5 million.
//
//	make bench-rollout
//
// cpu-* metrics are processor time, which a busy machine does not change much.
package rollout

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/rollout"
	"github.com/holdfast-security/holdfast/internal/sim"
)

// usage is the processor time of this process so far, and the most memory it
// ever had resident, in bytes.
func usage() (cpu time.Duration, rss int64) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, 0
	}
	rss = int64(u.Maxrss)
	if runtime.GOOS != "darwin" {
		rss <<= 10
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), rss
}

// timed reports the processor time of each turn of a benchmark's loop.
func timed(b *testing.B, unit time.Duration, name string, turn func()) {
	b.ReportAllocs()
	before, _ := usage()
	for b.Loop() {
		turn()
	}
	after, _ := usage()
	b.ReportMetric(float64(after-before)/float64(b.N)/float64(unit), name)
}

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// running is a rollout over n strata in which every stratum has hosts in a
// block and evidence on every signal.
func running(b *testing.B, strata int) (*rollout.Policy, rollout.State, rollout.Snapshot, time.Time) {
	p := rollout.DefaultPolicy(holdfast.Urgent)
	p.Release, p.By, p.Signed = "r", "ada", start
	p.Alpha = 1e-300 // measured to the end
	p.Signals = append(p.Signals, "sixth", "seventh", "eighth")
	p.Rings = holdfast.RingPlan{{Name: "all", Through: 1_000_000}}
	p.C0, p.Kappa, p.HoldKappa, p.HoldAt = 100, 20, 20, 1e300
	var in rollout.Snapshot
	for i := range strata {
		s := holdfast.Stratum(fmt.Sprintf("6.%d|distro-%d|1.%d|%s", i%10, i/10%20, i/200%5, []string{"server", "laptop"}[i/1000]))
		in.Groups = append(in.Groups, rollout.Group{Org: "o", Stratum: s, Eligible: 4000, Waiting: 4000})
	}
	var s rollout.State
	now, seq := start, int64(0)
	for round := range 40 {
		next, actions := rollout.Decide(&p, s, in, now)
		s, in.Events = next, nil
		for i := range in.Cells {
			c := &in.Cells[i]
			c.Treated.Clean, c.Control.Clean = c.Treated.Drawn, c.Control.Drawn
		}
		for _, a := range actions {
			m, ok := a.(rollout.Admit)
			if !ok {
				continue
			}
			in.Cells = append(in.Cells, rollout.Cell{Block: m.Block, Org: m.Org, Stratum: m.Stratum, Treated: rollout.Arm{Drawn: m.Treat}, Control: rollout.Arm{Drawn: m.Placebo}})
			seq++
			in.Events = append(in.Events, rollout.Event{
				Seq: seq, Block: m.Block, Org: m.Org, Stratum: m.Stratum, Treated: seq%97 == 0, Kind: p.Signals[int(seq)%len(p.Signals)],
				First: true, At: now, After: time.Minute,
			})
		}
		now = now.Add(11 * time.Minute)
		if len(in.Cells) >= strata && round > 3 {
			break
		}
	}
	if len(in.Cells) < strata {
		b.Fatalf("only %d of %d strata are in a block", len(in.Cells), strata)
	}
	in.Events = nil
	return &p, s, in, now
}

// BenchmarkStep is a decision in which nothing new happened: what every node
// does every few seconds. Goal: 5 ms at 2,000 strata and eight signals.
func BenchmarkStep(b *testing.B) {
	for _, strata := range []int{250, 2000} {
		b.Run(fmt.Sprintf("strata=%d", strata), func(b *testing.B) {
			p, s, in, now := running(b, strata)
			timed(b, time.Millisecond, "cpu-ms/step", func() { rollout.Decide(p, s, in, now) })
		})
	}
}

// BenchmarkEvent is the cost of one harm event among many. Goal: 2 µs.
func BenchmarkEvent(b *testing.B) {
	p, s, in, now := running(b, 2000)
	const events = 100_000
	for i := range events {
		c := &in.Cells[i%len(in.Cells)]
		in.Events = append(in.Events, rollout.Event{
			Seq: 1<<40 + int64(i), Block: c.Block, Org: c.Org, Stratum: c.Stratum, Treated: i%50 == 0, Kind: p.Signals[i%len(p.Signals)], At: now, After: time.Minute,
		})
	}
	quiet := in
	quiet.Events = nil
	began, _ := usage()
	rollout.Decide(p, s, quiet, now)
	ended, _ := usage()
	step := ended - began
	before, _ := usage()
	for b.Loop() {
		rollout.Decide(p, s, in, now)
	}
	after, _ := usage()
	b.ReportMetric((float64(after-before)/float64(b.N)-float64(step))/events, "cpu-ns/event")
}

// BenchmarkCoverage plans which kinds of host of 200,000 are tried first: pairs
// of all attributes, and kernel, agent and role together. Goal: 2 s.
func BenchmarkCoverage(b *testing.B) {
	cells := kinds(200_000)
	var plan rollout.CoveragePlan
	timed(b, time.Millisecond, "cpu-ms/plan", func() { plan = rollout.PlanCoverage(cells, 200_000) })
	combinations, mass := rollout.Uncovered(cells, plan.Order[:plan.Needed])
	if combinations > 0 || mass > 0 {
		b.Fatalf("%d combinations are left uncovered", combinations)
	}
	_, random := rollout.Uncovered(cells, someOf(cells, plan.Needed))
	b.ReportMetric(float64(len(cells)), "kinds")
	b.ReportMetric(float64(plan.Combinations), "combinations")
	b.ReportMetric(float64(plan.Needed), "hosts-needed")
	b.ReportMetric(100*random, "%-uncovered-at-random")
}

// kinds makes a fleet of hosts whose attributes are skewed as in real ones.
func kinds(hosts int) map[holdfast.Stratum]int {
	r := rand.New(rand.NewPCG(200_000, 1))
	few := func(n int) func() uint64 { return rand.NewZipf(r, 1.3, 2, uint64(n-1)).Uint64 }
	kernel, distro, agent, role := few(40), few(25), few(8), few(6)
	cells := map[holdfast.Stratum]int{}
	for range hosts {
		cells[holdfast.Stratum(fmt.Sprintf("6.%d|distro-%d|1.%d|role-%d", kernel(), distro(), agent(), role()))]++
	}
	return cells
}

func someOf(cells map[holdfast.Stratum]int, n int) (some []holdfast.Stratum) {
	for s := range cells { // in no order
		if len(some) == n {
			break
		}
		some = append(some, s)
	}
	return some
}

// BenchmarkFleet plays a clean release on 8.5 million hosts to its end. Goal:
// 90 s and 4 GB.
func BenchmarkFleet(b *testing.B) {
	fleet := sim.ModelFleet(8_500_000, 250, false)
	p := sim.UrgentPolicy(fleet)
	var o sim.Outcome
	timed(b, time.Second, "cpu-s/rollout", func() {
		var err error
		if o, err = sim.Counts(p, sim.World{Seed: 1, Kinds: fleet, Until: 4 * time.Hour}); err != nil {
			b.Fatal(err)
		}
	})
	_, rss := usage()
	b.ReportMetric(float64(rss)/1e6, "MB-resident")
	b.ReportMetric(float64(o.Exposed), "hosts")
	b.ReportMetric(o.Reached99.Minutes(), "virtual-min-to-99%")
}
