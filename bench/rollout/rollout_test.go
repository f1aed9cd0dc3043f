// Package rollout measures the controller: a step over 2,000 strata and as many
// signals as there are, and one harm event.
//
//	go test -bench . -benchtime 100x ./bench/rollout
package rollout

import (
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/rollout"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// running is a rollout over n strata in which every stratum has hosts in a
// block and evidence on every signal.
func running(b *testing.B, strata int) (*rollout.Policy, rollout.State, rollout.Snapshot, time.Time) {
	p := rollout.DefaultPolicy(holdfast.Urgent)
	p.Release, p.By, p.Signed = "r", "ada", start
	p.Alpha = 1e-300 // measured to the end
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
// does every few seconds. Goal: 5 ms at 2,000 strata.
func BenchmarkStep(b *testing.B) {
	for _, strata := range []int{250, 2000} {
		b.Run(fmt.Sprintf("strata=%d", strata), func(b *testing.B) {
			p, s, in, now := running(b, strata)
			b.ReportAllocs()
			for b.Loop() {
				rollout.Decide(p, s, in, now)
			}
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
			Seq: 1<<40 + int64(i), Block: c.Block, Org: c.Org, Stratum: c.Stratum, Treated: i%2 == 0, Kind: p.Signals[i%len(p.Signals)], At: now, After: time.Minute,
		})
	}
	quiet := in
	quiet.Events = nil
	began := time.Now()
	rollout.Decide(p, s, quiet, now)
	step := time.Since(began)
	b.ResetTimer()
	for b.Loop() {
		rollout.Decide(p, s, in, now)
	}
	perEvent := (float64(b.Elapsed().Nanoseconds())/float64(b.N) - float64(step.Nanoseconds())) / events
	b.ReportMetric(perEvent, "ns/event")
}
