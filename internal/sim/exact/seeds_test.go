package exact

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/rollout"
	"github.com/holdfast-security/holdfast/internal/sim"
)

// any small fleet with anything that can go wrong, made from a seed.
func anyWorld(seed uint64) (rollout.Policy, sim.World) {
	r := rand.New(rand.NewPCG(seed, 12))
	pick := func(of ...float64) float64 { return of[r.IntN(len(of))] }
	seconds := func(from, to int) time.Duration { return time.Duration(from+r.IntN(to-from)) * time.Second }
	p, w := drill([]int{1, 4, 12, 30, 60}[r.IntN(5)], seed)
	w.Until = seconds(20, 70)
	if r.IntN(3) == 0 {
		other := w.Kinds[0]
		other.Org, other.Stratum = "other", "6.8|debian-12|1.11.0|laptop"
		w.Kinds = append(w.Kinds, other)
	}
	for i := range w.Kinds {
		w.Kinds[i].Silence, w.Kinds[i].Crash = pick(0, 0, .02), pick(0, 0, .02)
		w.Kinds[i].Offline = r.IntN(1 + w.Kinds[i].Hosts/8)
	}
	if r.IntN(2) == 0 {
		p.Rings = holdfast.RingPlan{{Name: "internal", Through: 100_000}, {Name: "all", Through: 1_000_000, Soak: 5 * time.Second}}
	}
	if r.IntN(4) == 0 {
		p = withProfile(p, holdfast.Standard)
	}
	if share := pick(0, .2, 1); share > 0 {
		after := pick(0, 2, 8)
		w.Faults = []sim.Fault{{
			Name: "fault", Share: share, CutOff: r.IntN(2) == 0,
			Kind:    []holdfast.HarmKind{holdfast.Crash, holdfast.Crash, holdfast.Reboot, holdfast.Silence, holdfast.Memory}[r.IntN(5)],
			Soonest: time.Duration(after * float64(time.Second)), Latest: time.Duration((after + 1.5) * float64(time.Second)),
		}}
	}
	if r.IntN(6) == 0 { // what reaches nobody needs its time
		f := sim.MuteAgent(pick(.1, .5, 1), nil, p.Heartbeat)
		f.CutOff = r.IntN(4) == 0
		w.Faults, w.Until = append(w.Faults, f), seconds(60, 150)
	}
	switch r.IntN(4) {
	case 0:
		w.Outage = []sim.Outage{{From: seconds(2, 20), For: seconds(2, 12), Server: true}}
	case 1:
		w.Outage = []sim.Outage{{From: seconds(2, 20), For: seconds(2, 12), Share: pick(.3, 1)}}
		if r.IntN(3) == 0 { // longer than a trial may last without contact
			w.Outage[0].For = seconds(30, 60)
			w.Until += w.Outage[0].For
		}
	}
	w.Restart, w.Takeover, w.StoreFails = pick(0, 0, .03), pick(0, 0, .02), pick(0, 0, .05)
	if r.IntN(3) == 0 {
		w.Guard, w.Forget = pick(.05, .3), pick(0, .2)
		w.Until += seconds(30, 90)
	}
	w.Messages = sim.Messages{Lose: pick(0, 0, .2), Duplicate: pick(0, .3), Reorder: pick(0, 0, .2)}
	if r.IntN(3) == 0 {
		w.Clocks = []sim.WrongClock{{Share: pick(.2, 1), Skew: time.Duration(pick(-3600, -3, .5, 3, 3600) * float64(time.Second))}}
	}
	if r.IntN(3) == 0 {
		w.Hostile = []sim.Hostility{{Share: pick(.1, .5), Lie: []sim.Lie{sim.ClaimsHarm, sim.ClaimsHealth, sim.Garbage}[r.IntN(3)]}}
	}
	if r.IntN(2) == 0 {
		anyConsents(r, &w)
	}
	if r.IntN(3) == 0 {
		anyBack(r, &w)
	}
	return p, w
}

// anyBack puts hosts to sleep that wake up all at once when the release may long be
// complete: some of each kind, or all of one that the others are unlike, and that
// the release may break alone.
func anyBack(r *rand.Rand, w *sim.World) {
	back := w.Until + time.Duration(r.IntN(60))*time.Second
	if r.IntN(2) == 0 {
		k := w.Kinds[0]
		k.Stratum, k.Hosts = "6.12|debian-13|1.11.0|laptop", 1+r.IntN(30)
		k.Offline = k.Hosts
		w.Kinds = append(w.Kinds, k)
		if r.IntN(2) == 0 {
			for i := range w.Faults {
				w.Faults[i].Where = sim.In(k.Stratum)
			}
		}
	}
	for i := range w.Kinds {
		w.Kinds[i].Back = back
	}
	w.Until = back + 100*time.Second
}

func withProfile(p rollout.Policy, profile holdfast.Profile) rollout.Policy {
	q := rollout.DefaultPolicy(profile).WithClock(p.Heartbeat)
	q.Release, q.By, q.Rings, q.Baselines = p.Release, p.By, p.Rings, p.Baselines
	return q
}

// TestPromisesHold plays many random small fleets with everything that can go
// wrong: 100, or as many as HOLDFAST_SIM_SEEDS says, from HOLDFAST_SIM_SEED on.
// The seeds are the same every day: what a change breaks must not be found in
// another's.
func TestPromisesHold(t *testing.T) {
	seeds, first := number(t, "HOLDFAST_SIM_SEEDS", 100), uint64(number(t, "HOLDFAST_SIM_SEED", 1))
	t.Logf("seeds %d to %d", first, first+uint64(seeds)-1)
	var next, failed, again, taken, late atomic.Int64
	var outcomes, control sync.Map
	count := func(in *sync.Map, what any, more int) {
		n, _ := in.LoadOrStore(what, new(atomic.Int64))
		n.(*atomic.Int64).Add(int64(more))
	}
	var wait sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			for i := next.Add(1) - 1; i < int64(seeds) && failed.Load() < 3 && t.Context().Err() == nil; i = next.Add(1) - 1 {
				p, w := anyWorld(first + uint64(i))
				o, err := Run(t.Context(), p, w)
				if v := (*sim.Violation)(nil); errors.As(err, &v) {
					v = Shrink(t.Context(), p, w, v)
					failed.Add(1)
					t.Errorf("%v (HOLDFAST_SIM_SEEDS=1 HOLDFAST_SIM_SEED=%d replays it)\n%s", v, w.Seed, strings.Join(v.Trace, "\n"))
				} else if err != nil {
					failed.Add(1)
					t.Errorf("seed %d: %v\n%s", w.Seed, err, w)
				}
				count(&outcomes, o.Phase, 1)
				again.Add(int64(o.OfferedAgain))
				taken.Add(int64(o.TakenAgain))
				late.Add(int64(o.Late))
				count(&control, "tried again for want of contact", o.Again)
				for what, n := range o.Control {
					count(&control, what, n)
				}
				if (i+1)%1000 == 0 {
					t.Logf("%d seeds", i+1)
				}
			}
		})
	}
	wait.Wait()
	for _, phase := range []holdfast.Phase{holdfast.Halted, holdfast.Stopped, holdfast.Complete} {
		if n, ok := outcomes.Load(phase); ok {
			t.Logf("%s: %d", phase, n.(*atomic.Int64).Load())
		} else if seeds >= 100 && failed.Load() == 0 {
			t.Errorf("no run ended %s: the worlds are too tame", phase)
		}
	}
	for _, what := range []string{"taken", "held back", "comparisons that waited", "recalled although held", "tried again for want of contact"} {
		n, _ := control.LoadOrStore(what, new(atomic.Int64))
		if times := n.(*atomic.Int64).Load(); times > 0 {
			t.Logf("under customers' policies or none, %s: %d", what, times)
		} else if seeds >= 1000 && failed.Load() == 0 {
			t.Errorf("%s: never", what)
		}
	}
	t.Logf("drawn after completion: %d", late.Load())
	if seeds >= 100 && failed.Load() == 0 && late.Load() == 0 {
		t.Error("nobody was drawn after completion")
	}
	t.Logf("offered again to hosts that went back: %d; taken again: %d", again.Load(), taken.Load())
	if seeds >= 100 && failed.Load() == 0 && taken.Load() == 0 {
		t.Error("no host that went back took it again")
	}
}

func number(t *testing.T, name string, otherwise int) int {
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		t.Fatalf("%s=%q is not a number", name, s)
	}
	return n
}

// TestBrokenPromiseShrinks: a host that is made to run content which nobody
// signed, whenever the control plane has restarted, is found, replayed, and
// told about with little else around it.
func TestBrokenPromiseShrinks(t *testing.T) {
	p, w := drill(40, 3)
	w.Faults = crash(.2)
	w.Restart, w.StoreFails, w.Messages = .05, .02, sim.Messages{Lose: .1, Duplicate: .3, Reorder: .1}
	w.Clocks = []sim.WrongClock{{Share: .2, Skew: time.Second}}
	w.Outage = []sim.Outage{{From: 5 * time.Second, For: 3 * time.Second, Share: .5}}
	unsigned := holdfast.DigestOf([]byte("unsigned"))
	fault := func(w *world) {
		if h := w.hosts[len(w.hosts)-1]; w.starts > 2 && len(w.hosts) >= 3 {
			h.state.Current, h.state.Trial = holdfast.Generation{holdfast.Rules: unsigned}, nil
		}
	}
	find := func() *sim.Violation {
		_, err := run(t.Context(), p, w, fault)
		var v *sim.Violation
		if !errors.As(err, &v) {
			t.Fatalf("the fault was not found: %v", err)
		}
		return v
	}
	v, again := find(), find()
	if v.Promise != 1 || v.Step != again.Step || v.What != again.What || v.Seed != 3 {
		t.Fatalf("%v; and replayed: %v", v, again)
	}
	small := shrink(t.Context(), p, w, v, fault)
	told := strings.Join(small.Trace, "\n")
	for _, gone := range []string{"fault", "lose", "duplicate", "reorder", "store", "clocks", "outage"} {
		if strings.Contains(small.Trace[0], gone) {
			t.Errorf("%q was left in: %s", gone, small.Trace[0])
		}
	}
	if !strings.Contains(small.Trace[0], " 3 hosts ") || !strings.Contains(small.Trace[0], "crash 5 %") {
		t.Errorf("not the smallest world: %s", small.Trace[0])
	}
	if !strings.Contains(told, "dies and starts anew") || !strings.Contains(told, fmt.Sprintf("step %d,", small.Step)) || len(small.Trace) > 2*shownNotes {
		t.Errorf("the trace does not say what led to it, or says too much:\n%s", told)
	}
}
