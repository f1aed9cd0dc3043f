package exact

import (
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/sim"
)

// TestMuteHostsComeBackByThemselves: no recall can reach who took an agent that
// reaches nobody. The silence halts it, and nobody has to go there.
func TestMuteHostsComeBackByThemselves(t *testing.T) {
	for seed := range uint64(10) {
		p, w := drill(60, seed)
		w.Faults = []sim.Fault{sim.MuteAgent(1, nil, p.Heartbeat)}
		if o := play(t, p, w); !o.Phase.Recalling() || o.Broken == 0 || o.Broken > 6 || o.Hands > 0 || o.Returned != o.Broken {
			t.Errorf("seed %d: %s, %d broken, %d returned, %d need hands", seed, o.Phase, o.Broken, o.Returned, o.Hands)
		}
	}
}

// TestAFewMuteHostsTryAgain: where too few are mute for a halt, each tries once
// more, and then no more.
func TestAFewMuteHostsTryAgain(t *testing.T) {
	p, w := drill(200, 2)
	w.Until = 5 * time.Minute
	odd := w.Kinds[0]
	odd.Hosts, odd.Stratum = 1, "6.8|debian-12|1.11.0|laptop"
	w.Kinds = append(w.Kinds, odd)
	w.Faults = []sim.Fault{sim.MuteAgent(1, sim.In(odd.Stratum), p.Heartbeat)}
	o := play(t, p, w)
	if o.Phase != holdfast.Complete || o.Broken != 1 || o.Again != 1 || o.Returned != 1 || o.Hands > 0 {
		t.Errorf("%s (%s), %d broken, %d tried again, %d returned, %d need hands", o.Phase, o.Why, o.Broken, o.Again, o.Returned, o.Hands)
	}
}

// TestAnOutageIsNotBlamedOnARelease: where nobody can reach the server for longer
// than a trial may last, hosts go back, and take it when the network is there.
func TestAnOutageIsNotBlamedOnARelease(t *testing.T) {
	p, w := drill(60, 3)
	w.Until = 5 * time.Minute
	w.Outage = []sim.Outage{{From: 6 * time.Second, For: 50 * time.Second, Share: 1}}
	o := play(t, p, w)
	if o.Phase != holdfast.Complete || o.Exposed < 59 || o.Again == 0 || o.Hands > 0 || len(o.Refused) > 0 {
		t.Errorf("%s (%s), %d exposed, %d tried again, %d need hands, %v", o.Phase, o.Why, o.Exposed, o.Again, o.Hands, o.Refused)
	}
}

// TestAnOutageDoesNotCompleteARelease: a network that fails for all, as soon as a
// few hosts have a release that breaks everybody, and comes back when all have
// long been silent, hands it to nobody unobserved.
func TestAnOutageDoesNotCompleteARelease(t *testing.T) {
	for seed := range uint64(10) {
		p, w := drill(60, seed)
		w.Until = 5 * time.Minute
		w.Faults = []sim.Fault{{Name: "crash", Share: 1, Kind: holdfast.Crash, Soonest: 2 * time.Second, Latest: 4 * time.Second}}
		w.Outage = []sim.Outage{{From: 5 * time.Second, For: 50 * time.Second, Share: 1}}
		if o := play(t, p, w); !o.Phase.Recalling() || o.Broken > 6 || o.Hands > 0 {
			t.Errorf("seed %d: %s (%s), %d broken", seed, o.Phase, o.Why, o.Broken)
		}
	}
}

// TestBothFidelitiesHaltWhatIsMute alike.
func TestBothFidelitiesHaltWhatIsMute(t *testing.T) {
	p, w := drill(400, 3)
	w.Faults = []sim.Fault{sim.MuteAgent(1, nil, p.Heartbeat)}
	e := play(t, p, w)
	o, err := sim.Counts(p, w)
	if err != nil {
		t.Fatal(err)
	}
	if e.Phase != o.Phase || e.Broken != o.Broken || e.Returned != e.Broken || o.Returned != o.Broken {
		t.Errorf("exact %s with %d of %d back, counts %s with %d of %d", e.Phase, e.Returned, e.Broken, o.Phase, o.Returned, o.Broken)
	}
}
