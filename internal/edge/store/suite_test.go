package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/reconcile"
	"github.com/holdfast-security/holdfast/internal/edge/store"
	"github.com/holdfast-security/holdfast/internal/trust/tlog"
)

// conformance is what every database must pass. open returns an empty store.
func conformance(t *testing.T, open func(*testing.T) *store.Store) {
	for _, c := range []struct {
		name string
		test func(*testing.T, *store.Store)
	}{
		{"people", people},
		{"secrets are spent once", secrets},
		{"enrolment is all or nothing", enrolment},
		{"hosts", hosts},
		{"content", content},
		{"rollout swap", swap},
		{"rollout swap, fault pairs", swapFaults},
		{"orders and openings", orders},
		{"admissions", admissions},
		{"harms are numbered in the order they become visible", harms},
		{"findings are stored once", findings},
		{"record is in the transaction of its decision", record},
		{"lease has one holder", lease},
		{"commands and settings", settings},
		{"transactions", transactions},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

func same(t *testing.T, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func kind(t *testing.T, err error, want holdfast.Kind) {
	t.Helper()
	if err == nil || holdfast.KindOf(err) != want {
		t.Errorf("got error %v, want %s", err, want)
	}
}

func people(t *testing.T, s *store.Store) {
	ctx := t.Context()
	must(t, s.PutOrg(ctx, holdfast.Organisation{ID: "acme", Name: "Acme", Created: t0}))
	must(t, s.PutOrg(ctx, holdfast.Organisation{ID: "acme", Name: "Acme Ltd", Created: t0.Add(1)}))
	orgs, err := s.Orgs(ctx)
	must(t, err)
	same(t, orgs, []holdfast.Organisation{{ID: "acme", Name: "Acme Ltd", Created: t0}})

	ann := holdfast.User{Name: "ann", Org: "acme", Role: holdfast.Publisher, Created: t0}
	must(t, s.CreateUser(ctx, ann, "correct horse battery"))
	kind(t, s.CreateUser(ctx, ann, "correct horse battery"), holdfast.Conflict)
	kind(t, s.CreateUser(ctx, holdfast.User{Name: "short"}, "short"), holdfast.Invalid)
	must(t, s.CreateUser(ctx, holdfast.User{Name: "bob", Org: "acme", Role: holdfast.Viewer, Created: t0}, ""))

	got, err := s.CheckPassword(ctx, "ann", "correct horse battery")
	must(t, err)
	same(t, got, ann)
	for _, c := range [][2]string{{"ann", "wrong"}, {"ann", ""}, {"bob", ""}, {"nobody", "x"}, {"ann", strings.Repeat("a", 2000)}} {
		_, err := s.CheckPassword(ctx, c[0], c[1])
		kind(t, err, holdfast.Denied)
	}
	secret, err := s.CreateSession(ctx, "ann", t0, t0.Add(time.Hour))
	must(t, err)
	_, err = s.Session(ctx, secret, t0.Add(time.Hour))
	kind(t, err, holdfast.Denied)
	got, err = s.Session(ctx, secret, t0)
	must(t, err)
	same(t, got, ann)
	must(t, s.SetPassword(ctx, "ann", "another password"))
	_, err = s.Session(ctx, secret, t0)
	kind(t, err, holdfast.Denied)
	secret, err = s.CreateSession(ctx, "ann", t0, t0.Add(time.Hour))
	must(t, err)
	ann.Disabled = true
	must(t, s.UpdateUser(ctx, ann))
	_, err = s.Session(ctx, secret, t0)
	kind(t, err, holdfast.Denied)
	_, err = s.CheckPassword(ctx, "ann", "another password")
	kind(t, err, holdfast.Denied)
	kind(t, s.UpdateUser(ctx, holdfast.User{Name: "nobody"}), holdfast.NotFound)
	all, err := s.Users(ctx)
	must(t, err)
	if len(all) != 2 || all[0].Name != "ann" || !all[0].Disabled {
		t.Errorf("users %+v", all)
	}
	_, err = s.CreateSession(ctx, "nobody", t0, t0.Add(1))
	kind(t, err, holdfast.Conflict)
}

func secrets(t *testing.T, s *store.Store) {
	ctx := t.Context()
	must(t, s.CreateUser(ctx, holdfast.User{Name: "ann", Role: holdfast.Viewer, Created: t0}, ""))
	secret, err := s.CreateSignIn(ctx, "ann", t0.Add(time.Minute))
	must(t, err)
	// Of many at once, one is let in.
	var wg sync.WaitGroup
	var mu sync.Mutex
	in := 0
	for range 8 {
		wg.Go(func() {
			if _, err := s.UseSignIn(ctx, secret, t0); err == nil {
				mu.Lock()
				in++
				mu.Unlock()
			} else if holdfast.KindOf(err) != holdfast.Denied {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if in != 1 {
		t.Errorf("a one-time sign-in let %d in", in)
	}
	secret, err = s.CreateSignIn(ctx, "ann", t0)
	must(t, err)
	_, err = s.UseSignIn(ctx, secret, t0)
	kind(t, err, holdfast.Denied)
	_, err = s.UseSignIn(ctx, "made up", t0)
	kind(t, err, holdfast.Denied)
}

func enrolment(t *testing.T, s *store.Store) {
	ctx := t.Context()
	secret, err := s.CreateEnrolment(ctx, holdfast.Enrolment{ID: "e1", Org: "acme", Role: "server", Uses: 2, Created: t0, Expires: t0.Add(time.Hour), By: "ann"})
	must(t, err)
	enrol := func(id holdfast.HostID, at time.Time) error {
		_, err := s.EnrolHost(ctx, secret, at, func(e holdfast.Enrolment) holdfast.Host {
			return holdfast.Host{ID: id, Org: e.Org, Attributes: holdfast.Attributes{Role: e.Role}, Enrolled: at}
		})
		return err
	}
	kind(t, enrol("late", t0.Add(time.Hour)), holdfast.Denied)
	must(t, enrol("h1", t0))
	kind(t, enrol("h1", t0), holdfast.Conflict) // and spends nothing
	must(t, enrol("h2", t0))
	kind(t, enrol("h3", t0), holdfast.Denied)
	all, err := s.Enrolments(ctx)
	must(t, err)
	if len(all) != 1 || all[0].Uses != 0 {
		t.Errorf("enrolments %+v", all)
	}
	_, err = s.Host(ctx, "h3")
	kind(t, err, holdfast.NotFound)
	h, err := s.Host(ctx, "h2")
	must(t, err)
	if h.Org != "acme" || h.Attributes.Role != "server" {
		t.Errorf("host %+v", h)
	}
	kind(t, s.RevokeEnrolment(ctx, "none"), holdfast.NotFound)
}

func hosts(t *testing.T, s *store.Store) {
	ctx := t.Context()
	yes := true
	var want []holdfast.Host
	for i := range 25 {
		h := holdfast.Host{
			ID: holdfast.HostID(fmt.Sprintf("h%02d", i)), Org: "acme", Enrolled: t0, Simulated: i%2 == 0, Serial: "0a",
			Attributes: holdfast.Attributes{Hostname: fmt.Sprintf("web%%_%02d", i), Build: "sha256:b", Kernel: "6.1"},
			Report:     holdfast.HostReport{Running: holdfast.Generation{holdfast.Rules: "sha256:r"}, Crashes: uint64(i)},
		}
		must(t, s.CreateHost(ctx, h))
		want = append(want, h)
	}
	kind(t, s.CreateHost(ctx, want[0]), holdfast.Conflict)

	var got []holdfast.Host
	for after := holdfast.HostID(""); ; {
		page, err := s.Hosts(ctx, store.HostFilter{After: after, Limit: 10})
		must(t, err)
		got = append(got, page...)
		if len(page) < 10 {
			break
		}
		after = page[len(page)-1].ID
	}
	same(t, got, want)

	want[3].Connected, want[3].LastSeen, want[3].Report.SafeMode = true, t0.Add(time.Minute), true
	want[3].Attributes.Kernel = "6.12"
	gone := holdfast.Host{ID: "gone"}
	spoof := want[3]
	spoof.Org, spoof.Serial = "other", "ff" // not a report's to change
	must(t, s.SaveHosts(ctx, []holdfast.Host{spoof, gone}))
	h, err := s.Host(ctx, "h03")
	must(t, err)
	same(t, h, want[3])
	_, err = s.Host(ctx, "gone")
	kind(t, err, holdfast.NotFound)

	for _, c := range []struct {
		name string
		f    store.HostFilter
		n    int
	}{
		{"text", store.HostFilter{Text: "WEB%_0"}, 10},
		{"text is no pattern", store.HostFilter{Text: "web_"}, 0},
		{"connected", store.HostFilter{Connected: &yes}, 1},
		{"safe mode", store.HostFilter{SafeMode: &yes}, 1},
		{"simulated", store.HostFilter{Simulated: &yes}, 13},
		{"stratum", store.HostFilter{Stratum: "6.12|||"}, 1},
		{"organisation", store.HostFilter{Org: "other"}, 0},
		{"build", store.HostFilter{Build: "sha256:b"}, 25},
	} {
		page, err := s.Hosts(ctx, c.f)
		must(t, err)
		if len(page) != c.n {
			t.Errorf("%s: %d hosts, want %d", c.name, len(page), c.n)
		}
	}
	count, err := s.CountHosts(ctx, "acme")
	must(t, err)
	same(t, count, store.HostCounts{Hosts: 25, Connected: 1, SafeMode: 1, Simulated: 13})
	hostile := want[4]
	hostile.Attributes.Hostname, hostile.Attributes.Kernel = "a\x00b\xff", "\x00"
	must(t, s.SaveHosts(ctx, []holdfast.Host{hostile})) // it spoils nothing
	must(t, s.Disconnected(ctx))
	count, err = s.CountHosts(ctx, "")
	must(t, err)
	if count.Connected != 0 {
		t.Errorf("%d connected", count.Connected)
	}
	must(t, s.SetSerial(ctx, "h01", "0b"))
	must(t, s.SetNoCanary(ctx, "h01", true))
	must(t, s.RevokeHost(ctx, "h01", true))
	h, err = s.Host(ctx, "h01")
	must(t, err)
	if h.Serial != "0b" || !h.NoCanary || !h.Revoked {
		t.Errorf("host %+v", h)
	}
	kind(t, s.RevokeHost(ctx, "none", true), holdfast.NotFound)
	inUse, err := s.BuildsInUse(ctx)
	must(t, err)
	same(t, inUse, map[holdfast.Digest]int{"sha256:b": 24})
	n := 0
	must(t, s.EachHost(ctx, func(holdfast.Host) error { n++; return nil }))
	if n != 25 {
		t.Errorf("%d hosts", n)
	}
}

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

func findings(t *testing.T, s *store.Store) {
	ctx := t.Context()
	must(t, s.CreateHost(ctx, holdfast.Host{ID: "h1", Org: "acme"}))
	var all []holdfast.Finding
	for i := range 30 {
		all = append(all, holdfast.Finding{
			ID: fmt.Sprintf("f%02d", i), Host: "h1", Rule: fmt.Sprint("rule", i%2), Severity: []holdfast.Severity{"high", "low"}[i%2], At: t0, Received: t0.Add(time.Duration(i) * time.Second),
			Techniques: []string{"T1059.004"}, Event: []holdfast.Fact{{Field: "process.name", Value: "sh\x00ü"}},
		})
	}
	n, err := s.AddFindings(ctx, "h1", all)
	must(t, err)
	again, err := s.AddFindings(ctx, "h1", all[10:])
	must(t, err)
	if n != 30 || again != 0 {
		t.Errorf("added %d, then %d", n, again)
	}
	f, err := s.Finding(ctx, "f03")
	must(t, err)
	all[3].Org = "acme"
	same(t, f.Finding, all[3])
	_, err = s.Finding(ctx, "none")
	kind(t, err, holdfast.NotFound)

	var newestFirst []string
	for before := int64(0); ; {
		page, err := s.Findings(ctx, store.FindingFilter{Before: before, Limit: 7})
		must(t, err)
		for _, f := range page {
			newestFirst = append(newestFirst, f.ID)
			before = f.Seq
		}
		if len(page) < 7 {
			break
		}
	}
	if len(newestFirst) != 30 || newestFirst[0] != "f29" || newestFirst[29] != "f00" {
		t.Errorf("pages %v", newestFirst)
	}
	page, err := s.Findings(ctx, store.FindingFilter{After: f.Seq, Limit: 2})
	must(t, err)
	if len(page) != 2 || page[0].ID != "f04" {
		t.Errorf("following from f03: %+v", page)
	}
	for _, c := range []struct {
		f store.FindingFilter
		n int
	}{
		{store.FindingFilter{Rule: "rule1"}, 15},
		{store.FindingFilter{Severity: "high"}, 15},
		{store.FindingFilter{Org: "other"}, 0},
		{store.FindingFilter{Org: "acme", Host: "h1", Since: t0.Add(20 * time.Second)}, 10},
	} {
		page, err := s.Findings(ctx, c.f)
		must(t, err)
		if len(page) != c.n {
			t.Errorf("%+v: %d, want %d", c.f, len(page), c.n)
		}
	}
	counts, err := s.CountFindings(ctx, store.FindingFilter{Org: "acme"})
	must(t, err)
	same(t, counts, map[holdfast.Severity]int{"high": 15, "low": 15})
	_, err = s.AddFindings(ctx, "gone", all[:1])
	kind(t, err, holdfast.Denied)
}

func record(t *testing.T, s *store.Store) {
	ctx := t.Context()
	secret, public, err := tlog.GenerateKey("holdfast.test/record")
	must(t, err)
	var older tlog.Checkpoint
	for i := range 300 {
		_, err := s.Append(ctx, holdfast.Entry{At: t0, Kind: []string{"halt", "promote"}[i%2], Release: "r1", Text: fmt.Sprint(i)})
		must(t, err)
		if i == 99 {
			signed, err := s.SignRecord(ctx, secret, t0)
			must(t, err)
			older, err = tlog.Open(signed, public)
			must(t, err)
		}
	}
	signed, err := s.SignRecord(ctx, secret, t0)
	must(t, err)
	again, err := s.SignRecord(ctx, secret, t0.Add(1))
	must(t, err)
	latest, err := s.Checkpoint(ctx)
	must(t, err)
	if !bytes.Equal(signed, again) || !bytes.Equal(signed, latest) {
		t.Error("signing the same record again made another checkpoint")
	}
	head, err := tlog.Open(signed, public)
	must(t, err)
	r := s.RecordReader(ctx)
	proof, err := tlog.Consistency(head.Size, older.Size, r)
	must(t, err)
	must(t, tlog.CheckConsistency(head, older, proof))
	files := map[string][]byte{}
	must(t, tlog.Export(r, signed, public, func(path string, data []byte) error { files[path] = data; return nil }))
	if len(files) < 3 {
		t.Errorf("exported %d files", len(files))
	}
	page, err := s.Record(ctx, store.RecordFilter{Kind: "halt", Before: 10, Limit: 3})
	must(t, err)
	if len(page) != 3 || page[0].Seq != 8 || page[0].Text != "8" {
		t.Errorf("page %+v", page)
	}
	inclusion, err := tlog.Inclusion(head.Size, page[0].Seq, r)
	must(t, err)
	must(t, tlog.CheckInclusion(head, page[0].Seq, page[0].Bytes, inclusion))
	kinds, err := s.RecordKinds(ctx)
	must(t, err)
	same(t, kinds, []string{"halt", "promote"})

	// Writers at the same time leave no gap and no fork.
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 10 {
				if _, err := s.Append(ctx, holdfast.Entry{At: t0, Kind: "hold", Text: "x"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	size, err := s.RecordSize(ctx)
	must(t, err)
	all, err := s.Record(ctx, store.RecordFilter{Ascend: true, Limit: 1000})
	must(t, err)
	if size != 340 || len(all) != 340 {
		t.Errorf("size %d, %d entries", size, len(all))
	}
	for i, l := range all {
		if l.Seq != int64(i) {
			t.Fatalf("entry %d has number %d", i, l.Seq)
		}
	}
}

func lease(t *testing.T, s *store.Store) {
	ctx := t.Context()
	acquire := func(who string, at time.Duration) (bool, int64) {
		held, term, err := s.AcquireLease(ctx, "leader", who, t0.Add(at), t0.Add(at+10*time.Second))
		must(t, err)
		return held, term
	}
	for _, c := range []struct {
		who  string
		at   time.Duration
		held bool
		term int64
	}{
		{"a", 0, true, 1},
		{"b", 5 * time.Second, false, 1},
		{"a", 5 * time.Second, true, 1},
		{"b", 14 * time.Second, false, 1},
		{"b", 15 * time.Second, true, 2},
		{"a", 16 * time.Second, false, 2},
	} {
		if held, term := acquire(c.who, c.at); held != c.held || term != c.term {
			t.Errorf("%s at %s: held %v, term %d", c.who, c.at, held, term)
		}
	}
	must(t, s.ReleaseLease(ctx, "leader", "a")) // not his
	if held, _ := acquire("a", 17*time.Second); held {
		t.Error("released by another")
	}
	must(t, s.ReleaseLease(ctx, "leader", "b"))
	if held, term := acquire("a", 17*time.Second); !held || term != 3 {
		t.Error("not free after its release")
	}
}

func settings(t *testing.T, s *store.Store) {
	ctx := t.Context()
	_, err := s.Setting(ctx, "x")
	kind(t, err, holdfast.NotFound)
	v, err := s.InitSetting(ctx, "x", "1")
	must(t, err)
	w, err := s.InitSetting(ctx, "x", "2")
	must(t, err)
	must(t, s.PutSetting(ctx, "x", "3"))
	z, err := s.Setting(ctx, "x")
	must(t, err)
	if v != "1" || w != "1" || z != "3" {
		t.Errorf("settings %q %q %q", v, w, z)
	}
	c := holdfast.Command{ID: "c1", Host: "h1", Kind: "isolate", Args: []byte(`{"a":1}`), By: "ann", At: t0}
	must(t, s.PutCommand(ctx, c))
	got, err := s.PendingCommands(ctx, "h1")
	must(t, err)
	same(t, got, []holdfast.Command{c})
	must(t, s.FinishCommand(ctx, "c1", "done", t0))
	must(t, s.FinishCommand(ctx, "c1", "again", t0))
	if got, err = s.PendingCommands(ctx, "h1"); err != nil || len(got) != 0 {
		t.Errorf("pending %v, %v", got, err)
	}
}

func transactions(t *testing.T, s *store.Store) {
	ctx := t.Context()
	must(t, s.Tx(ctx, func(tx *store.Store) error {
		if err := tx.PutSetting(ctx, "a", "1"); err != nil {
			return err
		}
		return tx.Tx(ctx, func(inner *store.Store) error { // joins
			v, err := inner.Setting(ctx, "a")
			if v != "1" {
				t.Errorf("a transaction does not see its own write: %q", v)
			}
			return err
		})
	}))
	func() {
		defer func() { _ = recover() }()
		_ = s.Tx(ctx, func(tx *store.Store) error {
			must(t, tx.PutSetting(ctx, "a", "2"))
			panic("a defect")
		})
	}()
	if v, err := s.Setting(ctx, "a"); err != nil || v != "1" {
		t.Errorf("after a panic: %q, %v", v, err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	kind(t, s.PutSetting(cancelled, "a", "3"), holdfast.Unavailable)
	must(t, s.PutSetting(ctx, "a", "4"))
}
