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
	next, unread := map[holdfast.OrgID]*consent.Policy{}, map[holdfast.OrgID]string{}
	for org, version := range versions {
		was, why := s.allowed[org], s.unread[org]
		if was != nil && was.Version == version && why == "" {
			next[org] = was
			continue
		}
		c, err := s.Consents.Consent(ctx, org)
		if k := holdfast.KindOf(err); err != nil && k != holdfast.Internal {
			return false, err // the store is away, or the policy was taken out this moment
		}
		var p consent.Policy
		if err == nil {
			p, _, err = ReadConsent(c)
		}
		if err == nil {
			next[org] = &p
			continue
		}
		unread[org] = err.Error()
		if was != nil && was.Version == version && why == unread[org] {
			next[org] = was
			continue
		}
		s.Log.Error("a stored policy cannot be read: nothing is released to its organisation, and what is critical as late as can be", "org", org, "version", version, "err", err)
		p = Unreadable(org, version)
		next[org] = &p
	}
	s.unread = unread
	if maps.Equal(next, s.allowed) {
		return false, nil
	}
	s.allowed = next
	return true, nil
}

// ReadConsent reads a policy as it is stored, and what was signed. If the
// signature holds and only the text cannot be read (a later version of this
// program wrote it, perhaps), that is returned with the error.
func ReadConsent(c holdfast.Consent) (p consent.Policy, signed []byte, err error) {
	signed, err = dsse.Open(c.Envelope, consent.PayloadType, consent.MaxEnvelope, []ed25519.PublicKey{c.Key}, 1)
	if err != nil {
		return p, nil, err
	}
	p, err = consent.Accept("policy", signed, c.Org, 0)
	if err == nil && p.Version != c.Version {
		err = holdfast.Errorf(holdfast.Invalid, "version %d was signed, and it is stored as version %d", p.Version, c.Version)
	}
	return p, signed, err
}

// Unreadable is what counts for an organisation whose policy is stored and
// cannot be read: the strictest that any policy can say. Its hosts take nothing,
// and what is critical as late as a policy can have it. They still keep to the
// policy that they have, and give back what is recalled.
func Unreadable(org holdfast.OrgID, version int64) consent.Policy {
	g := consent.Group{
		Name:  "everybody, as the policy cannot be read",
		Rules: map[holdfast.Channel]consent.Rule{}, Critical: map[holdfast.Channel]consent.Rule{},
	}
	for _, c := range holdfast.Channels {
		g.Rules[c] = consent.Rule{Track: consent.Pause}
		g.Critical[c] = consent.Rule{Track: consent.Delay, Delay: consent.MostDelay}
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
