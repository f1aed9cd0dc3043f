// Package consent is what a customer says about when its hosts may change:
// per group of hosts, for content as for binaries: early, general, delayed, the
// version before the newest, a pinned version, or paused, and maintenance
// windows.
//
// It is pure. The control plane uses it to plan and to show who will get a
// release when; the host uses it to refuse what comes too early. It only ever
// makes a host later: rings, soaks and the rollout's pace come first, and the
// strictest of everything wins. A recall needs no consent: a pinned or paused
// host that holds a halted digest gives it back.
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
	Org    holdfast.OrgID
	Groups []Group
}

// Release is what consent must know of a release.
type Release struct {
	Channel  holdfast.Channel
	Version  string
	Critical bool
	Signed   time.Time
	// Opens is when the ring of the host opens, General when the last one does.
	Opens, General time.Time
	// Newest says that the channel has no newer release.
	Newest bool
}

// Answer says whether and when a host may take a release.
type Answer struct {
	// Never: not this release, as things stand. Until says when it is no
	// longer so, if that is known.
	Never bool
	// From is the first moment, windows included.
	From time.Time
	// Last says that the host is in no group, and goes after all others.
	Last bool
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
// host is in has its say, and the latest wins.
func (p *Policy) Ask(id holdfast.HostID, a *holdfast.Attributes, r Release, now time.Time) Answer {
	out := Answer{From: r.Opens}
	var windows [][]Window
	groups := 0
	for i := range p.Groups {
		g := &p.Groups[i]
		if !g.Where.Matches(id, a) {
			continue
		}
		groups++
		from, never, why := g.rule(r).ask(r)
		if never && !out.Never {
			out.Never, out.Why = true, g.Name+": "+why
		}
		if from.After(out.From) {
			out.From = from
			if !out.Never {
				out.Why = g.Name + ": " + why
			}
		}
		if len(g.Windows) > 0 {
			windows = append(windows, g.Windows)
		}
	}
	if groups == 0 {
		out.Last = true
		if r.General.After(out.From) {
			out.From, out.Why = r.General, "in no group: goes last"
		}
	}
	if out.Never {
		return out
	}
	from := out.From
	if now.After(from) {
		from = now
	}
	open, ok := nextOpen(windows, from)
	switch {
	case !ok:
		out.Never, out.Why = true, "its groups' maintenance windows are never open together"
	case len(windows) > 0 && open.After(out.From):
		if open.After(now) || out.Why == "" {
			out.Why = joined(out.Why, "waits for its maintenance window")
		}
		out.From = open
	}
	return out
}

func joined(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
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

func (x Rule) ask(r Release) (from time.Time, never bool, why string) {
	switch x.Track {
	case Early:
		return r.Opens, false, ""
	case Delay:
		return r.Signed.Add(x.Delay), false, fmt.Sprintf("delayed by %s", x.Delay)
	case Before:
		if r.Newest {
			return r.General, true, "one version behind the newest"
		}
		return r.General, false, "one version behind the newest"
	case Pin:
		if r.Version != x.Pin {
			return r.Opens, true, "pinned to " + x.Pin
		}
		return r.Opens, false, "pinned to " + x.Pin
	case Pause:
		return r.Opens, true, "paused"
	}
	return r.General, false, "follows with the last ring"
}

// Preview is who will get a release when, before it is released.
type Preview struct {
	Group string // "" for hosts in no group
	Hosts int
	Never bool
	From  time.Time // the first of them
	Until time.Time // the last of them
	Why   string
}

// PreviewOf groups hosts by the first group they are in. opens gives the moment
// a host's ring opens.
func (p *Policy) PreviewOf(hosts []holdfast.Host, r Release, opens func(holdfast.HostID) time.Time, now time.Time) []Preview {
	at := map[string]int{}
	var all []Preview
	for i := range hosts {
		h := &hosts[i]
		r := r
		r.Opens = opens(h.ID)
		a := p.Ask(h.ID, &h.Attributes, r, now)
		name := ""
		for j := range p.Groups {
			if p.Groups[j].Where.Matches(h.ID, &h.Attributes) {
				name = p.Groups[j].Name
				break
			}
		}
		k := fmt.Sprintf("%s\x00%t", name, a.Never)
		n, ok := at[k]
		if !ok {
			n = len(all)
			at[k] = n
			all = append(all, Preview{Group: name, Never: a.Never, From: a.From, Until: a.From, Why: a.Why})
		}
		row := &all[n]
		row.Hosts++
		if a.From.Before(row.From) {
			row.From = a.From
		}
		if a.From.After(row.Until) {
			row.Until = a.From
		}
	}
	return all
}
