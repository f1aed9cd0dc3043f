package fleet

import (
	"maps"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/consent"
)

// say is what a host's organisation says about one release. It is kept until
// it says that it has to be asked for again, or anything it depends on changed.
type say struct {
	consent.Answer
	epoch uint64
}

// SetConsent says what organisations allow. The host has the last word; this is
// so that nobody is drawn who would refuse.
func (f *Fleet) SetConsent(policies map[holdfast.OrgID]*consent.Policy) {
	f.policies = maps.Clone(policies)
	f.epoch++
	for _, h := range f.hosts {
		f.settleAll(h, f.now)
	}
}

// consult brings up to date what is said about a seat, and moves it to the last
// ring if that is what is said.
func (f *Fleet) consult(s *seat, at time.Time) {
	p := f.policies[s.host.Org]
	if p == nil {
		if s.say != nil {
			s.say = nil
			s.place()
		}
		return
	}
	if s.say != nil && s.say.epoch == f.epoch && (s.say.Until.IsZero() || at.Before(s.say.Until)) {
		return
	}
	h := s.host
	s.say = &say{p.Ask(h.ID, &h.Attributes, f.asked(s.release, h), at), f.epoch}
	s.place()
}

// place puts a seat into the host's ring, or the last one: for who must not be
// among the first, and whose organisation says so.
func (s *seat) place() {
	plan := s.release.Rings
	ring := plan.Of(s.host.ID)
	if s.host.NoCanary || s.say != nil && s.say.WithLast {
		ring = len(plan) - 1
	}
	if ring != s.ring {
		s.ring = ring
		s.home = s.release.group(s.host, ring)
	}
}

// asked is what consent must know of a release and a host.
func (f *Fleet) asked(r *release, h *host) consent.Release {
	newest := true
	for _, o := range f.releases {
		newer := o != r && o.Channel == r.Channel && o.Sequence > r.Sequence
		newest = newest && !(newer && o.meant(h) && !o.recalled(h.Org) && o.Approved[o.Rings.Of(h.ID)])
	}
	return consent.Release{
		Channel: r.Channel, Version: r.Version, Critical: r.Critical, Signed: r.Signed, Newest: newest,
		Opens: r.Rings.Opens(r.Rings.Of(h.ID), r.Signed), General: r.Rings.Opens(len(r.Rings)-1, r.Signed),
	}
}

// reconsider forgets what a host declined when it keeps to another policy than
// then: it may be drawn again. A host may have a policy that came by another
// road than ours.
func (h *host) reconsider() {
	for _, s := range h.seats {
		if a := s.treated; a != nil && a.Block >= 0 && a.Activated.IsZero() && strings.HasPrefix(a.Why, declinedBecause) && !s.settled {
			s.treated = nil
			s.release.outstanding--
		}
		if a := s.control; a != nil && strings.HasPrefix(a.Why, declinedBecause) {
			s.control = nil
		}
	}
}

// forbids reports whether the organisation does not allow the release at all,
// as things stand.
func (s *seat) forbids() bool { return s.say != nil && s.say.Never }

// delays reports whether it allows it later.
func (s *seat) delays(at time.Time) bool { return s.say != nil && !s.say.Allows(at) }

// Preview says who would get a release when, by organisation and group, as far
// as is known at a moment. Hosts that have it already are counted as having it.
func (f *Fleet) Preview(r Release, at time.Time) (rows []consent.Preview, have int) {
	var all consent.Previews
	one := &release{Release: r}
	for _, h := range f.hosts {
		if !one.meant(h) {
			continue
		}
		if h.Report.Running[r.Channel] == r.Digest {
			have++
			continue
		}
		asked := f.asked(one, h)
		p := f.policies[h.Org]
		if p == nil {
			// Nobody said anything: its ring alone decides.
			all.Add(h.Org, "", consent.Answer{State: consent.Free, From: asked.Opens})
			continue
		}
		all.Add(h.Org, p.GroupOf(h.ID, &h.Attributes), p.Ask(h.ID, &h.Attributes, asked, at))
	}
	return all.Rows(), have
}
