package console

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// policy lets a page use what this server sent as files, and nothing else: no
// inline script or style, no other host, no frame around it.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

func setPolicy(h http.Header) {
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
}

// formToken derives the token that forms carry from the session's own, which
// only the browser and this request know. A forged request has the cookie but
// cannot read it. (Cross-origin requests are refused before, by their headers;
// this holds where a browser sends none.)
func formToken(session string) string {
	m := hmac.New(sha256.New, []byte(session))
	m.Write([]byte("holdfast form v1"))
	return hex.EncodeToString(m.Sum(nil))
}

func tokenMatches(got, want string) bool {
	return want != "" && subtle.ConstantTimeCompare([]byte(got), []byte(want)) == 1
}

// cookieName has the prefix with which browsers enforce Secure, this host only
// and the whole path, wherever there is TLS.
func (s *Console) cookieName() string {
	if s.PlainHTTP {
		return "holdfast-session"
	}
	return "__Host-holdfast-session"
}

// setSession says how long, not until when: a browser whose clock is wrong would
// otherwise drop the session at once. A life below zero ends it.
func (s *Console) setSession(w http.ResponseWriter, token string, life time.Duration) {
	http.SetCookie(w, &http.Cookie{
		Name: s.cookieName(), Value: token, Path: "/", MaxAge: int(life / time.Second),
		Secure: !s.PlainHTTP, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}

// localPath keeps a "come back to" address on this console: a path of its own,
// never another host.
func localPath(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || !strings.HasPrefix(u.Path, "/") || strings.HasPrefix(u.Path, "//") || strings.ContainsAny(s, "\\\r\n") {
		return "/"
	}
	return (&url.URL{Path: u.Path, RawQuery: u.RawQuery}).RequestURI()
}

const themeCookie = "holdfast-theme"

func themeOf(r *http.Request) string {
	if c, err := r.Cookie(themeCookie); err == nil && (c.Value == "light" || c.Value == "dark") {
		return c.Value
	}
	return ""
}

// setTheme remembers light, dark or the system's choice. It changes nothing but
// a preference, so it needs no session.
func (s *Console) setTheme(w http.ResponseWriter, r *http.Request, _ *visit) error {
	c := &http.Cookie{Name: themeCookie, Value: r.PostFormValue("theme"), Path: "/", MaxAge: 365 * 24 * 3600, Secure: !s.PlainHTTP, HttpOnly: true, SameSite: http.SameSiteLaxMode}
	if c.Value != "light" && c.Value != "dark" {
		c.Value, c.MaxAge = "", -1
	}
	http.SetCookie(w, c)
	http.Redirect(w, r, localPath(r.PostFormValue("back")), http.StatusSeeOther)
	return nil
}
