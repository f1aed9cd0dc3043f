package fleet

import (
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
)

// A fleet that has had a release for long says by its absence that we cannot
// hear it. One that is getting a release, or got it a moment ago, does not: the
// release may be what silences it.
func TestHostsOfACompletedReleaseAreWitnessesAgain(t *testing.T) {
	for _, c := range []struct {
		name   string
		phase  holdfast.Phase
		after  time.Duration // from draw to silence
		outage bool
	}{
		{"complete for long", holdfast.Complete, 20 * time.Second, true},
		{"complete a moment ago", holdfast.Complete, 5 * time.Second, false},
		{"under way for long", holdfast.Running, 20 * time.Second, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := listened(40, 4)
			r := oneRing("r")
			f.SetRelease(r)
			now := start.Add(5 * time.Second)
			f.Open("r", []Opening{opened(0, 20, 0, stratum(0), now.Add(time.Minute)), opened(0, 20, 0, stratum(1), now.Add(time.Minute))})
			beat := func() {
				for i := range 40 {
					f.Beat(hostNumber(i).ID, now)
				}
				f.Advance(now)
			}
			beat()
			c0 := f.Take()
			f.Stored(c0)
			if len(c0.Drawn) != 40 {
				t.Fatalf("%d drawn", len(c0.Drawn))
			}
			r.Phase = c.phase
			f.SetRelease(r)
			for end := now.Add(c.after); now.Before(end); {
				now = now.Add(time.Second)
				beat()
			}
			seen := false
			for range 8 {
				now = now.Add(time.Second)
				f.Advance(now)
				seen = seen || f.Outage()
			}
			harms := len(f.Take().Harms)
			if seen != c.outage || c.outage != (harms == 0) {
				t.Errorf("outage %v and %d harm events, want %v", seen, harms, c.outage)
			}
		})
	}
}

// That most hosts are revoked at once, a fleet that was replaced say, is no
// outage of ours: nothing stops because of it.
func TestRevokedHostsAreNotMissed(t *testing.T) {
	f := listened(40, 5)
	now := start.Add(5 * time.Second)
	for i := range 30 {
		h := hostNumber(i)
		h.Revoked = true
		f.SetHost(h)
	}
	for range 10 {
		now = now.Add(time.Second)
		for i := range 40 {
			f.Beat(hostNumber(i).ID, now) // a last word may arrive after the decision
		}
		f.Advance(now)
		if f.Outage() {
			t.Fatalf("%s: an outage, with every host there that was not revoked", now)
		}
	}
	if h, _ := f.Host(hostNumber(0).ID); h.Connected {
		t.Error("it counts as connected")
	}
	// And the others are still listened for.
	for range 5 {
		now = now.Add(time.Second)
		f.Advance(now)
	}
	if !f.Outage() {
		t.Error("all others vanished at once, and that is no outage")
	}
}
