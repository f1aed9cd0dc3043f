package live

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/fleet"
	"github.com/holdfast-security/holdfast/internal/control/reconcile"
	"github.com/holdfast-security/holdfast/internal/control/registry"
	"github.com/holdfast-security/holdfast/internal/edge/bus"
	"github.com/holdfast-security/holdfast/internal/edge/console"
	"github.com/holdfast-security/holdfast/internal/edge/store"
	"github.com/holdfast-security/holdfast/internal/language/bundle"
	"github.com/holdfast-security/holdfast/internal/trust/tlog"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
	"github.com/holdfast-security/holdfast/internal/view"
)

// world is a real store, a real reconciler and hosts that obey or die, in
// virtual time.
type world struct {
	t       *testing.T
	now     time.Time
	store   *store.Store
	service *reconcile.Service
	source  *Source
	hosts   []*holdfast.Host
	lethal  bool // the release kills the worker
	release holdfast.ReleaseID
}

type director struct{}

func (director) Approve(map[string][]tuf.Approval, time.Time) error { return nil }

func (director) Released(d holdfast.Digest) (tuf.Release, error) {
	return tuf.Release{Channel: holdfast.Rules, Digest: d, Rings: holdfast.DefaultRings}, nil
}

const rule = `title: Shell spawned by a web server
id: 5f0e2a61-6f5c-4f0d-9d0e-1a7d0f3c1b01
status: test
level: high
logsource: {category: process_creation, product: linux}
tags: [attack.t1505.003]
detection:
  s: {Image|endswith: /sh}
  condition: s
`

func newWorld(t *testing.T, lethal bool) *world {
	t.Helper()
	w := &world{t: t, now: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), lethal: lethal, release: "r-1"}
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	w.store, err = store.Open(ctx, filepath.Join(t.TempDir(), "holdfast.db"))
	must(err)
	t.Cleanup(func() { w.store.Close() })
	must(w.store.PutOrg(ctx, holdfast.Organisation{ID: holdfast.DefaultOrg, Name: "default", Created: w.now}))

	b := &bundle.Bundle{Header: bundle.Header{Schema: 1, Channel: holdfast.Rules, Name: "pack", Version: "2026.11.21-1"}, Files: map[string][]byte{"rules/web_shell.yml": []byte(rule)}}
	data, err := b.Encode()
	must(err)
	files := registry.Files{Dir: t.TempDir()}
	digest := holdfast.DigestOf(data)
	must(files.Put(digest, data))
	signed := w.now.Add(-time.Hour)
	noun := holdfast.Bundle{Channel: holdfast.Rules, Version: "2026.11.21-1", Digest: digest, Size: int64(len(data)), Created: signed}
	must(w.store.PutBundle(ctx, holdfast.DefaultOrg, noun, "ada"))
	build := holdfast.DigestOf([]byte("agent"))
	must(w.store.PutBuild(ctx, holdfast.Build{Digest: build, Manifest: holdfast.Manifest{Schema: 1, Version: "0.1.0", Platform: "linux/amd64"}}, signed))
	must(w.store.PutVerdict(ctx, holdfast.Verdict{Bundle: digest, Channel: holdfast.Rules, Started: signed, Finished: signed.Add(time.Second), Builds: []holdfast.BuildVerdict{{Build: build, Version: "0.1.0", Passed: true, Figures: holdfast.VerdictFigures{Rules: 1}}}}, []byte("{}")))

	for i := range 80 {
		h := &holdfast.Host{
			ID: holdfast.HostID(fmt.Sprintf("host-%03d", i)), Org: holdfast.DefaultOrg, Simulated: i > 0, Enrolled: w.now,
			Attributes: holdfast.Attributes{Hostname: fmt.Sprintf("sim-%03d", i), OS: "linux", Arch: "amd64", Kernel: "6.1", Distro: "debian-12", Role: "server", Build: build, Version: "0.1.0", Sensor: "replay"},
			Report:     holdfast.HostReport{Boot: "boot", Running: holdfast.Generation{holdfast.Agent: build}, Events: 10},
		}
		must(w.store.CreateHost(ctx, *h))
		w.hosts = append(w.hosts, h)
	}
	// Of so small a fleet the last two rings are paced as one.
	plan := holdfast.RingPlan{{Name: "internal", Through: 100_000}, {Name: "early", Through: 300_000}, {Name: "general", Through: 1_000_000}}
	must(w.store.CreateRelease(ctx, holdfast.Release{ID: w.release, Org: holdfast.DefaultOrg, Bundle: noun, Profile: holdfast.Urgent, Rings: plan, Signed: signed, Created: w.now, By: "ada"}))
	must(w.store.CreateRollout(ctx, holdfast.Rollout{Release: w.release, Phase: holdfast.Waiting, Updated: w.now}))

	w.service = reconcile.New(reconcile.Config{
		Store: w.store.Reconcile(), Consents: w.store, Director: director{}, Clock: fleet.Clock{Heartbeat: time.Second}, Leader: time.Hour,
		Now: func() time.Time { return w.now }, Random: rand.New(rand.NewPCG(1, 2)),
	})
	secret, public, err := tlog.GenerateKey("holdfast.test/record")
	must(err)
	w.source = New(Config{
		Store: w.store, Driver: w.service, Content: files, LogKey: public, Now: func() time.Time { return w.now },
		Checkpoint: func(ctx context.Context) ([]byte, error) { return w.store.SignRecord(ctx, secret, w.now) },
	})
	must(w.service.Step(ctx))
	for _, h := range w.hosts {
		must(w.service.Connected(ctx, h.ID, w.now))
		w.service.Described(ctx, h.ID, h.Attributes, w.now)
		w.service.Reported(ctx, h.ID, h.Report, w.now)
	}
	must(w.service.Approve(ctx, w.release, "grace"))
	return w
}

// pass lets virtual seconds pass until the rollout is in one of the phases.
func (w *world) pass(seconds int, until ...holdfast.Phase) holdfast.Phase {
	w.t.Helper()
	ctx := w.t.Context()
	for range seconds {
		w.now = w.now.Add(time.Second)
		for _, h := range w.hosts {
			w.service.Beat(ctx, h.ID, w.now)
			if o, ok := w.service.Desired(ctx, h.ID, w.now); ok {
				w.obey(h, o)
				w.service.Reported(ctx, h.ID, h.Report, w.now)
			}
		}
		if err := w.service.Step(ctx); err != nil {
			w.t.Fatal(err)
		}
		if v, ok := w.service.View(w.release); ok {
			if len(v.State.Evidence) > 0 {
				w.source.proofs.add(w.release, view.Sample{At: w.now, Value: v.State.Evidence[0].E})
			}
			for _, p := range until {
				if v.Phase == p {
					return p
				}
			}
		}
	}
	v, _ := w.service.View(w.release)
	return v.Phase
}

func (w *world) obey(h *holdfast.Host, o holdfast.Offer) {
	switch {
	case o.Recall != "":
		if h.Report.Running[o.Channel] == o.Recall {
			h.Report.Running = h.Report.Running.With(o.Channel, o.Digest)
		}
	case o.Arm == holdfast.New && w.lethal:
		h.Report.Activation, h.Report.Attempted = o.Lease, h.Report.Running.With(o.Channel, o.Digest)
		h.Report.Failed, h.Report.Shunned, h.Report.Reason = h.Report.Attempted, []holdfast.Digest{o.Digest}, "worker died"
		h.Report.Crashes++
	case h.Report.Activation != o.Lease:
		h.Report.Activation = o.Lease
		h.Report.Previous, h.Report.Running = h.Report.Running, h.Report.Running.With(o.Channel, o.Digest)
		h.Report.Attempted = h.Report.Running
	}
}

func (w *world) rollout() view.RolloutDetail {
	w.t.Helper()
	w.source.forget()
	d, err := w.source.Rollout(w.t.Context(), w.release)
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

// forget makes the source look again.
func (s *Source) forget() {
	s.enrolled.forget()
	s.fleet.forget()
	s.list.forget()
	s.trends.forget()
	s.details.mu.Lock()
	defer s.details.mu.Unlock()
	s.details.by = nil
}

func TestCleanRolloutIsShownAsItHappened(t *testing.T) {
	w := newWorld(t, false)
	if d := w.rollout(); d.Phase != holdfast.Waiting && d.Phase != holdfast.Running || d.Admitted != 0 || d.Evidence != 1 {
		t.Fatalf("before it begins: phase %s, %d admitted, E = %v", d.Phase, d.Admitted, d.Evidence)
	}
	w.pass(30)
	early := w.rollout()
	if early.Admitted == 0 || early.Admitted == 80 {
		t.Fatalf("after 30 s %d hosts were admitted", early.Admitted)
	}
	if w.pass(600, holdfast.Complete) != holdfast.Complete {
		t.Fatalf("did not complete: %+v", w.rollout().RolloutRow)
	}
	d := w.rollout()
	sum := 0
	for i, r := range d.Rings {
		sum += r.Admitted
		hosts := 0
		for _, h := range w.hosts {
			if d.Release.Rings.Of(h.ID) == i {
				hosts++
			}
		}
		if r.Eligible != hosts || r.Admitted == 0 {
			t.Errorf("ring %s: %d eligible of %d hosts, %d admitted", r.Name, r.Eligible, hosts, r.Admitted)
		}
		if r.Admitted > r.Eligible || r.Clean > r.Admitted {
			t.Errorf("ring %s: %d eligible, %d admitted, %d clean", r.Name, r.Eligible, r.Admitted, r.Clean)
		}
	}
	last := d.Exposure[len(d.Exposure)-1].Value
	if sum != d.Admitted || int(last) != d.Admitted || d.Eligible != 80 || d.Harmed != 0 || len(d.Harms) != 0 {
		t.Errorf("rings sum to %d, the curve ends at %v, %d admitted of %d, %d harmed", sum, last, d.Admitted, d.Eligible, d.Harmed)
	}
	for i := 1; i < len(d.Exposure); i++ {
		if d.Exposure[i].Value < d.Exposure[i-1].Value || d.Exposure[i].At.Before(d.Exposure[i-1].At) {
			t.Errorf("exposure shrinks at %d: %v", i, d.Exposure[i-1:i+1])
		}
	}
	if d.Bound.HU >= early.Bound.HU || d.Bound.Uncovered != 0 || d.Bound.Budget < 18 || d.Bound.Budget > 19 {
		t.Errorf("bound %+v, early %+v", d.Bound, early.Bound)
	}
	if d.Ended.IsZero() || d.Ended.After(w.now) {
		t.Errorf("ended %v", d.Ended)
	}
}

func TestHaltedRolloutShowsHarmEvidenceAndRecall(t *testing.T) {
	w := newWorld(t, true)
	if p := w.pass(600, holdfast.Halted, holdfast.Stopped); !p.Recalling() {
		t.Fatalf("phase %s", p)
	}
	w.pass(30)
	d := w.rollout()
	if d.Harmed == 0 || d.Harmed > 8 || len(d.Harms) < d.Harmed {
		t.Errorf("%d hosts harmed, %d rows", d.Harmed, len(d.Harms))
	}
	for _, h := range d.Harms {
		if h.Arm != holdfast.New || !strings.HasPrefix(h.Hostname, "sim-") || !h.Back {
			t.Errorf("harm %+v", h)
		}
	}
	if d.Recall.Hosts != d.Admitted || d.Recall.Back != d.Recall.Hosts {
		t.Errorf("recall %+v of %d admitted", d.Recall, d.Admitted)
	}
	if d.Phase == holdfast.Halted && d.Evidence < 1/d.Alpha {
		t.Errorf("halted at E = %v, limit %v", d.Evidence, 1/d.Alpha)
	}
	if d.Why == "" || d.Timeline[0].Summary == "" || d.Proof[0].Value != 1 {
		t.Errorf("why %q, timeline %+v, proof %v", d.Why, d.Timeline[0], d.Proof)
	}
	d0, err := w.source.Host(t.Context(), d.Harms[0].Host)
	if err != nil || len(d0.Harms) == 0 || d0.State != view.PutBack {
		t.Errorf("harmed host: state %s, %d harms, err %v", d0.State, len(d0.Harms), err)
	}

	if err := w.service.Override(t.Context(), w.release, "grace", fmt.Sprint(d.Harmed)); err != nil {
		t.Fatal(err)
	}
	if d := w.rollout(); len(d.Overrides) != 1 || d.Overrides[0] != "grace" {
		t.Errorf("overrides %v", d.Overrides)
	}
}

// A fault that shows long after the release is complete harms hosts all the
// same, and who was harmed late is not clean any more.
func TestLateHarmOfACompleteReleaseIsShown(t *testing.T) {
	w := newWorld(t, false)
	if p := w.pass(600, holdfast.Complete); p != holdfast.Complete {
		t.Fatalf("phase %s", p)
	}
	w.pass(30)
	before := w.rollout()
	for _, h := range w.hosts[:4] {
		h.Report.Crashes++
		w.service.Reported(t.Context(), h.ID, h.Report, w.now)
	}
	w.pass(5)
	d := w.rollout()
	if d.Phase != holdfast.Complete || d.Harmed != 4 || d.Clean != before.Clean-4 || len(d.Harms) < 4 {
		t.Errorf("%s: %d harmed and %d clean of %d, %d rows", d.Phase, d.Harmed, d.Clean, before.Clean, len(d.Harms))
	}
}

// Hosts of a stratum that nobody has tried come when the release is complete, and
// it breaks them: five have it, the others wait, and the page says so.
func TestWhoComesLateAndIsHarmedIsShown(t *testing.T) {
	w := newWorld(t, false)
	if p := w.pass(600, holdfast.Complete); p != holdfast.Complete {
		t.Fatalf("phase %s", p)
	}
	if d := w.rollout(); d.Late != nil || d.LateFailed+d.LateWaiting != 0 {
		t.Fatalf("before anybody came late: %+v", d.Late)
	}
	w.hosts = nil // the others are not at home
	for i := range 12 {
		h := &holdfast.Host{
			ID: holdfast.HostID(fmt.Sprintf("new-%03d", i)), Org: holdfast.DefaultOrg, Enrolled: w.now,
			Attributes: holdfast.Attributes{Hostname: fmt.Sprintf("new-%03d", i), OS: "linux", Arch: "amd64", Kernel: "7.0", Distro: "debian-14", Role: "server", Version: "0.1.0", Sensor: "replay"},
			Report:     holdfast.HostReport{Boot: "boot", Running: holdfast.Generation{holdfast.Agent: holdfast.DigestOf([]byte("agent"))}, Events: 10},
		}
		if err := w.store.CreateHost(t.Context(), *h); err != nil {
			t.Fatal(err)
		}
		if err := w.service.Connected(t.Context(), h.ID, w.now); err != nil {
			t.Fatal(err)
		}
		w.service.Described(t.Context(), h.ID, h.Attributes, w.now)
		w.service.Reported(t.Context(), h.ID, h.Report, w.now)
		w.hosts = append(w.hosts, h)
	}
	w.lethal = true
	w.pass(30)
	w.source.forget()
	d := w.rollout()
	want := []view.Latecomers{{Org: holdfast.DefaultOrg, Stratum: w.hosts[0].Attributes.Stratum(), Drawn: 5, Failed: 5, Waiting: 7}}
	if !slices.Equal(d.Late, want) || d.LateFailed != 5 || d.LateWaiting != 7 {
		t.Errorf("who came late is %+v (%d harmed, %d waiting), want %+v", d.Late, d.LateFailed, d.LateWaiting, want)
	}
	rows, err := w.source.Rollouts(t.Context())
	if err != nil || len(rows) != 1 || rows[0].LateFailed != 5 {
		t.Errorf("the list says %+v, %v", rows, err)
	}
}

func TestFindingsAreSearchedAndPaged(t *testing.T) {
	w := newWorld(t, false)
	var all []holdfast.Finding
	for i := range 130 {
		all = append(all, holdfast.Finding{
			ID: fmt.Sprintf("f%03d", i), Org: holdfast.DefaultOrg, Host: w.hosts[i%5].ID, Hostname: w.hosts[i%5].Attributes.Hostname,
			Rule: "5f0e2a61-6f5c-4f0d-9d0e-1a7d0f3c1b01", Title: "Shell spawned by a web server", Severity: []holdfast.Severity{"high", "low"}[i%2], Techniques: []string{"T1505.003"},
			At: w.now, Received: w.now.Add(-time.Duration(i) * time.Second), Bundle: w.rollout().Bundle.Digest,
			Tree: []holdfast.Process{{PID: i, Path: "/bin/sh", CmdLine: fmt.Sprintf("sh -c 'id %d'", i)}},
		})
	}
	for _, f := range all {
		if _, err := w.store.AddFindings(t.Context(), f.Host, []holdfast.Finding{f}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		q           view.FindingQuery
		total, rows int
	}{
		{view.FindingQuery{Page: 1, Size: 50}, 130, 50},
		{view.FindingQuery{Page: 3, Size: 50}, 130, 30},
		{view.FindingQuery{Page: 9, Size: 50}, 130, 0},
		{view.FindingQuery{Severity: "low", Page: 1, Size: 50}, 65, 50},
		{view.FindingQuery{Host: w.hosts[2].ID, Page: 1, Size: 50}, 26, 26},
		{view.FindingQuery{Text: "ID 77", Page: 1, Size: 50}, 1, 1},
		{view.FindingQuery{Technique: "t1505", Page: 2, Size: 100}, 130, 30},
		{view.FindingQuery{Technique: "T150", Page: 1, Size: 100}, 0, 0},
	} {
		p, err := w.source.Findings(t.Context(), c.q)
		if err != nil || p.Total != c.total || len(p.Findings) != c.rows {
			t.Errorf("%+v: %d of %d, err %v; want %d of %d", c.q, len(p.Findings), p.Total, err, c.rows, c.total)
		}
	}
	d, err := w.source.Finding(t.Context(), "f007")
	if err != nil || d.Rule == nil || d.Rule.File != "rules/web_shell.yml" || d.Others != 129 || !d.Simulated || d.Version != "2026.11.21-1" {
		t.Errorf("finding: rule %+v, others %d, version %s, err %v", d.Rule, d.Others, d.Version, err)
	}
	o, err := w.source.Overview(t.Context())
	n := 0
	for _, v := range o.Trend.By {
		for _, c := range v {
			n += c
		}
	}
	if err != nil || n != 130 || len(o.Findings) != 10 {
		t.Errorf("trend counts %d of 130, %d listed, err %v", n, len(o.Findings), err)
	}
}

func TestHostsAreSelected(t *testing.T) {
	w := newWorld(t, false)
	w.service.Disconnected(t.Context(), w.hosts[3].ID, w.now)
	for _, c := range []struct {
		q    view.HostQuery
		want int
	}{
		{view.HostQuery{}, 80},
		{view.HostQuery{Kind: "real"}, 1},
		{view.HostQuery{Text: "SIM-007 debian"}, 1},
		{view.HostQuery{Text: "nothing like it"}, 0},
		{view.HostQuery{State: view.Silent}, 1},
		{view.HostQuery{Role: "laptop"}, 0},
	} {
		p, err := w.source.Hosts(t.Context(), c.q)
		if err != nil || p.Total != c.want {
			t.Errorf("%+v: %d hosts, err %v; want %d", c.q, p.Total, err, c.want)
		}
	}
	internal, err := w.source.Hosts(t.Context(), view.HostQuery{Ring: "internal", Page: 1, Size: 100})
	early, err2 := w.source.Hosts(t.Context(), view.HostQuery{Ring: "early", Page: 1, Size: 100})
	general, err3 := w.source.Hosts(t.Context(), view.HostQuery{Ring: "general", Page: 1, Size: 100})
	if err := errors.Join(err, err2, err3); internal.Total+early.Total+general.Total != 80 || internal.Total*early.Total == 0 || err != nil {
		t.Errorf("rings hold %d, %d and %d, err %v", internal.Total, early.Total, general.Total, err)
	}
}

func TestARevokedHostIsListedApart(t *testing.T) {
	w := newWorld(t, false)
	ctx, h := t.Context(), w.hosts[7]
	why := holdfast.Revocation{Host: h.ID, At: w.now, By: "olga", Reason: "stolen"}
	before, err := w.source.Host(ctx, h.ID)
	if err != nil || before.Revocation != nil || before.State == view.Revoked {
		t.Fatalf("%+v, err %v", before, err)
	}
	if _, _, err := w.store.RevokeHost(ctx, why); err != nil {
		t.Fatal(err)
	}
	if err := w.service.Refresh(ctx, h.ID); err != nil {
		t.Fatal(err)
	}
	// Its own page says so at once, whatever is remembered of the fleet.
	d, err := w.source.Host(ctx, h.ID)
	if err != nil || d.Revocation == nil || *d.Revocation != why || d.State != view.Revoked || d.Connected {
		t.Errorf("%+v, err %v", d, err)
	}
	w.source.forget()
	for state, want := range map[view.HostState]int{"": 79, view.Revoked: 1, view.Silent: 0} {
		p, err := w.source.Hosts(ctx, view.HostQuery{State: state})
		if err != nil || p.Total != want || state == view.Revoked && (p.Hosts[0].ID != h.ID || p.Hosts[0].State != view.Revoked) {
			t.Errorf("%q: %+v, err %v", state, p, err)
		}
	}
	o, err := w.source.Overview(ctx)
	if err != nil || o.Hosts != 79 || o.States[view.Revoked] != 0 {
		t.Errorf("%d hosts, %v, err %v", o.Hosts, o.States, err)
	}
	if d, err := w.source.Host(ctx, h.ID); err != nil || d.Revocation == nil || d.Attributes.Hostname != h.Attributes.Hostname {
		t.Errorf("%+v, err %v", d, err)
	}
}

func TestExportedRecordVerifies(t *testing.T) {
	w := newWorld(t, false)
	w.pass(60)
	raw, err := w.source.ExportRecord(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	z, err := zip.NewReader(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		t.Fatal(err)
	}
	entries := 0
	if _, err := tlog.VerifyExport(z, tlog.Against{Public: w.source.LogKey}, func(holdfast.Entry) error { entries++; return nil }); err != nil {
		t.Fatal(err)
	}
	p, err := w.source.Record(t.Context(), view.RecordQuery{Size: 5})
	if err != nil || int(p.Size) != entries || len(p.Entries) != 5 || !strings.Contains(p.Checkpoint, "holdfast.test/record") {
		t.Errorf("the page says %d entries, the export has %d; checkpoint %q; err %v", p.Size, entries, p.Checkpoint, err)
	}
}

// Every page of the console renders from what the store holds, at every stage
// of a rollout, and a person can halt it there.
func TestConsoleOverTheRealThing(t *testing.T) {
	w := newWorld(t, false)
	c := console.New(console.Config{
		Source: w.source, Actions: w.service, Accounts: Accounts{w.store, time.Now}, Hints: Hints{&bus.Local{}},
		Clock: view.Clock{Name: "local", Heartbeat: time.Second, Window: 10 * time.Second}, PlainHTTP: true,
		Now: func() time.Time { return w.now }, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	s := httptest.NewServer(c)
	defer s.Close()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar, Timeout: 20 * time.Second}
	read := func(r *http.Response, err error) (int, string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, string(b)
	}
	link, err := c.SignInLink(t.Context(), "root")
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(link)
	if err != nil {
		t.Fatal(err)
	}
	form := url.Values{"link": {u.Query().Get("link")}, "password": {"correct horse battery"}}
	if code, body := read(browser.PostForm(s.URL+"/sign-in/once", form)); code != http.StatusOK || !strings.Contains(body, "80 hosts are protected") {
		t.Fatalf("sign-in: %d %s", code, body)
	}
	if code, _ := read(http.PostForm(s.URL+"/sign-in/once", form)); code != http.StatusForbidden {
		t.Errorf("the link worked twice: %d", code)
	}
	visit := func() {
		t.Helper()
		d := w.rollout()
		for _, p := range []string{
			"/", "/fleet", "/fleet/host-001", "/content", "/content/" + string(d.Bundle.Digest), "/rollouts", "/rollouts/r-1",
			"/findings", "/record", "/record/export", "/people", "/account",
		} {
			if code, body := read(browser.Get(s.URL + p)); code != http.StatusOK {
				t.Errorf("%s: %d %s", p, code, body)
			}
		}
	}
	visit()
	w.pass(30)
	visit()
	_, page := read(browser.Get(s.URL + "/rollouts/r-1/halt"))
	token := strings.SplitN(strings.SplitN(page, `name="token" value="`, 2)[1], `"`, 2)[0]
	if code, body := read(browser.PostForm(s.URL+"/rollouts/r-1/halt", url.Values{"token": {token}})); code != http.StatusOK {
		t.Fatalf("halt: %d %s", code, body)
	}
	if p := w.pass(60, holdfast.Halted); p != holdfast.Halted {
		t.Fatalf("phase %s after a person halted it", p)
	}
	w.pass(30)
	visit()
	if d := w.rollout(); d.Recall.Back != d.Recall.Hosts || d.Recall.Hosts == 0 {
		t.Errorf("recall %+v", d.Recall)
	}
}

// Who may do what is on the record: each change with its author, and no entry
// for a change that was refused.
func TestPeopleAreOnTheRecord(t *testing.T) {
	w := newWorld(t, false)
	ctx := t.Context()
	a := Accounts{w.store, time.Now}
	ann := holdfast.User{Name: "ann", Org: holdfast.DefaultOrg, Role: holdfast.Publisher, Created: w.now}
	if err := a.CreateUser(ctx, ann, "", "root"); err != nil {
		t.Fatal(err)
	}
	before, err := w.store.RecordSize(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.CreateUser(ctx, ann, "", "root"); holdfast.KindOf(err) != holdfast.Conflict {
		t.Fatalf("added twice: %v", err)
	}
	ann.Role = holdfast.Administrator
	if err := a.UpdateUser(ctx, ann, "bob"); err != nil {
		t.Fatal(err)
	}
	page, err := w.source.Record(ctx, view.RecordQuery{Size: 10, Kind: "people"})
	if err != nil {
		t.Fatal(err)
	}
	if page.Size != before+1 || len(page.Entries) < 2 || page.Entries[0].By != "bob" || page.Entries[0].Summary != "ann is administrator and may sign in" || page.Entries[1].By != "root" {
		t.Errorf("%d entries, then %d: %+v", before, page.Size, page.Entries)
	}
}
