package reconcile_test

import (
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/edge/store"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

func TestCleanReleaseReachesEveryHost(t *testing.T) {
	w := newWorld(t, 60, 1)
	w.release("r1", "new")
	w.until("complete", 5*time.Minute, func() bool { return w.phase("r1") == holdfast.Complete })
	if n := w.running(digest("new")); n != len(w.hosts) {
		t.Errorf("%d of %d hosts run it", n, len(w.hosts))
	}
	w.check("r1")
}

func TestLethalReleaseIsRecalled(t *testing.T) {
	w := newWorld(t, 60, 2)
	w.lethal = digest("new")
	w.release("r1", "new")
	w.until("recalled", 5*time.Minute, func() bool { return w.phase("r1").Recalling() })
	w.until("settled", time.Minute, func() bool { v, _ := w.svc.View("r1"); return v.Settled })
	w.check("r1")
	// The bound for 60 eligible hosts, all of them faulty (halting.md).
	if n := w.harmed(); n < 1 || n > 6 {
		t.Errorf("%d hosts harmed, want 1 to 6", n)
	}
	offers := w.offers(digest("new"))
	for range 40 {
		w.tick()
	}
	if got := w.offers(digest("new")); got != offers {
		t.Errorf("%d offers of the recalled release after it was settled", got-offers)
	}
	for ring, list := range w.dir.approvals {
		if len(list) > 0 {
			t.Errorf("the director still approves %v for ring %s", list, ring)
		}
	}
}

func (w *world) offers(d holdfast.Digest) (n int) {
	for _, p := range w.hosts {
		for _, o := range p.offered {
			if o.Digest == d && o.Recall == "" {
				n++
			}
		}
	}
	return n
}

// outcome is what must be the same however often the server was killed.
type outcome struct {
	Phase     holdfast.Phase
	Running   map[holdfast.Digest]int
	Once      map[string]int // entries on the record that must be there once
	Approvals map[string][]tuf.Approval
	Recalled  int // hosts that still have what was recalled
}

func (w *world) outcome(id holdfast.ReleaseID) outcome {
	o := outcome{Phase: w.phase(id), Running: map[holdfast.Digest]int{}, Once: map[string]int{}, Approvals: maps.Clone(w.dir.approvals)}
	for _, p := range w.hosts {
		o.Running[p.rep.Running[holdfast.Rules]]++
	}
	leaves, err := w.db.Record(w.t.Context(), store.RecordFilter{Release: id, Limit: 10_000})
	must(w.t, err)
	for _, l := range leaves {
		switch l.Kind {
		case "approve", "begin", "complete", "halt", "recalled", "order":
			o.Once[l.Kind]++
		case "promote":
			o.Once[l.Text]++
		}
	}
	return o
}

// killPoints picks the transactions to die at: all of them if HOLDFAST_LONG is
// set, else an even sample, which always has the first ones.
func killPoints(total int) (points []int) {
	step := max(1, total/3)
	if os.Getenv("HOLDFAST_LONG") != "" {
		step = 1
	}
	for i := 1; i <= total; i++ {
		if step == 1 || i == 2 || i%step == 0 {
			points = append(points, i)
		}
	}
	return points
}

// TestKilledAnywhere kills the server at its transactions, one run each: just
// before one is committed, and just after. A new process must bring the
// rollout to the same end: nothing offered twice, nothing forgotten.
func TestKilledAnywhere(t *testing.T) {
	scenarios := []struct {
		name string
		run  func(w *world)
	}{
		{"clean", func(w *world) {
			w.release("r1", "new")
			w.until("complete", 10*time.Minute, func() bool { return w.phase("r1") == holdfast.Complete })
			w.until("everywhere", time.Minute, func() bool { return w.running(digest("new")) == len(w.hosts) })
		}},
		{"halted by a person", func(w *world) {
			w.release("r1", "new")
			w.until("under way", 10*time.Minute, func() bool { return w.running(digest("new")) >= 3 })
			for w.svc.Halt(w.t.Context(), "r1", "carol", "looks wrong") != nil {
				w.start()
			}
			w.until("halted", time.Minute, func() bool { return w.phase("r1") == holdfast.Halted })
			w.until("given back", time.Minute, func() bool { v, _ := w.svc.View("r1"); return v.Settled })
		}},
	}
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			play := func(t *testing.T, at int, done bool) (outcome, *world) {
				w := newWorld(t, 24, 5)
				w.faults.count, w.faults.at, w.faults.done = 0, at, done
				s.run(w)
				w.check("r1")
				return w.outcome("r1"), w
			}
			want, undisturbed := play(t, 0, false)
			total := undisturbed.faults.count
			if total < 10 {
				t.Fatalf("only %d transactions: nothing to kill at", total)
			}
			for _, at := range killPoints(total) {
				for _, done := range []bool{false, true} {
					if at == 1 {
						continue // the approval, which a person repeats
					}
					t.Run(fmt.Sprintf("%d of %d, done %v", at, total, done), func(t *testing.T) {
						got, w := play(t, at, done)
						if !w.faults.fired {
							t.Skip("the run was shorter than the undisturbed one")
						}
						if w.starts < 2 {
							t.Fatal("the server was not started again")
						}
						if !reflect.DeepEqual(got, want) {
							t.Errorf("got  %+v\nwant %+v", got, want)
						}
					})
				}
			}
		})
	}
}

// TestKilledOften kills the server after every few transactions of one run.
func TestKilledOften(t *testing.T) {
	w := newWorld(t, 24, 9)
	w.release("r1", "new")
	for end := w.now.Add(30 * time.Minute); w.phase("r1") != holdfast.Complete; {
		if w.now.After(end) {
			t.Fatalf("not complete: %d of %d", w.running(digest("new")), len(w.hosts))
		}
		if w.faults.at <= w.faults.count { // the last fault is over
			w.faults.at = w.faults.count + 20 + w.random.IntN(30)
			w.faults.done = w.random.IntN(2) == 0
		}
		w.tick()
	}
	if w.starts < 3 {
		t.Errorf("killed only %d times", w.starts-1)
	}
	w.check("r1")
	t.Logf("killed %d times", w.starts-1)
}

func TestDirectorAwayDelaysOffersAndLosesNothing(t *testing.T) {
	w := newWorld(t, 24, 3)
	w.dir.fail = true
	w.release("r1", "new")
	for range 60 {
		w.tick()
	}
	if n := w.offers(digest("new")); n != 0 {
		t.Fatalf("%d offers of content that the director does not approve", n)
	}
	w.dir.fail = false
	w.until("complete", 10*time.Minute, func() bool { return w.phase("r1") == holdfast.Complete })
	w.check("r1")
}

func TestSecondPersonMustBeAnother(t *testing.T) {
	w := newWorld(t, 4, 4)
	w.release("r1", "new")
	r := holdfast.Release{ID: "r2", Org: holdfast.DefaultOrg, Bundle: holdfast.Bundle{Channel: holdfast.Rules, Digest: digest("new"), Version: "new"}, By: "ann", Created: w.now, Rings: holdfast.DefaultRings, Profile: holdfast.Urgent}
	must(t, w.db.CreateRelease(t.Context(), r))
	must(t, w.db.CreateRollout(t.Context(), holdfast.Rollout{Release: "r2", Phase: holdfast.Waiting}))
	if err := w.svc.Approve(t.Context(), "r2", "ann"); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("approving one's own release: %v", err)
	}
	if err := w.svc.Halt(t.Context(), "nothing", "ann", ""); holdfast.KindOf(err) != holdfast.NotFound {
		t.Errorf("halting what does not exist: %v", err)
	}
	if err := w.svc.Halt(t.Context(), "r2", "ann", ""); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("halting what has not begun: %v", err)
	}
}

func TestPauseAdmitsNobodyAndResumeGoesOn(t *testing.T) {
	w := newWorld(t, 60, 6)
	w.release("r1", "new")
	w.until("under way", 5*time.Minute, func() bool { return w.running(digest("new")) >= 2 })
	must(t, w.svc.Pause(t.Context(), "r1", "carol", "lunch"))
	w.until("paused", time.Minute, func() bool { return w.phase("r1") == holdfast.Paused })
	for range 12 { // what was under way arrives
		w.tick()
	}
	n := w.running(digest("new"))
	for range 80 {
		w.tick()
	}
	if got := w.running(digest("new")); got != n {
		t.Errorf("%d hosts got it during the pause", got-n)
	}
	must(t, w.svc.Resume(t.Context(), "r1", "carol"))
	w.until("complete", 10*time.Minute, func() bool { return w.phase("r1") == holdfast.Complete })
	w.check("r1")
}

// A host that is away when the release is recalled gives it back at its next
// contact; until then it is outstanding.
func TestAbsentHostGivesBackWhenItReturns(t *testing.T) {
	w := newWorld(t, 24, 7)
	w.release("r1", "new")
	w.until("three have it", 5*time.Minute, func() bool { return w.running(digest("new")) >= 3 })
	i := slices.IndexFunc(w.hosts, func(p *played) bool { return p.rep.Running[holdfast.Rules] == digest("new") && p.proving.IsZero() })
	if i < 0 {
		t.Fatal("no host has proved it")
	}
	away := w.hosts[i]
	away.off = true
	must(t, w.svc.Halt(t.Context(), "r1", "carol", ""))
	w.until("one outstanding", time.Minute, func() bool {
		v, _ := w.svc.View("r1")
		return v.Phase == holdfast.Halted && v.Outstanding == 1
	})
	if got := w.svc.OutstandingHosts("r1", 10); len(got) != 1 || got[0] != away.id {
		t.Errorf("outstanding: %v, want %s", got, away.id)
	}
	w.start() // and a new process knows it as well
	away.off = false
	w.until("settled", time.Minute, func() bool { v, _ := w.svc.View("r1"); return v.Settled })
	if d := away.rep.Running[holdfast.Rules]; d != digest("old") {
		t.Errorf("it runs %s, want what it had", d.Short())
	}
	w.check("r1")
}

// Silence of the server itself is no harm: it stops admission and moves no
// evidence.
func TestOutageOfTheServerIsNoHarm(t *testing.T) {
	w := newWorld(t, 24, 8)
	w.release("r1", "new")
	w.until("under way", 5*time.Minute, func() bool { return w.running(digest("new")) >= 2 })
	w.now = w.now.Add(20 * time.Minute) // the process was stopped
	for range 30 {
		w.tick()
	}
	w.now = w.now.Add(20 * time.Minute) // it was killed, and comes back late
	w.start()
	for range 30 {
		w.tick()
	}
	harms, err := w.db.Harms(t.Context(), "r1", 0, 100)
	must(t, err)
	if len(harms) > 0 {
		t.Errorf("%d harm events, the first %+v", len(harms), harms[0])
	}
	w.until("complete", 10*time.Minute, func() bool { return w.phase("r1") == holdfast.Complete })
}

// A host that falls silent after it activated the release is harm; its
// placebo-arm peers that keep beating are not.
func TestSilenceAfterActivationIsHarm(t *testing.T) {
	w := newWorld(t, 60, 10)
	w.release("r1", "new")
	w.until("recalled", 10*time.Minute, func() bool {
		for _, p := range w.hosts {
			if p.rep.Running[holdfast.Rules] == digest("new") {
				p.off = true // as if the machine had died of it
			}
		}
		return w.phase("r1").Recalling()
	})
	harms, err := w.db.Harms(t.Context(), "r1", 0, 100)
	must(t, err)
	for _, h := range harms {
		if h.Kind != holdfast.Silence || h.Arm != holdfast.New {
			t.Errorf("harm %s of arm %s on %s", h.Kind, h.Arm, h.Host)
		}
	}
	if n := w.running(digest("new")); n > 6 {
		t.Errorf("%d hosts silenced", n)
	}
}

func TestOverrideTakesTwoPeopleWhoSawTheHarm(t *testing.T) {
	w := newWorld(t, 24, 11)
	w.release("r1", "new")
	w.until("under way", 5*time.Minute, func() bool { return w.running(digest("new")) >= 2 })
	ctx := t.Context()
	must(t, w.svc.Halt(ctx, "r1", "carol", ""))
	w.until("settled", time.Minute, func() bool { v, _ := w.svc.View("r1"); return v.Settled })
	if err := w.svc.Override(ctx, "r1", "ann", "5 hosts"); holdfast.KindOf(err) != holdfast.Invalid {
		t.Errorf("a wrong number: %v", err)
	}
	must(t, w.svc.Override(ctx, "r1", "ann", "0 hosts were harmed"))
	must(t, w.svc.Override(ctx, "r1", "ann", "0 hosts were harmed"))
	for range 8 {
		w.tick()
	}
	if p := w.phase("r1"); p != holdfast.Halted {
		t.Fatalf("one person, asking twice, overrode: %s", p)
	}
	must(t, w.svc.Override(ctx, "r1", "bob", "0"))
	w.until("complete", 10*time.Minute, func() bool { return w.phase("r1") == holdfast.Complete })
	if n := w.running(digest("new")); n != len(w.hosts) {
		t.Errorf("%d of %d hosts run it", n, len(w.hosts))
	}
}

// A host that enrols after completion gets what the others have.
func TestLateHostGetsTheCompletedRelease(t *testing.T) {
	w := newWorld(t, 12, 12)
	late := w.hosts[11]
	late.off = true
	w.release("r1", "new")
	w.until("complete", 10*time.Minute, func() bool { return w.phase("r1") == holdfast.Complete })
	late.off = false
	w.until("the late host has it", time.Minute, func() bool { return late.rep.Running[holdfast.Rules] == digest("new") })
	w.check("r1")
}

// A second release replaces the first; recalled, it leaves the first in place.
func TestRecallReturnsToTheReleaseBefore(t *testing.T) {
	w := newWorld(t, 24, 13)
	w.release("r1", "new")
	w.until("complete", 10*time.Minute, func() bool { return w.phase("r1") == holdfast.Complete })
	w.now = w.now.Add(time.Second)
	w.release("r2", "newer")
	w.until("under way", 5*time.Minute, func() bool { return w.running(digest("newer")) >= 2 })
	must(t, w.svc.Halt(t.Context(), "r2", "carol", ""))
	w.until("settled", time.Minute, func() bool { v, _ := w.svc.View("r2"); return v.Settled })
	w.start()
	for range 40 {
		w.tick()
	}
	if n := w.running(digest("new")); n != len(w.hosts) {
		t.Errorf("%d of %d hosts run the release before", n, len(w.hosts))
	}
	for ring, list := range w.dir.approvals {
		if want := []tuf.Approval{{Channel: holdfast.Rules, Digest: digest("new"), State: tuf.Current}}; !reflect.DeepEqual(list, want) {
			t.Errorf("ring %s: %v", ring, list)
		}
	}
}

// A host that was away for several releases may keep what it runs until it is
// drawn: what the director does not name, it would give up by itself.
func TestOldContentStaysApprovedForThoseWhoRunIt(t *testing.T) {
	w := newWorld(t, 12, 14)
	away := w.hosts[11]
	for i, content := range []string{"one", "two", "three"} {
		id := holdfast.ReleaseID(fmt.Sprint("r", i+1))
		w.release(id, content)
		w.until(content+" complete", 10*time.Minute, func() bool { return w.phase(id) == holdfast.Complete })
		if i == 0 {
			w.until("everywhere", time.Minute, func() bool { return w.running(digest("one")) == len(w.hosts) })
			away.off = true
		}
		w.now = w.now.Add(time.Second)
	}
	want := []tuf.Approval{
		{Channel: holdfast.Rules, Digest: digest("three"), State: tuf.Current},
		{Channel: holdfast.Rules, Digest: digest("two"), State: tuf.Previous},
		{Channel: holdfast.Rules, Digest: digest("one"), State: tuf.Pinnable},
	}
	for ring, list := range w.dir.approvals {
		if !reflect.DeepEqual(list, want) {
			t.Errorf("ring %s: %v", ring, list)
		}
	}
	// The publishers withdraw the oldest: that holds up nothing else.
	w.dir.withdrawn = digest("one")
	must(t, w.svc.Halt(t.Context(), "r3", "carol", ""))
	w.until("settled", time.Minute, func() bool { v, _ := w.svc.View("r3"); return v.Settled })
	for ring, list := range w.dir.approvals {
		if want := []tuf.Approval{{Channel: holdfast.Rules, Digest: digest("two"), State: tuf.Current}}; !reflect.DeepEqual(list, want) {
			t.Errorf("ring %s after the withdrawal: %v", ring, list)
		}
	}
	away.off = false
	w.until("it catches up", time.Minute, func() bool { return away.rep.Running[holdfast.Rules] == digest("two") })
}
