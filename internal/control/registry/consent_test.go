package registry_test

import (
	"crypto/ed25519"
	"fmt"
	"strings"
	"testing"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/edge/store"
	"github.com/holdfast-security/holdfast/internal/language/consent"
	"github.com/holdfast-security/holdfast/internal/trust/dsse"
)

func orgKey(b byte) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = b
	return ed25519.NewKeyFromSeed(seed)
}

func TestOnlyWhatTheOrganisationSignedIsPutInForce(t *testing.T) {
	b := newBench(t)
	b.content(t, "rules")
	acme, other := orgKey(1), orgKey(2)
	public := acme.Public().(ed25519.PublicKey)
	policy := func(version int, rest string) string {
		return fmt.Sprintf("organisation: acme\nversion: %d\ngroups:\n  - name: floor\n    channels: {rules: {%s}}\n", version, rest)
	}
	put := func(key ed25519.PrivateKey, text string, public ed25519.PublicKey) error {
		env, err := dsse.Sign(consent.PayloadType, []byte(text), key)
		must(t, err)
		_, err = b.PutConsent(t.Context(), "acme", env, public, "olga")
		return err
	}
	refused := func(err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want …%s…", err, want)
		}
	}
	refused(put(acme, policy(1, "track: pause"), nil), "public key of organisation acme is not known here yet")
	refused(put(other, policy(1, "track: pause"), public), "0 of the 1 signatures")
	refused(put(acme, policy(1, "track: pin, pin: \"9\""), public), `policy:5: group "floor" is pinned to rules 9, which nobody published`)
	refused(put(acme, strings.Replace(policy(1, "track: pause"), "acme", "emca", 1), public), `of organisation "emca"`)
	must(t, put(acme, policy(2, "track: pause"), public))
	refused(put(acme, policy(2, "track: early"), nil), "version 2 is in force")
	refused(put(other, policy(3, "track: early"), nil), "0 of the 1 signatures")
	must(t, put(acme, policy(3, "track: early"), nil))
	must(t, put(other, policy(4, "track: pause"), other.Public().(ed25519.PublicKey)))

	c, err := b.db.Consent(t.Context(), "acme")
	if err != nil || c.Version != 4 || c.By != "olga" || !c.At.Equal(t0) {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := b.db.Consent(t.Context(), "emca"); holdfast.KindOf(err) != holdfast.NotFound {
		t.Error(err)
	}
	all, err := b.db.ConsentVersions(t.Context())
	if err != nil || len(all) != 1 || all["acme"] != 4 {
		t.Errorf("%v, %v", all, err)
	}
	var texts []string
	leaves, err := b.db.Record(t.Context(), store.RecordFilter{Kind: "consent", Ascend: true})
	must(t, err)
	for _, l := range leaves {
		texts = append(texts, l.Text)
	}
	if len(texts) != 3 || !strings.Contains(texts[0], "policy version 2 is in force, 1 groups, signed with key ") || !strings.Contains(texts[2], ", which replaces key ") {
		t.Errorf("the record says %q", texts)
	}
}
