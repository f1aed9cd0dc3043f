package exact

import (
	"context"
	"fmt"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/guard"
	"github.com/holdfast-security/holdfast/internal/endpoint/loader"
)

// host is one played machine below a real guard decision.
type host struct {
	id      holdfast.HostID
	attr    holdfast.Attributes
	faulty  bool // the release breaks it
	state   guard.State
	workers map[guard.Slot]*worker
	down    bool // dead: says nothing, for ever
	cut     time.Time
	known   bool // the server has its description and report

	leases map[string]bool // carried out
	had    bool            // it has run the release
	broken time.Time       // when the release first broke it
	proved bool            // it had passed its probation by then
	back   time.Time       // when proven content ran again
}

// worker is a played worker process.
type worker struct {
	generation holdfast.Generation
	safe       bool
	starts     time.Time // when it is ready
	ready      bool
	dies       time.Time // zero: it does not
	evaluated  uint64
}

// perSecond is how many events a worker evaluates.
const perSecond = 100

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
		next, actions := guard.Decide(w.guardPolicy, h.state, e, w.now)
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
	if !a.Safe && a.Generation[holdfast.Rules] == w.bad && h.faulty {
		p.dies = p.starts.Add(w.fault.After + time.Duration(w.random.Float64()*float64(w.fault.Spread)))
	}
	h.workers[a.Slot] = p
}

// live lets time pass on the host.
func (h *host) live(w *world) {
	if h.down {
		return
	}
	for _, slot := range []guard.Slot{guard.InTrial, guard.InCurrent} {
		p := h.workers[slot]
		if p == nil || w.now.Before(p.starts) {
			continue
		}
		if !p.ready {
			p.ready = true
			h.tell(w, guard.Event{Kind: guard.IsReady, Slot: slot})
		}
		if !p.dies.IsZero() && !w.now.Before(p.dies) && h.workers[h.slotOf(p)] == p {
			h.fail(w, p)
			if h.down {
				return
			}
			continue
		}
		if s := h.slotOf(p); s != "" {
			p.evaluated += uint64(perSecond * w.tick.Seconds())
			h.tell(w, guard.Event{Kind: guard.Beaten, Slot: s, Evaluated: p.evaluated})
		}
	}
	h.tell(w, guard.Event{Kind: guard.Ticked})
	h.observe(w)
}

func (h *host) slotOf(p *worker) guard.Slot {
	for _, s := range []guard.Slot{guard.InTrial, guard.InCurrent} {
		if h.workers[s] == p {
			return s
		}
	}
	return ""
}

// fail is what the release does to a worker.
func (h *host) fail(w *world, p *worker) {
	slot := h.slotOf(p)
	if h.broken.IsZero() {
		h.broken, h.proved = w.now, slot == guard.InCurrent
		w.broken++
	}
	delete(h.workers, slot)
	switch w.fault.Kind {
	case holdfast.Silence:
		h.down = true
	case holdfast.Reboot:
		clear(h.workers)
		h.tell(w, guard.Event{Kind: guard.Started, Boot: fmt.Sprintf("boot-%d", w.random.Uint64())})
	default:
		h.tell(w, guard.Event{Kind: guard.Exited, Slot: slot, Detail: "exit status 2 (played)"})
	}
}

// observe notes what runs now.
func (h *host) observe(w *world) {
	g, _ := h.state.Running()
	if g[holdfast.Rules] == w.bad {
		h.had = true
	} else if !h.broken.IsZero() && h.back.IsZero() && h.running() {
		h.back = w.now
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

// poll is one heartbeat: report, ask, and act on the answer.
func (h *host) poll(ctx context.Context, w *world) error {
	if h.down || w.now.Before(h.cut) || w.deaf {
		h.known = false
		return nil
	}
	if !h.known {
		if err := w.service.Connected(ctx, h.id, w.now); err != nil {
			if holdfast.KindOf(err) == holdfast.Unavailable {
				return nil // it tries again
			}
			return err
		}
		w.service.Described(ctx, h.id, h.attr, w.now)
		h.known = true
	}
	h.say(ctx, w)
	w.service.Beat(ctx, h.id, w.now)
	o, ok := w.service.Desired(ctx, h.id, w.now)
	if !ok {
		return nil
	}
	if w.random.Float64() < w.lose {
		return nil // the offer is lost; the next heartbeat brings it again
	}
	h.follow(ctx, w, o)
	h.say(ctx, w)
	return nil
}

func (h *host) say(ctx context.Context, w *world) {
	r := h.state.Status().Report()
	r.RSS, r.CPU = 40<<20, 10
	w.service.Reported(ctx, h.id, r, w.now)
	if w.random.Float64() < w.duplicate {
		w.service.Reported(ctx, h.id, r, w.now)
	}
}

// follow is what the worker does with an offer: the loader checks, the lease is
// renewed, the guard is asked.
func (h *host) follow(ctx context.Context, w *world, o holdfast.Offer) {
	if o.Recall != "" {
		h.tell(w, guard.Event{Kind: guard.Recalled, Digest: o.Recall})
		return
	}
	if h.leases[o.Lease] {
		return // carried out already
	}
	e := guard.Event{Kind: guard.Reactivated, ID: o.Lease}
	if o.Arm == holdfast.New {
		d := loader.Check(w.facts(h, o), w.now)
		switch d.Action {
		case loader.Propose:
		default:
			w.refused[d.Cause]++
			return
		}
		e = guard.Event{Kind: guard.Proposed, ID: o.Lease, Channel: o.Channel, Digest: o.Digest}
	}
	if _, err := w.service.RenewLease(ctx, h.id, o.Lease, w.now); err != nil {
		return
	}
	if accepted := h.tell(w, e); !accepted {
		return
	}
	if h.leases[o.Lease] {
		w.violate(4, h, "lease %s was carried out twice", o.Lease)
	}
	h.leases[o.Lease] = true
	w.activated(h, o)
}
