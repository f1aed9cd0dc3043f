// Package enrol gives hosts their identity: it keeps the hosts' certificate
// authority, exchanges a token for a client certificate, and renews the
// certificates of hosts it knows.
package enrol

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/wire"
)

// Store is what enrolment keeps.
type Store interface {
	// Host returns an enrolled host, or NotFound.
	Host(ctx context.Context, id holdfast.HostID) (holdfast.Host, error)
	// EnrolHost spends one use of the enrolment whose secret this is and stores
	// the host that as makes for it, in one transaction: both or neither. Denied
	// if the secret is wrong, used up or expired.
	EnrolHost(ctx context.Context, secret string, now time.Time, as func(holdfast.Enrolment) holdfast.Host) (holdfast.Host, error)
	// SetSerial records the serial of a host's current certificate.
	SetSerial(ctx context.Context, id holdfast.HostID, serial string) error
}

// Token returns what to give to a person: the secret of an enrolment with
// where to go and whom to believe. Root is the SHA-256 of the image
// repository's root metadata, or nil.
func Token(server string, ca *CA, root []byte, secret string) string {
	return wire.Token{Server: server, CA: ca.Fingerprint(), Root: root, Secret: secret}.String()
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
				if !errors.Is(err, errRevoked) { // it showed a key that we know: that is no guess
					s.limit.failed(from, now)
				}
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
	if err := wire.CheckAttributes(req.Attributes); err != nil {
		return nil, err
	}
	csr, err := readCSR(req.CSR)
	if err != nil {
		return nil, err
	}
	// A host that asked before and never heard the answer asks again with the
	// same key, which then is all it needs.
	host, err := s.known(ctx, csr)
	if err != nil && holdfast.KindOf(err) == holdfast.NotFound {
		host, err = s.store.EnrolHost(ctx, req.Secret, now, func(e holdfast.Enrolment) holdfast.Host {
			h := holdfast.Host{
				ID: s.ca.nameOf(csr.RawSubjectPublicKeyInfo), Org: e.Org, Attributes: req.Attributes,
				Simulated: req.Simulated || e.Simulated, Enrolled: now, LastSeen: now,
			}
			if e.Role != "" {
				h.Attributes.Role = e.Role
			}
			return h
		})
		if err != nil && holdfast.KindOf(err) == holdfast.Denied {
			return nil, errToken
		}
		if err == nil {
			s.log.Info("host enrolled", "host", host.ID, "org", host.Org, "hostname", host.Attributes.Hostname, "simulated", host.Simulated)
		}
	}
	if err != nil {
		return nil, err
	}
	cert, err := s.issue(ctx, csr, host, now)
	if err != nil {
		return nil, err
	}
	return wire.EnrolResponse{Host: host.ID, Org: host.Org, Role: host.Attributes.Role, Certificate: cert, CA: s.ca.DER(), Roots: s.roots()}, nil
}

func (s *Server) renew(r *http.Request, body *json.Decoder) (any, error) {
	var req wire.RenewRequest
	if err := body.Decode(&req); err != nil {
		return nil, &holdfast.Error{Kind: holdfast.Invalid, Where: "renewal request", Err: err}
	}
	csr, err := readCSR(req.CSR)
	if err != nil {
		return nil, err
	}
	host, err := s.known(r.Context(), csr)
	if err != nil && holdfast.KindOf(err) == holdfast.NotFound {
		return nil, &holdfast.Error{Kind: holdfast.Denied, What: "no host is enrolled with this key", Do: "enrol the host again"}
	}
	if err != nil {
		return nil, err
	}
	cert, err := s.issue(r.Context(), csr, host, s.now())
	if err != nil {
		return nil, err
	}
	return wire.RenewResponse{Certificate: cert, CA: s.ca.DER()}, nil
}

// known returns the host that enrolled with the key of csr. The host's id is a
// function of its key, so that no other key can ever ask for its certificate.
func (s *Server) known(ctx context.Context, csr *x509.CertificateRequest) (holdfast.Host, error) {
	host, err := s.store.Host(ctx, s.ca.nameOf(csr.RawSubjectPublicKeyInfo))
	if err == nil && host.Revoked {
		err = fmt.Errorf("host %s: %w", host.ID, errRevoked)
	}
	return host, err
}

var errRevoked = &holdfast.Error{Kind: holdfast.Denied, What: "this host was revoked", Do: "remove its identity directory and enrol it again, which gives it a new key"}

func (s *Server) issue(ctx context.Context, csr *x509.CertificateRequest, host holdfast.Host, now time.Time) ([]byte, error) {
	cert, serial, err := s.ca.issue(csr, host.ID, host.Org, s.life, now)
	if err != nil {
		return nil, err
	}
	if err := s.store.SetSerial(ctx, host.ID, serial); err != nil {
		return nil, err
	}
	s.log.Debug("certificate issued", "host", host.ID, "serial", serial)
	return cert, nil
}
