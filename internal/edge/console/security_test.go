package console

import (
	"bufio"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/view"
)

func TestEveryPageKeepsThePolicy(t *testing.T) {
	st := newSite(t)
	v := st.as(holdfast.Administrator)
	for _, p := range append(st.pages(), "/assets/console.js", "/record/export") {
		a := v.get(p)
		if got := a.head.Get("Content-Security-Policy"); got != policy || strings.Contains(got, "unsafe") {
			t.Errorf("%s: policy %q", p, got)
		}
		for _, h := range []string{"X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy"} {
			if a.head.Get(h) == "" {
				t.Errorf("%s: no %s", p, h)
			}
		}
		if !strings.HasPrefix(p, "/assets/") && a.head.Get("Cache-Control") != "no-store" {
			t.Errorf("%s may be stored: %q", p, a.head.Get("Cache-Control"))
		}
		a.count("style, [style], script:not([src]), iframe, object, base", 0)
		for _, n := range a.all("*") {
			for _, at := range n.Attr {
				if strings.HasPrefix(at.Key, "on") || strings.HasPrefix(at.Key, "hx-on") {
					t.Errorf("%s: <%s %s>", p, n.Data, at.Key)
				}
			}
		}
		for _, f := range a.all("form[method=post]") {
			if action := attr(f, "action"); action == "/theme" {
				continue // changes a preference only
			}
			if len((answer{t: t, dom: f}).all("input[name=token]")) != 1 {
				t.Errorf("%s: form to %s has no token", p, attr(f, "action"))
			}
		}
	}
}

// Who may go where is one table; this is the other way to write it.
func TestRolesAreEnforced(t *testing.T) {
	const (
		yes = http.StatusOK
		no  = http.StatusForbidden
	)
	st := newSite(t)
	cases := []struct {
		path string
		want [5]int // viewer, analyst, publisher, operator, administrator
	}{
		{"/", [5]int{yes, yes, yes, yes, yes}},
		{"/fleet", [5]int{yes, yes, yes, yes, yes}},
		{"/record", [5]int{yes, yes, yes, yes, yes}},
		{"/findings", [5]int{no, yes, yes, yes, yes}},
		{"/findings/" + st.f.found[0].ID, [5]int{no, yes, yes, yes, yes}},
		{"/rollouts/r-2026-0118/halt", [5]int{no, yes, yes, yes, yes}},
		{"/rollouts/r-2026-0118/pause", [5]int{no, no, no, yes, yes}},
		{"/rollouts/r-2026-0117/override", [5]int{no, no, no, yes, yes}},
		{"/fleet/" + string(st.f.hosts[0].ID) + "/revoke", [5]int{no, no, no, yes, yes}},
		{"/people", [5]int{no, no, no, no, yes}},
	}
	for i, r := range holdfast.Roles {
		v := st.as(r)
		for _, c := range cases {
			if a := v.get(c.path); a.code != c.want[i] {
				t.Errorf("%s as %s: %d, want %d", c.path, r, a.code, c.want[i])
			}
		}
		v.get("/rollouts/r-2026-0118").count(".head .actions a[href$=pause]", map[bool]int{true: 1, false: 0}[May(r, Steer)])
	}
	stranger := st.stranger()
	for _, p := range st.pages() {
		if a := stranger.get(p); a.code != http.StatusSeeOther || !strings.HasPrefix(a.head.Get("Location"), "/sign-in") {
			t.Errorf("%s without a session: %d %s", p, a.code, a.head.Get("Location"))
		}
	}
	// What a role may not look at, it may not do either.
	v := st.as(holdfast.Publisher)
	if a := v.post("/rollouts/r-2026-0118/pause", url.Values{"token": {v.token()}, "text": {"x"}}); a.code != no || st.f.rolls[0].Phase != holdfast.Running {
		t.Errorf("a publisher paused: %d, phase %s", a.code, st.f.rolls[0].Phase)
	}
}

func TestForgedRequestsChangeNothing(t *testing.T) {
	st := newSite(t)
	v := st.as(holdfast.Operator)
	other := st.as(holdfast.Administrator)
	const path = "/rollouts/r-2026-0118/halt"
	for name, a := range map[string]answer{
		"no token":           v.post(path, url.Values{"text": {"x"}}),
		"another's token":    v.post(path, url.Values{"token": {other.token()}}),
		"cross-site":         v.post(path, url.Values{"token": {v.token()}}, "Sec-Fetch-Site", "cross-site"),
		"another origin":     v.post(path, url.Values{"token": {v.token()}}, "Origin", "https://evil.example"),
		"sign-in cross-site": st.stranger().post("/sign-in", url.Values{"name": {"operator"}, "password": {testPassword}}, "Sec-Fetch-Site", "cross-site"),
	} {
		if a.code != http.StatusForbidden {
			t.Errorf("%s: %d", name, a.code)
		}
	}
	if st.f.rolls[0].Phase != holdfast.Running {
		t.Fatalf("phase %s", st.f.rolls[0].Phase)
	}
	if a := v.post(path, url.Values{"token": {v.token()}}); a.code != http.StatusSeeOther || st.f.rolls[0].Phase != holdfast.Halted {
		t.Errorf("the real form: %d, phase %s", a.code, st.f.rolls[0].Phase)
	}
	if a := v.post(path, url.Values{"token": {v.token()}}); a.code != http.StatusConflict {
		t.Errorf("halting what is halted: %d", a.code)
	}
}

func TestDecisionsAreAskedAndTaken(t *testing.T) {
	st := newSite(t)
	v := st.as(holdfast.Operator)
	ask := v.get("/rollouts/r-2026-0118/pause")
	ask.has("form.confirm", "Pause this rollout?", "keep it and are watched on")
	if a := v.post("/rollouts/r-2026-0118/pause", url.Values{"token": {v.token()}, "text": {"  "}}); a.code != http.StatusBadRequest || st.f.rolls[0].Phase != holdfast.Running {
		t.Errorf("pausing without a reason: %d", a.code)
	}
	a := v.post("/rollouts/r-2026-0118/pause", url.Values{"token": {v.token()}, "text": {"look first"}})
	if a.code != http.StatusSeeOther || st.f.rolls[0].Phase != holdfast.Paused {
		t.Fatalf("pause: %d, phase %s", a.code, st.f.rolls[0].Phase)
	}
	page := v.get(a.head.Get("Location"))
	page.has("[role=status]", "Paused.")
	page.has("h1", "paused")
	page.has(".head .actions", "Resume", "Halt and recall")
	if a := v.get("/rollouts/r-2026-0118/pause"); a.code != http.StatusConflict {
		t.Errorf("asking to pause what is paused: %d", a.code)
	}

	// The second person is another than the first.
	st.f.rolls[0].Phase, st.f.rolls[0].Approved, st.f.rolls[0].By = holdfast.Waiting, "", string(holdfast.Publisher)
	first, second := st.as(holdfast.Publisher), st.as(holdfast.Operator)
	first.get("/rollouts/r-2026-0118").count(".head .actions a[href$=approve]", 0)
	if a := first.get("/rollouts/r-2026-0118/approve"); a.code != http.StatusForbidden {
		t.Errorf("the first person is asked to approve: %d", a.code)
	}
	second.get("/rollouts/r-2026-0118").count(".head .actions a[href$=approve]", 1)
	if a := second.post("/rollouts/r-2026-0118/approve", url.Values{"token": {second.token()}}); a.code != http.StatusSeeOther || st.f.rolls[0].Phase != holdfast.Running {
		t.Errorf("approve: %d, phase %s", a.code, st.f.rolls[0].Phase)
	}
}

func TestAHostIsRevokedAfterAskingAndFoundAgain(t *testing.T) {
	st := newSite(t)
	h := &st.f.hosts[3]
	path := "/fleet/" + string(h.ID)
	st.as(holdfast.Analyst).get(path).count(".head .actions", 0)
	v := st.as(holdfast.Operator)
	v.get(path).count(".head .actions a[href$=revoke][data-dialog]", 1)
	v.get(path+"/revoke").has("form.confirm.grave", "Revoke this host?", h.Attributes.Hostname, "is not undone")
	for name, form := range map[string]url.Values{
		"no reason":       {"token": {v.token()}, "text": {" \n"}},
		"too long for it": {"token": {v.token()}, "text": {strings.Repeat("x", 2001)}},
		"no token":        {"text": {"stolen"}},
	} {
		want := map[bool]int{true: http.StatusBadRequest, false: http.StatusForbidden}[form.Has("token")]
		if a := v.post(path+"/revoke", form); a.code != want || h.Revoked {
			t.Errorf("%s: %d, revoked %v", name, a.code, h.Revoked)
		}
	}
	if a := v.post("/fleet/nobody/revoke", url.Values{"token": {v.token()}, "text": {"stolen"}}); a.code != http.StatusNotFound {
		t.Errorf("nobody: %d", a.code)
	}
	a := v.post(path+"/revoke", url.Values{"token": {v.token()}, "text": {" stolen <at> the airport "}})
	if a.code != http.StatusSeeOther || !h.Revoked {
		t.Fatalf("%d, revoked %v", a.code, h.Revoked)
	}
	page := v.get(a.head.Get("Location"))
	page.has("[role=status]", "Its connection is closed")
	page.has("h1", "revoked")
	page.has("#revocation", "By operator", "Why stolen <at> the airport", "Since now")
	page.count(".head .actions", 0)
	if a := v.get(path + "/revoke"); a.code != http.StatusConflict {
		t.Errorf("asking again: %d", a.code)
	}
	v.get("/fleet").has(".tally", "200 hosts")
	found := v.get("/fleet?state=revoked")
	found.has("#hosts tbody", h.Attributes.Hostname, "revoked")
	found.count("#hosts tbody tr", 1)
	found.has("select[name=state] option[selected]", "Revoked")
}

func TestSessionsEnd(t *testing.T) {
	st := newSite(t)
	v := st.as(holdfast.Administrator)
	if a := v.post("/sign-out", url.Values{"token": {v.token()}}); a.code != http.StatusSeeOther {
		t.Fatalf("sign out: %d", a.code)
	}
	if a := v.get("/"); a.code != http.StatusSeeOther {
		t.Errorf("after signing out: %d", a.code)
	}

	v, admin := st.as(holdfast.Analyst), st.as(holdfast.Administrator)
	if a := admin.post("/people/analyst/access", url.Values{"token": {admin.token()}, "access": {"closed"}}); a.code != http.StatusSeeOther {
		t.Fatalf("keep out: %d", a.code)
	}
	if a := v.get("/"); a.code != http.StatusSeeOther {
		t.Errorf("somebody kept out still sees pages: %d", a.code)
	}
	if a := st.stranger().post("/sign-in", url.Values{"name": {"analyst"}, "password": {testPassword}}); a.code != http.StatusUnauthorized {
		t.Errorf("somebody kept out signed in: %d", a.code)
	}

	v = st.as(holdfast.Viewer)
	st.f.now = st.f.now.Add(sessionLife + time.Second)
	if a := v.get("/"); a.code != http.StatusSeeOther {
		t.Errorf("after twelve hours: %d", a.code)
	}
}

func TestOneTimeLinkWorksOnceAndSetsAPassword(t *testing.T) {
	st := newSite(t)
	link, err := st.c.SignInLink(t.Context(), "root")
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(link)
	if err != nil {
		t.Fatal(err)
	}
	secret := u.Query().Get("link")
	v := st.stranger()
	for range 3 { // looking at the page spends nothing
		v.get(link).has("form[action='/sign-in/once'] button", "Sign in")
	}
	if a := v.post("/sign-in/once", url.Values{"link": {secret}, "password": {"short"}}); a.code != http.StatusBadRequest {
		t.Errorf("short password: %d", a.code)
	}
	if a := v.post("/sign-in/once", url.Values{"link": {secret}, "password": {"battery staple horse"}}); a.code != http.StatusSeeOther {
		t.Fatalf("first use: %d", a.code)
	}
	v.get("/").has(".who", "root", "administrator")
	if a := st.stranger().post("/sign-in/once", url.Values{"link": {secret}}); a.code != http.StatusForbidden {
		t.Errorf("second use: %d", a.code)
	}
	if a := st.stranger().post("/sign-in", url.Values{"name": {"root"}, "password": {"battery staple horse"}}); a.code != http.StatusSeeOther {
		t.Errorf("the password that was set: %d", a.code)
	}
	late, err := st.c.SignInLink(t.Context(), "root")
	if err != nil {
		t.Fatal(err)
	}
	st.f.now = st.f.now.Add(linkLife + time.Second)
	lu, _ := url.Parse(late)
	if a := st.stranger().post("/sign-in/once", url.Values{"link": {lu.Query().Get("link")}}); a.code != http.StatusForbidden {
		t.Errorf("after an hour: %d", a.code)
	}
}

func TestPasswordGuessesAreBounded(t *testing.T) {
	st := newSite(t)
	v, refused := st.stranger(), 0
	for range 20 {
		switch a := v.post("/sign-in", url.Values{"name": {"operator"}, "password": {"wrong password"}}); a.code {
		case http.StatusTooManyRequests:
			refused++
		case http.StatusUnauthorized:
		default:
			t.Fatalf("%d", a.code)
		}
	}
	if refused < 10 {
		t.Errorf("only %d of 20 guesses were refused unlooked", refused)
	}
	if a := v.post("/sign-in", url.Values{"name": {"viewer"}, "password": {testPassword}}); a.code != http.StatusSeeOther {
		t.Errorf("another person cannot sign in meanwhile: %d", a.code)
	}
	st.f.now = st.f.now.Add(time.Minute)
	if a := v.post("/sign-in", url.Values{"name": {"operator"}, "password": {testPassword}}); a.code != http.StatusSeeOther {
		t.Errorf("a minute later: %d", a.code)
	}
}

func TestPeopleAreAddedButNeverTheLastAdministratorRemoved(t *testing.T) {
	st := newSite(t)
	v := st.as(holdfast.Administrator)
	token := v.token()
	put := func(name, role, password string) int {
		return v.post("/people", url.Values{"token": {token}, "name": {name}, "role": {role}, "password": {password}}).code
	}
	for _, c := range []struct {
		name, role, password string
		want                 int
	}{
		{"mallory", "king", testPassword, http.StatusBadRequest},
		{"Bad Name", "viewer", testPassword, http.StatusBadRequest},
		{"eve", "viewer", "short", http.StatusBadRequest},
		{"eve", "viewer", "", http.StatusBadRequest},
		{"administrator", "viewer", "", http.StatusBadRequest}, // the last one
		{"eve", "viewer", testPassword, http.StatusSeeOther},
		{"eve", "administrator", "", http.StatusSeeOther},
		{"administrator", "operator", "", http.StatusSeeOther}, // eve is one now
	} {
		if got := put(c.name, c.role, c.password); got != c.want {
			t.Errorf("%s as %s: %d, want %d", c.name, c.role, got, c.want)
		}
	}
	if a := v.get("/people"); a.code != http.StatusForbidden {
		t.Errorf("who is no administrator any more: %d", a.code)
	}
}

func TestPasswordIsChangedOnlyByWhoKnowsIt(t *testing.T) {
	st := newSite(t)
	v, elsewhere := st.as(holdfast.Viewer), st.as(holdfast.Viewer)
	change := func(old, fresh string) answer {
		return v.post("/account", url.Values{"token": {v.token()}, "old": {old}, "password": {fresh}})
	}
	if a := change("wrong", "another long password"); a.code != http.StatusForbidden {
		t.Errorf("wrong present password: %d", a.code)
	}
	if a := change(testPassword, "short"); a.code != http.StatusBadRequest {
		t.Errorf("short: %d", a.code)
	}
	if a := change(testPassword, "another long password"); a.code != http.StatusSeeOther {
		t.Fatalf("change: %d", a.code)
	}
	v.get("/account?done=password").has("[role=status]", "every other session has ended")
	if a := elsewhere.get("/"); a.code != http.StatusSeeOther {
		t.Errorf("another session lives on: %d", a.code)
	}
}

func TestCookiesAndComingBack(t *testing.T) {
	for _, plain := range []bool{true, false} {
		st := newSite(t, func(c *Config) { c.PlainHTTP = plain })
		a := st.stranger().post("/sign-in", url.Values{"name": {"viewer"}, "password": {testPassword}, "back": {"/fleet?state=silent"}})
		c, err := http.ParseSetCookie(a.head.Get("Set-Cookie"))
		if err != nil {
			t.Fatal(err)
		}
		if !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Secure == plain || strings.HasPrefix(c.Name, "__Host-") == plain {
			t.Errorf("plain %v: %+v", plain, c)
		}
		if !c.Expires.IsZero() || c.MaxAge != int(sessionLife/time.Second) {
			t.Errorf("the session is to live until %s or for %d s; want a duration, which needs no right clock in the browser", c.Expires, c.MaxAge)
		}
		if to := a.head.Get("Location"); to != "/fleet?state=silent" {
			t.Errorf("back to %s", to)
		}
	}
	for _, elsewhere := range []string{"https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "", "fleet", "/a\r\nX: y", "/%2f%2fevil"} {
		if got := localPath(elsewhere); strings.HasPrefix(got, "//") || !strings.HasPrefix(got, "/") || strings.ContainsAny(got, "\\\r\n") || strings.Contains(got, ":") {
			t.Errorf("localPath(%q) = %q", elsewhere, got)
		}
	}
	st := newSite(t)
	v := st.as(holdfast.Viewer)
	if a := v.post("/theme", url.Values{"theme": {"dark"}, "back": {"/fleet?q=x"}}); a.head.Get("Location") != "/fleet?q=x" {
		t.Errorf("theme goes to %s", a.head.Get("Location"))
	}
	if a := v.get("/fleet"); attr(a.all("html")[0], "data-theme") != "dark" {
		t.Error("the theme was not remembered")
	}
}

func TestHintsReachOpenPages(t *testing.T) {
	st := newSite(t)
	v := st.as(holdfast.Viewer)
	if a := st.stranger().get("/events?topic=fleet"); a.code != http.StatusUnauthorized {
		t.Errorf("hints without a session: %d", a.code)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, st.s.URL+"/events?topic=fleet&topic=nonsense", nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := v.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if got := r.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Fatalf("content type %q", got)
	}
	lines := make(chan string, 16)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(r.Body); s.Scan(); {
			lines <- s.Text()
		}
	}()
	deadline := time.After(15 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C: // the stream may not listen yet, and hints may be lost
			st.f.hint(view.TopicFindings)
			st.f.hint(view.TopicFleet)
		case l, ok := <-lines:
			if !ok {
				t.Fatal("the stream ended")
			}
			if strings.HasPrefix(l, "event: ") {
				if l != "event: fleet" {
					t.Fatalf("got %q", l)
				}
				return
			}
		case <-deadline:
			t.Fatal("no hint in 15 s")
		}
	}
}

func TestPartsOfPagesAreNotReplacedByASignInForm(t *testing.T) {
	st := newSite(t)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, st.s.URL+"/fleet", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("HX-Request", "true")
	a := st.stranger().do(req)
	if a.code != http.StatusUnauthorized || a.head.Get("HX-Redirect") != "/sign-in?back=%2Ffleet" {
		t.Errorf("%d %q", a.code, a.head.Get("HX-Redirect"))
	}
}
