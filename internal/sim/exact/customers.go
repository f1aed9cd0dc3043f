package exact

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/consent"
	"github.com/holdfast-security/holdfast/internal/sim"
	"github.com/holdfast-security/holdfast/internal/trust/dsse"
)

// customers is what organisations signed, and where it is now.
type customers struct {
	envelopes [][]byte // of World.Consents
	brought   []bool
	byServer  map[holdfast.OrgID]int // which of them the server gives, and by
	byFile    map[holdfast.OrgID]int // which of them lies on the hosts
}

// keyOf is an organisation's key, or the key of a thief who would be it.
func keyOf(org holdfast.OrgID, r sim.Road) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(org))
	if r == sim.Forged {
		seed = sha256.Sum256([]byte("thief"))
	}
	return ed25519.NewKeyFromSeed(seed[:])
}

// draftPolicies signs what organisations will bring.
func (w *world) draftPolicies() error {
	w.customers.brought = make([]bool, len(w.Consents))
	w.customers.byServer, w.customers.byFile = map[holdfast.OrgID]int{}, map[holdfast.OrgID]int{}
	for i := range w.Consents {
		c := &w.Consents[i]
		file := c.File()
		if _, err := consent.Parse("policy of "+string(c.Policy.Org), file); err != nil {
			return err // nobody would keep to it
		}
		env, err := dsse.Sign(consent.PayloadType, file, keyOf(c.Policy.Org, c.Road))
		if err != nil {
			return err
		}
		w.customers.envelopes = append(w.customers.envelopes, env)
	}
	return nil
}

// bringPolicies puts policies where hosts look for them. The server refuses
// what is not newer than what it has, unless it is in a thief's hands.
func (w *world) bringPolicies() {
	for i := range w.Consents {
		c := &w.Consents[i]
		if w.customers.brought[i] || c.At > 0 && w.since() < c.At {
			continue
		}
		w.customers.brought[i] = true
		w.note("", "policy %d of %s comes (%s)", c.Policy.Version, c.Policy.Org, c.Road)
		if c.Road == sim.ByFile {
			w.customers.byFile[c.Policy.Org] = i
			continue
		}
		if was, ok := w.store.consents[c.Policy.Org]; ok && c.Road == sim.ByServer && c.Policy.Version <= was.Version {
			continue
		}
		w.customers.byServer[c.Policy.Org] = i
		w.store.consents[c.Policy.Org] = holdfast.Consent{
			Org: c.Policy.Org, Version: c.Policy.Version, Envelope: w.customers.envelopes[i],
			Key: keyOf(c.Policy.Org, c.Road).Public().(ed25519.PublicKey),
		}
	}
}

// learn is the host's look at what its organisation says, wherever it lies: it
// takes what the organisation signed and is newer, as the loader does. What it
// refused once it would refuse again, and does not look at twice.
func (h *host) learn(w *world) {
	for _, at := range []map[holdfast.OrgID]int{w.customers.byFile, w.customers.byServer} {
		i, ok := at[h.kind.Org]
		if !ok || h.read[i] {
			continue
		}
		h.read[i] = true
		w.promise(h, &w.Consents[i])
		key := keyOf(h.kind.Org, sim.ByServer).Public().(ed25519.PublicKey)
		payload, err := dsse.Open(w.customers.envelopes[i], consent.PayloadType, consent.MaxEnvelope, []ed25519.PublicKey{key}, 1)
		if err != nil {
			continue
		}
		after := int64(0)
		if h.consent != nil {
			after = h.consent.Version
		}
		if p, err := consent.Accept("policy", bytes.Clone(payload), h.kind.Org, after); err == nil {
			h.consent = &p
			h.note(w, "keeps to policy %d", p.Version)
		}
	}
}
