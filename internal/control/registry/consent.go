package registry

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/consent"
	"github.com/holdfast-security/holdfast/internal/trust/dsse"
)

// PutConsent takes over what an organisation signed about its hosts. The first
// policy needs the organisation's public key, and a later one that key; to give
// another is to replace it, which callers must let fewer people do. Hosts
// believe neither: each has the key in its own configuration.
func (r *Registry) PutConsent(ctx context.Context, org holdfast.OrgID, envelope []byte, key ed25519.PublicKey, by string) (consent.Policy, error) {
	var p consent.Policy
	now := r.Now()
	err := r.Store.Tx(ctx, func(tx Tx) error {
		known, err := tx.Consent(ctx, org)
		if err != nil && holdfast.KindOf(err) != holdfast.NotFound {
			return err
		}
		replaced := len(known.Key) > 0 && len(key) > 0 && !bytes.Equal(known.Key, key)
		if len(key) == 0 {
			key = known.Key
		}
		if len(key) != ed25519.PublicKeySize {
			return &holdfast.Error{Kind: holdfast.Invalid, What: "the public key of organisation " + string(org) + " is not known here yet", Do: "give it with --public"}
		}
		payload, err := dsse.Open(envelope, consent.PayloadType, consent.MaxEnvelope, []ed25519.PublicKey{key}, 1)
		if err != nil {
			return err
		}
		if p, err = consent.Accept("policy", payload, org, known.Version); err != nil {
			return err
		}
		if err := pinsExist(ctx, tx, &p); err != nil {
			return err
		}
		if err := tx.PutConsent(ctx, holdfast.Consent{Org: org, Version: p.Version, Key: key, Envelope: envelope, By: by, At: now}); err != nil {
			return err
		}
		text := fmt.Sprintf("organisation %s: policy version %d is in force, %d groups, signed with key %.12s", org, p.Version, len(p.Groups), dsse.KeyID(key))
		if replaced {
			text += fmt.Sprintf(", which replaces key %.12s", dsse.KeyID(known.Key))
		}
		detail, err := json.Marshal(map[string]any{"version": p.Version, "key": dsse.KeyID(key), "envelope": holdfast.DigestOf(envelope)})
		if err != nil {
			return err
		}
		_, err = tx.Append(ctx, holdfast.Entry{At: now, Kind: "consent", Org: org, By: by, Text: text, Detail: detail})
		return err
	})
	return p, err
}

// pinsExist refuses pins to versions that were never registered here.
func pinsExist(ctx context.Context, tx Tx, p *consent.Policy) error {
	versions := map[holdfast.Channel]map[string]bool{}
	for _, c := range holdfast.Channels {
		all, err := tx.Bundles(ctx, c)
		if err != nil {
			return err
		}
		versions[c] = map[string]bool{}
		for _, b := range all {
			versions[c][b.Version] = true
		}
	}
	return p.CheckPins("policy", func(c holdfast.Channel, version string) bool { return versions[c][version] })
}
