package exact

import (
	"slices"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/loader"
	"github.com/holdfast-security/holdfast/internal/language/consent"
	"github.com/holdfast-security/holdfast/internal/sim"
)

// What customers are promised, read from docs/consent.md a second time and as
// naively as can be: for one host and one moment, yes or no. Of package consent
// only the nouns are used here.

// promise notes that a host has seen a policy: from now on it keeps to it, if
// its organisation signed it and it is newer than all before.
func (w *world) promise(h *host, c *sim.Consent) {
	if c.Road != sim.Forged && (h.promised == nil || c.Policy.Version > h.promised.Policy.Version) {
		h.promised = c
	}
}

// refuses says why a policy keeps the release from a host at a moment by the
// host's clock; empty if it does not.
func (w *world) refuses(p *consent.Policy, h *host, at time.Time) string {
	signed, plan := w.signed(), w.policy.Rings
	general := signed.Add(plan[len(plan)-1].Soak)
	if w.Critical && !at.Before(signed.Add(72*time.Hour)) {
		return ""
	}
	groups := groupsOf(p, h)
	if len(groups) == 0 && at.Before(general) {
		return "it is in no group, and the last ring is not open"
	}
	for _, g := range groups {
		rule, track := g.Rules[holdfast.Rules], consent.General
		if w.Critical {
			rule, track = g.Critical[holdfast.Rules], consent.Early
		}
		if rule.Track != "" {
			track = rule.Track
		}
		switch {
		case track == "pause":
			return g.Name + " is paused"
		case track == "pin" && rule.Pin != w.view.Releases[w.bad].Version:
			return g.Name + " is pinned to " + rule.Pin
		case track == "n-1": // the world has nothing newer
			return g.Name + " stays one version behind"
		case track == "delay" && at.Before(signed.Add(rule.Delay)):
			return g.Name + " is delayed by " + rule.Delay.String()
		case track == "general" && at.Before(general):
			return g.Name + " goes with the last ring, which is not open"
		}
	}
	return w.outside(p, h, at)
}

// outside says which group's maintenance windows are closed at a moment.
func (w *world) outside(p *consent.Policy, h *host, at time.Time) string {
	for _, g := range groupsOf(p, h) {
		if len(g.Windows) > 0 && !slices.ContainsFunc(g.Windows, func(x consent.Window) bool { return covers(&x, at) }) {
			return g.Name + " is outside of its maintenance windows"
		}
	}
	return ""
}

func groupsOf(p *consent.Policy, h *host) (in []*consent.Group) {
	for i := range p.Groups {
		g, is := &p.Groups[i], true
		for _, x := range [][2]string{{g.Where.Kernel, h.attr.Kernel}, {g.Where.Distro, h.attr.Distro}, {g.Where.Role, h.attr.Role}, {g.Where.Version, h.attr.Version}} {
			is = is && (x[0] == "" || x[0] == x[1])
		}
		if is && (len(g.Where.Hosts) == 0 || slices.Contains(g.Where.Hosts, h.id)) {
			in = append(in, g)
		}
	}
	return in
}

// covers reads a window off the clock on the wall. What it shows for the second
// time, because it was put back, changes nothing.
func covers(x *consent.Window, at time.Time) bool {
	local := at.In(x.Zone)
	if changed, _ := local.ZoneBounds(); !changed.IsZero() {
		_, was := changed.Add(-1).Zone()
		if _, is := local.Zone(); at.Before(changed.Add(time.Duration(was-is) * time.Second)) {
			local = changed.Add(-1)
		}
	}
	clock := time.Duration(local.Hour())*time.Hour + time.Duration(local.Minute())*time.Minute + time.Duration(local.Second())*time.Second
	today, yesterday := local.Weekday(), (local.Weekday()+6)%7
	if x.From < x.To {
		return x.Days[today] && clock >= x.From && clock < x.To
	}
	return x.Days[today] && clock >= x.From || x.Days[yesterday] && clock < x.To
}

// consented is checked when a host has carried an offer out.
func (w *world) consented(h *host, o holdfast.Offer) {
	if h.lie != "" || h.promised == nil {
		return
	}
	p := &h.promised.Policy
	if o.Arm != holdfast.New {
		if why := w.outside(p, h, h.clock(w)); why != "" {
			w.violate(sim.Control, h, "restarted its worker to compare, though %s (policy %d)", why, p.Version)
		}
		return
	}
	w.out.Control["taken"]++
	if why := w.refuses(p, h, h.clock(w)); why != "" {
		w.violate(sim.Control, h, "took the release, though %s (policy %d)", why, p.Version)
	}
	// A host whose clock is ahead believes that its delay is over. The server,
	// if it plans by the same policy, does not.
	if w.planned(p) && w.refuses(p, h, w.now) != "" {
		w.violate(sim.Control, h, "was let have the release by the server, though %s (policy %d)", w.refuses(p, h, w.now), p.Version)
	}
}

// planned reports whether the server has had this policy for so long that it
// must plan by it.
func (w *world) planned(p *consent.Policy) bool {
	i, ok := w.customers.byServer[p.Org]
	return ok && &w.Consents[i].Policy == p && w.since() >= w.Consents[i].At+5*w.policy.Heartbeat
}

// answered is checked when the loader has answered an offer of the release: it
// refuses neither less nor more than the policy says.
func (w *world) answered(h *host, d loader.Decision) {
	forbidden := d.Cause == loader.Forbidden
	if forbidden {
		w.out.Control["held back"]++
	}
	if h.lie != "" {
		return
	}
	why := ""
	if h.promised != nil {
		why = w.refuses(&h.promised.Policy, h, h.clock(w))
	}
	limit := w.signed().Add(72 * time.Hour)
	switch {
	case forbidden && why == "":
		w.violate(sim.Control, h, "refused what its organisation allows: %s", d.Reason)
	case forbidden && w.Critical && (d.Action == loader.Refuse || d.Until.After(limit)):
		w.violate(sim.Control, h, "holds a critical release beyond %s: %s", limit.Format(time.RFC3339), d.Reason)
	}
}

// checkPreview asks what people are shown: a critical release is delayed, never
// withheld.
func (w *world) checkPreview() {
	if !w.Critical || len(w.Consents) == 0 || w.steps%4 != 0 {
		return
	}
	rows, _, err := w.service.Preview(w.bad)
	if err != nil {
		w.violate(sim.Control, nil, "who will get it cannot be shown: %v", err)
	}
	for _, r := range rows {
		if r.Never {
			w.violate(sim.Control, nil, "%d hosts of %s %s would never get a critical release: %s", r.Hosts, r.Org, r.Group, r.Why)
		}
	}
}

// recalled counts the recalls that a policy would have held up.
func (w *world) recalled(h *host) {
	if w.held(h) != "" {
		w.out.Control["recalled although held"]++
	}
}

// held says that a host's policy would keep it as it is.
func (w *world) held(h *host) string {
	if h.lie != "" || h.promised == nil {
		return ""
	}
	if why := w.refuses(&h.promised.Policy, h, h.clock(w)); why != "" {
		return ": " + why
	}
	return ""
}
