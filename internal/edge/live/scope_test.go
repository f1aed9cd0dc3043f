package live

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/edge/api"
	"github.com/holdfast-security/holdfast/internal/edge/bus"
	"github.com/holdfast-security/holdfast/internal/edge/console"
	"github.com/holdfast-security/holdfast/internal/view"
)

// secret is in everything that is emca's own.
const secret = "emcas-own"

// customers is a world with two more organisations: acme, and emca whose hosts,
// findings, harm and policy all carry the secret.
func customers(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, false)
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, org := range []holdfast.OrgID{"acme", "emca"} {
		must(w.store.PutOrg(ctx, holdfast.Organisation{ID: org, Name: string(org), Created: w.now}))
		name := map[holdfast.OrgID]string{"acme": "acmes-own", "emca": secret}[org]
		for i := range 6 {
			h := *w.hosts[0]
			h.ID, h.Org, h.Attributes.Hostname, h.Attributes.Role = holdfast.HostID(fmt.Sprintf("%s-%d", name, i)), org, fmt.Sprintf("%s-%d", name, i), name
			must(w.store.CreateHost(ctx, h))
			must(w.service.Connected(ctx, h.ID, w.now))
			w.service.Described(ctx, h.ID, h.Attributes, w.now)
			w.service.Reported(ctx, h.ID, h.Report, w.now)
			w.hosts = append(w.hosts, &h)
		}
		f := holdfast.Finding{
			ID: "finding-" + name, Org: org, Host: holdfast.HostID(name + "-0"), Hostname: name + "-0", Rule: "5f0e2a61-6f5c-4f0d-9d0e-1a7d0f3c1b01",
			Title: "seen at " + name, Severity: "high", At: w.now, Received: w.now,
		}
		_, err := w.store.AddFindings(ctx, f.Host, []holdfast.Finding{f})
		must(err)
		must(w.store.PutConsent(ctx, holdfast.Consent{Org: org, Version: 1, Key: []byte(name), Envelope: []byte(name), By: name, At: w.now}))
	}
	w.pass(3)
	for _, org := range []string{"acmes-own", secret} {
		_, err := w.store.AddHarms(ctx, []holdfast.Harm{{
			Release: w.release, Host: holdfast.HostID(org + "-1"), Org: holdfast.OrgID(strings.TrimSuffix(org, "s-own")), Stratum: "s", Arm: holdfast.Placebo, Kind: holdfast.Crash, At: w.now, Detail: org,
		}})
		must(err)
	}
	w.source.fleet.forget()
	w.source.trends.forget()
	return w
}

// TestOneOrganisationSeesItsOwn: what a customer's people read holds their own hosts,
// findings, harm and policy, and the release as it is; and nothing of another's.
func TestOneOrganisationSeesItsOwn(t *testing.T) {
	w := customers(t)
	ctx := t.Context()
	digest := w.rollout().Bundle.Digest
	reads := map[string]func(view.Source) (any, error){
		"overview": func(s view.Source) (any, error) { o, err := s.Overview(ctx); o.Decisions = nil; return o, err },
		"hosts":    func(s view.Source) (any, error) { return s.Hosts(ctx, view.HostQuery{Page: 1, Size: 500}) },
		"host":     func(s view.Source) (any, error) { return s.Host(ctx, holdfast.HostID(secret+"-0")) },
		"harmed":   func(s view.Source) (any, error) { return s.Host(ctx, holdfast.HostID(secret+"-1")) },
		"builds":   func(s view.Source) (any, error) { return s.Builds(ctx) },
		"bundles":  func(s view.Source) (any, error) { return s.Bundles(ctx) },
		"bundle":   func(s view.Source) (any, error) { return s.Bundle(ctx, digest) },
		"rollouts": func(s view.Source) (any, error) { return s.Rollouts(ctx) },
		"rollout": func(s view.Source) (any, error) {
			d, err := s.Rollout(ctx, w.release)
			d.Timeline = nil // the record is everybody's
			return d, err
		},
		"findings": func(s view.Source) (any, error) { return s.Findings(ctx, view.FindingQuery{Page: 1, Size: 500}) },
		"search": func(s view.Source) (any, error) {
			return s.Findings(ctx, view.FindingQuery{Text: secret, Page: 1, Size: 500})
		},
		"of its host": func(s view.Source) (any, error) {
			return s.Findings(ctx, view.FindingQuery{Host: holdfast.HostID(secret + "-0"), Page: 1, Size: 500})
		},
		"finding":  func(s view.Source) (any, error) { return s.Finding(ctx, "finding-"+secret) },
		"consents": func(s view.Source) (any, error) { return s.Consents(ctx) },
		"consent":  func(s view.Source) (any, error) { return s.Consent(ctx, "emca") },
	}
	told := func(s view.Source, name string) string {
		v, err := reads[name](s)
		if k := holdfast.KindOf(err); err != nil && k != holdfast.NotFound {
			t.Fatalf("%s: %v", name, err)
		}
		if err != nil {
			return ""
		}
		j, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(j)
	}
	public := map[string]bool{"builds": true, "bundles": true, "bundle": true, "rollouts": true}
	for name := range reads {
		for _, org := range []holdfast.OrgID{"acme", "nobodys", ""} {
			if got := told(w.source.For(org), name); strings.Contains(got, secret) || strings.Contains(got, `"emca"`) {
				t.Errorf("%s tells people of %q of emca: %s", name, org, got)
			}
		}
		if !public[name] && !strings.Contains(told(w.source.For("emca"), name), secret) {
			t.Errorf("%s hides from emca's people what is theirs", name)
		}
		if !public[name] && !strings.Contains(told(w.source.For(holdfast.DefaultOrg), name), secret) {
			t.Errorf("%s hides it from those who run the installation", name)
		}
	}
	acme := w.source.For("acme")
	o, err := acme.Overview(ctx)
	if err != nil || o.Hosts != 6 || len(o.Findings) != 1 || o.Rollout == nil {
		t.Errorf("%d hosts, %d findings, %v", o.Hosts, len(o.Findings), err)
	}
	d, err := acme.Rollout(ctx, w.release)
	if whole := w.rollout(); err != nil || d.Eligible != whole.Eligible || d.Evidence != whole.Evidence || len(d.Harms) != 1 || len(d.Timeline) == 0 {
		t.Errorf("the release is everybody's, and the harm is not: %d of %d eligible, %d harmed, %v", d.Eligible, whole.Eligible, len(d.Harms), err)
	}
	if got := told(acme.For("emca"), "hosts"); strings.Contains(got, secret) {
		t.Error("people of one organisation became those of another")
	}
}

// tokens are people's names: anna is of acme, and administrator there.
type tokens struct{}

func (tokens) Token(context.Context, string, time.Time) (holdfast.User, error) {
	return holdfast.User{Name: "anna", Org: "acme", Role: holdfast.Administrator}, nil
}

// TestTheAPIKeepsOrganisationsApart: reads, the stream of findings, and decisions.
func TestTheAPIKeepsOrganisationsApart(t *testing.T) {
	w := customers(t)
	s := httptest.NewServer((&api.Server{
		Tokens: tokens{}, Read: w.source, Decide: w.service, Changes: Hints{&bus.Local{}}, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return w.now },
	}).Handler())
	defer s.Close()
	ask := func(ctx context.Context, method, path string) (int, io.ReadCloser) {
		t.Helper()
		r, err := http.NewRequestWithContext(ctx, method, s.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer anna")
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, res.Body
	}
	for _, path := range []string{"status", "hosts", "hosts/" + secret + "-0", "builds", "bundles", "rollouts", "findings", "findings?q=" + secret, "findings/finding-" + secret, "orgs/emca/consent", "orgs/acme/consent"} {
		_, body := ask(t.Context(), "GET", "/api/v1/"+path)
		b, _ := io.ReadAll(body)
		body.Close()
		b = bytes.ReplaceAll(b, []byte("there is no host "+secret+"-0"), nil)
		b = bytes.ReplaceAll(b, []byte("there is no finding finding-"+secret), nil)
		if bytes.Contains(b, []byte(secret)) {
			t.Errorf("%s: %s", path, b)
		}
	}
	for _, path := range []string{"releases/r-1/halt", "releases/r-1/pause", "releases/r-1/resume", "releases/r-1/finish", "releases/r-1/override", "releases/r-1/approve", "releases", "enrolments", "users", "drills"} {
		code, body := ask(t.Context(), "POST", "/api/v1/"+path)
		body.Close()
		if code != http.StatusForbidden {
			t.Errorf("%s: %d", path, code)
		}
	}
	for _, method := range []string{"PUT", "DELETE"} {
		code, body := ask(t.Context(), method, "/api/v1/hosts/"+secret+"-0/do-not-canary")
		body.Close()
		if code != http.StatusNotFound {
			t.Errorf("%s of another's host: %d", method, code)
		}
	}
	if v, ok := w.service.View(w.release); !ok || v.Phase.Recalling() || v.Phase == holdfast.Paused {
		t.Errorf("%+v", v.Phase)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, body := ask(ctx, "GET", "/api/v1/findings/follow?since="+w.now.Add(-time.Hour).Format(time.RFC3339))
	defer body.Close()
	var stream []byte
	for buffer := make([]byte, 4096); !bytes.HasSuffix(stream, []byte("\n\n")); {
		n, err := body.Read(buffer)
		if stream = append(stream, buffer[:n]...); err != nil {
			t.Fatalf("%v after %s", err, stream)
		}
	}
	if !bytes.Contains(stream, []byte("acmes-own")) || bytes.Contains(stream, []byte(secret)) {
		t.Errorf("the stream: %s", stream)
	}
}

// TestPagesKeepOrganisationsApart, each of them as it is rendered.
func TestPagesKeepOrganisationsApart(t *testing.T) {
	w := customers(t)
	accounts := Accounts{w.store, func() time.Time { return w.now }}
	c := console.New(console.Config{
		Source: w.source, Actions: w.service, Accounts: accounts, Hints: Hints{&bus.Local{}}, PlainHTTP: true,
		Now: func() time.Time { return w.now }, Log: slog.New(slog.DiscardHandler),
	})
	if err := accounts.CreateUser(t.Context(), holdfast.User{Name: "anna", Org: "acme", Role: holdfast.Administrator, Created: w.now}, "a long enough password", "test"); err != nil {
		t.Fatal(err)
	}
	sign := httptest.NewRequest("POST", "/sign-in", strings.NewReader("name=anna&password=a+long+enough+password"))
	sign.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	in := httptest.NewRecorder()
	c.ServeHTTP(in, sign)
	for path, code := range map[string]int{
		"/": 200, "/fleet": 200, "/fleet/" + secret + "-0": 404, "/fleet/acmes-own-0": 200, "/content": 200, "/rollouts": 200, "/rollouts/r-1": 200,
		"/findings": 200, "/findings/finding-" + secret: 404, "/consent": 200, "/people": 403, "/rollouts/r-1/halt": 403,
	} {
		r := httptest.NewRequest("GET", path, nil)
		for _, cookie := range in.Result().Cookies() {
			r.AddCookie(cookie)
		}
		got := httptest.NewRecorder()
		c.ServeHTTP(got, r)
		body := strings.ReplaceAll(got.Body.String(), strings.TrimPrefix(path, "/"), "") // what was asked for
		body = strings.ReplaceAll(strings.ReplaceAll(body, "no host "+secret+"-0", ""), "finding-"+secret, "")
		if got.Code != code || strings.Contains(strings.ToLower(body), secret) {
			i := max(0, strings.Index(strings.ToLower(body), secret)-100)
			t.Errorf("%s: %d: %s", path, got.Code, body[i:min(len(body), i+300)])
		}
	}
}
