package fleet

import (
	"slices"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
)

// late plays hosts that come when a release is complete, from a moment on, and
// says how many of each of two strata were drawn. Those that obey take it.
func late(t *testing.T, f *Fleet, hosts int, from time.Time, seconds int, obeys func(int) bool) (drawn [2]int) {
	t.Helper()
	for s := range seconds {
		now := from.Add(time.Duration(s) * time.Second)
		for i := range hosts {
			f.Beat(hostNumber(i).ID, now)
		}
		f.Advance(now)
		c := f.Take()
		f.Stored(c)
		for _, a := range c.Drawn {
			for i := range hosts {
				if hostNumber(i).ID != a.Host {
					continue
				}
				drawn[i%2]++
				if obeys(i) {
					h, _ := f.Host(a.Host)
					h.Report.Running, h.Report.Activation = holdfast.Generation{holdfast.Rules: newContent}, a.Lease
					f.Reported(a.Host, h.Report, now)
				}
			}
		}
	}
	return drawn
}

// proven returns a complete release that some hosts of the first stratum had in
// the comparison, and the fleet.
func proven(hosts, clean int) *Fleet {
	f := listened(hosts, 1)
	r := oneRing("r")
	r.Phase = holdfast.Complete
	// Both strata are compared as one.
	r.Baseline.Merged = map[holdfast.Stratum]holdfast.Stratum{stratum(0): "merged", stratum(1): "merged"}
	f.SetRelease(r)
	for i := range clean {
		h, _ := f.Host(hostNumber(2 * i).ID)
		h.Report.Running = holdfast.Generation{holdfast.Rules: newContent}
		f.Reported(h.ID, h.Report, start.Add(4*time.Second))
		f.RestoreAdmission(holdfast.Admission{
			Release: "r", Host: h.ID, Org: h.Org, Stratum: "merged", Arm: holdfast.New, At: start.Add(-time.Hour), Activated: start.Add(-time.Hour), Clean: start,
		}, nil)
	}
	return f
}

// TestAProvenKindNeedNotWait, and one that was never here is not proved by those
// it was merged with.
func TestAProvenKindNeedNotWait(t *testing.T) {
	f := proven(100, 20)
	got := late(t, f, 100, start.Add(5*time.Second), 3, func(int) bool { return true })
	if want := [2]int{30, 5}; got != want {
		t.Errorf("%d of the proven kind, and of the other, are drawn at once, want %d", got, want)
	}
	if got := late(t, f, 100, start.Add(8*time.Second), 40, func(int) bool { return true }); got != [2]int{0, 45} {
		t.Errorf("%d follow", got)
	}
}

// TestWhoDoesNotTakeItHoldsUpNobody: a few hosts that cannot fetch the content.
// Their offers stand.
func TestWhoDoesNotTakeItHoldsUpNobody(t *testing.T) {
	f := proven(40, 0)
	got := late(t, f, 40, start.Add(5*time.Second), 300, func(i int) bool { return i >= 10 })
	if got != [2]int{20, 20} {
		t.Fatalf("%d are drawn", got)
	}
	if o, ok := f.Desired("h003", start.Add(305*time.Second)); !ok || o.Digest != newContent {
		t.Errorf("it is offered %+v", o)
	}
}

// TestWhoComesLateAndFailsIsCounted: the one's guard takes it back, the other's
// worker dies with it and lives on. Neither is proof for those that wait.
func TestWhoComesLateAndFailsIsCounted(t *testing.T) {
	f := proven(100, 20)
	late(t, f, 100, start.Add(5*time.Second), 3, func(i int) bool { return i%2 == 0 })
	failed := 0
	for i := 1; i < 100; i += 2 {
		h, _ := f.Host(hostNumber(i).ID)
		a, ok := f.Admission("r", h.ID)
		if !ok {
			continue
		}
		h.Report.Activation = a.Lease
		if failed%2 == 0 {
			h.Report.Failed = holdfast.Generation{holdfast.Rules: newContent}
			h.Report.Shunned = []holdfast.Digest{newContent}
		} else {
			h.Report.Running = holdfast.Generation{holdfast.Rules: newContent}
			h.Report.Crashes++
		}
		f.Reported(h.ID, h.Report, start.Add(8*time.Second))
		failed++
	}
	got := late(t, f, 100, start.Add(9*time.Second), 60, func(int) bool { return true })
	if got != [2]int{} {
		t.Errorf("%d follow", got)
	}
	want := []Latecomers{
		{Org: holdfast.DefaultOrg, Stratum: stratum(1), Drawn: 5, Failed: 5, Waiting: 45},
		{Org: holdfast.DefaultOrg, Stratum: stratum(0), Drawn: 30, Clean: 30},
	}
	if all := f.Latecomers("r"); !slices.Equal(all, want) {
		t.Errorf("who came late is %+v, want %+v", all, want)
	}
}
