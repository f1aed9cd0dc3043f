package exact

import (
	"fmt"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/guard"
	"github.com/holdfast-security/holdfast/internal/language/consent"
	"github.com/holdfast-security/holdfast/internal/sim"
)

// host is one played machine below a real guard decision.
type host struct {
	id      holdfast.HostID
	kind    *sim.Kind
	attr    holdfast.Attributes
	fault   *sim.Fault // what the release does to it, if anything
	excess  float64    // crashes that the release adds, per step
	lie     sim.Lie
	claims  uint64         // crashes it claims
	claimed holdfast.Offer // the latest it claims to run
	skew    time.Duration
	offline bool // asleep all the time
	state   guard.State
	workers map[guard.Slot]*worker
	down    bool      // dead: says nothing, for ever
	cut     time.Time // until when it has no network
	line    *worker   // whose connection the server has, with description and report
	unheard time.Time // when it was last that nobody here could speak to the server

	consent  *consent.Policy // in force here
	read     map[int]bool    // the world's policies that it has looked at
	declined string          // the offer (its lease) that was refused for good
	refusal  string          // why
	promised *sim.Consent    // the policy that must be in force here, as the promise has it

	leases map[string]bool // carried out
	had    bool            // it has run the release
	since  time.Duration   // when it first did
	broken time.Time       // when the release first broke it
	proved bool            // it had passed its probation by then
	died   bool            // a worker of it died, for whatever reason
	back   time.Time       // when proven content ran again
	idle   time.Time       // since when nothing evaluates
}

// worker is a played worker process.
type worker struct {
	generation holdfast.Generation
	safe       bool
	starts     time.Time // when it is ready
	ready      bool
	fails      time.Time // when the release breaks it; zero: it does not
	swollen    bool      // by the release: it uses too much
	mute       bool      // by the release: it never reaches the server
	met        bool      // it has reached it
	evaluated  uint64
}

// perSecond is how many events a worker evaluates.
const perSecond = 100

func (w *world) enrol() error {
	for i := range w.Kinds {
		k := &w.Kinds[i]
		for n := range k.Hosts {
			if len(w.hosts) == sim.MostExact {
				return holdfast.Errorf(holdfast.Invalid, "more than %d hosts: they are too many to be played one by one", sim.MostExact)
			}
			h := w.newHost(k)
			h.offline = n < k.Offline
			h.tell(w, guard.Event{Kind: guard.Started, Boot: "boot-" + string(h.id)})
			w.hosts = append(w.hosts, h)
			w.store.hosts[h.id] = holdfast.Host{ID: h.id, Org: k.Org, Attributes: h.attr, Enrolled: w.now, Report: h.state.Status().Report()}
		}
	}
	if len(w.hosts) == 0 {
		return holdfast.Errorf(holdfast.Invalid, "the fleet has no host")
	}
	return nil
}

func (w *world) newHost(k *sim.Kind) *host {
	h := &host{id: sim.HostName(len(w.hosts)), kind: k, workers: map[guard.Slot]*worker{}, leases: map[string]bool{}, read: map[int]bool{}}
	h.attr = k.Attributes()
	h.attr.Hostname, h.attr.OS, h.attr.Arch, h.attr.Build = string(h.id), "linux", "amd64", holdfast.DigestOf([]byte("worker"))
	h.state = guard.Fresh()
	h.state.Current = holdfast.Generation{holdfast.Rules: w.good}
	of := func(where func(*sim.Kind) bool) bool { return where == nil || where(k) }
	for i := range w.Faults {
		x := &w.Faults[i]
		switch {
		case !of(x.Where):
		case x.Rate > 0:
			h.excess += x.Rate * w.part()
		case h.fault == nil && w.random.Float64() < x.Share:
			h.fault = x
		}
	}
	for _, c := range w.Clocks {
		if of(c.Where) && w.chance(c.Share) {
			h.skew = c.Skew
		}
	}
	for _, x := range w.Hostile {
		if of(x.Where) && w.chance(x.Share) {
			h.lie = x.Lie
		}
	}
	return h
}

// part is what a step is of the ten heartbeats that rates count for.
func (w *world) part() float64 { return float64(w.tick) / float64(10*w.policy.Heartbeat) }

// clock is the time as the host has it.
func (h *host) clock(w *world) time.Time { return w.now.Add(h.skew) }

// tell lets the guard decide, and carries its actions out; what they cause is
// decided in turn.
func (h *host) tell(w *world, e guard.Event) (accepted bool) {
	queue := []guard.Event{e}
	for n := 0; len(queue) > 0 && !h.down; n++ {
		if n > 100 {
			w.violate(2, h, "the guard goes round in circles at %s", e.Kind)
			return false
		}
		e, queue = queue[0], queue[1:]
		next, actions := guard.Decide(w.guardPolicy, h.state, e, h.clock(w))
		h.state = next
		for _, a := range actions {
			switch a.Kind {
			case guard.Start:
				h.launch(w, a)
			case guard.Kill, guard.Leave:
				delete(h.workers, a.Slot)
			case guard.Adopt:
				if p := h.workers[guard.InTrial]; p != nil {
					h.workers[guard.InCurrent] = p
					delete(h.workers, guard.InTrial)
				}
			case guard.Reply:
				accepted = a.Accepted
			}
		}
	}
	return accepted
}

func (h *host) launch(w *world, a guard.Action) {
	p := &worker{generation: a.Generation, safe: a.Safe, starts: w.now.Add(a.After)}
	if f := h.fault; f != nil && !a.Safe && a.Generation[holdfast.Rules] == w.bad {
		after := f.Soonest + time.Duration(w.random.Float64()*float64(f.Latest-f.Soonest))
		if f.Kind == holdfast.Silence {
			// A fault says when its harm is noticed.
			after -= 3 * w.policy.Heartbeat
		}
		if p.mute = f.Mute; !p.mute {
			p.fails = p.starts.Add(max(0, after))
		}
	}
	h.workers[a.Slot] = p
}

// live lets time pass on the host.
func (h *host) live(w *world) {
	if h.down {
		return
	}
	h.background(w)
	for _, slot := range []guard.Slot{guard.InTrial, guard.InCurrent} {
		p := h.workers[slot]
		if p == nil || w.now.Before(p.starts) {
			continue
		}
		if !p.ready {
			p.ready = true
			h.tell(w, guard.Event{Kind: guard.IsReady, Slot: slot})
			if p.mute {
				h.breaks(w, slot)
			}
		}
		if !p.fails.IsZero() && !p.swollen && !w.now.Before(p.fails) && h.workers[h.slotOf(p)] == p {
			h.fail(w, p)
			if h.down {
				return
			}
			continue
		}
		if s := h.slotOf(p); s != "" {
			p.evaluated += max(1, uint64(perSecond*w.tick.Seconds()))
			h.tell(w, guard.Event{Kind: guard.Beaten, Slot: s, Evaluated: p.evaluated, Contact: p.contact()})
		}
	}
	h.tell(w, guard.Event{Kind: guard.Ticked})
	h.observe(w)
}

// background is what happens to the host anyway, and what the release adds to
// its crashes.
func (h *host) background(w *world) {
	part := w.part()
	if w.chance(h.kind.Silence * part) {
		h.cutOff(w.now.Add(4 * w.policy.Heartbeat))
	}
	if w.chance(w.Guard * part) {
		h.restart(w)
	}
	crash := h.kind.Crash * part
	if p := h.workers[guard.InCurrent]; p != nil && p.generation[holdfast.Rules] == w.bad {
		crash += h.excess
	}
	if w.chance(crash) {
		h.note(w, "its worker dies, as workers do")
		h.exit(guard.InCurrent, w)
	}
}

// restart starts the guard anew, and with it the workers, though nothing failed.
// If its state cannot be read it keeps the shuns of the copy before.
func (h *host) restart(w *world) {
	boot := h.state.Boot
	if w.chance(w.Forget) {
		h.note(w, "its guard starts anew and cannot read its state")
		h.state = guard.Lost("unreadable (played)", h.state, h.clock(w))
	} else {
		h.note(w, "its guard starts anew")
	}
	clear(h.workers)
	h.tell(w, guard.Event{Kind: guard.Started, Boot: boot})
}

// cutOff takes the host's network away.
func (h *host) cutOff(until time.Time) {
	if until.After(h.cut) {
		h.cut = until
	}
}

func (h *host) slotOf(p *worker) guard.Slot {
	for _, s := range []guard.Slot{guard.InTrial, guard.InCurrent} {
		if h.workers[s] == p {
			return s
		}
	}
	return ""
}

// exit is the end of a worker.
func (h *host) exit(slot guard.Slot, w *world) {
	if h.workers[slot] == nil {
		return
	}
	h.died = true
	delete(h.workers, slot)
	h.tell(w, guard.Event{Kind: guard.Exited, Slot: slot, Detail: "exit status 2 (played)"})
}

// fail is what the release does to a worker.
func (h *host) fail(w *world, p *worker) {
	slot := h.slotOf(p)
	h.breaks(w, slot)
	switch h.fault.Kind {
	case holdfast.CPU, holdfast.Memory:
		p.swollen = true
	case holdfast.Silence:
		h.down = true
	case holdfast.Reboot:
		h.died = true
		clear(h.workers)
		h.tell(w, guard.Event{Kind: guard.Started, Boot: fmt.Sprintf("boot-%d", w.random.Uint64())})
	default:
		h.exit(slot, w)
	}
}

// breaks notes that the release does something to the worker in a slot.
func (h *host) breaks(w *world, slot guard.Slot) {
	h.note(w, "the release breaks it: %s", h.fault.Name)
	if !h.broken.IsZero() {
		return
	}
	h.broken, h.proved = w.now, slot == guard.InCurrent
	w.out.Broken++
	if h.fault.CutOff {
		h.cutOff(w.now.Add(10 * w.policy.Heartbeat))
	}
}

// observe notes what runs now.
func (h *host) observe(w *world) {
	g, _ := h.state.Running()
	if g[holdfast.Rules] == w.bad {
		if !h.had {
			h.had, h.since = true, w.since()
		}
	} else if !h.broken.IsZero() && h.back.IsZero() && h.running() {
		h.back = w.now
		h.note(w, "proven content runs again")
	}
}

// running reports whether some worker evaluates.
func (h *host) running() bool {
	for _, p := range h.workers {
		if p.ready {
			return true
		}
	}
	return false
}

// tellGroup adds the host to the group of the policy that it keeps to.
func (h *host) tellGroup(w *world) {
	name, had := "", 0
	if h.consent != nil {
		name = h.consent.GroupOf(h.id, &h.attr)
	}
	if h.had {
		had = 1
	}
	w.out.Tell(h.kind.Org, name, 1, had, h.since, h.since)
}

func (h *host) needsHands(w *world) bool {
	g, _ := h.state.Running()
	return h.down || !h.running() || h.stuck(w) || w.phase().Recalling() && g[holdfast.Rules] == w.bad && w.reachable(h)
}
