// Package consent is what a customer says about when its hosts may change:
// per group of hosts, for content as for binaries: early, general, delayed, the
// version before the newest, a pinned version, or paused, and maintenance
// windows.
//
// It is pure. The control plane uses it to plan and to show who will get a
// release when; the host uses it to refuse what comes too early, and believes
// only what its organisation signed (PayloadType). It only ever makes a host
// later: rings, soaks and the rollout's pace come first, and the strictest of
// everything wins. A recall needs no consent: a pinned or paused host that
// holds a halted digest gives it back.
package consent

import (
	"fmt"
	"time"

	"github.com/holdfast-security/holdfast"
)

// Track is how a group of hosts follows releases.
type Track string

// The tracks.
const (
	Early   Track = "early"   // as soon as the host's ring opens
	General Track = "general" // with the last ring
	Delay   Track = "delay"   // so long after the publishers signed
	Before  Track = "n-1"     // one version behind the newest
	Pin     Track = "pin"     // one version, and no other
	Pause   Track = "pause"   // nothing
)

// MostDelay is the longest delay.
const MostDelay = 72 * time.Hour

// Rule is what a group says about one channel and category.
type Rule struct {
	Track Track
	Delay time.Duration // of Delay
	Pin   string        // of Pin: the version
	Line  int           // where the file says so
}

// Group is a set of hosts and what was decided for them.
type Group struct {
	Name string
	// Where selects by what hosts say of themselves; an empty field is any.
	Where Selector
	// Rules by channel; a channel without one is General.
	Rules map[holdfast.Channel]Rule
	// Critical holds for critical releases instead, which may be delayed and
	// not paused. A channel without one is Early.
	Critical map[holdfast.Channel]Rule
	// Windows are the only times at which hosts change; none means any time.
	Windows []Window
}

// Selector selects hosts.
type Selector struct {
	Kernel, Distro, Role, Version string
	Hosts                         []holdfast.HostID
}

// Policy is all that an organisation decided.
type Policy struct {
	Org holdfast.OrgID
	// Version only grows, so that no old policy can be brought back.
	Version int64
	Groups  []Group
}

// Release is what consent must know of a release.
type Release struct {
	Channel  holdfast.Channel
	Version  string
	Critical bool
	Signed   time.Time
	// Opens is when the ring of the host opens, General when the last one does.
	Opens, General time.Time
	// Newest says that the channel has no newer release that the host could
	// have instead.
	Newest bool
}

// State is what decides about a host and a release.
type State string

// The states.
const (
	Free     State = "free"      // nothing but its ring
	LastRing State = "last-ring" // it goes with the last ring
	NoGroup  State = "no-group"  // it is in no group: with the last ring, after all others
	Delayed  State = "delayed"
	Closed   State = "window" // its maintenance window is closed
	Behind   State = "n-1"    // the newest release is not for it
	Pinned   State = "pinned" // to another version
	Paused   State = "paused"
)

// Answer says whether and when a host may take a release.
type Answer struct {
	State State
	// Never: not this release, as things stand.
	Never bool
	// From is the first moment, windows included.
	From time.Time
	// Until is when the answer has to be asked for again: a window opens or
	// closes. Zero: only another policy, release or attribute changes it.
	Until time.Time
	// WithLast says that the host goes with the last ring, Last that it goes
	// after all others there.
	WithLast, Last bool
	// Why names the group and what it said; empty if nobody said anything.
	Why string
}

// Allows reports whether the host may change at now.
func (a Answer) Allows(now time.Time) bool { return !a.Never && !now.Before(a.From) }

// Matches reports whether a host is selected.
func (s *Selector) Matches(id holdfast.HostID, a *holdfast.Attributes) bool {
	is := func(want, got string) bool { return want == "" || want == got }
	if !is(s.Kernel, a.Kernel) || !is(s.Distro, a.Distro) || !is(s.Role, a.Role) || !is(s.Version, a.Version) {
		return false
	}
	if len(s.Hosts) == 0 {
		return true
	}
	for _, h := range s.Hosts {
		if h == id {
			return true
		}
	}
	return false
}

// Ask decides when a host may take a release, asked at now. Every group the
// host is in has its say, and the latest wins. A critical release waits for
// nobody longer than MostDelay after it was signed, windows included.
func (p *Policy) Ask(id holdfast.HostID, a *holdfast.Attributes, r Release, now time.Time) Answer {
	out := Answer{State: Free, From: r.Opens}
	var windows [][]Window
	groups := 0
	for i := range p.Groups {
		g := &p.Groups[i]
		if !g.Where.Matches(id, a) {
			continue
		}
		groups++
		if len(g.Windows) > 0 {
			windows = append(windows, g.Windows)
		}
		x := g.rule(r).ask(r)
		out.WithLast = out.WithLast || x.WithLast
		switch {
		case out.Never:
		case x.Never, x.From.After(out.From):
			x.WithLast, x.Why = out.WithLast, g.Name+": "+x.Why
			if x.From.Before(out.From) {
				x.From = out.From
			}
			out = x
		}
	}
	if groups == 0 {
		out.WithLast, out.Last = true, true
		out.State, out.Why = NoGroup, "in no group: goes last"
		if r.General.After(out.From) {
			out.From = r.General
		}
	}
	out.wait(windows, now)
	if limit := later(r.Opens, r.Signed.Add(MostDelay)); r.Critical && (out.Never || out.From.After(limit)) {
		out.Never, out.From, out.Until = false, limit, time.Time{}
		out.Why += "; but critical: no later than " + limit.UTC().Format(time.RFC3339)
	}
	if !out.Never && now.Before(out.From) {
		out.Until = out.From
	}
	return out
}

// wait moves an answer into the maintenance windows.
func (a *Answer) wait(windows [][]Window, now time.Time) {
	if a.Never || len(windows) == 0 {
		return
	}
	at, until, ok := nextOpen(windows, later(a.From, now))
	switch {
	case !ok:
		a.State, a.Never, a.Why = Closed, true, "its groups' maintenance windows are never open together"
	case at.After(later(a.From, now)):
		a.State, a.From = Closed, at
		if a.Why != "" {
			a.Why += "; "
		}
		a.Why += "waits for its maintenance window"
	default:
		a.Until = until
	}
}

// Window is the first moment from now on at which a host may change at all.
func (p *Policy) Window(id holdfast.HostID, a *holdfast.Attributes, now time.Time) (at time.Time, ok bool) {
	var windows [][]Window
	for i := range p.Groups {
		if g := &p.Groups[i]; len(g.Windows) > 0 && g.Where.Matches(id, a) {
			windows = append(windows, g.Windows)
		}
	}
	at, _, ok = nextOpen(windows, now)
	return at, ok
}

// GroupOf names the first group that a host is in; empty if it is in none.
func (p *Policy) GroupOf(id holdfast.HostID, a *holdfast.Attributes) string {
	for i := range p.Groups {
		if p.Groups[i].Where.Matches(id, a) {
			return p.Groups[i].Name
		}
	}
	return ""
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func (g *Group) rule(r Release) Rule {
	if r.Critical {
		if rule, ok := g.Critical[r.Channel]; ok {
			return rule
		}
		return Rule{Track: Early}
	}
	if rule, ok := g.Rules[r.Channel]; ok {
		return rule
	}
	return Rule{Track: General}
}

// ask is one rule's answer, windows apart.
func (x Rule) ask(r Release) Answer {
	switch x.Track {
	case Early:
		return Answer{State: Free, From: r.Opens}
	case Delay:
		return Answer{State: Delayed, From: later(r.Opens, r.Signed.Add(x.Delay)), Why: fmt.Sprintf("delayed by %s", x.Delay)}
	case Before:
		return Answer{State: Behind, Never: r.Newest, From: r.General, WithLast: true, Why: "one version behind the newest"}
	case Pin:
		return Answer{State: Pinned, Never: r.Version != x.Pin, From: r.Opens, Why: "pinned to " + x.Pin}
	case Pause:
		return Answer{State: Paused, Never: true, From: r.Opens, Why: "paused"}
	}
	return Answer{State: LastRing, From: r.General, WithLast: true, Why: "follows with the last ring"}
}
