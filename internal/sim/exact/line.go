package exact

import (
	"context"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/guard"
	"github.com/holdfast-security/holdfast/internal/endpoint/lifeline"
	"github.com/holdfast-security/holdfast/internal/endpoint/loader"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

// speaker is the worker that is on the line to the server, if one is.
func (h *host) speaker() *worker {
	p := h.workers[guard.InCurrent]
	if t := h.state.Trial; t != nil && t.Active {
		p = h.workers[guard.InTrial]
	}
	if p == nil || !p.ready || p.mute {
		return nil
	}
	return p
}

// contact is what a worker says of its own.
func (p *worker) contact() lifeline.Contact {
	if p.met {
		return lifeline.HadContact
	}
	return lifeline.NoContact
}

// poll is one heartbeat: report, ask, and act on the answer.
func (h *host) poll(ctx context.Context, w *world) error {
	p := h.speaker()
	if p == nil {
		h.unheard = w.now
	}
	if p == nil || h.down || w.now.Before(h.cut) || w.deaf {
		h.line = nil
		return nil
	}
	if h.line != p {
		if err := w.service.Connected(ctx, h.id, w.now); err != nil {
			if holdfast.KindOf(err) == holdfast.Unavailable {
				return nil // it tries again
			}
			return err
		}
		w.service.Described(ctx, h.id, h.attr, w.now)
		h.line = p
	}
	if w.chance(w.Messages.Lose) {
		return nil
	}
	p.met = true
	h.learn(w)
	h.say(ctx, w)
	w.service.Beat(ctx, h.id, w.now)
	o, ok := w.service.Desired(ctx, h.id, w.now)
	if ok && !w.chance(w.Messages.Lose) { // what is lost comes again with the next heartbeat
		h.follow(ctx, w, o)
		h.say(ctx, w)
	}
	h.again(w)
	return nil
}

// follow is what the worker does with an offer: the loader checks, the lease is
// renewed, the guard is asked.
func (h *host) follow(ctx context.Context, w *world, o holdfast.Offer) {
	if o.Recall != "" {
		h.note(w, "gives %s back", o.Recall.Short())
		w.recalled(h)
		h.tell(w, guard.Event{Kind: guard.Recalled, Digest: o.Recall})
		return
	}
	if h.leases[o.Lease] {
		return // carried out already
	}
	if !h.clock(w).Before(o.Expires) {
		w.out.Refused[string(loader.NoLease)]++
		return
	}
	e := guard.Event{Kind: guard.Reactivated, Slot: guard.InCurrent, ID: o.Lease, Contact: lifeline.HadContact}
	if o.Arm == holdfast.New {
		d := loader.Check(w.facts(h, o), h.clock(w))
		w.answered(h, d)
		if d.Action != loader.Propose {
			w.out.Refused[string(d.Cause)]++
			h.declined, h.refusal = "", d.Reason
			if d.Action == loader.Refuse {
				h.declined = o.Lease
			}
			return
		}
		e.Kind, e.Channel, e.Digest = guard.Proposed, o.Channel, o.Digest
	} else if p := h.consent; p != nil {
		// As the loader does: it restarts the worker.
		if at, ok := p.Window(h.id, &h.attr, h.clock(w)); !ok || at.After(h.clock(w)) {
			w.out.Control["comparisons that waited"]++
			return
		}
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
	h.declined, h.refusal = "", ""
	h.claimed = o
	if o.Arm == holdfast.New {
		h.claims++
	}
	h.note(w, "carries out %s (%s)", o.Digest.Short(), o.Arm)
	w.activated(h, o)
	w.consented(h, o)
}

// again proposes what the guard took back for want of contact, when it is due
// and still allowed: the loader asks the signed metadata, without an offer.
func (h *host) again(w *world) {
	x := h.state.Status().Owed
	if x == nil || h.clock(w).Before(x.After) {
		return
	}
	o := holdfast.Offer{Channel: x.Channel, Digest: x.Digest, Arm: holdfast.New, Lease: x.ID}
	d := loader.Check(w.facts(h, o), h.clock(w))
	w.answered(h, d)
	if d.Action != loader.Propose || !h.tell(w, guard.Event{Kind: guard.Proposed, Slot: guard.InCurrent, ID: o.Lease, Channel: o.Channel, Digest: o.Digest, Contact: lifeline.HadContact}) {
		return
	}
	w.out.Again++
	h.note(w, "tries %s again, which it took back for want of contact", o.Digest.Short())
	w.activated(h, o)
	w.consented(h, o)
}

// stuck reports whether what runs here has reached nobody for longer than a
// guard may let it: nobody can tell this host to give it back.
func (h *host) stuck(w *world) bool {
	for _, p := range h.workers {
		if p.mute && p.ready && w.now.Sub(p.starts) > (guard.MuteAfter+1)*w.guardPolicy.Probation {
			return true
		}
	}
	return false
}

func (w *world) facts(h *host, o holdfast.Offer) loader.Facts {
	s := h.state.Status().Report()
	return loader.Facts{
		Host: h.id, Domain: tuf.Drill, Build: h.attr.Build, View: w.view, Channel: o.Channel, Digest: o.Digest, MaxBytes: 1 << 20, Verdicts: w.verdicts,
		State:   loader.State{Current: s.Running, Previous: s.Previous, Shunned: s.Shunned},
		Consent: h.consent, Attributes: h.attr,
	}
}
