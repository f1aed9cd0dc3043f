package api

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/bundle"
	"github.com/holdfast-security/holdfast/internal/language/consent"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
	"github.com/holdfast-security/holdfast/internal/view"
	"github.com/holdfast-security/holdfast/internal/wire/apiv1"
)

// Decisions are what people decide about a rollout, as on the console.
type Decisions = view.Actions

// Publishing brings content to the point where it can be released. Everything
// is idempotent: the same call twice is the same as once.
type Publishing interface {
	// PutBuild registers a sensor build that rehearsal must cover.
	PutBuild(ctx context.Context, b holdfast.Build, by string) error
	// PutContent registers content under its digest, which it checks.
	PutContent(ctx context.Context, b holdfast.Bundle, data []byte, by string) error
	// PutVerdict registers a rehearsal verdict: a DSSE envelope, which is
	// verified against the rehearsal keys the publishers named.
	PutVerdict(ctx context.Context, bundle holdfast.Digest, envelope []byte, by string) error
	// PutMetadata takes over what publishers signed at their desk, after
	// verifying it as a host would.
	PutMetadata(ctx context.Context, files tuf.Files, by string) error
	// PutConsent takes over what an organisation signed about its hosts. A nil
	// key means the one that is known.
	PutConsent(ctx context.Context, org holdfast.OrgID, envelope []byte, key ed25519.PublicKey, by string) (consent.Policy, error)
	// Release asks for a release. It waits for a second person.
	Release(ctx context.Context, r apiv1.ReleaseRequest, by string) (holdfast.Release, error)
}

// Administration is what is done about the installation itself.
type Administration interface {
	view.HostActions
	// Drill puts the result of a drill on the record.
	Drill(ctx context.Context, d apiv1.Drill, by string) error
	// DoNotCanary marks a host that must never be among the first of a release,
	// or takes the mark away; NotFound if there is no such host.
	DoNotCanary(ctx context.Context, host holdfast.HostID, no bool, by string) error
	Enrolment(ctx context.Context, r apiv1.EnrolmentRequest, by string) (apiv1.EnrolmentAnswer, error)
	NewUser(ctx context.Context, u apiv1.NewUser, by string) error
	NewToken(ctx context.Context, user, by string) (apiv1.TokenAnswer, error)
	// NewLink makes a secret with which the user signs in to the console, once.
	NewLink(ctx context.Context, user, by string) (apiv1.TokenAnswer, error)
}

// Bounds of an uploaded worker binary, and of a desk's metadata.
const (
	maxAgent    = 128 << 20
	maxMetadata = 32 << 20
)

func (s *Server) approve(c *call) (any, error) {
	return done{}, s.Decide.Approve(c.Context(), c.release(), c.user.Name)
}

func (s *Server) halt(c *call) (any, error) {
	var r apiv1.Reason
	if err := c.decode(&r); err != nil {
		return nil, err
	}
	return done{}, s.Decide.Halt(c.Context(), c.release(), c.user.Name, r.Reason)
}

func (s *Server) pause(c *call) (any, error) {
	var r apiv1.Reason
	if err := c.decode(&r); err != nil {
		return nil, err
	}
	return done{}, s.Decide.Pause(c.Context(), c.release(), c.user.Name, r.Reason)
}

func (s *Server) resume(c *call) (any, error) {
	return done{}, s.Decide.Resume(c.Context(), c.release(), c.user.Name)
}

func (s *Server) finish(c *call) (any, error) {
	return done{}, s.Decide.Finish(c.Context(), c.release(), c.user.Name)
}

func (s *Server) override(c *call) (any, error) {
	var r apiv1.Reason
	if err := c.decode(&r); err != nil {
		return nil, err
	}
	return done{}, s.Decide.Override(c.Context(), c.release(), c.user.Name, r.Reason)
}

func (s *Server) doNotCanary(no bool) func(*call) (any, error) {
	return func(c *call) (any, error) {
		id := holdfast.HostID(c.PathValue("id"))
		if c.user.Org != holdfast.DefaultOrg {
			if _, err := c.read.Host(c.Context(), id); err != nil {
				return nil, err // not theirs, as far as they can see
			}
		}
		return done{}, s.Admin.DoNotCanary(c.Context(), id, no, c.user.Name)
	}
}

func (s *Server) revokeHost(c *call) (any, error) {
	var r apiv1.RevokeRequest
	if err := c.decode(&r); err != nil {
		return nil, err
	}
	return s.Admin.Revoke(c.Context(), holdfast.HostID(c.PathValue("id")), c.user.Name, r.Reason)
}

// done is the answer of a call that has nothing to say.
type done struct{}

func (s *Server) putBuild(c *call) (any, error) {
	d, err := c.digest()
	if err != nil {
		return nil, err
	}
	var m holdfast.Manifest
	if err := c.decode(&m); err != nil {
		return nil, err
	}
	return done{}, s.Publish.PutBuild(c.Context(), holdfast.Build{Digest: d, Manifest: m}, c.user.Name)
}

func (s *Server) putContent(c *call) (any, error) {
	d, err := c.digest()
	if err != nil {
		return nil, err
	}
	data, err := c.upload(max(bundle.MaxBytes, maxAgent))
	if err != nil {
		return nil, err
	}
	if holdfast.DigestOf(data) != d {
		return nil, &holdfast.Error{Kind: holdfast.Invalid, What: "the content does not have the digest it was sent under", Where: string(d), Do: "send it again; it was damaged or cut on the way"}
	}
	b := holdfast.Bundle{
		Channel: holdfast.Channel(c.PathValue("channel")), Version: c.URL.Query().Get("version"),
		Digest: d, Size: int64(len(data)), Created: s.Now().UTC(),
	}
	return b, s.Publish.PutContent(c.Context(), b, data, c.user.Name)
}

func (s *Server) putVerdict(c *call) (any, error) {
	d, err := c.digest()
	if err != nil {
		return nil, err
	}
	envelope, err := c.upload(8 << 20)
	if err != nil {
		return nil, err
	}
	return done{}, s.Publish.PutVerdict(c.Context(), d, envelope, c.user.Name)
}

func (s *Server) putMetadata(c *call) (any, error) {
	raw, err := c.upload(maxMetadata)
	if err != nil {
		return nil, err
	}
	var files tuf.Files
	if err := json.Unmarshal(raw, &files); err != nil {
		return nil, &holdfast.Error{Kind: holdfast.Invalid, What: "not trust metadata", Err: err}
	}
	return done{}, s.Publish.PutMetadata(c.Context(), files, c.user.Name)
}

func (s *Server) release(c *call) (any, error) {
	var r apiv1.ReleaseRequest
	if err := c.decode(&r); err != nil {
		return nil, err
	}
	return s.Publish.Release(c.Context(), r, c.user.Name)
}

func (s *Server) drill(c *call) (any, error) {
	var d apiv1.Drill
	if err := c.decode(&d); err != nil {
		return nil, err
	}
	if err := d.Validate(); err != nil {
		return nil, err
	}
	return done{}, s.Admin.Drill(c.Context(), d, c.user.Name)
}

func (s *Server) enrolment(c *call) (any, error) {
	r := apiv1.EnrolmentRequest{Uses: 1, Valid: time.Hour}
	if err := c.decode(&r); err != nil {
		return nil, err
	}
	if r.Uses < 1 || r.Uses > 100_000 || r.Valid <= 0 || r.Valid > 30*24*time.Hour {
		return nil, &holdfast.Error{Kind: holdfast.Invalid, What: "an enrolment token is for 1 to 100,000 hosts and lives at most 30 days"}
	}
	return s.Admin.Enrolment(c.Context(), r, c.user.Name)
}

func (s *Server) newUser(c *call) (any, error) {
	var u apiv1.NewUser
	if err := c.decode(&u); err != nil {
		return nil, err
	}
	return done{}, s.Admin.NewUser(c.Context(), u, c.user.Name)
}

func (s *Server) newToken(c *call) (any, error) {
	return s.Admin.NewToken(c.Context(), c.PathValue("name"), c.user.Name)
}

func (s *Server) newLink(c *call) (any, error) {
	return s.Admin.NewLink(c.Context(), c.PathValue("name"), c.user.Name)
}
