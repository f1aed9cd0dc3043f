package live

import (
	"context"
	"crypto/ed25519"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/consent"
	"github.com/holdfast-security/holdfast/internal/trust/dsse"
	"github.com/holdfast-security/holdfast/internal/view"
)

// Consent returns what an organisation allows on its hosts, and how many of
// them know it.
func (s *Source) Consent(ctx context.Context, org holdfast.OrgID) (view.Consent, error) {
	c, err := s.Store.Consent(ctx, org)
	if err != nil {
		return view.Consent{}, err
	}
	payload, err := dsse.Open(c.Envelope, consent.PayloadType, consent.MaxEnvelope, []ed25519.PublicKey{c.Key}, 1)
	if err != nil {
		return view.Consent{}, err
	}
	v := view.Consent{Org: org, Version: c.Version, Key: dsse.KeyID(c.Key), By: c.By, At: c.At, Policy: string(payload)}
	hosts, err := s.enrolled.get(ctx)
	if err != nil {
		return v, err
	}
	for i := range hosts {
		if h := &hosts[i]; h.Org == org && !h.Revoked {
			v.Hosts++
			if h.Report.Consent == c.Version {
				v.Keeping++
			}
		}
	}
	return v, nil
}

// preview says who gets content when; nil if the publishers did not sign it.
func (s *Source) preview(d holdfast.Digest) (*view.Preview, error) {
	rows, have, err := s.Driver.Preview(d)
	if holdfast.KindOf(err) == holdfast.NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p := &view.Preview{Have: have, Rows: make([]view.PreviewRow, len(rows))}
	for i, r := range rows {
		p.Rows[i] = view.PreviewRow{Org: r.Org, Group: r.Group, State: string(r.State), Hosts: r.Hosts, Never: r.Never, From: r.From, To: r.To, Why: r.Why}
	}
	return p, nil
}
