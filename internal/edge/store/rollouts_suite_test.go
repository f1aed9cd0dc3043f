package store_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/reconcile"
	"github.com/holdfast-security/holdfast/internal/edge/store"
)

var bundle = holdfast.Bundle{Channel: holdfast.Rules, Version: "1", Digest: "sha256:r1", Size: 10, Created: t0}

func content(t *testing.T, s *store.Store) {
	ctx := t.Context()
	b := holdfast.Build{Digest: "sha256:b", Manifest: holdfast.Manifest{Schema: 1, Version: "1.0", Platform: "linux/amd64"}}
	must(t, s.PutBuild(ctx, b, t0))
	must(t, s.PutBuild(ctx, b, t0.Add(1)))
	other := b
	other.Manifest.Version = "2.0"
	kind(t, s.PutBuild(ctx, other, t0), holdfast.Conflict)
	builds, err := s.Builds(ctx)
	must(t, err)
	same(t, builds, []holdfast.Build{b})

	must(t, s.PutBundle(ctx, "acme", bundle, "ann"))
	must(t, s.PutBundle(ctx, "acme", bundle, "bob"))
	got, err := s.Bundle(ctx, bundle.Digest)
	must(t, err)
	same(t, got, bundle)
	_, err = s.Bundle(ctx, "sha256:none")
	kind(t, err, holdfast.NotFound)
	all, err := s.Bundles(ctx, holdfast.Agent)
	must(t, err)
	if len(all) != 0 {
		t.Errorf("bundles of another channel: %v", all)
	}

	must(t, s.PutCheck(ctx, bundle.Digest, "sha256:b", nil, t0))
	problems := []holdfast.RuleProblem{{Rule: "r", Field: "f", Stage: "static", Reason: "unknown"}}
	must(t, s.PutCheck(ctx, bundle.Digest, "sha256:c", problems, t0))
	checks, err := s.Checks(ctx, bundle.Digest)
	must(t, err)
	same(t, checks, map[holdfast.Digest][]holdfast.RuleProblem{"sha256:b": {}, "sha256:c": problems})
	kind(t, s.PutCheck(ctx, "sha256:none", "sha256:b", nil, t0), holdfast.Conflict)

	v := holdfast.Verdict{Bundle: bundle.Digest, Channel: holdfast.Rules, Finished: t0, Builds: []holdfast.BuildVerdict{{Build: "sha256:b", Passed: true}}}
	must(t, s.PutVerdict(ctx, v, []byte{0, 1, 255}))
	older := v
	older.Finished, older.Seed = t0.Add(-1), 7
	must(t, s.PutVerdict(ctx, older, []byte("older")))
	gotV, envelope, err := s.Verdict(ctx, bundle.Digest)
	must(t, err)
	same(t, gotV, v)
	same(t, envelope, []byte{0, 1, 255})
	_, _, err = s.Verdict(ctx, "sha256:none")
	kind(t, err, holdfast.NotFound)
}

func newRelease(t *testing.T, s *store.Store, id holdfast.ReleaseID) holdfast.Release {
	t.Helper()
	ctx := t.Context()
	must(t, s.PutBundle(ctx, "acme", bundle, "ann"))
	r := holdfast.Release{ID: id, Org: "acme", Bundle: bundle, Profile: holdfast.Urgent, Rings: holdfast.DefaultRings, Signed: t0, Created: t0, By: "ann"}
	must(t, s.CreateRelease(ctx, r))
	must(t, s.CreateRollout(ctx, holdfast.Rollout{Release: id, Phase: holdfast.Waiting, Updated: t0}))
	return r
}

func swap(t *testing.T, s *store.Store) {
	ctx := t.Context()
	want := newRelease(t, s, "r1")
	got, err := s.Release(ctx, "r1")
	must(t, err)
	same(t, got, want)
	kind(t, s.CreateRelease(ctx, want), holdfast.Conflict)
	must(t, s.ApproveRelease(ctx, "r1", "bob"))
	kind(t, s.ApproveRelease(ctx, "r1", "carol"), holdfast.Conflict)
	all, err := s.Releases(ctx, "acme")
	must(t, err)
	if len(all) != 1 || all[0].Approved != "bob" {
		t.Errorf("releases %+v", all)
	}

	r, err := s.Rollout(ctx, "r1")
	must(t, err)
	if r.Version != 1 || r.Phase != holdfast.Waiting || r.State != nil {
		t.Fatalf("rollout %+v", r)
	}
	r.Phase, r.State, r.Policy, r.Baseline = holdfast.Running, []byte(`{"n":1}`), []byte(`{"p":1}`), []byte(`{}`)
	// Of many who decide on the same version, one wins.
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for range 8 {
		wg.Go(func() {
			err := s.SwapRollout(ctx, r, false)
			if err == nil {
				mu.Lock()
				won++
				mu.Unlock()
			} else if holdfast.KindOf(err) != holdfast.Conflict {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("%d of 8 swaps of one version won", won)
	}
	after, err := s.Rollout(ctx, "r1")
	must(t, err)
	r.Version = 2
	same(t, after, r)
	versions, err := s.UnsettledVersions(ctx)
	must(t, err)
	same(t, versions, map[holdfast.ReleaseID]int64{"r1": 2})
	must(t, s.SwapRollout(ctx, after, true))
	open, err := s.Rollouts(ctx, true)
	must(t, err)
	every, err := s.Rollouts(ctx, false)
	must(t, err)
	if len(open) != 0 || len(every) != 1 {
		t.Errorf("%d unsettled of %d", len(open), len(every))
	}
}

// swapFaults: a swap that failed and was not done leaves no trace of anything
// in its transaction; one that was done although it seemed to fail is found
// after a reload, and doing it again is a Conflict.
func swapFaults(t *testing.T, s *store.Store) {
	ctx := t.Context()
	newRelease(t, s, "r1")
	r, err := s.Rollout(ctx, "r1")
	must(t, err)
	next := r
	next.Phase, next.State = holdfast.Running, []byte(`{"n":2}`)
	attempt := func(fail error) error {
		return s.Tx(ctx, func(tx *store.Store) error {
			if err := tx.SwapRollout(ctx, next, false); err != nil {
				return err
			}
			if err := tx.AddAdmissions(ctx, []holdfast.Admission{{Release: "r1", Host: "h", Lease: "l", At: t0}}); err != nil {
				return err
			}
			if _, err := tx.Append(ctx, holdfast.Entry{At: t0, Kind: "halt", Text: "x"}); err != nil {
				return err
			}
			return fail
		})
	}
	boom := errors.New("boom")
	if err := attempt(boom); !errors.Is(err, boom) { // failed, not done
		t.Fatal(err)
	}
	got, err := s.Rollout(ctx, "r1")
	must(t, err)
	same(t, got, r)
	size, err := s.RecordSize(ctx)
	must(t, err)
	counts, err := s.CountAdmissions(ctx, "r1")
	must(t, err)
	if size != 0 || len(counts) != 0 {
		t.Errorf("a transaction that failed left %d entries and admissions %v", size, counts)
	}

	must(t, attempt(nil)) // failed, but done: the caller heard nothing
	kind(t, attempt(nil), holdfast.Conflict)
	got, err = s.Rollout(ctx, "r1")
	must(t, err)
	if got.Version != 2 || got.Phase != holdfast.Running {
		t.Errorf("after a reload: %+v", got)
	}
	if size, err = s.RecordSize(ctx); err != nil || size != 1 {
		t.Errorf("%d entries, %v", size, err)
	}
}

func orders(t *testing.T, s *store.Store) {
	ctx := t.Context()
	newRelease(t, s, "r1")
	for i := range 3 {
		seq, err := s.AddOrder(ctx, reconcile.Order{Release: "r1", Kind: "pause", By: "ann", At: t0, Command: fmt.Appendf(nil, `{"i":%d}`, i)})
		must(t, err)
		if seq != int64(i+1) {
			t.Errorf("order %d is number %d", i, seq)
		}
	}
	got, err := s.Orders(ctx, "r1", 1)
	must(t, err)
	if len(got) != 2 || got[0].Seq != 2 || string(got[1].Command) != `{"i":2}` {
		t.Errorf("orders %+v", got)
	}
	o := reconcile.Opening{Release: "r1", Block: 0, Number: 0, Until: t0.Add(time.Minute), Opening: []byte(`{"treat":1}`)}
	must(t, s.PutOpenings(ctx, []reconcile.Opening{o}))
	again := o
	again.Opening = []byte(`{"treat":9}`)
	must(t, s.PutOpenings(ctx, []reconcile.Opening{again}))
	open, err := s.Openings(ctx, "r1", t0)
	must(t, err)
	same(t, open, []reconcile.Opening{o})
	open, err = s.Openings(ctx, "r1", o.Until)
	must(t, err)
	if len(open) != 0 {
		t.Errorf("an opening past its time: %v", open)
	}
}

func admissions(t *testing.T, s *store.Store) {
	ctx := t.Context()
	var all []holdfast.Admission
	for i := range 1200 { // more than one batch
		all = append(all, holdfast.Admission{
			Release: "r1", Host: holdfast.HostID(fmt.Sprintf("h%04d", i)), Org: "acme", Stratum: "s", Cell: "c", Ring: i % 2, Block: 3, Arm: []holdfast.Arm{holdfast.New, holdfast.Placebo}[i%3/2],
			At: t0.Add(time.Duration(i)), Lease: fmt.Sprint("l", i), Before: "sha256:o", Boot: "b", Crashes: 1 << 40, RSS: 1 << 50, CPU: 7,
		})
	}
	must(t, s.AddAdmissions(ctx, all))
	var got []holdfast.Admission
	must(t, s.EachAdmission(ctx, "r1", func(a holdfast.Admission) error { got = append(got, a); return nil }))
	same(t, got, all)

	fresh := holdfast.Admission{Release: "r1", Host: "new", Block: 3, Lease: "fresh"}
	kind(t, s.AddAdmissions(ctx, []holdfast.Admission{fresh, all[0]}), holdfast.Conflict)
	n := 0
	must(t, s.Admissions(ctx, store.AdmissionFilter{Host: "new"}, func(holdfast.Admission) error { n++; return nil }))
	if n != 0 {
		t.Error("half of a batch was stored")
	}

	a := all[0]
	a.Activated, a.Left, a.Why = t0.Add(1), t0.Add(2), "declined"
	must(t, s.MarkAdmissions(ctx, []holdfast.Admission{a}))
	b := a
	b.Activated, b.Left, b.Why, b.Returned, b.Clean = t0.Add(5), t0.Add(6), "later", t0.Add(7), t0.Add(8)
	must(t, s.MarkAdmissions(ctx, []holdfast.Admission{b}))
	a.Returned, a.Clean = b.Returned, b.Clean
	must(t, s.Admissions(ctx, store.AdmissionFilter{Release: "r1", Host: "h0000", Arm: holdfast.New}, func(got holdfast.Admission) error { same(t, got, a); return nil }))
	counts, err := s.CountAdmissions(ctx, "r1")
	must(t, err)
	same(t, counts[0][holdfast.New], store.ArmCounts{Admitted: 400, Activated: 1, Clean: 1, Returned: 1})

	// A host that is offered it again is no second host, and clean at most once.
	var again []holdfast.Admission
	for _, host := range []holdfast.HostID{"h0000", "h0002"} {
		for i := range 2 {
			again = append(again, holdfast.Admission{
				Release: "r1", Host: host, Block: -2 - i, Arm: holdfast.New, Lease: fmt.Sprintf("again-%s-%d", host, i),
				At: t0.Add(9), Activated: t0.Add(9), Clean: t0.Add(10),
			})
		}
	}
	must(t, s.AddAdmissions(ctx, again))
	counts, err = s.CountAdmissions(ctx, "r1")
	must(t, err)
	same(t, counts[0][holdfast.New], store.ArmCounts{Admitted: 400, Activated: 1, Clean: 2, Returned: 1})
}

func harms(t *testing.T, s *store.Store) {
	ctx := t.Context()
	h := holdfast.Harm{Release: "r1", Host: "h", Org: "acme", Stratum: "s", Cell: "c", Ring: 2, Block: 1, Arm: holdfast.New, Kind: holdfast.Crash, At: t0, Detail: "d", After: time.Minute}
	reboot := h
	reboot.Kind = holdfast.Reboot
	first, err := s.AddHarms(ctx, []holdfast.Harm{h, reboot, h})
	must(t, err)
	if len(first) != 2 || !first[0].First || first[1].First {
		t.Errorf("added %+v", first)
	}
	if again, err := s.AddHarms(ctx, []holdfast.Harm{h}); err != nil || len(again) != 0 {
		t.Errorf("a repeated event was added: %+v, %v", again, err)
	}
	got, err := s.Harms(ctx, "r1", 0, 10)
	must(t, err)
	same(t, got, first)

	// Writers at the same time; a reader that asks for "after" misses none.
	var wg sync.WaitGroup
	const writers, each = 4, 25
	for i := range writers {
		wg.Go(func() {
			for j := range each {
				if _, err := s.AddHarms(ctx, []holdfast.Harm{{Release: "r2", Host: holdfast.HostID(fmt.Sprintf("h%d-%d", i, j)), Kind: holdfast.Crash, At: t0}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	seen, last := 0, int64(0)
	for deadline := time.Now().Add(30 * time.Second); seen < writers*each && time.Now().Before(deadline); {
		page, err := s.Harms(ctx, "r2", last, 1000)
		must(t, err)
		for _, h := range page {
			seen, last = seen+1, h.Seq
		}
	}
	wg.Wait()
	if seen != writers*each {
		t.Errorf("a reader that followed saw %d of %d events", seen, writers*each)
	}
}
