package reconcile

import (
	"context"
	"crypto/ed25519"
	"maps"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/fleet"
	"github.com/holdfast-security/holdfast/internal/language/consent"
	"github.com/holdfast-security/holdfast/internal/trust/dsse"
)

// readConsents takes up policies that are new, and reports whether one is.
func (s *Service) readConsents(ctx context.Context) (changed bool, err error) {
	if s.Consents == nil {
		return false, nil
	}
	versions, err := s.Consents.ConsentVersions(ctx)
	if err != nil {
		return false, err
	}
	next := map[holdfast.OrgID]*consent.Policy{}
	for org, version := range versions {
		if was := s.allowed[org]; was != nil && was.Version == version {
			next[org] = was
			continue
		}
		c, err := s.Consents.Consent(ctx, org)
		if err != nil {
			return false, err
		}
		payload, err := dsse.Open(c.Envelope, consent.PayloadType, consent.MaxEnvelope, []ed25519.PublicKey{c.Key}, 1)
		var p consent.Policy
		if err == nil {
			p, err = consent.Parse("policy", payload)
		}
		if err != nil {
			s.Log.Error("a stored policy cannot be read: nothing is released to its organisation", "org", org, "version", version, "err", err)
			p = unreadable(org, version)
		}
		next[org] = &p
	}
	if maps.Equal(next, s.allowed) {
		return false, nil
	}
	s.allowed = next
	return true, nil
}

// unreadable is what counts for an organisation whose policy was stored and
// cannot be read, by an older version of this program perhaps.
func unreadable(org holdfast.OrgID, version int64) consent.Policy {
	g := consent.Group{Name: "everybody, as the policy cannot be read", Rules: map[holdfast.Channel]consent.Rule{}}
	for _, c := range holdfast.Channels {
		g.Rules[c] = consent.Rule{Track: consent.Pause}
	}
	return consent.Policy{Org: org, Version: version, Groups: []consent.Group{g}}
}

// Preview says who would get content when, before or after it is released, and
// how many hosts have it. NotFound if the publishers did not sign it.
func (s *Service) Preview(d holdfast.Digest) (rows []consent.Preview, have int, err error) {
	r, err := s.Director.Released(d)
	if err != nil {
		return nil, 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	rows, have = s.fleet.Preview(fleet.Release{
		Org: holdfast.DefaultOrg, Channel: r.Channel, Digest: d, Version: r.Version, Sequence: r.Sequence, Critical: r.Critical,
		Rings: r.Rings, Signed: r.Signed,
	}, s.Now())
	return rows, have, nil
}
