// Package api is the HTTP API for programs and the command line: JSON under
// /api/v1, bearer tokens, one error shape (apiv1.Problem), and one table that
// says which role may do what.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/wire/apiv1"
)

// Tokens tells who a bearer token belongs to.
type Tokens interface {
	// Token returns holdfast.Denied for a token that is unknown, expired, or
	// whose user is disabled.
	Token(ctx context.Context, secret string, now time.Time) (holdfast.User, error)
}

// maxBody bounds a JSON request; uploads have bounds of their own.
const maxBody = 1 << 20

// Server answers the API.
type Server struct {
	Tokens  Tokens
	Read    Reads
	Decide  Decisions
	Publish Publishing
	Admin   Administration
	Changes Changes
	Log     *slog.Logger
	Now     func() time.Time
}

// call is one request by one person.
type call struct {
	*http.Request
	w    http.ResponseWriter
	user holdfast.User
	read Reads // what the caller may see
}

// route is one line of the table: who may, and what happens.
type route struct {
	pattern string
	roles   []holdfast.Role // nil: every role
	handle  func(*call) (any, error)
}

var (
	publishers = []holdfast.Role{holdfast.Publisher, holdfast.Operator, holdfast.Administrator}
	operators  = []holdfast.Role{holdfast.Operator, holdfast.Administrator}
	// Who sees a fire may pull the alarm: halting is given more widely than
	// going on.
	haltable = []holdfast.Role{holdfast.Analyst, holdfast.Publisher, holdfast.Operator, holdfast.Administrator}
	readers  = []holdfast.Role{holdfast.Analyst, holdfast.Publisher, holdfast.Operator, holdfast.Administrator}
	admins   = []holdfast.Role{holdfast.Administrator}
)

// ofOwn is what people of any organisation may change where it is their own: the
// handlers see to that. All else is for those of the default organisation, who run
// the installation: a release, and whether it goes on, is everybody's.
var ofOwn = []string{
	"PUT /api/v1/orgs/{org}/consent",
	"PUT /api/v1/hosts/{id}/do-not-canary",
	"DELETE /api/v1/hosts/{id}/do-not-canary",
	"POST /api/v1/hosts/{id}/revoke",
}

func (s *Server) routes() []route {
	return []route{
		{"GET /api/v1/status", nil, s.status},
		{"GET /api/v1/hosts", nil, s.hosts},
		{"GET /api/v1/hosts/{id}", nil, s.host},
		{"GET /api/v1/builds", nil, s.builds},
		{"GET /api/v1/bundles", nil, s.bundles},
		{"GET /api/v1/bundles/{digest}", nil, s.bundle},
		{"GET /api/v1/rollouts", nil, s.rollouts},
		{"GET /api/v1/rollouts/{id}", nil, s.rollout},
		{"GET /api/v1/findings", readers, s.findings},
		{"GET /api/v1/findings/{id}", readers, s.finding},
		{"GET /api/v1/orgs/{org}/consent", nil, s.consent},
		{"GET /api/v1/record", nil, s.record},
		{"GET /api/v1/record/export", nil, s.exportRecord},

		{"PUT /api/v1/builds/{digest}", publishers, s.putBuild},
		{"PUT /api/v1/content/{channel}/{digest}", publishers, s.putContent},
		{"PUT /api/v1/verdicts/{digest}", publishers, s.putVerdict},

		{"PUT /api/v1/orgs/{org}/consent", operators, s.putConsent},
		{"PUT /api/v1/hosts/{id}/do-not-canary", operators, s.doNotCanary(true)},
		{"DELETE /api/v1/hosts/{id}/do-not-canary", operators, s.doNotCanary(false)},
		{"POST /api/v1/hosts/{id}/revoke", operators, s.revokeHost},
		{"PUT /api/v1/trust/metadata", publishers, s.putMetadata},
		{"POST /api/v1/releases", publishers, s.release},
		{"POST /api/v1/releases/{id}/approve", publishers, s.approve},
		{"POST /api/v1/releases/{id}/halt", haltable, s.halt},
		{"POST /api/v1/releases/{id}/pause", operators, s.pause},
		{"POST /api/v1/releases/{id}/resume", operators, s.resume},
		{"POST /api/v1/releases/{id}/finish", operators, s.finish},
		{"POST /api/v1/releases/{id}/override", operators, s.override},

		{"POST /api/v1/drills", operators, s.drill},

		{"POST /api/v1/enrolments", admins, s.enrolment},
		{"POST /api/v1/users", admins, s.newUser},
		{"POST /api/v1/users/{name}/tokens", admins, s.newToken},
		{"POST /api/v1/users/{name}/links", admins, s.newLink},
	}
}

// Handler returns the API's handler.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, r := range s.routes() {
		mux.Handle(r.pattern, s.guarded(r))
	}
	mux.Handle("GET /api/v1/findings/follow", s.guarded(route{roles: readers, handle: s.followFindings}))
	mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, &holdfast.Error{Kind: holdfast.NotFound, What: "the API has no " + r.Method + " " + r.URL.Path})
	})
	return mux
}

// streamed is what a handler returns that has written its own answer.
type streamed struct{}

func (s *Server) guarded(r route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		user, err := s.caller(req)
		if err == nil && r.roles != nil && !slices.Contains(r.roles, user.Role) {
			err = &holdfast.Error{Kind: holdfast.Denied, What: "the role " + string(user.Role) + " may not do this", Do: "ask somebody who is " + list(r.roles)}
		}
		if err == nil && user.Org != holdfast.DefaultOrg && !slices.Contains(ofOwn, r.pattern) && req.Method != http.MethodGet {
			err = &holdfast.Error{Kind: holdfast.Denied, What: "you belong to organisation " + string(user.Org) + ", and this is for those who run the installation"}
		}
		if err != nil {
			s.fail(w, req, err)
			return
		}
		out, err := r.handle(&call{Request: req, w: w, user: user, read: s.Read.For(user.Org)})
		switch out := out.(type) {
		case streamed:
			if err != nil && req.Context().Err() == nil {
				s.Log.Warn("stream ended", "path", req.URL.Path, "err", err)
			}
		case []byte:
			if err == nil {
				w.Header().Set("Content-Type", "application/octet-stream")
				_, _ = w.Write(out)
				return
			}
			s.fail(w, req, err)
		default:
			if err != nil {
				s.fail(w, req, err)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			if err := json.NewEncoder(w).Encode(out); err != nil && req.Context().Err() == nil {
				s.Log.Warn("answer not sent", "path", req.URL.Path, "err", err)
			}
		}
	})
}

func (s *Server) caller(req *http.Request) (holdfast.User, error) {
	denied := &holdfast.Error{Kind: holdfast.Denied, What: "no valid API token", Do: "send it as: Authorization: Bearer TOKEN"}
	token, ok := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
	if !ok || token == "" {
		return holdfast.User{}, denied
	}
	user, err := s.Tokens.Token(req.Context(), token, s.Now())
	if err != nil && holdfast.KindOf(err) == holdfast.Denied {
		return holdfast.User{}, denied
	}
	return user, err
}

func list(roles []holdfast.Role) string {
	var names []string
	for _, r := range roles {
		names = append(names, string(r))
	}
	return strings.Join(names, " or ")
}

var statuses = map[holdfast.Kind]int{
	holdfast.Internal:    http.StatusInternalServerError,
	holdfast.Invalid:     http.StatusBadRequest,
	holdfast.NotFound:    http.StatusNotFound,
	holdfast.Conflict:    http.StatusConflict,
	holdfast.Denied:      http.StatusForbidden,
	holdfast.Unavailable: http.StatusServiceUnavailable,
}

func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	kind := holdfast.KindOf(err)
	if kind == holdfast.Internal && r.Context().Err() == nil {
		s.Log.Error("request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(statuses[kind])
	_ = json.NewEncoder(w).Encode(apiv1.ProblemOf(err))
}

// decode reads the request's JSON strictly. An empty body is the zero value.
func (c *call) decode(into any) error {
	d := json.NewDecoder(http.MaxBytesReader(c.w, c.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil && !errors.Is(err, io.EOF) {
		return &holdfast.Error{Kind: holdfast.Invalid, What: "the request is not what this call takes", Err: err}
	}
	return nil
}

// upload reads a body of at most most bytes.
func (c *call) upload(most int64) ([]byte, error) {
	raw, err := io.ReadAll(http.MaxBytesReader(c.w, c.Body, most))
	if err != nil {
		return nil, &holdfast.Error{Kind: holdfast.Invalid, What: "the upload broke off or is too large", Err: err}
	}
	return raw, nil
}

func (c *call) digest() (holdfast.Digest, error) { return holdfast.ParseDigest(c.PathValue("digest")) }

func (c *call) release() holdfast.ReleaseID { return holdfast.ReleaseID(c.PathValue("id")) }
