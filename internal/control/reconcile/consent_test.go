package reconcile_test

import (
	"crypto/ed25519"
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
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
