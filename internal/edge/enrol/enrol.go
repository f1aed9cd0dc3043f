// Package enrol gives hosts their identity: it keeps the hosts' certificate
// authority, exchanges a token for a client certificate, and renews the
// certificates of hosts it knows.
package enrol

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/wire"
)

// Store is what enrolment keeps.
type Store interface {
	// EnrolToken returns the token of that id, used up or not, or NotFound.
	EnrolToken(ctx context.Context, id string) (holdfast.EnrolToken, error)
	// EnrolHost takes one use of the token and stores the new host, in one
	// transaction. Denied if no use is left or the token is gone.
	EnrolHost(ctx context.Context, tokenID string, h holdfast.Host) error
	// Host returns an enrolled host, or NotFound.
	Host(ctx context.Context, id holdfast.HostID) (holdfast.Host, error)
}

// NewToken draws a token. The string is for the person who enrols hosts and
// holds the secret; the record is for the store and does not. Org, Role, Uses,
// Expires and By are taken from like; root is the SHA-256 of the image
// repository's root metadata, or nil.
func NewToken(server string, ca *CA, root []byte, like holdfast.EnrolToken, now time.Time) (string, holdfast.EnrolToken) {
	var id [6]byte
	secret := make([]byte, wire.SecretSize)
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	_, _ = rand.Read(secret)
	like.ID, like.Hash, like.Created = hex.EncodeToString(id[:]), holdfast.DigestOf(secret), now
	return wire.Token{Server: server, CA: ca.Fingerprint(), Root: root, ID: like.ID, Secret: secret}.String(), like
}

// Server answers POST /v1/enrol and POST /v1/renew.
type Server struct {
	ca    *CA
	store Store
	roots func() map[string][]byte
	life  time.Duration
	now   func() time.Time
	log   *slog.Logger
	limit *limit
}

// NewServer makes a server. Roots returns the initial root metadata that new
// hosts are to pin (see wire.EnrolResponse). Life is the life of client
// certificates, Life if zero.
func NewServer(ca *CA, store Store, roots func() map[string][]byte, life time.Duration, now func() time.Time, log *slog.Logger) *Server {
	if life == 0 {
		life = Life
	}
	return &Server{ca: ca, store: store, roots: roots, life: life, now: now, log: log, limit: newLimit()}
}

// Register puts the two handlers on the hosts' mux.
func (s *Server) Register(mux *http.ServeMux) {
	mux.HandleFunc("POST "+wire.EnrolPath, s.handle(s.enrol))
	mux.HandleFunc("POST "+wire.RenewPath, s.handle(s.renew))
}

// handle reads a bounded body, and slows down those who guess.
func (s *Server) handle(answer func(*http.Request, *json.Decoder) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		from, now := sourceOf(r.RemoteAddr), s.now()
		if wait := s.limit.wait(from, now); wait > 0 {
			wire.WriteProblem(w, &holdfast.Error{Kind: holdfast.Unavailable, What: "too many attempts", Do: "try again later"}, wait)
			return
		}
		resp, err := answer(r, json.NewDecoder(http.MaxBytesReader(w, r.Body, wire.MaxEnrolBody)))
		if err != nil {
			switch holdfast.KindOf(err) {
			case holdfast.Denied, holdfast.Invalid:
				s.limit.failed(from, now)
				s.log.Warn("enrolment refused", "from", r.RemoteAddr, "path", r.URL.Path, "why", err)
			default:
				s.log.Error("enrolment failed", "from", r.RemoteAddr, "path", r.URL.Path, "why", err)
			}
			retry := time.Duration(0)
			if holdfast.KindOf(err) == holdfast.Unavailable {
				retry = 5 * time.Second
			}
			wire.WriteProblem(w, err, retry)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		if err := json.NewEncoder(w).Encode(resp); err != nil {
			s.log.Debug("enrolment answer not delivered", "from", r.RemoteAddr, "why", err)
		}
	}
}

// errToken is one answer for every way in which a token is wrong, so that it
// tells a guesser nothing.
var errToken = &holdfast.Error{Kind: holdfast.Denied, What: "the enrolment token is not valid, is used up or has expired", Do: "ask for a new one"}

func (s *Server) enrol(r *http.Request, body *json.Decoder) (any, error) {
	ctx, now := r.Context(), s.now()
	var req wire.EnrolRequest
	if err := body.Decode(&req); err != nil {
		return nil, &holdfast.Error{Kind: holdfast.Invalid, Where: "enrolment request", Err: err}
	}
	token, err := s.token(ctx, req.Token, now)
	if err != nil {
		return nil, err
	}
	if err := wire.CheckAttributes(req.Attributes); err != nil {
		return nil, err
	}
	csr, err := readCSR(req.CSR)
	if err != nil {
		return nil, err
	}
	if token.Role != "" {
		req.Attributes.Role = token.Role
	}
	host := holdfast.Host{
		ID: s.ca.nameOf(csr.RawSubjectPublicKeyInfo), Org: token.Org, Attributes: req.Attributes,
		Key: holdfast.DigestOf(csr.RawSubjectPublicKeyInfo), Simulated: req.Simulated, Enrolled: now,
	}
	known, err := s.store.Host(ctx, host.ID)
	switch {
	case err == nil && known.Key == host.Key && known.Org == host.Org: // asked before, and never heard the answer
		host = known
	case err == nil:
		return nil, errToken
	case holdfast.KindOf(err) != holdfast.NotFound:
		return nil, err
	default:
		if err := s.store.EnrolHost(ctx, token.ID, host); holdfast.KindOf(err) == holdfast.Denied && err != nil {
			return nil, errToken
		} else if err != nil {
			return nil, err
		}
		s.log.Info("host enrolled", "host", host.ID, "org", host.Org, "hostname", host.Attributes.Hostname, "simulated", host.Simulated, "token", token.ID)
	}
	cert, err := s.ca.issue(csr, host.ID, host.Org, s.life, now)
	if err != nil {
		return nil, err
	}
	return wire.EnrolResponse{Host: host.ID, Org: host.Org, Role: token.Role, Certificate: cert, CA: s.ca.DER(), Roots: s.roots()}, nil
}

// token returns the record of a token if the caller knows its secret.
func (s *Server) token(ctx context.Context, credential string, now time.Time) (holdfast.EnrolToken, error) {
	var none holdfast.EnrolToken
	id, secret, err := wire.ParseCredential(credential)
	if err != nil {
		return none, errToken
	}
	token, err := s.store.EnrolToken(ctx, id)
	if err != nil && holdfast.KindOf(err) != holdfast.NotFound {
		return none, err
	}
	// Compared even if there is no such token, so that time tells nothing.
	same := subtle.ConstantTimeCompare([]byte(holdfast.DigestOf(secret)), []byte(token.Hash)) == 1
	if err != nil || !same || !now.Before(token.Expires) {
		return none, errToken
	}
	return token, nil
}

func (s *Server) renew(r *http.Request, body *json.Decoder) (any, error) {
	now := s.now()
	denied := func(what string) (any, error) {
		return nil, &holdfast.Error{Kind: holdfast.Denied, What: what, Do: "enrol the host again"}
	}
	old, err := s.ca.presented(r)
	if err != nil {
		return nil, err
	}
	var req wire.RenewRequest
	if err := body.Decode(&req); err != nil {
		return nil, &holdfast.Error{Kind: holdfast.Invalid, Where: "renewal request", Err: err}
	}
	csr, err := readCSR(req.CSR)
	if err != nil {
		return nil, err
	}
	host, err := s.store.Host(r.Context(), holdfast.HostID(old.Subject.CommonName))
	if holdfast.KindOf(err) == holdfast.NotFound && err != nil {
		return denied("the host is not enrolled any more")
	}
	if err != nil {
		return nil, err
	}
	if !sameKey(old, csr) || subtle.ConstantTimeCompare([]byte(holdfast.DigestOf(csr.RawSubjectPublicKeyInfo)), []byte(host.Key)) != 1 {
		return denied("a certificate is renewed only for the key the host enrolled with")
	}
	cert, err := s.ca.issue(csr, host.ID, host.Org, s.life, now)
	if err != nil {
		return nil, err
	}
	s.log.Info("certificate renewed", "host", host.ID, "expired", now.After(old.NotAfter))
	return wire.RenewResponse{Certificate: cert, CA: s.ca.DER()}, nil
}

func sameKey(c *x509.Certificate, r *x509.CertificateRequest) bool {
	return subtle.ConstantTimeCompare(c.RawSubjectPublicKeyInfo, r.RawSubjectPublicKeyInfo) == 1
}
