package fleet

import (
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
)

func TestHostsThatStopRulesOfTheReleaseAreCountedOnce(t *testing.T) {
	f := listened(20, 3)
	noisy := hostNumber(0).Report
	noisy.Suspended = []holdfast.Suspension{{Rule: "old"}}
	for i := range 20 { // an old rule that every host has stopped
		f.Reported(hostNumber(i).ID, noisy, start.Add(5*time.Second))
	}
	f.SetRelease(oneRing("r"))
	f.Open("r", []Opening{opened(0, 10, 0, stratum(0), start.Add(time.Minute))})
	now := start.Add(6 * time.Second)
	for i := range 20 {
		f.Beat(hostNumber(i).ID, now)
	}
	f.Stored(f.Take())
	stop := func(rules ...string) int {
		r := noisy
		r.Suspended = nil
		for _, id := range rules {
			r.Suspended = append(r.Suspended, holdfast.Suspension{Rule: id})
		}
		r.Running = holdfast.Generation{holdfast.Rules: newContent}
		for i := range 20 {
			if a, drawn := f.Admission("r", hostNumber(i).ID); drawn && a.Arm == holdfast.New {
				f.Reported(a.Host, r, now)
			}
		}
		return f.Snapshot("r").Suspending[holdfast.DefaultOrg]
	}
	if n := stop("old"); n != 0 {
		t.Errorf("%d hosts counted for a rule they had stopped before", n)
	}
	if n := stop("old", "new"); n != 10 {
		t.Errorf("%d of 10 counted", n)
	}
	if n := stop("old", "new", "other"); n != 10 {
		t.Errorf("counted twice: %d", n)
	}
}
