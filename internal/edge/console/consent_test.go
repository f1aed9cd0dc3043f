package console

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/view"
)

const signedPolicy = `organisation: acme
version: 7
groups:
  - name: laboratory
    where: {role: laptop}
    channels: {rules: {track: early}, agent: {track: early}}
`

// Consents is an installation with three organisations: one with a policy that
// half of its hosts know, one that said nothing, and the installation's own.
func (f *fixture) Consents(context.Context) (view.ConsentPage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var p view.ConsentPage
	if len(f.hosts) == 0 {
		return p, nil
	}
	rules := func(rules, agent view.ConsentRule) []view.ConsentRule {
		rules.Channel, agent.Channel = holdfast.Rules, holdfast.Agent
		return []view.ConsentRule{rules, agent}
	}
	floor := view.ConsentGroup{
		Name: "trading floor", Where: []string{"role server", "distribution rhel-9"}, Hosts: 30,
		Rules: append(rules(view.ConsentRule{Track: "delay", Delay: 24 * time.Hour}, view.ConsentRule{Track: "n-1"}),
			view.ConsentRule{Channel: holdfast.Rules, Critical: true, Track: "delay", Delay: 4 * time.Hour}),
		Windows: []string{"sat, sun 22:00–02:00 Europe/Berlin", "wed 20:00–24:00 Europe/Berlin"},
	}
	p.Orgs = []view.Consent{
		{
			Org: "acme", Version: 7, Key: "9f86d081884c7d659a2feaa0c55ad015", By: "olga", At: f.now.Add(-49 * time.Hour), Policy: signedPolicy, Hosts: 46, Keeping: 23, Outside: 1,
			Groups: []view.ConsentGroup{
				{Name: "laboratory", Where: []string{"role laptop"}, Hosts: 12, Rules: rules(view.ConsentRule{Track: "early"}, view.ConsentRule{Track: "early"})},
				floor,
				{Name: "frozen", Where: []string{"3 by id"}, Hosts: 3, Rules: rules(view.ConsentRule{Track: "pause"}, view.ConsentRule{Track: "pin", Pin: "1.4.2"})},
			},
		},
		{Org: "default", Hosts: 150, Outside: 150},
		{Org: "emca", Version: 1, Key: "d2f0a1c3b4e5968778695a4b3c2d1e0f", By: "otto", At: f.now.Add(-time.Hour), Policy: strings.Replace(signedPolicy, "acme", "emca", 1), Hosts: 5, Keeping: 5, Groups: []view.ConsentGroup{
			{Name: "everything", Hosts: 5, Rules: rules(view.ConsentRule{Track: "general"}, view.ConsentRule{Track: "general"})},
		}},
	}
	if f.unreadable != "" {
		emca := &p.Orgs[2]
		emca.Unreadable, emca.Policy, emca.Groups[0].Rules = f.unreadable, "", rules(view.ConsentRule{Track: "pause"}, view.ConsentRule{Track: "pause"})
	}
	next := holdfast.Bundle{Channel: holdfast.Agent, Version: "0.2.0", Digest: fakeDigest("agent 0.2.0"), Created: f.now.Add(-10 * time.Minute)}
	p.Coming = []view.Coming{{Bundle: next, Preview: view.Preview{Have: 1, Rows: f.rolls[0].Preview.Rows}}}
	return p, nil
}

// TestConsentPageSaysWhatIsInForce: per organisation who signed, since when and
// for how many hosts, per group what it says; and who will get what is signed.
func TestConsentPageSaysWhatIsInForce(t *testing.T) {
	st := newSite(t)
	v := st.as(holdfast.Viewer)
	v.get("/").has("nav a[href='/consent']", "Consent")
	a := v.get("/consent")
	a.has("nav a[aria-current=page]", "Consent")
	a.count(".panel.consent", 3)
	a.has("#org-acme header", "acme", "46 hosts")
	a.has("#org-acme .pairs", "version 7", "2 d ago", "9f86d081884c", "brought by olga", "23 of 46")
	a.has("#org-acme .pairs .tone-warn", "23 of 46")
	a.count("#org-acme tbody tr", 4)
	a.has("#org-acme tbody tr:nth-child(2)", "trading floor", "role server, distribution rhel-9", "30", "rules 24h after it was signed", "agent one version behind", "critical rules 4h after it was signed", "sat, sun 22:00–02:00 Europe/Berlin", "wed 20:00–24:00")
	a.has("#org-acme tbody tr:nth-child(3)", "3 by id", "paused", "pinned to 1.4.2", "at any time")
	a.count("#org-acme tbody tr:nth-child(3) .tone-warn", 2)
	a.has("#org-acme tr.outside", "in no group", "1", "after all others")
	a.has("#org-acme details pre", "organisation: acme", "version: 7")
	a.has("#org-default .empty", "no policy")
	a.has("#org-emca tbody", "every host", "with the last ring")
	a.count("#org-emca .pairs .tone-warn", 0)
	a.has(".coming h3", "agent 0.2.0")
	a.has(".coming tbody", "trading floor", "in 3 h to in 9 h", "paused", "now, the last in 1 h")

	st.f.hosts = nil
	v.get("/consent").has(".empty", "No host has enrolled yet")
}

// TestConsentPageShowsWhatCannotBeRead with why, what counts meanwhile, and what
// to do.
func TestConsentPageShowsWhatCannotBeRead(t *testing.T) {
	st := newSite(t)
	st.f.unreadable = "the envelope cannot be read: unexpected EOF"
	a := st.as(holdfast.Viewer).get("/consent")
	a.count(".panel.consent", 3)
	a.has("#org-emca .tone-bad", "version 1", "cannot be read", "unexpected EOF", "nothing is released to its hosts", "72 hours", "give back what is recalled", "holdfast consent set")
	a.has("#org-emca tbody", "paused")
	a.count("#org-emca details", 0)
	a.has("#org-acme tbody", "trading floor")
	a.count("#org-acme .tone-bad", 0)
}

// For is what people of an organisation may see, as far as a test looks.
func (f *fixture) For(org holdfast.OrgID) view.Source {
	if org == holdfast.DefaultOrg {
		return f
	}
	return fixtureOf{f, org}
}

type fixtureOf struct {
	*fixture
	org holdfast.OrgID
}

func (f fixtureOf) Consents(ctx context.Context) (view.ConsentPage, error) {
	p, err := f.fixture.Consents(ctx)
	p.Orgs = slices.DeleteFunc(p.Orgs, func(c view.Consent) bool { return c.Org != f.org })
	p.Coming = nil
	return p, err
}

func (f *fixture) Consent(context.Context, holdfast.OrgID) (view.Consent, error) {
	return view.Consent{}, errNotPlayed
}

func (f *fixture) Builds(context.Context) ([]holdfast.Build, error) { return nil, errNotPlayed }

var errNotPlayed = errors.New("no page asks for this")

// TestPeopleOfCustomersDoNotSteer: who belongs to an organisation that does not run
// the installation sees a release, and neither halts nor pauses nor approves it, and
// lets nobody in, whatever their role there.
func TestPeopleOfCustomersDoNotSteer(t *testing.T) {
	st := newSite(t)
	if err := st.f.CreateUser(t.Context(), holdfast.User{Name: "emil", Org: "emca", Role: holdfast.Administrator, Created: st.f.now}, testPassword, "test"); err != nil {
		t.Fatal(err)
	}
	v := st.stranger()
	v.post("/sign-in", url.Values{"name": {"emil"}, "password": {testPassword}})
	a := v.get("/rollouts/r-2026-0118")
	a.count(".head .actions a", 0)
	a.count("nav a[href='/people']", 0)
	for _, d := range decisions {
		for _, got := range []answer{v.get("/rollouts/r-2026-0118/" + d.Name), v.post("/rollouts/r-2026-0118/"+d.Name, url.Values{"text": {"no"}})} {
			if got.code != http.StatusForbidden {
				t.Errorf("%s: %d", d.Name, got.code)
			}
		}
	}
	if got := v.get("/people"); got.code != http.StatusForbidden {
		t.Errorf("people: %d", got.code)
	}
}

// TestConsentPageShowsPeopleTheirOwn: a policy is its organisation's own affair.
func TestConsentPageShowsPeopleTheirOwn(t *testing.T) {
	st := newSite(t)
	if err := st.f.CreateUser(t.Context(), holdfast.User{Name: "emil", Org: "emca", Role: holdfast.Viewer, Created: st.f.now}, testPassword, "test"); err != nil {
		t.Fatal(err)
	}
	v := st.stranger()
	v.post("/sign-in", url.Values{"name": {"emil"}, "password": {testPassword}})
	a := v.get("/consent")
	a.count(".panel.consent", 1)
	a.has("#org-emca h2", "emca")
	if strings.Contains(a.body, "trading floor") {
		t.Error("another organisation's groups are shown")
	}
}

// TestFinishIsOffered when a rollout waits only for hosts that their organisations
// delay.
func TestFinishIsOffered(t *testing.T) {
	st := newSite(t)
	v := st.as(holdfast.Operator)
	const path = "/rollouts/r-2026-0118"
	finish := func(a answer) bool {
		return slices.ContainsFunc(a.all(".head .actions a"), func(n *html.Node) bool { return attr(n, "href") == path+"/finish" })
	}
	if finish(v.get(path)) {
		t.Error("offered while others are waited for")
	}
	if a := v.get(path + "/finish"); a.code != http.StatusConflict {
		t.Errorf("asked for all the same: %d", a.code)
	}
	st.f.rolls[0].Delayed = 30
	if !finish(v.get(path)) {
		t.Fatal("not offered")
	}
	if finish(st.as(holdfast.Publisher).get(path)) {
		t.Error("offered to a publisher")
	}
	a := v.get(path + "/finish")
	a.has("#confirm", "Finish this rollout?", "growing steps")
	token := attr(a.all("#confirm input[name=token]")[0], "value")
	if a := v.post(path+"/finish", url.Values{"token": {token}}); a.code != http.StatusSeeOther {
		t.Fatalf("finish: %d", a.code)
	}
	v.get(path+"?done=finish").has(".done", "Finished.")
	v.get(path).has("h1", "complete")
}
