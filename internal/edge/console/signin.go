package console

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/holdfast-security/holdfast"
)

type signInPage struct {
	shell
	Name    string
	Back    string
	Problem string
}

type oncePage struct {
	shell
	Link    string // the token, to be sent by the button
	Problem string
}

// SignInLink returns the path of a link that signs in as name once, within an
// hour. The user is made an administrator if nobody of that name exists yet.
// The server prints it at first start; whoever can read its terminal can
// already read its store.
func (s *Console) SignInLink(ctx context.Context, name string) (string, error) {
	if err := checkUserName(name); err != nil {
		return "", err
	}
	now := s.Now()
	_, err := s.Accounts.User(ctx, name)
	if err != nil && holdfast.KindOf(err) == holdfast.NotFound {
		err = s.Accounts.CreateUser(ctx, holdfast.User{Name: name, Org: s.Org, Role: holdfast.Administrator, Created: now}, "", "holdfast")
	}
	if err != nil {
		return "", err
	}
	secret, err := s.Accounts.CreateSignIn(ctx, name, now.Add(linkLife))
	if err != nil {
		return "", err
	}
	return "/sign-in/once?" + url.Values{"link": {secret}}.Encode(), nil
}

// askToSignIn sends a person to the sign-in page and back afterwards. A part of
// a page that loads itself again must not be filled with a sign-in form.
func (s *Console) askToSignIn(w http.ResponseWriter, r *http.Request) error {
	to := "/sign-in"
	if r.Method == http.MethodGet && r.URL.Path != "/" && r.URL.Path != "/events" {
		to += "?" + url.Values{"back": {r.URL.RequestURI()}}.Encode()
	}
	if r.Header.Get("HX-Request") != "" || r.URL.Path == "/events" {
		w.Header().Set("HX-Redirect", to)
		w.WriteHeader(http.StatusUnauthorized)
		return nil
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
	return nil
}

func (s *Console) signInPage(w http.ResponseWriter, r *http.Request, v *visit) error {
	back := localPath(r.URL.Query().Get("back"))
	if v.User.Name != "" {
		http.Redirect(w, r, back, http.StatusSeeOther)
		return nil
	}
	return s.render(w, http.StatusOK, signInView(signInPage{shell: s.shell(v, "Sign in", ""), Back: back}))
}

func (s *Console) signIn(w http.ResponseWriter, r *http.Request, v *visit) error {
	name, password, back := r.PostFormValue("name"), r.PostFormValue("password"), localPath(r.PostFormValue("back"))
	refuse := func(status int, problem string) error {
		return s.render(w, status, signInView(signInPage{shell: s.shell(v, "Sign in", ""), Name: name, Back: back, Problem: problem}))
	}
	if !s.guesses.allow(name, r.RemoteAddr, v.At) {
		return refuse(http.StatusTooManyRequests, "Too many attempts. Wait half a minute and try again.")
	}
	u, err := s.Accounts.CheckPassword(r.Context(), name, password)
	switch {
	case err == nil:
		return s.begin(w, r, u.Name, back)
	case holdfast.KindOf(err) == holdfast.Denied:
		return refuse(http.StatusUnauthorized, "No one of that name has that password.")
	}
	return err
}

func (s *Console) oncePage(w http.ResponseWriter, r *http.Request, v *visit) error {
	return s.render(w, http.StatusOK, onceView(oncePage{shell: s.shell(v, "Sign in", ""), Link: r.URL.Query().Get("link")}))
}

// once uses the link up. It takes a button press, because mail scanners and
// terminals open links by themselves. Whoever holds the link may set a password
// with it.
func (s *Console) once(w http.ResponseWriter, r *http.Request, v *visit) error {
	link, password := r.PostFormValue("link"), r.PostFormValue("password")
	refuse := func(status int, link, problem string) error {
		return s.render(w, status, onceView(oncePage{shell: s.shell(v, "Sign in", ""), Link: link, Problem: problem}))
	}
	if password != "" {
		if err := checkPassword(password); err != nil {
			return refuse(http.StatusBadRequest, link, title(err.Error())+".")
		}
	}
	u, err := s.Accounts.UseSignIn(r.Context(), link, v.At)
	if err != nil && holdfast.KindOf(err) == holdfast.Denied {
		return refuse(http.StatusForbidden, "", "This link was used already, or an hour has passed. Start holdfastd again for a new one, or sign in with a password.")
	}
	if err == nil && password != "" {
		err = s.Accounts.SetPassword(r.Context(), u.Name, password, u.Name)
	}
	if err != nil {
		return err
	}
	return s.begin(w, r, u.Name, "/")
}

func (s *Console) begin(w http.ResponseWriter, r *http.Request, name, back string) error {
	now := s.Now()
	secret, err := s.Accounts.CreateSession(r.Context(), name, now, now.Add(sessionLife))
	if err != nil {
		return err
	}
	s.setSession(w, secret, sessionLife)
	http.Redirect(w, r, back, http.StatusSeeOther)
	return nil
}

func (s *Console) signOut(w http.ResponseWriter, r *http.Request, v *visit) error {
	if err := s.Accounts.EndSession(r.Context(), v.session); err != nil {
		return err
	}
	s.setSession(w, "", -time.Second)
	http.Redirect(w, r, "/sign-in", http.StatusSeeOther)
	return nil
}

// guesses bounds how fast passwords can be tried, per name and address.
type guesses struct {
	mu sync.Mutex
	by map[string]*rate.Limiter
}

const guessers = 4096

func (g *guesses) allow(name, remote string, now time.Time) bool {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	key := host + " " + name[:min(len(name), 64)]
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.by) >= guessers || g.by == nil {
		g.by = map[string]*rate.Limiter{}
	}
	l := g.by[key]
	if l == nil {
		l = rate.NewLimiter(rate.Every(6*time.Second), 6)
		g.by[key] = l
	}
	return l.AllowN(now, 1)
}
