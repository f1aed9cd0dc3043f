package console

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/andybalholm/cascadia"
	"golang.org/x/net/html"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/view"
)

const testPassword = "correct horse battery"

func testConfig(f *fixture) Config {
	return Config{
		Source: f, Actions: f, Hosts: f, Accounts: f, Hints: f,
		Version: "0.1.0", Clock: view.Clock{Name: "local", Heartbeat: time.Second, Window: 15 * time.Second},
		SelfApproving: true, PlainHTTP: true,
		Now: func() time.Time { return f.now }, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

// site is a console over a fixture, and people who visit it.
type site struct {
	t *testing.T
	f *fixture
	c *Console
	s *httptest.Server
}

func newSite(t *testing.T, change ...func(*Config)) *site {
	t.Helper()
	f := newFixture(fixtureTime)
	cfg := testConfig(f)
	for _, c := range change {
		c(&cfg)
	}
	st := &site{t: t, f: f, c: New(cfg)}
	for _, r := range holdfast.Roles {
		if err := f.CreateUser(t.Context(), holdfast.User{Name: string(r), Org: holdfast.DefaultOrg, Role: r, Created: f.now}, testPassword, "test"); err != nil {
			t.Fatal(err)
		}
	}
	st.s = httptest.NewServer(st.c)
	t.Cleanup(st.s.Close)
	return st
}

// visitor is one browser profile. It does not follow redirects.
type visitor struct {
	*site
	client *http.Client
}

func (st *site) stranger() *visitor {
	st.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		st.t.Fatal(err)
	}
	return &visitor{st, &http.Client{Jar: jar, Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

func (st *site) as(r holdfast.Role) *visitor {
	st.t.Helper()
	v := st.stranger()
	a := v.post("/sign-in", url.Values{"name": {string(r)}, "password": {testPassword}})
	if a.code != http.StatusSeeOther {
		st.t.Fatalf("sign in as %s: %d", r, a.code)
	}
	return v
}

// answer is a response, parsed.
type answer struct {
	t    *testing.T
	code int
	head http.Header
	body string
	dom  *html.Node
}

func (v *visitor) do(req *http.Request) answer {
	v.t.Helper()
	r, err := v.client.Do(req)
	if err != nil {
		v.t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	dom, err := html.Parse(strings.NewReader(string(b)))
	if err != nil {
		v.t.Fatal(err)
	}
	return answer{v.t, r.StatusCode, r.Header, string(b), dom}
}

func (v *visitor) get(path string) answer {
	v.t.Helper()
	req, err := http.NewRequestWithContext(v.t.Context(), http.MethodGet, v.s.URL+path, nil)
	if err != nil {
		v.t.Fatal(err)
	}
	return v.do(req)
}

func (v *visitor) post(path string, form url.Values, headers ...string) answer {
	v.t.Helper()
	req, err := http.NewRequestWithContext(v.t.Context(), http.MethodPost, v.s.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		v.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return v.do(req)
}

// token is the form token of the visitor's session.
func (v *visitor) token() string {
	v.t.Helper()
	in := v.get("/account").all("input[name=token]")
	if len(in) == 0 {
		v.t.Fatal("no form token on the account page")
	}
	return attr(in[0], "value")
}

func (a answer) all(selector string) []*html.Node {
	a.t.Helper()
	s, err := cascadia.ParseGroup(selector)
	if err != nil {
		a.t.Fatalf("%s: %v", selector, err)
	}
	return cascadia.QueryAll(a.dom, s)
}

// text is the text of everything selected, with single spaces.
func (a answer) text(selector string) string {
	a.t.Helper()
	var parts []string
	for _, n := range a.all(selector) {
		parts = append(parts, strings.Fields(textOf(n))...)
	}
	return strings.Join(parts, " ")
}

func textOf(n *html.Node) string {
	if n.Type == html.TextNode {
		return n.Data
	}
	var b strings.Builder
	for c := range n.ChildNodes() {
		b.WriteString(textOf(c) + " ")
	}
	return b.String()
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// has asserts that what the selector selects has the words.
func (a answer) has(selector string, words ...string) {
	a.t.Helper()
	got := a.text(selector)
	if len(a.all(selector)) == 0 {
		a.t.Errorf("nothing matches %s", selector)
	}
	for _, w := range words {
		if !strings.Contains(got, w) {
			a.t.Errorf("%s says %q, without %q", selector, got, w)
		}
	}
}

func (a answer) count(selector string, want int) {
	a.t.Helper()
	if n := len(a.all(selector)); n != want {
		a.t.Errorf("%d of %s, want %d", n, selector, want)
	}
}

// pages is every page an administrator can look at.
func (st *site) pages() []string {
	return []string{
		"/", "/fleet", "/fleet?state=putback&ring=early", "/fleet/" + string(st.f.hosts[0].ID), "/fleet/" + string(st.f.hosts[0].ID) + "/revoke", "/content",
		"/content/" + string(newRules), "/content/" + string(refused), "/content/" + string(agentBuild),
		"/rollouts", "/rollouts/r-2026-0118", "/rollouts/r-2026-0117", "/rollouts/r-2026-0116", "/rollouts/r-2026-0118/halt", "/rollouts/r-2026-0118/pause", "/rollouts/r-2026-0117/override",
		"/findings", "/findings?severity=critical", "/findings/" + st.f.found[0].ID, "/record", "/record?kind=halt", "/consent", "/people", "/account",
		"/no/such/page",
	}
}

// failing is a source that is broken.
type failing struct{ *fixture }

func (f failing) For(holdfast.OrgID) view.Source { return f }

func (failing) Overview(context.Context) (view.Overview, error) {
	return view.Overview{}, errors.New("secret: the disk at /var/lib/holdfastd is full")
}

func (failing) Rollouts(context.Context) ([]view.RolloutRow, error) {
	return nil, &holdfast.Error{Kind: holdfast.Unavailable, What: "the database did not answer in time", Do: "try again"}
}

func TestErrorsAreToldWithoutInternals(t *testing.T) {
	st := newSite(t, func(c *Config) { c.Source = failing{c.Source.(*fixture)} })
	v := st.as(holdfast.Viewer)
	a := v.get("/")
	if a.code != http.StatusInternalServerError || strings.Contains(a.body, "secret") {
		t.Errorf("%d: %s", a.code, a.body)
	}
	a.has(".problem h1", "Something went wrong")
	a = v.get("/rollouts")
	if a.code != http.StatusServiceUnavailable {
		t.Errorf("unavailable: %d", a.code)
	}
	a.has(".problem", "did not answer in time", "Try again.")
	for _, p := range []string{"/fleet/nobody", "/content/sha256:1234", "/rollouts/none", "/findings/none", "/nothing"} {
		if a := st.as(holdfast.Analyst).get(p); a.code != http.StatusNotFound && a.code != http.StatusBadRequest {
			t.Errorf("%s: %d", p, a.code)
		}
	}
	if a := v.get("/fleet?state=happy"); a.code != http.StatusBadRequest {
		t.Errorf("bad state: %d", a.code)
	}
}

func TestPagesWorkWithoutTheVendoredScripts(t *testing.T) {
	st := newSite(t)
	for name := range st.c.assets {
		if strings.HasPrefix(name, "vendor/") {
			delete(st.c.assets, name)
		}
	}
	v := st.as(holdfast.Administrator)
	for _, p := range st.pages() {
		a := v.get(p)
		a.count("script[src*=vendor], link[href*=vendor], [sse-connect]", 0)
		a.has("main h1")
	}
	if a := v.get("/assets/console.css"); a.code != http.StatusOK || !strings.HasPrefix(a.head.Get("Content-Type"), "text/css") {
		t.Errorf("console.css: %d %s", a.code, a.head.Get("Content-Type"))
	}
	if a := v.get("/assets/../console.go"); a.code == http.StatusOK {
		t.Error("a file that is no asset was served")
	}
}

// What hosts and content say is shown as text, wherever it stands.
func TestHostileTextIsText(t *testing.T) {
	st := newSite(t)
	evil := `"><script>alert(1)</script><img src=x onerror=alert(1)>`
	f := &st.f.found[0]
	f.Title, f.Hostname, f.Rule, f.Techniques = evil, evil, evil, []string{"javascript:alert(1)", "../../" + evil}
	f.Tree[0].CmdLine, f.Tree[0].User, f.Event[0].Value, f.Matched[0].Value = evil, evil, evil, evil
	h := &st.f.hosts[0]
	h.Attributes.Hostname, h.Attributes.Role, h.Report.Reason, h.Labels = evil, evil, evil, []string{evil}
	f.Host = h.ID
	st.f.entries[len(st.f.entries)-1].Summary = evil
	st.f.rolls[0].Note, st.f.rolls[0].Why = evil, evil
	ruleRowsWere := slices.Clone(ruleRows)
	t.Cleanup(func() { copy(ruleRows, ruleRowsWere) })
	ruleRows[0].ID = evil
	v := st.as(holdfast.Administrator)
	for _, p := range st.pages() {
		a := v.get(p)
		a.count("img, [onerror]", 0)
		for _, s := range a.all("script") {
			if attr(s, "src") == "" {
				t.Errorf("%s: a script without src: %s", p, textOf(s))
			}
		}
		for _, l := range a.all("a[href]") {
			if u, err := url.Parse(attr(l, "href")); err != nil || u.Scheme != "" && u.Scheme != "https" {
				t.Errorf("%s: link to %s", p, attr(l, "href"))
			}
		}
	}
}

func TestRelativeTimesAndNumbersReadWell(t *testing.T) {
	for got, want := range map[string]string{
		count(8_500_000): "8,500,000", count(-1200): "-1,200", count(12): "12",
		number(4714.39): "4,714", number(0.417): "0.42", number(1.5e9): "1.5×10⁹", number(55.06): "55.1",
		percent(.0844): "8.4 %", percent(0): "0 %", percent(.99): "99 %",
		span(90 * time.Second): "1 min 30 s", span(26 * time.Hour): "1 d 2 h", span(494 * time.Millisecond): "494 ms",
		ago(fixtureTime.Add(-3*time.Hour), fixtureTime):   "3 h ago",
		ago(fixtureTime.Add(40*time.Second), fixtureTime): "in 40 s",
		ago(time.Time{}, fixtureTime):                     "never",
		size(48_211):                                      "47.1 KiB",
		plural(0, "host", "hosts"):                        "no hosts",
		sentence([]string{"a", "b", "c"}):                 "a, b and c",
		techniqueURL("T1059.004"):                         "https://attack.mitre.org/techniques/T1059/004",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestOneLineForEveryRole(t *testing.T) {
	for _, r := range holdfast.Roles {
		if len(permissions[r]) == 0 || roleMeanings[r] == "" {
			t.Errorf("role %s is missing from a table", r)
		}
	}
	for i := 1; i < len(holdfast.Roles); i++ {
		for _, p := range permissions[holdfast.Roles[i-1]] {
			if !May(holdfast.Roles[i], p) {
				t.Errorf("%s may %s, but %s may not", holdfast.Roles[i-1], p, holdfast.Roles[i])
			}
		}
	}
	if May("", See) || May("root", See) {
		t.Error("a role that does not exist may see")
	}
}
