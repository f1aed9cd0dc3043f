package guard

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/lifeline"
	"pgregory.net/rapid"
)

// air is a world with a network, which workers reach when it is there, except
// those that are mute. Nobody proposes who has not reached it.
type air struct {
	*world
	network bool
	outages int
	met     map[*worker]bool // since it started
}

// mute is a build of the agent that reaches nobody.
var mute = holdfast.DigestOf([]byte("mute"))

func newAir() *air {
	return &air{world: newWorld(), network: true, met: map[*worker]bool{}}
}

// live lets time pass: workers come up, reach what they can reach, evaluate and
// say so.
func (a *air) live(d time.Duration) {
	a.now = a.now.Add(d)
	for _, slot := range []Slot{InCurrent, InTrial} {
		if x := a.slots[slot]; x != nil && !x.ready {
			x.waiting, x.ready = false, true
			a.event(Event{Kind: IsReady, Slot: slot})
		}
	}
	for _, slot := range []Slot{InTrial, InCurrent} {
		x := a.slots[slot]
		if x == nil || !x.ready {
			continue
		}
		contact := lifeline.NoContact
		if a.network && x.generation[holdfast.Agent] != mute {
			a.met[x] = true
		}
		if a.met[x] {
			contact = lifeline.HadContact
		}
		a.event(Event{Kind: Beaten, Slot: slot, Evaluated: 2 * a.p.ProbationEvents, Contact: contact})
	}
	a.event(Event{Kind: Ticked})
}

// propose is what a worker does that hears from the server.
func (a *air) propose(id string, c holdfast.Channel, d holdfast.Digest) {
	if x := a.slots[InCurrent]; a.network && x != nil && a.met[x] && a.s.Trial == nil {
		a.event(Event{Kind: Proposed, Slot: InCurrent, ID: id, Channel: c, Digest: d})
	}
}

func (a *air) step(t *rapid.T, n int, outages int, agents []holdfast.Digest) {
	switch rapid.SampledFrom([]string{"release", "release", "agent", "agent", "live", "live", "live", "live", "live", "placebo", "owed", "network", "network", "die", "restart", "reboot", "final"}).Draw(t, "step") {
	case "release":
		a.propose(fmt.Sprint(n), holdfast.Rules, rapid.SampledFrom(contents).Draw(t, "digest"))
	case "agent":
		a.propose(fmt.Sprint(n), holdfast.Agent, rapid.SampledFrom(agents).Draw(t, "build"))
	case "placebo":
		if x := a.slots[InCurrent]; a.network && x != nil && a.met[x] {
			a.event(Event{Kind: Reactivated, ID: fmt.Sprint(n)})
		}
	case "owed":
		if x := a.s.Status().Owed; x != nil && !a.now.Before(x.After) {
			a.propose(x.ID, x.Channel, x.Digest)
		}
	case "live":
		for range rapid.IntRange(1, 8).Draw(t, "times") {
			a.live(time.Duration(rapid.Int64Range(1, int64(a.p.Probation)).Draw(t, "time")))
		}
	case "network":
		if a.network && a.outages < outages {
			a.network = false
			a.outages++
		} else {
			a.network = true
		}
	case "die":
		slot := rapid.SampledFrom([]Slot{InCurrent, InTrial}).Draw(t, "slot")
		if a.slots[slot] != nil {
			a.event(Event{Kind: Exited, Slot: slot, Detail: "test"})
		}
	case "restart":
		a.restart()
	case "reboot":
		a.reboot()
	case "final":
		a.event(Event{Kind: Finalised, Digest: rapid.SampledFrom(append(agents, contents...)).Draw(t, "digest")})
	}
}

// checkAir checks a property after every step of lives with at most so many
// outages, of any length, and these builds of the agent.
func checkAir(t *testing.T, outages int, agents []holdfast.Digest, property func(a *air) error) {
	t.Helper()
	rapid.Check(t, func(t *rapid.T) {
		a := newAir()
		a.live(time.Second)
		for n := range rapid.IntRange(1, 60).Draw(t, "steps") {
			a.step(t, n, outages, agents)
			if a.violated == nil {
				a.violated = property(a)
			}
			if a.violated != nil {
				t.Fatalf("after step %d: %v\n%+v", n, a.violated, a.s)
			}
		}
	})
}

func TestAMuteWorkerIsNeverBelieved(t *testing.T) {
	checkAir(t, 60, append([]holdfast.Digest{mute}, contents...), func(a *air) error {
		if holds(a.s.Current, mute) || slices.ContainsFunc(a.s.Back, func(g holdfast.Generation) bool { return holds(g, mute) }) {
			return fmt.Errorf("it is believed: %v, %v", a.s.Current, a.s.Back)
		}
		return nil
	})
}

// It is left by itself: whatever happened before, a host on which a mute worker
// runs, and nothing else happens, is soon heard again.
func TestAHostComesBackFromAMuteWorkerByItself(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := newAir()
		a.live(time.Second)
		for n := range rapid.IntRange(0, 40).Draw(t, "steps") {
			a.step(t, n, 60, append([]holdfast.Digest{mute}, contents...))
		}
		a.network = true
		for range 12 * idleAfter { // a trial, and a way out of safe mode that waits for a while
			a.live(a.p.Probation / 4)
		}
		slot := InCurrent
		if a.s.Trial != nil && a.s.Trial.Active {
			slot = InTrial
		}
		if x := a.slots[slot]; x == nil || !a.met[x] {
			t.Fatalf("it is not heard: %+v", a.s)
		}
	})
}

func TestNoShunForANetworkThatIsDown(t *testing.T) {
	checkAir(t, 1, contents, func(a *air) error {
		for _, x := range a.s.Shuns {
			if x.Cause == ByMute {
				return fmt.Errorf("%s is shunned as mute", x.Digest.Short())
			}
		}
		if a.outages == 0 && a.s.Doubt != nil {
			return fmt.Errorf("%+v is doubted, and the network was never down", *a.s.Doubt)
		}
		return nil
	})
}

// An outage, however long, takes back what was on trial when it began, and
// nothing after it.
func TestAnOutageDoesNotFlap(t *testing.T) {
	var doubted *Doubt
	took, outage := 0, 0
	checkAir(t, 60, contents, func(a *air) error {
		if a.network || a.outages != outage {
			took, outage, doubted = 0, a.outages, a.s.Doubt
			return nil
		}
		if x := a.s.Doubt; x != nil && (doubted == nil || x.ID != doubted.ID || x.Judged != doubted.Judged) {
			took++
		}
		doubted = a.s.Doubt
		if took > 1 {
			return fmt.Errorf("%d candidates were taken back in one outage", took)
		}
		return nil
	})
}

func TestEveryTrialEnds(t *testing.T) {
	checkAir(t, 60, append([]holdfast.Digest{mute}, contents...), func(a *air) error {
		if t := a.s.Trial; t != nil && t.Active && t.Kind != Again && a.now.Sub(t.Since) >= (MuteAfter+1)*a.p.Probation {
			if x := a.slots[InTrial]; x.ready {
				return fmt.Errorf("on trial for %v", a.now.Sub(t.Since))
			}
		}
		return nil
	})
}

func TestAnOwedCandidateIsTriedSoOftenAndNoMore(t *testing.T) {
	a := newAir()
	a.live(time.Second)
	a.propose("offer", holdfast.Rules, contents[0])
	tries := 0
	for range 1000 {
		if x := a.s.Status().Owed; x != nil && !a.now.Before(x.After) {
			tries++
			a.propose(x.ID, x.Channel, x.Digest)
		}
		// The network is away for the whole of each trial, and a while longer.
		a.network = a.s.Trial == nil && (a.s.Doubt == nil || !a.s.Doubt.Until.IsZero() && a.now.After(a.s.Doubt.Until))
		a.live(a.p.Probation / 2)
	}
	if g, safe := a.s.Running(); tries != maxTries || safe || len(g) > 0 || len(a.s.Shuns) > 0 || len(a.s.Failed) > 0 || a.violated != nil {
		t.Fatalf("%d tries, %v: %+v", tries, a.violated, a.s)
	}
}

// TestAnOfferIsProofOfContact: a mute candidate that is up before the next beat of
// what offered it is asked for contact all the same, and ended.
func TestAnOfferIsProofOfContact(t *testing.T) {
	for kind, digest := range map[EventKind]holdfast.Digest{Proposed: mute, Reactivated: ""} {
		for contact, believed := range map[lifeline.Contact]bool{lifeline.HadContact: false, lifeline.NoContact: true, "": true} {
			a := newAir()
			a.event(Event{Kind: kind, Slot: InCurrent, ID: "offer", Channel: holdfast.Agent, Digest: digest, Contact: contact})
			if a.s.Trial == nil {
				t.Fatal("it was not tried")
			}
			a.network = false
			for range 2 * MuteAfter {
				a.live(a.p.Probation / 2)
				a.live(a.p.Probation / 2)
			}
			if a.s.Trial != nil || (a.s.Doubt == nil) != believed {
				t.Errorf("%s, contact %q: trial %+v, doubt %+v", kind, contact, a.s.Trial, a.s.Doubt)
			}
		}
	}
}
