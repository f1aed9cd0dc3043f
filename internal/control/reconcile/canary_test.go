package reconcile_test

import (
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/edge/store"
)

// TestDoNotCanaryHostsGoLast: a host that is marked is in no draw, for coverage or
// otherwise, before the last ring is open and all others have the release but
// those that are kept to compare with, be it the only one of its kind; what nobody has tried because of that is reported.
func TestDoNotCanaryHostsGoLast(t *testing.T) {
	w := newWorld(t, 60, 11)
	marked := map[holdfast.HostID]bool{}
	for i, p := range w.hosts {
		if i < 5 { // the only ones of their kind
			p.attr.Kernel, p.attr.Role = "5.4", "laptop"
		}
		if i < 5 || i%10 == 7 {
			marked[p.id] = true
			must(t, w.db.SetNoCanary(t.Context(), p.id, true))
		}
	}
	internal := 0
	r := w.release("r1", "new")
	for id := range marked {
		if r.Rings.Of(id) == 0 {
			internal++
		}
	}
	if internal == 0 {
		t.Fatal("no marked host is of the first ring: the test proves nothing")
	}
	others := len(w.hosts) - len(marked)
	const floor = 7 // kept to compare with until the end: a tenth of each stratum, at least one
	drawn := func() (given, early int) {
		must(t, w.db.Admissions(t.Context(), store.AdmissionFilter{Release: "r1"}, func(a holdfast.Admission) error {
			switch {
			case marked[a.Host]:
				early++
			case a.Arm == holdfast.New:
				given++
			}
			return nil
		}))
		return given, early
	}
	uncovered, opened := 0., false
	w.until("all others have it", 5*time.Minute, func() bool {
		given, early := drawn()
		if early > 0 && given < others-floor {
			t.Fatalf("%d marked hosts were drawn when %d of the %d others had it", early, given, others)
		}
		if v, ok := w.svc.View("r1"); ok && len(v.State.Evidence) > 0 && early == 0 {
			report := v.Report(w.now)
			uncovered, opened = report.UncoveredMass, opened || !v.State.Rings[1].Opened.IsZero()
		}
		return given == others
	})
	if want := 5. / 60; uncovered < want || uncovered > want+1e-9 || !opened {
		t.Errorf("before the marked hosts, %.3g of the fleet is reported as uncovered, want %.3g; the last ring was open: %v", uncovered, want, opened)
	}
	w.until("the marked hosts have it too", 5*time.Minute, func() bool { return w.running(digest("new")) == len(w.hosts) })
	if v, ok := w.svc.View("r1"); ok && v.Report(w.now).UncoveredMass > 0 {
		t.Errorf("%.3g is still reported as uncovered", v.Report(w.now).UncoveredMass)
	}
}

// TestMarkingAHostTakesEffectAtOnce, on rollouts under way as well.
func TestMarkingAHostTakesEffectAtOnce(t *testing.T) {
	w := newWorld(t, 40, 12)
	r := w.release("r1", "new")
	must(t, w.svc.Step(t.Context()))
	var first holdfast.HostID
	for _, p := range w.hosts {
		if r.Rings.Of(p.id) == 0 {
			first = p.id
		}
	}
	for _, marked := range []bool{true, false} {
		must(t, w.db.SetNoCanary(t.Context(), first, marked))
		must(t, w.svc.Refresh(t.Context(), first))
		want := map[bool]int{true: len(r.Rings) - 1}[marked]
		if ring, ok := w.svc.RingOf("r1", first); !ok || ring != want {
			t.Errorf("marked: %v, and it counts in ring %d (%v)", marked, ring, ok)
		}
	}
}
