package sim

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-security/holdfast/internal/control/rollout"
)

// July19Options shortens or moves the runs of July19.
type July19Options struct {
	Runs     int    // of Holdfast for each fault; 40 if zero
	Seed     uint64 // the first
	Hosts    int    // 8,500,000 if zero
	Progress func(string)
}

// July19Result is the table by rule and fault, and the time lines of the fault
// that breaks every host.
type July19Result struct {
	Hosts  int          `json:"hosts"`
	Seeds  [2]uint64    `json:"seeds"`
	Faults []string     `json:"faults"`
	Rows   []July19Row  `json:"rows"`
	Lines  []July19Line `json:"lines"`
	Notes  []string     `json:"notes"`
}

// July19Row is one rule.
type July19Row struct {
	Rule    string `json:"rule"`
	Text    string `json:"text"`
	Source  string `json:"source"`
	Variant string `json:"variant"` // "generous": broken hosts report; "realistic": they cannot
	// Harmed hosts by fault, in the order of Faults.
	Median []int `json:"median"`
	P95    []int `json:"p95"`
	Runs   int   `json:"runs"`
	// CleanMinutes is how long a release without fault takes to reach all (99 %
	// for Holdfast); 0 if longer than 14 days.
	CleanMinutes float64 `json:"clean_minutes"`
}

// July19Line is exposed and harmed hosts over time, for the picture.
type July19Line struct {
	Rule    string  `json:"rule"`
	Variant string  `json:"variant"`
	Points  []Point `json:"points"`
	// Recovered says when how many hosts were back.
	Recovered []Recovery `json:"recovered,omitempty"`
}

// Recovery is a number of hosts that work again.
type Recovery struct {
	At    time.Duration `json:"at_ns"`
	Hosts int           `json:"hosts"`
}

var july19Faults = []struct {
	name    string
	share   float64
	stratum int // of the model fleet; -1: all hosts
}{
	{"every host", 1, -1},
	{"10 % (one stratum)", .1, TenthStratum},
	{"1 % (one stratum)", .01, HundredthStratum},
	{"0.1 % (one stratum)", .001, ThousandthStratum},
	{"10 % at random", .1, -1},
	{"1 % at random", .01, -1},
	{"0.1 % at random", .001, -1},
}

// July19 plays the release of 19 July 2024 on the fleet of that day: once with
// each peer's rule, generously and realistically, and once with Holdfast, whose
// broken hosts never report.
func July19(ctx context.Context, o July19Options) (July19Result, error) {
	if o.Runs <= 0 {
		o.Runs = 40
	}
	if o.Hosts <= 0 {
		o.Hosts = 8_500_000
	}
	if o.Seed == 0 {
		o.Seed = 1
	}
	r := July19Result{Hosts: o.Hosts, Seeds: [2]uint64{o.Seed, o.Seed + uint64(o.Runs) - 1}, Notes: []string{
		"Realistic: a broken host stays broken and silent, as on 19 July; for Holdfast, its guard died with it. Generous: broken hosts report, after as long as it takes Holdfast to notice silence; for Holdfast, the guard lives, has the previous generation back within 2 s, and reports.",
		"Who is broken and has no guard comes back by hand. How fast that went on 19 July is from the vendor's statements; for the others it is not drawn.",
		"A stratum is nothing to the peers' rules: for them 10 % of one stratum and 10 % at random are the same.",
		"Peers are followed for 14 days: a rule that has not ended by then shows what it had harmed so far.",
		"Latent faults, which show after hours, are not in this table: they harm what is exposed by then.",
	}}
	for _, f := range july19Faults {
		r.Faults = append(r.Faults, f.name)
	}
	if err := r.holdfast(ctx, o); err != nil {
		return r, err
	}
	for _, p := range Peers() {
		for _, variant := range []string{"generous", "realistic"} {
			if o.Progress != nil {
				o.Progress(p.Name + ", " + variant)
			}
			r.peer(p, variant, o)
		}
	}
	return r, nil
}

// holdfast plays both variants: "realistic", in which a broken host stays
// broken and silent, and "generous", in which its guard survives, puts proven
// content back and reports.
func (r *July19Result) holdfast(ctx context.Context, o July19Options) error {
	kinds := ModelFleet(o.Hosts, 250, false)
	policy := UrgentPolicy(kinds)
	clean, err := Counts(policy, World{Seed: o.Seed, Kinds: kinds, Until: 150 * time.Minute})
	if err != nil {
		return err
	}
	for _, v := range []struct {
		variant string
		fault   func(share float64, where func(*Kind) bool) Fault
	}{{"realistic", Dead}, {"generous", Crashing}} {
		row := July19Row{
			Rule: "Holdfast", Text: "URGENT, one ring: e-process against controls of the same stratum, α = 0.001; harm budget 18.4 hosts",
			Source: "docs/halting.md", Variant: v.variant, Runs: o.Runs, CleanMinutes: clean.Reached99.Minutes(),
		}
		for _, f := range july19Faults {
			if o.Progress != nil {
				o.Progress("Holdfast, " + v.variant + ", " + f.name)
			}
			fault := v.fault(f.share, nil)
			if f.stratum >= 0 {
				fault = v.fault(1, In(kinds[f.stratum].Stratum))
			}
			world := func(seed uint64) World {
				return World{Seed: seed, Kinds: kinds, Faults: []Fault{fault}, Until: 4 * time.Hour, StopAtRecall: true}
			}
			outs, err := repeat(ctx, trial{runs: o.Runs, policy: func(uint64) rollout.Policy { return policy }, world: world}, o.Seed, nil)
			if err != nil {
				return err
			}
			var harmed []int
			for _, out := range outs {
				if !out.Phase.Recalling() {
					r.Notes = append(r.Notes, fmt.Sprintf("seed %d, %s, %s: not halted within four hours", out.Seed, v.variant, f.name))
				}
				harmed = append(harmed, out.Broken)
			}
			row.add(harmed)
			if f.share == 1 {
				if err := r.line(policy, world(o.Seed), &row); err != nil {
					return err
				}
			}
		}
		r.Rows = append(r.Rows, row)
	}
	return nil
}

// guardBack is how soon a guard has put proven content back, at most.
const guardBack = 2 * time.Second

// line adds Holdfast's time line of the fault that breaks every host.
func (r *July19Result) line(p rollout.Policy, w World, row *July19Row) error {
	out, err := Counts(p, w)
	if err != nil {
		return err
	}
	l := July19Line{Rule: row.Rule, Variant: row.Variant}
	l.Points = append(out.Curve, Point{At: out.Decided, Exposed: out.Exposed, Broken: out.Broken})
	if row.Variant == "generous" {
		for _, p := range l.Points {
			l.Recovered = append(l.Recovered, Recovery{p.At + guardBack, p.Broken})
		}
	}
	r.Lines = append(r.Lines, l)
	return nil
}

func (w *July19Row) add(harmed []int) {
	slices.Sort(harmed)
	w.Median = append(w.Median, harmed[(len(harmed)-1)/2])
	w.P95 = append(w.P95, harmed[min(len(harmed)-1, (len(harmed)*95+99)/100-1)])
}

const fortnight = 14 * 24 * time.Hour

func (r *July19Result) peer(p Peer, variant string, o July19Options) {
	const runs = 3 // the rules are deterministic, and the numbers large
	row := July19Row{Rule: p.Name, Text: p.Rule, Source: p.Source, Variant: variant, Runs: runs}
	for _, f := range july19Faults {
		var harmed []int
		for i := range runs {
			run := p.play(newRandom(o.Seed+uint64(i), 3), o.Hosts, f.share, variant == "realistic", fortnight)
			harmed = append(harmed, run.harmed)
			if f.share == 1 && i == 0 {
				line := July19Line{Rule: p.Name, Variant: variant, Points: run.curve}
				if p.Name == "19 July 2024" {
					line.Recovered = july19Recovery(o.Hosts)
				}
				r.Lines = append(r.Lines, line)
			}
		}
		row.add(harmed)
	}
	row.CleanMinutes = p.play(newRandom(o.Seed, 4), o.Hosts, 0, false, fortnight).all.Minutes()
	r.Rows = append(r.Rows, row)
}

// july19Recovery is how the hosts came back: more than 97 % of sensors by 25
// July, about 99 % by 29 July (CrowdStrike's statements of those days).
func july19Recovery(hosts int) []Recovery {
	const day = 24 * time.Hour
	at := func(d float64, share float64) Recovery {
		return Recovery{time.Duration(d * float64(day)), int(share * float64(hosts))}
	}
	return []Recovery{at(6.7, .97), at(10.7, .99)}
}
