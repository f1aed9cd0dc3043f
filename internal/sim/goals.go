package sim

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/rollout"
)

// Goal is one measured figure beside its target.
type Goal struct {
	Name string `json:"name"`
	What string `json:"what"`
	// Figure is the measured value, Target what it must not exceed (or, for a
	// power, fall below).
	Figure float64 `json:"figure"`
	Target float64 `json:"target"`
	Unit   string  `json:"unit"`
	Median float64 `json:"median"`
	// Low and High are a 95 % interval of the figure.
	Low  float64 `json:"low"`
	High float64 `json:"high"`
	Runs int     `json:"runs"`
	// Seeds are the first and last seed used.
	Seeds [2]uint64 `json:"seeds"`
	Pass  bool      `json:"pass"`
	// Bad are seeds, at most ten, of runs that missed a target by themselves.
	Bad []uint64 `json:"bad_seeds,omitempty"`
	// Note says what a reader must know to trust the figure.
	Note string `json:"note,omitempty"`
}

// GoalOptions shortens or moves the runs of Goals.
type GoalOptions struct {
	// Runs replaces the number of runs of every goal that needs many; 0 keeps
	// the full numbers (200 for quantiles at 1 M hosts, 20,000 and 5,000 null runs).
	Runs int
	// Seed is the first seed.
	Seed uint64
	// Only restricts to goals whose name begins with it.
	Only string
	// Progress, if not nil, is told of each run of a goal that begins: how many
	// did before, of how many. Calls never overlap.
	Progress func(goal string, begun, runs int)
}

// UrgentPolicy is the policy of the goals: URGENT, one ring, no soak.
func UrgentPolicy(kinds []Kind) rollout.Policy {
	p := rollout.DefaultPolicy(holdfast.Urgent)
	p.Release, p.By = "goal", "simulator"
	p.Rings = holdfast.RingPlan{{Name: "all", Through: 1_000_000}}
	p.Baselines = Baselines(kinds)
	return p
}

// StandardPolicy is STANDARD on one ring.
func StandardPolicy(kinds []Kind) rollout.Policy {
	p := rollout.DefaultPolicy(holdfast.Standard)
	p.Release, p.By = "goal", "simulator"
	p.Rings = holdfast.RingPlan{{Name: "all", Through: 1_000_000}}
	p.Baselines = Baselines(kinds)
	return p
}

// trial is one kind of run, repeated over seeds.
type trial struct {
	name, what string
	unit       string
	target     float64
	runs       int
	policy     func(seed uint64) rollout.Policy
	world      func(seed uint64) World
	value      func(Outcome) float64
	// judge makes the figure of all values; p95 if nil.
	judge func(values []float64) (figure, low, high float64)
	// play plays one run; Counts if nil.
	play func(rollout.Policy, World) (Outcome, error)
	// least says that the figure must not fall below its target.
	least bool
	// again measures the runs of the trial before once more.
	again bool
	note  string
}

// repeat runs a trial over its seeds on every core, until ctx ends.
func repeat(ctx context.Context, t trial, first uint64, progress func(goal string, begun, runs int)) ([]Outcome, error) {
	out := make([]Outcome, t.runs)
	errs := make([]error, t.runs)
	var next sync.Mutex
	n := 0
	take := func() int {
		next.Lock()
		defer next.Unlock()
		if progress != nil && n < t.runs {
			progress(t.name, n, t.runs)
		}
		n++
		return n - 1
	}
	var wait sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			for i := take(); i < t.runs && ctx.Err() == nil; i = take() {
				seed := first + uint64(i)
				play := t.play
				if play == nil {
					play = Counts
				}
				out[i], errs[i] = play(t.policy(seed), t.world(seed))
				out[i].Curve, out[i].State, out[i].Last = nil, rollout.State{}, rollout.Snapshot{}
			}
		})
	}
	wait.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// measure makes the figure of a trial's runs.
func (t trial) measure(out []Outcome, first uint64) Goal {
	values := make([]float64, len(out))
	for i := range out {
		values[i] = t.value(out[i])
	}
	var bad []uint64
	for i, v := range values {
		if (t.least && v < t.target || !t.least && v > t.target) && len(bad) < 10 {
			bad = append(bad, out[i].Seed)
		}
	}
	slices.Sort(values)
	judge := t.judge
	if judge == nil {
		judge = p95
	}
	g := Goal{Name: t.name, What: t.what, Target: t.target, Unit: t.unit, Runs: t.runs, Seeds: [2]uint64{first, first + uint64(t.runs) - 1}, Note: t.note, Bad: bad}
	g.Figure, g.Low, g.High = judge(values)
	g.Median = quantile(values, .5)
	g.Pass = g.Figure <= g.Target
	if t.least {
		g.Pass = g.Figure >= g.Target
	}
	return g
}

// quantile of sorted values, by the smallest value that at least a share q is
// not above.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	return sorted[min(len(sorted)-1, max(0, int(math.Ceil(q*float64(len(sorted))))-1))]
}

// p95 with a distribution-free 95 % interval from order statistics.
func p95(sorted []float64) (figure, low, high float64) {
	n := float64(len(sorted))
	sd := 1.96 * math.Sqrt(n*.95*.05) / n
	return quantile(sorted, .95), quantile(sorted, max(0, .95-sd)), quantile(sorted, min(1, .95+sd))
}

// share of ones with Wilson's interval.
func share(values []float64) (figure, low, high float64) {
	n, k := float64(len(values)), 0.0
	for _, v := range values {
		k += v
	}
	const z = 1.96
	p := k / n
	mid := (p + z*z/(2*n)) / (1 + z*z/n)
	half := z / (1 + z*z/n) * math.Sqrt(p*(1-p)/n+z*z/(4*n*n))
	return p, max(0, mid-half), min(1, mid+half)
}

// largest with itself as interval: for goals of few runs.
func largest(values []float64) (figure, low, high float64) {
	return values[len(values)-1], values[0], values[len(values)-1]
}

// smallest is the same for goals that must not be fallen below.
func smallest(values []float64) (figure, low, high float64) {
	return values[0], values[0], values[len(values)-1]
}

func one(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

func broken(o Outcome) float64 { return float64(o.Broken) }

// stresses are what null runs must survive: outages of the network, of whole
// strata, and of the control plane itself.
func stresses(seed uint64, kinds []Kind) []Outage {
	r := newRandom(seed, 9)
	at := func() time.Duration { return time.Duration(r.Float64() * float64(100*time.Minute)) }
	var all []Outage
	if r.Float64() < .5 {
		all = append(all, Outage{From: at().Truncate(15 * time.Second), For: 5 * time.Minute, Share: .05})
	}
	if r.Float64() < .5 {
		all = append(all, Outage{From: at().Truncate(15 * time.Second), For: 5 * time.Minute, Share: .5, Where: In(kinds[r.IntN(len(kinds))].Stratum)})
	}
	if r.Float64() < .5 {
		all = append(all, Outage{From: at().Truncate(15 * time.Second), For: time.Duration(1+r.IntN(20)) * time.Minute, Server: true})
	}
	return all
}

func trials(o GoalOptions) []trial {
	const million = 1_000_000
	n := func(full int) int {
		if o.Runs > 0 {
			return min(o.Runs, full)
		}
		return full
	}
	model := ModelFleet(million, 250, false)
	portable := ModelFleet(million, 250, true)
	small := ModelFleet(10_000, 250, false)
	urgent := func(kinds []Kind) func(uint64) rollout.Policy {
		p := UrgentPolicy(kinds)
		return func(uint64) rollout.Policy { return p }
	}
	with := func(kinds []Kind, until time.Duration, faults ...Fault) func(uint64) World {
		return func(seed uint64) World {
			return World{Seed: seed, Kinds: kinds, Faults: faults, Until: until, StopAtRecall: true}
		}
	}
	null := func(kinds []Kind, tick time.Duration) func(uint64) World {
		return func(seed uint64) World {
			return World{Seed: seed, Kinds: kinds, Until: 3 * time.Hour, Tick: tick, Outage: stresses(seed, kinds), StopAtRecall: true}
		}
	}
	halted := func(o Outcome) float64 { return one(o.Phase.Recalling()) }
	var all []trial
	add := func(t trial) { all = append(all, t) }

	scaled := n(20_000)
	if o.Runs > 0 {
		scaled = 10 * o.Runs
	}
	add(trial{
		name: "G1/10k", what: "false halts, 10,000 hosts, nothing wrong, outages included", unit: "share of runs", target: 1. / 20_000, runs: scaled,
		policy: urgent(small), world: null(small, time.Minute), value: halted, judge: share,
		note: "the guarantee is 1 in 1,000 by proof (Ville); one wrong halt in 20,000 runs would still pass",
	})
	add(trial{
		name: "G1/1M", what: "false halts, 1,000,000 hosts, nothing wrong, outages included", unit: "share of runs", target: 1. / 1000, runs: n(5000),
		policy: urgent(model), world: null(model, 30*time.Second), value: halted, judge: share,
		note: "the guarantee is 1 in 1,000 by proof (Ville); so many runs show whether it is kept",
	})
	for _, hosts := range []int{60, 1000, 100_000, million} {
		kinds := SmallFleet(hosts)
		if hosts > 1000 {
			kinds = ModelFleet(hosts, 250, false)
		}
		w := with(kinds, 3*time.Hour, Dead(1, nil))
		add(trial{name: fmt.Sprintf("G2/harmed/%d", hosts), what: fmt.Sprintf("every host breaks, %d hosts", hosts), unit: "hosts harmed, p95", target: 6, runs: n(200), policy: urgent(kinds), world: w, value: broken})
		add(trial{name: fmt.Sprintf("G2/time/%d", hosts), what: fmt.Sprintf("every host breaks, %d hosts", hosts), unit: "minutes to the halt, p95", target: 6, runs: n(200), again: true, policy: urgent(kinds), world: w, value: func(o Outcome) float64 {
			if !o.Phase.Recalling() {
				return math.Inf(1)
			}
			return o.Decided.Minutes()
		}})
	}
	for i, s := range []string{"10 %", "1 %", "0.1 %"} {
		add(trial{name: "G3/servers/" + s, what: "a whole stratum of always-on hosts, " + s + " of 1,000,000", unit: "hosts harmed, p95", target: 5, runs: n(200), policy: urgent(model), world: with(model, 4*time.Hour, Dead(1, In(model[i].Stratum))), value: broken})
		add(trial{name: "G3/laptops/" + s, what: "a whole stratum of laptops, " + s + " of 1,000,000", unit: "hosts harmed, p95", target: 7, runs: n(200), policy: urgent(portable), world: with(portable, 4*time.Hour, Dead(1, In(portable[i].Stratum))), value: broken})
	}
	for i, s := range []float64{.1, .01, .001} {
		add(trial{name: fmt.Sprintf("G4/%g %%", s*100), what: fmt.Sprintf("random %g %% of 1,000,000 hosts", s*100), unit: "hosts harmed, p95", target: []float64{20, 20, 50}[i], runs: n(200), policy: urgent(model), world: with(model, 4*time.Hour, Dead(s, nil)), value: broken})
	}
	standard := func(uint64) rollout.Policy { return StandardPolicy(model) }
	doubled := Fault{Name: "rate", Rate: crashRate}
	slow := func(seed uint64) World {
		return World{Seed: seed, Kinds: model, Faults: []Fault{doubled}, Until: 150 * time.Hour, Tick: time.Minute, StopAtRecall: true}
	}
	add(trial{name: "G5/excess", what: "crash rate doubled from 0.05 % a day, STANDARD, 1,000,000 hosts", unit: "excess crashes, p95", target: 75, runs: n(200), policy: standard, world: slow, value: func(o Outcome) float64 { return float64(o.Excess) }})
	add(trial{name: "G5/power", what: "crash rate doubled from 0.05 % a day, STANDARD, 1,000,000 hosts", unit: "share of runs halted", target: .99, least: true, runs: n(200), policy: standard, world: slow, value: halted, judge: share, again: true})
	huge := ModelFleet(8_500_000, 250, false)
	add(trial{name: "G6", what: "clean release, URGENT, one ring, no soak, 8,500,000 hosts", unit: "minutes to 99 % of hosts, worst", target: 110, runs: min(3, n(3)), policy: urgent(huge), world: with(huge, 150*time.Minute), value: func(o Outcome) float64 {
		if o.Reached99 == 0 {
			return math.Inf(1)
		}
		return o.Reached99.Minutes()
	}, judge: largest})
	shown := func(o Outcome) float64 { return o.Shown }
	add(trial{
		name: "G7/clean", what: "exposure, pending, hU, uncovered mass and latent exposure agree with what the simulator knows, 1,000,000 hosts", unit: "share of steps, worst run",
		target: 1, least: true, runs: n(10), policy: urgent(model), world: with(model, 150*time.Minute), value: shown, judge: smallest, play: playShown,
	})
	add(trial{
		name: "G7/faulty", what: "the same while 1 % of the hosts break", unit: "share of steps, worst run",
		target: 1, least: true, runs: n(40), policy: urgent(model), world: with(model, 4*time.Hour, Dead(.01, nil)), value: shown, judge: smallest, play: playShown,
	})
	add(trial{
		name: "G7/hU", what: "the bound hU stays above the true lethality of 1 %, at every step", unit: "share of runs",
		target: .95, least: true, runs: n(40), again: true, policy: urgent(model), world: with(model, 4*time.Hour, Dead(.01, nil)), judge: share, play: playShown,
		value: func(o Outcome) float64 { return one(o.LeastHU >= .01) },
	})
	return all
}

// Goals measures the goals of docs/halting.md. Runs are deterministic in their
// seeds; every step of every run checks the promises, and a broken one is the
// error.
func Goals(ctx context.Context, o GoalOptions) ([]Goal, error) {
	if o.Seed == 0 {
		o.Seed = 1
	}
	var goals []Goal
	var out []Outcome
	for _, t := range trials(o) {
		if !strings.HasPrefix(t.name, o.Only) {
			out = nil
			continue
		}
		if !t.again || out == nil {
			var err error
			if out, err = repeat(ctx, t, o.Seed, o.Progress); err != nil {
				return goals, err
			}
		}
		goals = append(goals, t.measure(out, o.Seed))
	}
	return goals, nil
}
