package sim

import (
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/rollout"
	"github.com/holdfast-security/holdfast/internal/language/consent"
)

// Policies in counts. All hosts of a group have the same attributes and stand in
// the same ring, so that an organisation says the same to all of them. What
// follows for the rollout is what package fleet makes of it, host by host:
// whoever may never have the release is not eligible, whoever may later is
// waited for, whoever is in no group goes last.

// say is what an organisation says to a group.
type say struct{ consent.Answer }

// allowed are the policies in force.
func (w *World) allowed() map[holdfast.OrgID]*consent.Policy {
	all := map[holdfast.OrgID]*consent.Policy{}
	for i := range w.Consents {
		p := &w.Consents[i].Policy
		if was := all[p.Org]; was == nil || was.Version < p.Version {
			all[p.Org] = p
		}
	}
	return all
}

// consult asks anew where an answer is over.
func (c *counts) consult() {
	if len(c.allowed) == 0 {
		return
	}
	now := c.time()
	rings, last := c.policy.Rings, len(c.policy.Rings)-1
	for i := range c.groups {
		g := &c.groups[i]
		k := &c.world.Kinds[g.kind]
		p := c.allowed[k.Org]
		if p == nil || g.say != nil && (g.say.Until.IsZero() || now.Before(g.say.Until)) {
			continue
		}
		a := k.Attributes()
		g.say = &say{p.Ask("", &a, consent.Release{
			Channel: holdfast.Rules, Version: c.world.Version, Critical: c.world.Critical, Signed: c.policy.Signed, Newest: true,
			Opens: rings.Opens(g.ring, c.policy.Signed), General: rings.Opens(last, c.policy.Signed),
		}, now)}
		g.home = g.ring
		if g.say.WithLast {
			g.home = last
		}
	}
}

// asking counts the hosts of a group that a grant is for.
func (c *counts) asking(g *group, a *rollout.Admit) (n int) {
	if g.say != nil && !g.say.Allows(c.time()) {
		return 0
	}
	if g.say == nil || a.Last || !g.say.Last {
		n = g.waiting()
	}
	if a.Redraw {
		n += g.inWindow
	}
	return n
}

// tell adds what is said to what the rollout sees of a group.
func (s *say) tell(g *group, x *rollout.Group, now time.Time) {
	switch {
	case s == nil:
	case s.Never:
		x.Eligible, x.Waiting, x.Watching = g.treated, 0, 0
	case !s.Allows(now):
		x.Later, x.Waiting, x.Watching = x.Waiting+x.Watching, 0, 0
	case s.Last:
		x.Last, x.Waiting = x.Waiting, 0
	}
}

// tellGroups says what became of the groups of policies.
func (c *counts) tellGroups() {
	if len(c.allowed) == 0 {
		return
	}
	for i := range c.groups {
		g := &c.groups[i]
		k := &c.world.Kinds[g.kind]
		name := ""
		if p := c.allowed[k.Org]; p != nil {
			a := k.Attributes()
			name = p.GroupOf("", &a)
		}
		c.out.Tell(k.Org, name, g.online, g.treated, g.first, g.latest)
	}
}
