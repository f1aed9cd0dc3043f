package reconcile_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/edge/store"
)

// revoke decides, as an operator does, and the host's connection is closed.
func (w *world) revoke(p *played) {
	w.t.Helper()
	_, _, err := w.db.RevokeHost(w.t.Context(), holdfast.Revocation{Host: p.id, At: w.now, By: "eve", Reason: "stolen"})
	must(w.t, err)
	must(w.t, w.svc.Refresh(w.t.Context(), p.id))
	w.svc.Disconnected(w.t.Context(), p.id, w.now)
	p.off = true
}

func (w *world) harms(id holdfast.ReleaseID) []holdfast.Harm {
	w.t.Helper()
	all, err := w.db.Harms(w.t.Context(), id, 0, 10_000)
	must(w.t, err)
	return all
}

// TestRevokingHostsInTheMiddleOfARolloutNeitherHaltsNorHoldsIt, whichever hosts
// they are and whenever: in every part they could have, with a crash of the
// server in between.
func TestRevokingHostsInTheMiddleOfARolloutNeitherHaltsNorHoldsIt(t *testing.T) {
	parts := map[holdfast.Arm]int{} // that those who were revoked had, over all runs
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 77))
			const hosts = 48
			w := newWorld(t, hosts, 40+seed)
			w.release("r1", "new")
			order := random.Perm(hosts)
			revoked, most := 0, []int{1, 5, 12, 24, 32, 40}[seed]
			w.until("complete", 10*time.Minute, func() bool {
				for revoked < most && w.running(digest("new")) > 0 && random.IntN(8) == 0 {
					p := w.hosts[order[revoked]]
					w.revoke(p)
					revoked++
					must(t, w.db.Admissions(t.Context(), store.AdmissionFilter{Release: "r1", Host: p.id}, func(a holdfast.Admission) error {
						if a.Left.IsZero() && a.Clean.IsZero() {
							parts[a.Arm]++
						}
						return nil
					}))
					if _, ok := w.svc.Desired(t.Context(), p.id, w.now); ok {
						t.Fatalf("%s was revoked and has an offer", p.id)
					}
					if err := w.svc.Connected(t.Context(), p.id, w.now); holdfast.KindOf(err) != holdfast.Denied {
						t.Fatalf("%s was revoked and connects: %v", p.id, err)
					}
					if revoked == most/2 {
						w.start()
					}
				}
				switch phase := w.phase("r1"); phase {
				case holdfast.Complete:
					return true
				case holdfast.Halted, holdfast.Stopped, holdfast.Held, holdfast.Paused:
					t.Fatalf("after %d hosts were revoked, the release is %s", revoked, phase)
				}
				return false
			})
			if revoked == 0 {
				t.Error("nobody was revoked")
			}
			if harms := w.harms("r1"); len(harms) > 0 {
				t.Errorf("harm of hosts that were revoked: %v", harms)
			}
			w.until("every other host runs it", 5*time.Minute, func() bool {
				for _, p := range w.hosts {
					if !p.off && p.rep.Running[holdfast.Rules] != digest("new") {
						return false
					}
				}
				return true
			})
			w.check("r1")
		})
	}
	t.Logf("revoked in an open window: %v", parts)
	if parts[holdfast.New] == 0 || parts[holdfast.Placebo] == 0 {
		t.Error("nobody was revoked in the middle of a part: the test proves nothing")
	}
}

// TestARecallDoesNotWaitForRevokedHosts, and the record says who did not give it
// back.
func TestARecallDoesNotWaitForRevokedHosts(t *testing.T) {
	w := newWorld(t, 20, 50)
	w.release("r1", "new")
	w.until("five hosts run it", 5*time.Minute, func() bool { return w.running(digest("new")) >= 5 })
	kept := 0
	for _, p := range w.hosts {
		if p.rep.Running[holdfast.Rules] == digest("new") && kept < 2 {
			kept++
			p.off = true // no recall can reach it any more
		}
	}
	must(t, w.svc.Halt(t.Context(), "r1", "bob", "a test"))
	w.until("two are waited for", 5*time.Minute, func() bool {
		v, ok := w.svc.View("r1")
		return ok && v.Phase == holdfast.Halted && v.Outstanding == 2
	})
	w.start() // and nothing of this is forgotten
	for _, p := range w.hosts {
		if p.off {
			w.revoke(p)
		}
	}
	w.until("the recall is complete", time.Minute, func() bool { v, ok := w.svc.View("r1"); return ok && v.Settled })
	if v, _ := w.svc.View("r1"); v.Kept != 2 || v.Outstanding != 0 {
		t.Errorf("%d kept it, and %d are waited for", v.Kept, v.Outstanding)
	}
	leaves, err := w.db.Record(t.Context(), store.RecordFilter{Kind: "recalled"})
	must(t, err)
	if want := "every host that had it has given it back, but for 2 that were revoked before they did"; len(leaves) != 1 || leaves[0].Text != want {
		t.Errorf("%+v", leaves)
	}
}
