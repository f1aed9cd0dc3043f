package store_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-security/holdfast"
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
		{"a node that lost its lead writes nothing", deposed},
		{"commands and settings", settings},
		{"policies only get newer", consents},
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
	_, err = s.Revocation(ctx, "h01")
	kind(t, err, holdfast.NotFound)
	why := holdfast.Revocation{Host: "h01", At: t0, By: "ann", Reason: "stolen"}
	for i, again := range []holdfast.Revocation{why, {Host: "h01", At: t0.Add(time.Hour), By: "bob", Reason: "retired"}} {
		stands, first, err := s.RevokeHost(ctx, again)
		must(t, err)
		same(t, stands, why)
		if first != (i == 0) {
			t.Errorf("revoked %d times: first %v", i+1, first)
		}
	}
	h, err = s.Host(ctx, "h01")
	must(t, err)
	if h.Serial != "0b" || !h.NoCanary || !h.Revoked {
		t.Errorf("host %+v", h)
	}
	_, _, err = s.RevokeHost(ctx, holdfast.Revocation{Host: "none", At: t0})
	kind(t, err, holdfast.NotFound)
	must(t, s.SaveHosts(ctx, []holdfast.Host{h})) // what a host says changes nothing about it
	stands, err := s.Revocation(ctx, "h01")
	must(t, err)
	same(t, stands, why)
	_, err = s.AddFindings(ctx, "h01", []holdfast.Finding{{ID: "after", Host: "h01"}})
	kind(t, err, holdfast.Denied)
	_, err = s.AddFindings(ctx, "none", []holdfast.Finding{{ID: "nobody's", Host: "none"}})
	kind(t, err, holdfast.Denied)
	inUse, err := s.BuildsInUse(ctx)
	must(t, err)
	same(t, inUse, map[holdfast.Digest]int{"sha256:b": 24})
	n := 0
	must(t, s.EachHost(ctx, func(holdfast.Host) error { n++; return nil }))
	if n != 25 {
		t.Errorf("%d hosts", n)
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

func consents(t *testing.T, s *store.Store) {
	ctx := t.Context()
	_, err := s.Consent(ctx, "acme")
	kind(t, err, holdfast.NotFound)
	c := holdfast.Consent{Org: "acme", Version: 3, Key: []byte{1, 0}, Envelope: []byte("{}"), By: "ann", At: t0}
	must(t, s.PutConsent(ctx, c))
	kind(t, s.PutConsent(ctx, c), holdfast.Conflict)
	older := c
	older.Version = 2
	kind(t, s.PutConsent(ctx, older), holdfast.Conflict)
	c.Version, c.Envelope = 4, []byte("{ }")
	must(t, s.PutConsent(ctx, c))
	got, err := s.Consent(ctx, "acme")
	must(t, err)
	same(t, got, c)
	all, err := s.ConsentVersions(ctx)
	must(t, err)
	same(t, all, map[holdfast.OrgID]int64{"acme": 4})
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
