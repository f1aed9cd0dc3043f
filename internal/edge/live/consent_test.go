package live

import (
	"crypto/ed25519"
	"strings"
	"testing"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/consent"
	"github.com/holdfast-security/holdfast/internal/trust/dsse"
)

// TestWhoGetsItWhenIsShownBefore a release, and what organisations allow with
// how many of their hosts know it.
func TestWhoGetsItWhenIsShownBefore(t *testing.T) {
	w := newWorld(t, false)
	ctx := t.Context()
	if _, err := w.source.Consent(ctx, holdfast.DefaultOrg); holdfast.KindOf(err) != holdfast.NotFound {
		t.Errorf("a policy that nobody made: %v", err)
	}
	if d := w.rollout(); d.Preview == nil || len(d.Preview.Rows) != 1 || d.Preview.Rows[0].State != "free" || d.Preview.Rows[0].Hosts != 80 {
		t.Errorf("without a policy: %+v", d.Preview)
	}
	const policy = "organisation: default\nversion: 4\ngroups: [{name: floor, where: {hosts: [host-000, host-001]}, channels: {rules: {track: pause}}}]\n"
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	env, err := dsse.Sign(consent.PayloadType, []byte(policy), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.store.PutConsent(ctx, holdfast.Consent{Org: holdfast.DefaultOrg, Version: 4, Key: key.Public().(ed25519.PublicKey), Envelope: env, By: "olga", At: w.now}); err != nil {
		t.Fatal(err)
	}
	for _, h := range w.hosts[:3] {
		h.Report.Consent = 4
		w.service.Reported(ctx, h.ID, h.Report, w.now)
	}
	w.pass(3)
	d := w.rollout()
	if d.Preview == nil || len(d.Preview.Rows) != 2 || d.Preview.Rows[0].State != "no-group" || d.Preview.Rows[1].Group != "floor" || !d.Preview.Rows[1].Never || d.Preview.Rows[1].Hosts != 2 {
		t.Errorf("%+v", d.Preview)
	}
	b, err := w.source.Bundle(ctx, d.Bundle.Digest)
	if err != nil || b.Preview == nil || len(b.Preview.Rows) != 2 {
		t.Errorf("the bundle's page: %+v, %v", b.Preview, err)
	}
	v, err := w.source.Consent(ctx, holdfast.DefaultOrg)
	if err != nil || v.Version != 4 || v.Policy != policy || v.Hosts != 80 || v.Keeping != 3 || v.By != "olga" || !strings.HasPrefix(dsse.KeyID(key.Public().(ed25519.PublicKey)), v.Key) {
		t.Errorf("%+v, %v", v, err)
	}
}
