package live

import (
	"crypto/ed25519"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/consent"
	"github.com/holdfast-security/holdfast/internal/trust/dsse"
	"github.com/holdfast-security/holdfast/internal/view"
)

// allows puts a policy in force, and returns the key that it counts with.
func (w *world) allows(version int64, policy string) ed25519.PublicKey {
	w.t.Helper()
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	public := key.Public().(ed25519.PublicKey)
	env, err := dsse.Sign(consent.PayloadType, []byte(policy), key)
	if err == nil {
		err = w.store.PutConsent(w.t.Context(), holdfast.Consent{Org: holdfast.DefaultOrg, Version: version, Key: public, Envelope: env, By: "olga", At: w.now})
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return public
}

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
	key := w.allows(4, policy)
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
	if err != nil || v.Version != 4 || v.Policy != policy || v.Hosts != 80 || v.Keeping != 3 || v.By != "olga" || !strings.HasPrefix(dsse.KeyID(key), v.Key) {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestConsentsInForce: per organisation and group, and who will get what is signed.
func TestConsentsInForce(t *testing.T) {
	w := newWorld(t, false)
	ctx := t.Context()
	w.allows(4, `organisation: default
version: 4
groups:
  - name: floor
    where: {role: server, hosts: [host-000, host-001, host-002]}
    channels: {rules: {track: delay, delay: 90m}}
    critical: {agent: {track: early}}
    windows: [{days: [sat, sun], from: "22:00", to: "02:00", zone: Europe/Berlin}]
`)
	p, err := w.source.Consents(ctx)
	if err != nil || len(p.Orgs) != 1 {
		t.Fatalf("%+v, %v", p.Orgs, err)
	}
	want := view.ConsentGroup{
		Name: "floor", Where: []string{"role server", "3 by id"}, Hosts: 3, Windows: []string{"sat, sun 22:00–02:00 Europe/Berlin"},
		Rules: []view.ConsentRule{
			{Channel: holdfast.Rules, Track: "delay", Delay: 90 * time.Minute},
			{Channel: holdfast.Agent, Track: "general"},
			{Channel: holdfast.Agent, Critical: true, Track: "early"},
		},
	}
	c := p.Orgs[0]
	if len(c.Groups) != 1 || !reflect.DeepEqual(c.Groups[0], want) || c.Outside != 77 || c.Hosts != 80 || c.By != "olga" || !c.At.Equal(w.now) {
		t.Errorf("%+v", c)
	}
	// Approved and not begun counts as coming; what is under way does not.
	if len(p.Coming) != 1 || p.Coming[0].Release != w.release || len(p.Coming[0].Preview.Rows) == 0 {
		t.Errorf("%+v", p.Coming)
	}
	w.pass(3)
	if p, err = w.source.Consents(ctx); err != nil || len(p.Coming) != 0 {
		t.Errorf("under way, and shown as coming: %+v, %v", p.Coming, err)
	}
}

// TestAPolicyThatCannotBeRead is shown beside the others, with the reason and
// with what counts in its place: the strictest that a policy can say.
func TestAPolicyThatCannotBeRead(t *testing.T) {
	w := newWorld(t, false)
	ctx := t.Context()
	w.allows(4, "organisation: default\nversion: 4\ngroups: [{name: floor, channels: {rules: {track: early}}}]\n")
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	public := key.Public().(ed25519.PublicKey)
	signed := func(text string) []byte {
		env, err := dsse.Sign(consent.PayloadType, []byte(text), key)
		if err != nil {
			t.Fatal(err)
		}
		return env
	}
	const later = "organisation: later\nversion: 2\nphases: [moon]\ngroups: []\n"
	cases := []struct {
		org    holdfast.OrgID
		c      holdfast.Consent
		why    string
		policy string
	}{
		{"corrupt", holdfast.Consent{Key: public, Envelope: []byte("\x00\xff half a row")}, "the envelope cannot be read", ""},
		{"foreign", holdfast.Consent{Key: public, Envelope: signed("organisation: other\nversion: 2\ngroups: []\n")}, `of organisation "other"`, "organisation: other\nversion: 2\ngroups: []\n"},
		{"later", holdfast.Consent{Key: public, Envelope: signed(later)}, "phases", later},
		{"short-key", holdfast.Consent{Key: []byte{1, 2}, Envelope: signed("organisation: short-key\nversion: 2\ngroups: []\n")}, "0 of the 1 signatures", ""},
		{"wrong-version", holdfast.Consent{Key: public, Envelope: signed("organisation: wrong-version\nversion: 1\ngroups: []\n")}, "stored as version 2", "organisation: wrong-version\nversion: 1\ngroups: []\n"},
	}
	for _, c := range cases {
		c.c.Org, c.c.Version, c.c.By, c.c.At = c.org, 2, "olga", w.now
		if err := w.store.PutConsent(ctx, c.c); err != nil {
			t.Fatal(err)
		}
	}
	p, err := w.source.Consents(ctx)
	if err != nil || len(p.Orgs) != 1+len(cases) {
		t.Fatalf("%d organisations are shown: %v", len(p.Orgs), err)
	}
	strictest := []view.ConsentRule{
		{Channel: holdfast.Rules, Track: "pause"},
		{Channel: holdfast.Agent, Track: "pause"},
		{Channel: holdfast.Rules, Critical: true, Track: "delay", Delay: consent.MostDelay},
		{Channel: holdfast.Agent, Critical: true, Track: "delay", Delay: consent.MostDelay},
	}
	for _, c := range cases {
		i := slices.IndexFunc(p.Orgs, func(v view.Consent) bool { return v.Org == c.org })
		v := p.Orgs[i]
		if !strings.Contains(v.Unreadable, c.why) || v.Policy != c.policy || v.Version != 2 || v.By != "olga" || len(v.Groups) != 1 || !reflect.DeepEqual(v.Groups[0].Rules, strictest) {
			t.Errorf("%s: %+v", c.org, v)
		}
		alone, err := w.source.Consent(ctx, c.org) // what the API answers
		if err != nil || !reflect.DeepEqual(alone, v) {
			t.Errorf("%s by itself: %+v, %v", c.org, alone, err)
		}
	}
	i := slices.IndexFunc(p.Orgs, func(v view.Consent) bool { return v.Org == holdfast.DefaultOrg })
	if v := p.Orgs[i]; v.Unreadable != "" || v.Groups[0].Name != "floor" || v.Hosts != 80 {
		t.Errorf("the one that can be read: %+v", v)
	}
}

// TestHeldBackHostsAreNoGap: a ring's bar is of those that can take the release;
// who is held back by the organisation is counted beside it, and nothing waits
// for them, be it everybody of the first ring.
func TestHeldBackHostsAreNoGap(t *testing.T) {
	w := newWorld(t, false)
	plan := w.rollout().Release.Rings
	ids := map[bool][]string{}
	for i, h := range w.hosts {
		paused := plan.Of(h.ID) == 0 || i%10 == 3
		ids[paused] = append(ids[paused], string(h.ID))
	}
	w.allows(1, fmt.Sprintf("organisation: default\nversion: 1\ngroups: [{name: on, where: {hosts: [%s]}, channels: {rules: {track: early}}}, {name: off, where: {hosts: [%s]}, channels: {rules: {track: pause}}}]\n",
		strings.Join(ids[false], ", "), strings.Join(ids[true], ", ")))
	if phase := w.pass(300, holdfast.Complete); phase != holdfast.Complete {
		t.Fatalf("%s: %s", phase, w.rollout().Why)
	}
	d := w.rollout()
	first := d.Rings[0]
	if first.Eligible != 0 || first.Held == 0 || first.Admitted != 0 || d.Held != len(ids[true]) || d.Eligible != len(ids[false]) || d.Admitted != d.Eligible {
		t.Errorf("%d of %d admitted, %d held back, and %+v", d.Admitted, d.Eligible, d.Held, first)
	}
	for _, r := range d.Rings {
		if r.Admitted != r.Eligible {
			t.Errorf("ring %s stays at %d of %d", r.Name, r.Admitted, r.Eligible)
		}
	}
}

// TestHostsThatGoLastCountThere: in the last ring, whatever their own is.
func TestHostsThatGoLastCountThere(t *testing.T) {
	w := newWorld(t, false)
	w.allows(1, "organisation: default\nversion: 1\ngroups: [{name: all, channels: {rules: {track: general}}}]\n")
	w.pass(300, holdfast.Complete)
	d := w.rollout()
	if last := d.Rings[len(d.Rings)-1]; d.Phase != holdfast.Complete || last.Eligible != 80 || last.Admitted != 80 || d.Eligible != 80 {
		t.Errorf("%s: %+v", d.Phase, d.Rings)
	}
}
