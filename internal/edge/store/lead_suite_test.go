package store_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/fleet"
	"github.com/holdfast-security/holdfast/internal/control/reconcile"
	"github.com/holdfast-security/holdfast/internal/edge/store"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

// approvals is a director that remembers who told it last.
type approvals struct {
	node string
	told *[]string
}

func (a approvals) Approve(map[string][]tuf.Approval, time.Time) error {
	*a.told = append(*a.told, a.node)
	return nil
}

func (a approvals) Released(d holdfast.Digest) (tuf.Release, error) {
	return tuf.Release{Channel: holdfast.Rules, Digest: d}, nil
}

// stalled does something else before a transaction: its node was starved.
type stalled struct {
	reconcile.Store
	before func()
}

func (s *stalled) Tx(ctx context.Context, f func(reconcile.Tx) error) error {
	if do := s.before; do != nil {
		s.before = nil
		do()
	}
	return s.Store.Tx(ctx, f)
}

// deposed: a node that lost its lead decides nothing any more and writes
// nothing, whenever it notices; nor does it let a host activate what another
// node may have halted.
func deposed(t *testing.T, s *store.Store) {
	ctx := t.Context()
	const beat = time.Second
	now := t0
	var told []string
	node := func(name string, st reconcile.Store) *reconcile.Service {
		return reconcile.New(reconcile.Config{
			Store: st, Director: approvals{name, &told}, Clock: fleet.Clock{Heartbeat: beat, Lease: 2 * beat}, Node: name, Leader: 3 * beat,
			Now: func() time.Time { return now }, Random: rand.New(rand.NewPCG(1, 1)),
		})
	}
	slow := &stalled{Store: s.Reconcile()}
	a, b := node("a", slow), node("b", s.Reconcile())

	var ids []holdfast.HostID
	report := holdfast.HostReport{Boot: "b", Running: holdfast.Generation{holdfast.Rules: "sha256:old"}}
	for i := range 12 {
		id := holdfast.HostID(fmt.Sprintf("host-%02d", i))
		ids = append(ids, id)
		must(t, s.CreateHost(ctx, holdfast.Host{ID: id, Org: "acme", Enrolled: t0, Attributes: holdfast.Attributes{OS: "linux", Arch: "amd64", Kernel: "6.1", Role: "server"}}))
	}
	must(t, s.PutBundle(ctx, "acme", bundle, "ann"))
	must(t, s.CreateRelease(ctx, holdfast.Release{ID: "r1", Org: holdfast.DefaultOrg, Bundle: bundle, Profile: holdfast.Urgent, Rings: holdfast.RingPlan{{Name: "all", Through: 1_000_000}}, Signed: t0, Created: t0, By: "ann"}))
	must(t, s.CreateRollout(ctx, holdfast.Rollout{Release: "r1", Phase: holdfast.Waiting, Updated: t0}))
	must(t, a.Step(ctx))
	must(t, a.Approve(ctx, "r1", "bob"))
	for _, id := range ids {
		must(t, a.Connected(ctx, id, now))
		a.Reported(ctx, id, report, now)
	}
	live := func(n *reconcile.Service) {
		for _, id := range ids {
			n.Beat(ctx, id, now)
		}
	}
	offered := func() (holdfast.HostID, holdfast.Offer) {
		for _, id := range ids {
			if o, ok := a.Desired(ctx, id, now); ok && o.Arm == holdfast.New {
				return id, o
			}
		}
		return "", holdfast.Offer{}
	}
	host, offer := offered()
	for n := 0; host == "" && n < 40; n++ {
		now = now.Add(beat)
		live(a)
		must(t, a.Step(ctx))
		host, offer = offered()
	}
	if host == "" {
		t.Fatal("nobody was offered anything")
	}
	if _, err := a.RenewLease(ctx, host, offer.Lease, now); err != nil {
		t.Fatalf("the leader does not renew: %v", err)
	}
	// Nobody has taken the lead: being late is no reason to say no.
	now = now.Add(5 * beat)
	live(a)
	if _, err := a.RenewLease(ctx, host, offer.Lease, now); err != nil {
		t.Fatalf("late, and still the leader: %v", err)
	}

	dump := func() string {
		var all strings.Builder
		r, err := s.Rollout(ctx, "r1")
		must(t, err)
		size, err := s.RecordSize(ctx)
		must(t, err)
		alive, err := s.Setting(ctx, "reconcile.alive")
		must(t, err)
		fmt.Fprintf(&all, "%s version %d\n%d entries\nalive %s\n", r.Phase, r.Version, size, alive)
		must(t, s.Admissions(ctx, store.AdmissionFilter{}, func(a holdfast.Admission) error {
			fmt.Fprintf(&all, "%+v\n", a)
			return nil
		}))
		harms, err := s.Harms(ctx, "r1", 0, 100)
		must(t, err)
		must(t, s.EachHost(ctx, func(h holdfast.Host) error {
			_, err := fmt.Fprintf(&all, "%+v\n", h)
			return err
		}))
		fmt.Fprintf(&all, "%+v\n", harms)
		return all.String()
	}
	var before string
	takeover := func() {
		now = now.Add(5 * beat)
		must(t, b.Step(ctx))
		must(t, b.Halt(ctx, "r1", "olga", "a rule is wrong"))
		must(t, b.Step(ctx))
		if r, err := s.Rollout(ctx, "r1"); err != nil || r.Phase != holdfast.Halted {
			t.Fatalf("the other node did not halt: %s, %v", r.Phase, err)
		}
		before, told = dump(), nil
	}
	silent := func(when string) {
		t.Helper()
		if diff := cmp.Diff(before, dump()); diff != "" {
			t.Errorf("%s, it wrote:\n%s", when, diff)
		}
		for _, who := range told {
			if who == "a" {
				t.Errorf("%s, it told the director", when)
			}
		}
		if _, err := a.RenewLease(ctx, host, offer.Lease, now); holdfast.KindOf(err) != holdfast.Unavailable {
			t.Errorf("%s, it lets a host activate what was halted: %v", when, err)
		}
	}

	// It loses the lead in the middle of a step, with much to store.
	slow.before = takeover
	changed := report
	changed.Crashes = 3
	for _, id := range ids {
		a.Reported(ctx, id, changed, now)
	}
	live(a)
	if err := a.Step(ctx); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("it does not notice in the middle of a step: %v", err)
	}
	silent("in the middle of a step")

	for range 3 { // and goes on trying
		now = now.Add(beat / 2)
		live(a)
		must(t, a.Step(ctx))
		silent("while the other leads")
	}

	// The other is gone, and the lead is free. What it knew is not what is stored.
	must(t, s.ReleaseLease(ctx, "reconcile", "b"))
	now = now.Add(beat)
	if _, err := a.RenewLease(ctx, host, offer.Lease, now); err == nil {
		t.Error("the lead is free, and it lets a host activate what was halted meanwhile")
	}
	must(t, a.Step(ctx))
	if v, ok := a.View("r1"); !ok || v.Phase != holdfast.Halted {
		t.Errorf("it leads again, and does not know of the halt: %s", v.Phase)
	}
	if _, err := a.RenewLease(ctx, host, offer.Lease, now); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("it leads again, and renews what was halted: %v", err)
	}
	if o, ok := a.Desired(ctx, host, now); !ok || o.Recall != bundle.Digest {
		t.Errorf("it leads again, and does not recall: %+v", o)
	}
}
