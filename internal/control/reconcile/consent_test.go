package reconcile_test

import (
	"crypto/ed25519"
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/reconcile"
	"github.com/holdfast-security/holdfast/internal/language/consent"
	"github.com/holdfast-security/holdfast/internal/trust/dsse"
)

// allows puts a policy in force in which everybody takes part early, but for
// the hosts of role "frozen".
func (w *world) allows(version int, frozen string) {
	w.t.Helper()
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	env, err := dsse.Sign(consent.PayloadType, fmt.Appendf(nil, `organisation: default
version: %d
groups:
  - {name: servers, channels: {rules: {track: early}}}
  - {name: frozen, where: {role: frozen}, channels: {rules: {track: %s}}}
`, version, frozen), key)
	must(w.t, err)
	must(w.t, w.db.PutConsent(w.t.Context(), holdfast.Consent{Org: holdfast.DefaultOrg, Version: int64(version), Key: key.Public().(ed25519.PublicKey), Envelope: env, By: "olga", At: w.now}))
}

// freeze makes every third host one of role "frozen", and returns them.
func (w *world) freeze() (frozen []*played) {
	for i, p := range w.hosts {
		if i%3 == 0 {
			p.attr.Role = "frozen"
			frozen = append(frozen, p)
		}
	}
	return frozen
}

// TestAPolicyThatCannotBeRead holds its organisation's hosts, and nobody else's
// work: what is recalled is given back, and the next policy counts.
func TestAPolicyThatCannotBeRead(t *testing.T) {
	w := newWorld(t, 45, 11)
	w.release("r1", "first")
	w.until("everybody has the first", 5*time.Minute, func() bool { return w.phase("r1") == holdfast.Complete && w.running(digest("first")) == 45 })
	must(t, w.db.PutConsent(t.Context(), holdfast.Consent{Org: holdfast.DefaultOrg, Version: 1, Key: []byte("k"), Envelope: []byte("{"), By: "olga", At: w.now}))
	offered := func() (n int) {
		for _, p := range w.hosts {
			n += len(p.offered)
		}
		return n
	}
	before := offered()
	w.release("r2", "second")
	for range 60 {
		w.tick()
	}
	if n := offered(); n != before {
		t.Fatalf("%d offers under a policy that cannot be read", n-before)
	}
	must(t, w.svc.Halt(t.Context(), "r1", "olga", "a rule is wrong"))
	w.until("everybody gave the first back", time.Minute, func() bool { return w.running(digest("first")) == 0 })
	w.allows(2, "early")
	w.until("they have the second", 5*time.Minute, func() bool { return w.running(digest("second")) == 45 })
}

// TestUnreadableIsTheStrictest: no policy can hold a release longer, a critical one
// included.
func TestUnreadableIsTheStrictest(t *testing.T) {
	signed := time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)
	p := reconcile.Unreadable("acme", 3)
	for _, c := range holdfast.Channels {
		r := consent.Release{Channel: c, Version: "2", Signed: signed, Opens: signed.Add(time.Hour), General: signed.Add(2 * time.Hour), Newest: true}
		if a := p.Ask("h", &holdfast.Attributes{}, r, signed.Add(1000*time.Hour)); !a.Never {
			t.Errorf("%s is allowed: %+v", c, a)
		}
		r.Critical = true
		if a := p.Ask("h", &holdfast.Attributes{}, r, signed); a.Never || !a.From.Equal(signed.Add(consent.MostDelay)) {
			t.Errorf("critical %s: %+v", c, a)
		}
	}
}

// TestPausedHostsAreNotDrawn, get the release when their organisation says so,
// and give it back when it is halted although they are paused again.
func TestPausedHostsAreNotDrawn(t *testing.T) {
	w := newWorld(t, 45, 7)
	frozen := w.freeze()
	w.allows(1, "pause")
	w.release("r1", "new")
	w.until("the others have it", 5*time.Minute, func() bool { return w.phase("r1") == holdfast.Complete })
	w.start() // what is allowed survives a restart
	for range 40 {
		w.tick()
	}
	for _, p := range frozen {
		if len(p.offered) > 0 {
			t.Fatalf("%s is paused, and was offered %+v", p.id, p.offered)
		}
	}
	if n := w.running(digest("new")); n != 30 {
		t.Fatalf("%d hosts run it", n)
	}
	w.allows(2, "early")
	w.until("the frozen have it", 2*time.Minute, func() bool { return w.running(digest("new")) == 45 })

	w.allows(3, "pause")
	must(t, w.svc.Halt(t.Context(), "r1", "olga", "a rule is wrong"))
	w.until("everybody gave it back", time.Minute, func() bool { return w.running(digest("new")) == 0 })
}

// TestARolloutWaitsForTheDelayed until somebody says that it should not.
func TestARolloutWaitsForTheDelayed(t *testing.T) {
	w := newWorld(t, 45, 8)
	w.freeze()
	w.allows(1, "delay, delay: 1h")
	w.release("r1", "new")
	waits := func() bool {
		v, ok := w.svc.View("r1")
		return ok && v.State.Delayed == 15
	}
	if err := w.svc.Finish(t.Context(), "r1", "olga"); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("finished before it began: %v", err)
	}
	w.until("only the delayed are left", 5*time.Minute, waits)
	must(t, w.svc.Finish(t.Context(), "r1", "olga"))
	w.until("complete", time.Minute, func() bool { return w.phase("r1") == holdfast.Complete })
	if n := w.running(digest("new")); n != 30 {
		t.Errorf("%d hosts run it", n)
	}
	for _, p := range w.hosts {
		p.off = true // so that an hour costs nothing
	}
	w.now = w.now.Add(time.Hour)
	w.tick()
	for _, p := range w.hosts {
		p.off = false
	}
	w.until("the delayed follow", 5*time.Minute, func() bool { return w.running(digest("new")) == 45 })
}

func TestPreviewIsBeforeARelease(t *testing.T) {
	w := newWorld(t, 45, 9)
	w.freeze()
	w.allows(1, "pause")
	for range 8 {
		w.tick()
	}
	rows, have, err := w.svc.Preview(digest("new"))
	if err != nil || have != 0 || len(rows) != 2 || rows[0].Hosts != 30 || rows[0].Never || rows[1].State != consent.Paused || rows[1].Hosts != 15 {
		t.Errorf("%d have it; %+v, %v", have, rows, err)
	}
}
