// Package console is the web console: server-rendered pages over what Source
// answers, and the few decisions of Actions.
//
// One page is one struct, one template and one handler. Every page works
// without JavaScript: links, forms, charts drawn on the server. With it, pages
// load themselves again when a hint arrives, and charts can be read with the
// pointer. Nothing inline is ever executed (see policy in security.go).
package console

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/a-h/templ"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/view"
)

// Config is what a console is made of. Source, Actions, Hosts and Accounts are
// required.
type Config struct {
	Source   view.Source
	Actions  view.Actions
	Hosts    view.HostActions
	Accounts Accounts
	Hints    view.Hints // nil: live pages only ask now and then

	Org     holdfast.OrgID // of new people; empty: holdfast.DefaultOrg
	Version string         // of holdfastd
	Clock   view.Clock
	// SelfApproving says that releases are approved without a second person, as
	// the demo does; every page then says so.
	SelfApproving bool
	// PlainHTTP says that the console is served without TLS, on loopback only.
	// Its cookies then lack the Secure attribute.
	PlainHTTP bool

	Now func() time.Time // nil: time.Now
	Log *slog.Logger     // nil: slog.Default()
}

// Console serves the console at the root of its listener.
type Console struct {
	Config
	assets  assets
	routes  http.Handler
	streams streams
	guesses guesses
}

// New returns a console. It starts nothing.
func New(c Config) *Console {
	if c.Org == "" {
		c.Org = holdfast.DefaultOrg
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	s := &Console{Config: c, assets: readAssets()}
	s.routes = s.table()
	return s
}

// ServeHTTP implements http.Handler.
func (s *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	setPolicy(w.Header())
	s.routes.ServeHTTP(w, r)
}

// table is every address of the console, and who may go there.
func (s *Console) table() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /assets/", s.assets)
	mux.Handle("GET /sign-in", s.open(s.signInPage))
	mux.Handle("POST /sign-in", s.open(s.signIn))
	mux.Handle("GET /sign-in/once", s.open(s.oncePage))
	mux.Handle("POST /sign-in/once", s.open(s.once))
	mux.Handle("POST /theme", s.open(s.setTheme))

	mux.Handle("GET /{$}", s.page(See, s.overview))
	mux.Handle("GET /fleet", s.page(See, s.fleet))
	mux.Handle("GET /fleet/{id}", s.page(See, s.host))
	mux.Handle("GET /fleet/{id}/revoke", s.page(Revoke, s.askToRevoke))
	mux.Handle("POST /fleet/{id}/revoke", s.page(Revoke, s.revoke))
	mux.Handle("GET /content", s.page(See, s.content))
	mux.Handle("GET /content/{digest}", s.page(See, s.bundle))
	mux.Handle("GET /rollouts", s.page(See, s.rollouts))
	mux.Handle("GET /rollouts/{id}", s.page(See, s.rollout))
	mux.Handle("GET /consent", s.page(See, s.consent))
	for _, d := range decisions {
		mux.Handle("GET /rollouts/{id}/"+d.Name, s.page(d.Needs, s.confirm(d)))
		mux.Handle("POST /rollouts/{id}/"+d.Name, s.page(d.Needs, s.decide(d)))
	}
	mux.Handle("GET /findings", s.page(Inspect, s.findings))
	mux.Handle("GET /findings/{id}", s.page(Inspect, s.finding))
	mux.Handle("GET /record", s.page(See, s.record))
	mux.Handle("GET /record/export", s.page(See, s.exportRecord))
	mux.Handle("GET /people", s.page(People, s.people))
	mux.Handle("POST /people", s.page(People, s.putPerson))
	mux.Handle("POST /people/{name}/access", s.page(People, s.setAccess))
	mux.Handle("GET /account", s.page(See, s.account))
	mux.Handle("POST /account", s.page(See, s.changePassword))
	mux.Handle("POST /sign-out", s.page(See, s.signOut))
	mux.Handle("GET /events", s.page(See, s.events))
	mux.Handle("/", s.page(See, func(_ http.ResponseWriter, r *http.Request, _ *visit) error {
		return &holdfast.Error{Kind: holdfast.NotFound, What: "there is no such page", Where: r.URL.Path}
	}))
	return http.NewCrossOriginProtection().Handler(http.MaxBytesHandler(mux, 64<<10))
}

// visit is one request by one person.
type visit struct {
	User    holdfast.User // zero before sign-in
	source  view.Source   // what this person may see; nil before sign-in
	session string        // its secret
	Token   string        // against forged requests; every form carries it
	Theme   string        // "light", "dark", or empty: as the system says
	Path    string        // with query, to come back to
	At      time.Time
}

// may reports whether the visitor has the permission: pages offer nothing that
// would be refused.
func (v *visit) may(p Permission) bool {
	return May(v.User.Role, p) && (v.User.Org == holdfast.DefaultOrg || slices.Contains(ofOwn, p))
}

type handler func(http.ResponseWriter, *http.Request, *visit) error

// page serves a handler to people who are signed in and have the permission.
func (s *Console) page(needs Permission, h handler) http.Handler {
	return s.open(func(w http.ResponseWriter, r *http.Request, v *visit) error {
		if v.User.Name == "" {
			return s.askToSignIn(w, r)
		}
		if May(v.User.Role, needs) && !v.may(needs) {
			return &holdfast.Error{Kind: holdfast.Denied, What: "you belong to organisation " + string(v.User.Org) + ", and this (" + string(needs) + ") is for those who run the installation"}
		}
		if !v.may(needs) {
			return &holdfast.Error{Kind: holdfast.Denied, What: "your role, " + string(v.User.Role) + ", does not include this (" + string(needs) + ")", Do: "ask an administrator"}
		}
		if r.Method == http.MethodPost && !tokenMatches(r.PostFormValue("token"), v.Token) {
			return &holdfast.Error{Kind: holdfast.Denied, What: "this form was not made for your session", Do: "go back, reload the page, and send it again"}
		}
		return h(w, r, v)
	})
}

// open serves a handler to everybody, and renders the error it returns.
func (s *Console) open(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, err := s.visitOf(r)
		if err == nil {
			err = h(w, r, v)
		}
		if err != nil && r.Context().Err() == nil {
			s.fail(w, r, v, err)
		}
	})
}

func (s *Console) visitOf(r *http.Request) (*visit, error) {
	v := &visit{Path: r.URL.RequestURI(), At: s.Now(), Theme: themeOf(r)}
	c, err := r.Cookie(s.cookieName())
	if err != nil || len(c.Value) > 128 {
		return v, nil
	}
	u, err := s.Accounts.Session(r.Context(), c.Value, v.At)
	switch kind := holdfast.KindOf(err); {
	case err == nil:
		v.User, v.source, v.session, v.Token = u, s.Source.For(u.Org), c.Value, formToken(c.Value)
	case kind != holdfast.Denied && kind != holdfast.NotFound:
		return v, err
	}
	return v, nil
}

// statuses maps kinds of error to HTTP.
var statuses = map[holdfast.Kind]int{
	holdfast.Internal:    http.StatusInternalServerError,
	holdfast.Invalid:     http.StatusBadRequest,
	holdfast.NotFound:    http.StatusNotFound,
	holdfast.Conflict:    http.StatusConflict,
	holdfast.Denied:      http.StatusForbidden,
	holdfast.Unavailable: http.StatusServiceUnavailable,
}

func (s *Console) fail(w http.ResponseWriter, r *http.Request, v *visit, err error) {
	kind := holdfast.KindOf(err)
	if kind == holdfast.Internal {
		s.Log.Error("console page failed", "path", r.URL.Path, "err", err)
	}
	p := errorPage{shell: s.shell(v, "Error", ""), Status: statuses[kind], Kind: kind, Err: err}
	if renderErr := s.render(w, statuses[kind], errorView(p)); renderErr != nil {
		s.Log.Error("console error page failed", "err", renderErr)
	}
}

// render writes a whole page or nothing.
func (s *Console) render(w http.ResponseWriter, status int, c templ.Component) error {
	var b bytes.Buffer
	if err := c.Render(context.Background(), &b); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // the reader is gone: nobody to tell
	return nil
}

// shell is what surrounds every page.
type shell struct {
	*visit
	Title   string
	Section string // of the navigation
	Config  *Config
	Assets  assets
	Live    []view.Topic // what makes the page load itself again
	Done    string       // what was just done, if a form led here
}

func (s *Console) shell(v *visit, title, section string, live ...view.Topic) shell {
	return shell{visit: v, Title: title, Section: section, Config: &s.Config, Assets: s.assets, Live: live}
}

// eventsURL is the stream of hints for the page's topics.
func (p shell) eventsURL() string {
	q := url.Values{}
	for _, t := range p.Live {
		q.Add("topic", string(t))
	}
	return "/events?" + q.Encode()
}

// trigger is the same list as htmx wants it. Hints may be lost, so a page also
// asks by itself.
func (p shell) trigger() string {
	t := "every 5s"
	for _, topic := range p.Live {
		t = "sse:" + string(topic) + ", " + t
	}
	return t
}

type errorPage struct {
	shell
	Status int
	Kind   holdfast.Kind
	Err    error
}
