package exact

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/sim"
)

// letter is a report that arrives late.
type letter struct {
	due    time.Time
	host   *host
	report holdfast.HostReport
}

// say sends the host's report: at once, twice, or so that it arrives after
// newer ones.
func (h *host) say(ctx context.Context, w *world) {
	r := h.report(ctx, w)
	if w.chance(w.Messages.Reorder) {
		w.mail = append(w.mail, letter{w.now.Add(time.Duration(w.random.Float64() * float64(3*w.policy.Heartbeat))), h, r})
		return
	}
	w.service.Reported(ctx, h.id, r, w.now)
	if w.chance(w.Messages.Duplicate) {
		w.service.Reported(ctx, h.id, r, w.now)
	}
}

// deliver brings the letters that are due. Whoever hears one hears a beat.
func (w *world) deliver(ctx context.Context) {
	kept := w.mail[:0]
	for _, l := range w.mail {
		switch {
		case w.now.Before(l.due):
			kept = append(kept, l)
		case !w.deaf && !w.now.Before(l.host.cut):
			w.service.Reported(ctx, l.host.id, l.report, w.now)
			w.service.Beat(ctx, l.host.id, w.now)
		}
	}
	w.mail = kept
}

// Of the played workers, in bytes and thousandths of a core.
const (
	usualRSS, usualCPU     = 40 << 20, 10
	swollenRSS, swollenCPU = 400 << 20, 900
)

// report is what the host says of itself; a hostile one lies.
func (h *host) report(ctx context.Context, w *world) holdfast.HostReport {
	r := h.state.Status().Report()
	r.RSS, r.CPU = usualRSS, usualCPU
	if h.refusal != "" {
		r.Declined, r.Reason = h.declined, h.refusal
	}
	if h.consent != nil {
		r.Consent = h.consent.Version
	}
	for _, p := range h.workers {
		if p.swollen && h.fault.Kind == holdfast.Memory {
			r.RSS = swollenRSS
		} else if p.swollen {
			r.CPU = swollenCPU
		}
	}
	switch h.lie {
	case sim.ClaimsHarm:
		r.Crashes += h.claims
	case sim.ClaimsHealth:
		r.Crashes, r.Failed, r.Reason, r.Shunned, r.Probation, r.SafeMode = 0, nil, "", nil, false, false
		r.Boot, r.RSS, r.CPU = "boot-"+string(h.id), usualRSS, usualCPU
		if h.claimed.Lease != "" {
			r.Activation = h.claimed.Lease
			r.Running = holdfast.Generation{holdfast.Rules: h.claimed.Digest}
		}
	case sim.Garbage:
		return h.garbage(ctx, w)
	}
	return r
}

// garbage is a report made up at random, after questions that are.
func (h *host) garbage(ctx context.Context, w *world) holdfast.HostReport {
	r := w.random
	other := w.hosts[r.IntN(len(w.hosts))]
	word := func() string { return strings.Repeat(string(rune(r.IntN(0x500))), r.IntN(300)) }
	digest := func() holdfast.Digest {
		switch r.IntN(4) {
		case 0:
			return w.good
		case 1:
			return w.bad
		case 2:
			return holdfast.Digest(word())
		}
		return holdfast.DigestOf([]byte(word()))
	}
	lease := func() string {
		for l := range other.leases {
			return l
		}
		return word()
	}
	_, _ = w.service.RenewLease(ctx, h.id, lease(), w.now)
	if r.IntN(8) == 0 {
		a := h.attr
		a.Kernel, a.Role, a.OS = word(), fmt.Sprint("role", r.IntN(3)), []string{"linux", "plan9", ""}[r.IntN(3)]
		w.service.Described(ctx, h.id, a, w.now)
	}
	if r.IntN(8) == 0 {
		w.service.Disconnected(ctx, h.id, w.now)
	}
	report := holdfast.HostReport{
		Boot: word(), Running: holdfast.Generation{holdfast.Rules: digest(), holdfast.Channel(word()): digest()}, Failed: holdfast.Generation{holdfast.Rules: digest()},
		Probation: r.IntN(2) == 0, SafeMode: r.IntN(2) == 0, Crashes: r.Uint64(), Reason: word(), Activation: lease(), Declined: lease(),
		Events: r.Uint64(), RSS: r.Uint64(), CPU: r.Uint64(),
	}
	for range r.IntN(4) {
		report.Shunned = append(report.Shunned, digest())
	}
	return report
}
