package api

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/client"
	"github.com/holdfast-security/holdfast/internal/edge/store"
	"github.com/holdfast-security/holdfast/internal/language/consent"
	"github.com/holdfast-security/holdfast/internal/view"
	"github.com/holdfast-security/holdfast/internal/wire/apiv1"
)

// played answers what the tests ask, and notes what was decided. What they do
// not ask is absent, so that a test that strays fails.
type played struct {
	Reads
	Decisions
	Publishing
	Administration
	findings []holdfast.Finding
	decided  []string
	content  []byte
}

func (p *played) For(holdfast.OrgID) view.Source { return p }

func (p *played) Overview(context.Context) (view.Overview, error) {
	return view.Overview{Hosts: 3}, nil
}

func (p *played) Host(context.Context, holdfast.HostID) (view.HostDetail, error) {
	return view.HostDetail{}, &holdfast.Error{Kind: holdfast.NotFound, What: "no such host"}
}

func (p *played) Bundles(context.Context) ([]view.BundleRow, error) {
	return nil, io.ErrUnexpectedEOF // a defect, with a detail that is nobody's business
}

func (p *played) Findings(context.Context, view.FindingQuery) (view.FindingPage, error) {
	return view.FindingPage{Findings: p.findings, Total: len(p.findings)}, nil
}

func (p *played) Halt(_ context.Context, id holdfast.ReleaseID, by, reason string) error {
	p.decided = append(p.decided, by+" halts "+string(id)+": "+reason)
	return nil
}

func (p *played) PutContent(_ context.Context, _ holdfast.Bundle, data []byte, _ string) error {
	p.content = data
	return nil
}

func (p *played) PutConsent(_ context.Context, org holdfast.OrgID, _ []byte, key ed25519.PublicKey, by string) (consent.Policy, error) {
	p.decided = append(p.decided, fmt.Sprintf("%s brings %s, key %d", by, org, len(key)))
	return consent.Policy{Org: org, Version: 2}, nil
}

func (p *played) Drill(_ context.Context, d apiv1.Drill, by string) error {
	p.decided = append(p.decided, by+": "+d.Sentence())
	return nil
}

func (p *played) DoNotCanary(_ context.Context, host holdfast.HostID, no bool, by string) error {
	p.decided = append(p.decided, fmt.Sprintf("%s: do not canary %s: %v", by, host, no))
	return nil
}

func (p *played) Revoke(_ context.Context, host holdfast.HostID, by, reason string) (holdfast.Revocation, error) {
	p.decided = append(p.decided, fmt.Sprintf("%s: revoke %s: %s", by, host, reason))
	return holdfast.Revocation{Host: host, By: "first", Reason: "stands"}, nil
}

// Listen implements Changes.
func (p *played) Listen(ctx context.Context, f func(view.Topic)) {
	f(view.TopicFindings)
	<-ctx.Done()
}

// open serves a played API with real tokens, one for each role.
func open(t *testing.T) (*played, map[holdfast.Role]*client.Client) {
	t.Helper()
	db, err := store.Open(t.Context(), t.TempDir()+"/api.db")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	now := time.Now()
	if err := db.PutOrg(t.Context(), holdfast.Organisation{ID: holdfast.DefaultOrg, Name: "default", Created: now}); err != nil {
		t.Fatal(err)
	}
	p := &played{}
	s := &Server{
		Tokens: db, Read: p, Decide: p, Publish: p, Admin: p, Changes: p,
		Log: slog.New(slog.DiscardHandler), Now: time.Now,
	}
	web := httptest.NewServer(s.Handler())
	t.Cleanup(web.Close)
	clients := map[holdfast.Role]*client.Client{"": {Base: web.URL}}
	for _, role := range holdfast.Roles {
		name := string(role)
		if err := db.CreateUser(t.Context(), holdfast.User{Name: name, Org: holdfast.DefaultOrg, Role: role, Created: now}, ""); err != nil {
			t.Fatal(err)
		}
		token, err := db.CreateToken(t.Context(), name, now, now.Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		clients[role] = &client.Client{Base: web.URL, Token: token}
	}
	return p, clients
}

func TestWhoMayDoWhatIsTheTable(t *testing.T) {
	_, clients := open(t)
	for _, r := range (&Server{}).routes() {
		method, path, _ := strings.Cut(r.pattern, " ")
		path = strings.NewReplacer("{id}", "x", "{digest}", "y", "{channel}", "rules", "{name}", "z").Replace(path)
		if err := clients[""].Do(t.Context(), method, path, nil, nil); holdfast.KindOf(err) != holdfast.Denied {
			t.Errorf("%s without a token: %v", r.pattern, err)
		}
		for _, role := range holdfast.Roles {
			if r.roles == nil || strings.Contains(list(r.roles), string(role)) {
				continue
			}
			if err := clients[role].Do(t.Context(), method, path, nil, nil); holdfast.KindOf(err) != holdfast.Denied {
				t.Errorf("%s as %s: %v", r.pattern, role, err)
			}
		}
	}
}

func TestTheResultOfADrillIsPutOnTheRecord(t *testing.T) {
	p, clients := open(t)
	c, halted := clients[holdfast.Operator], 7.25
	d := apiv1.Drill{Name: "silence", Fault: "hosts are cut off", Seed: 1, Hosts: 24, Held: true, Halt: &halted, Exposed: 5, Harmed: 5}
	if err := c.Post(t.Context(), "/api/v1/drills", d, nil); err != nil {
		t.Fatal(err)
	}
	want := "operator: drill silence on 24 hosts (hosts are cut off): what it was to show was so; 5 had the fault, 5 were harmed, 0 need hands, halted after 7.2 s"
	if len(p.decided) != 1 || p.decided[0] != want {
		t.Errorf("%q", p.decided)
	}
	for _, bad := range []apiv1.Drill{{}, {Name: "silence"}, {Name: "a\nb", Hosts: 1}, {Name: "silence", Hosts: 1, Harmed: -1}} {
		if err := c.Post(t.Context(), "/api/v1/drills", bad, nil); holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestAHostIsMarkedToGoLast(t *testing.T) {
	p, clients := open(t)
	for _, method := range []string{http.MethodPut, http.MethodDelete} {
		if err := clients[holdfast.Operator].Do(t.Context(), method, "/api/v1/hosts/h1/do-not-canary", nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"operator: do not canary h1: true", "operator: do not canary h1: false"}; !slices.Equal(p.decided, want) {
		t.Errorf("%q", p.decided)
	}
}

func TestAHostIsRevoked(t *testing.T) {
	p, clients := open(t)
	var stands holdfast.Revocation
	if err := clients[holdfast.Operator].Post(t.Context(), "/api/v1/hosts/h1/revoke", apiv1.RevokeRequest{Reason: "stolen"}, &stands); err != nil {
		t.Fatal(err)
	}
	if stands.Host != "h1" || stands.By != "first" || stands.Reason != "stands" || !slices.Equal(p.decided, []string{"operator: revoke h1: stolen"}) {
		t.Errorf("%+v, %q", stands, p.decided)
	}
	for _, body := range []any{map[string]string{"because": "stolen"}, "stolen"} {
		if err := clients[holdfast.Operator].Post(t.Context(), "/api/v1/hosts/h1/revoke", body, nil); holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%v: %v", body, err)
		}
	}
	if len(p.decided) != 1 {
		t.Errorf("%q", p.decided)
	}
}

func TestErrorsKeepTheirKindAndDefectsKeepTheirDetail(t *testing.T) {
	_, clients := open(t)
	c := clients[holdfast.Administrator]
	for path, want := range map[string]holdfast.Kind{
		"/api/v1/hosts/unknown":        holdfast.NotFound,
		"/api/v1/nothing":              holdfast.NotFound,
		"/api/v1/bundles":              holdfast.Internal,
		"/api/v1/bundles/not-a-digest": holdfast.Invalid,
		"/api/v1/hosts?page=many":      holdfast.Invalid,
	} {
		err := c.Get(t.Context(), path, nil)
		if holdfast.KindOf(err) != want || err == nil || strings.Contains(err.Error(), "unexpected EOF") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := c.Get(t.Context(), "/api/v1/findings/follow?since=yesterday", nil); holdfast.KindOf(err) != holdfast.Invalid {
		t.Error(err)
	}
}

func TestADecisionIsMadeInTheCallersName(t *testing.T) {
	p, clients := open(t)
	if err := clients[holdfast.Analyst].Post(t.Context(), "/api/v1/releases/r1/halt", apiv1.Reason{Reason: "smoke"}, nil); err != nil {
		t.Fatal(err)
	}
	if len(p.decided) != 1 || p.decided[0] != "analyst halts r1: smoke" {
		t.Fatal(p.decided)
	}
	err := clients[holdfast.Analyst].Post(t.Context(), "/api/v1/releases/r1/halt", map[string]string{"raeson": "smoke"}, nil)
	if holdfast.KindOf(err) != holdfast.Invalid || len(p.decided) != 1 {
		t.Fatalf("a misspelt field: %v, decided %v", err, p.decided)
	}
}

func TestContentMustBeWhatItsDigestSays(t *testing.T) {
	p, clients := open(t)
	c := clients[holdfast.Publisher]
	data := bytes.Repeat([]byte("rule "), 1000)
	err := c.Do(t.Context(), "PUT", "/api/v1/content/rules/"+string(holdfast.DigestOf(data))+"?version=1", data[1:], nil)
	if holdfast.KindOf(err) != holdfast.Invalid || p.content != nil {
		t.Fatalf("damaged content: %v", err)
	}
	if err := c.Do(t.Context(), "PUT", "/api/v1/content/rules/"+string(holdfast.DigestOf(data))+"?version=1", data, nil); err != nil || !bytes.Equal(p.content, data) {
		t.Fatal(err)
	}
}

func TestOnlyAdministratorsNameAnOrganisationsKey(t *testing.T) {
	p, clients := open(t)
	key := url.QueryEscape(base64.StdEncoding.EncodeToString(make([]byte, ed25519.PublicKeySize)))
	put := func(role holdfast.Role, query string) error {
		return clients[role].Do(t.Context(), "PUT", "/api/v1/orgs/acme/consent"+query, []byte("{}"), nil)
	}
	if err := put(holdfast.Operator, "?public="+key); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("an operator names a key: %v", err)
	}
	if err := put(holdfast.Administrator, "?public=short"); holdfast.KindOf(err) != holdfast.Invalid {
		t.Errorf("no key at all: %v", err)
	}
	if err := errors.Join(put(holdfast.Operator, ""), put(holdfast.Administrator, "?public="+key)); err != nil {
		t.Error(err)
	}
	if want := []string{"operator brings acme, key 0", "administrator brings acme, key 32"}; !slices.Equal(p.decided, want) {
		t.Error(p.decided)
	}
	c := &call{user: holdfast.User{Org: "emca"}, Request: httptest.NewRequest("GET", "/", nil)}
	c.SetPathValue("org", "acme")
	if _, err := c.org(); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("another organisation's policy: %v", err)
	}
}

func TestFollowingTellsEachFindingOnce(t *testing.T) {
	p, clients := open(t)
	began := time.Now().Add(-time.Minute)
	p.findings = []holdfast.Finding{
		{ID: "new", Received: time.Now()}, {ID: "older", Received: began.Add(time.Second)}, {ID: "before", Received: began.Add(-time.Hour)},
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var got []string
	_ = clients[holdfast.Analyst].Follow(ctx, "/api/v1/findings/follow?since="+began.UTC().Format(time.RFC3339Nano), func(raw json.RawMessage) error {
		var f holdfast.Finding
		if err := json.Unmarshal(raw, &f); err != nil {
			return err
		}
		if got = append(got, f.ID); len(got) == 2 {
			cancel()
		}
		return nil
	})
	if strings.Join(got, " ") != "older new" {
		t.Fatal(got)
	}
}

func TestAnUnknownMethodIsToldAsJSON(t *testing.T) {
	_, clients := open(t)
	resp, err := http.Post(clients[""].Base+"/api/v1/status", "application/json", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var p apiv1.Problem
	if err := json.NewDecoder(resp.Body).Decode(&p); err != nil || p.What == "" {
		t.Fatal(err, resp.Status)
	}
}
