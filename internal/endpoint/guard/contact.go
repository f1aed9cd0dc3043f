package guard

import (
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/lifeline"
)

// MuteAfter is how many times Probation a trial may last without having reached
// the server: half an hour, in which an agent tries to connect five times at
// least. A shorter outage of the network takes nothing back.
const MuteAfter = 6

// A candidate that was taken back for want of contact is tried this often again.
const maxTries = 5

// Doubt is a candidate that was taken back because it did not reach the server,
// where what it was to replace had. Whether it or the network was at fault is
// for what was restored to tell.
type Doubt struct {
	Kind    TrialKind        `json:"kind"`
	Channel holdfast.Channel `json:"channel,omitempty"` // that it changed; a placebo changes none
	Digest  holdfast.Digest  `json:"digest,omitempty"`
	ID      string           `json:"id,omitempty"` // of the offer
	// Until is when contact of what was restored says nothing about the
	// candidate any more; zero while what was restored is not ready.
	Until  time.Time `json:"until,omitzero"`
	Judged bool      `json:"judged,omitempty"` // what was restored has had contact
	Next   time.Time `json:"next,omitzero"`    // once judged: not to be tried again before
	Blamed bool      `json:"blamed,omitempty"` // … at once, where it had none: the second time it is shunned
	Tries  int       `json:"tries,omitempty"`  // how often it was tried again
}

// beaten follows a heartbeat: work done, and contact had.
func (d *decision) beaten(e Event) {
	if !d.stands(e.Slot) {
		return
	}
	t := d.s.Trial
	if e.Slot == InTrial {
		if t.Contact != lifeline.HadContact && e.Contact != "" {
			t.Contact = e.Contact
		}
		if t.Active {
			t.Evaluated = max(t.Evaluated, e.Evaluated)
			d.probation()
		}
		return
	}
	d.heard(e)
}

// heard notes contact of what runs as current. An offer is proof of it as well:
// its candidate may be up before the next beat says so, and would then be believed
// without.
func (d *decision) heard(e Event) {
	if e.Slot == InCurrent && e.Contact == lifeline.HadContact && d.stands(InCurrent) {
		d.reached()
	}
}

// wanting reports whether a trial has yet to reach the server, because what it is
// to replace has. One that cannot say is believed without, and so is the way out
// of safe mode, which needs no network.
func (d *decision) wanting(t Trial) bool {
	return d.s.Reached && t.Kind != Again && t.Contact == lifeline.NoContact
}

// mute ends a trial that did not reach the server. Nobody is blamed yet.
func (d *decision) mute() {
	t := d.s.Trial
	x := Doubt{Kind: t.Kind, ID: t.ID}
	if cs := changed(t.Generation, d.base()); t.Kind == Candidate && len(cs) > 0 { // it changed one
		x.Channel, x.Digest = cs[0], t.Generation[cs[0]]
	} else {
		x.Kind = Placebo
	}
	if before := d.s.Doubt; before != nil && before.Digest == x.Digest {
		x.Tries, x.Blamed = before.Tries, before.Blamed
	}
	d.do(Action{Kind: Leave, Slot: InTrial}) // it still protects
	d.revert("it did not reach the server on probation; what ran before will show whether the network was at fault")
	d.s.Doubt = &x
}

// reached notes that what runs as current reaches the server, and settles a
// doubt: what was restored and reaches the server at once shows that the
// candidate could have. Later contact shows nothing, because a network that was
// away does come back.
func (d *decision) reached() {
	s := &d.s
	if !s.Reached {
		s.Reached, d.durable = true, true
	}
	x := s.Doubt
	if x == nil || x.Judged {
		return
	}
	x.Judged, x.Next = true, d.now.Add(d.pause(x.Tries))
	d.changed()
	// A time left that is longer than any we set means that the clock was put back.
	if left := x.Until.Sub(d.now); !x.Until.IsZero() && (left <= 0 || left > d.p.Probation) {
		s.Reason = "it did not reach the server on probation, and neither did what ran before: the network was away"
		return
	}
	s.Reason = "it did not reach the server on probation, and what ran before did at once"
	if x.Kind == Placebo {
		s.Failed, s.Doubt = s.Current, nil
		return
	}
	g := d.base().With(x.Channel, x.Digest)
	s.Failed = g
	if !x.Blamed {
		x.Blamed = true // a network can come back at that very moment, once
		return
	}
	s.Reason += ", for the second time"
	d.shun(g, d.base(), ByMute)
}

// pause is the wait before a doubtful candidate is tried again.
func (d *decision) pause(tries int) time.Duration {
	return min(2*d.p.Probation<<min(max(tries, 0), 10), safeRetryMax)
}

// unsettle forgets what is known of the contact of what runs as current: it
// has changed, and not by a trial.
func (d *decision) unsettle() { d.s.Reached, d.s.Doubt = false, nil }

// owed is the candidate that deserves another trial, if there is one.
func (s State) owed() *lifeline.Owed {
	x := s.Doubt
	if x == nil || !x.Judged || x.Kind != Candidate || x.Tries >= maxTries || s.Trial != nil {
		return nil
	}
	return &lifeline.Owed{ID: x.ID, Channel: x.Channel, Digest: x.Digest, After: x.Next}
}
