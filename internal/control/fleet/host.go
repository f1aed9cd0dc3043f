package fleet

import (
	"reflect"
	"time"

	"github.com/holdfast-security/holdfast"
)

type host struct {
	holdfast.Host
	stratum holdfast.Stratum // of Attributes
	heard   time.Time        // last beat; zero if none since this fleet was made
	present bool             // heard within two heartbeats
	treated bool             // by a release that may still silence it: left out of outage detection
	queued  bool             // in the wheel
	fresh   bool             // reported since it connected: what is stored of it may be old
	saved   time.Time        // when LastSeen was last stored
	seats   []*seat          // newest release first
	sample  sample           // for the growth of an undisturbed host
}

// seat is a host's place in one release.
type seat struct {
	host    *host
	release *release
	ring    int    // as the host derives it, or the last if its organisation says so
	say     *say   // what its organisation says; nil if it never said anything
	home    *group // of what the host is now
	group   *group // that counts it: home, but frozen once it is drawn for the release
	counted bool   // in group.eligible
	class   class  // as counted in group.by
	treated *admission
	control *admission // the latest
	settled bool       // nothing about the treated admission can change any more
	lowest  int        // the lowest block it was drawn in: below Late, it was offered the release again
	since   time.Time  // the host has said since then that it runs something else than it activated
}

// current is the admission under observation, or nil.
func (s *seat) current() *admission {
	switch {
	case s.treated != nil:
		return s.treated
	case s.control != nil && s.control.Left.IsZero():
		return s.control
	}
	return nil
}

func (h *host) seatOf(r *release) *seat {
	for _, s := range h.seats {
		if s.release == r {
			return s
		}
	}
	return nil
}

// SetHost adds a host, or replaces what an operator or enrolment decides about
// it; what the host itself said is kept.
func (f *Fleet) SetHost(h holdfast.Host) {
	known := f.hosts[h.ID]
	if known == nil {
		h.Connected = false
		known = &host{Host: h, stratum: h.Attributes.Stratum(), saved: h.LastSeen}
		f.hosts[h.ID] = known
		for _, r := range f.releases {
			f.seat(known, r)
		}
		return
	}
	moved := known.Org != h.Org || known.NoCanary != h.NoCanary
	known.Org, known.NoCanary, known.Serial, known.Simulated = h.Org, h.NoCanary, h.Serial, h.Simulated
	if h.Revoked && !known.Revoked {
		f.retire(known)
	}
	if moved {
		known.regroup()
	}
	f.settleAll(known, f.now)
}

// retire takes a revoked host out of whatever counts hosts. There is no way back:
// what was read of it before it was revoked must not undo that.
func (f *Fleet) retire(h *host) {
	h.Revoked, h.Connected = true, false
	if !h.treated {
		f.outages.treat(h.present) // that it is gone is no outage of ours
	}
	h.present = false
	f.dirty[h.ID] = true
}

// heeded is a host whose word counts, or nil.
func (f *Fleet) heeded(id holdfast.HostID) *host {
	if h := f.hosts[id]; h != nil && !h.Revoked {
		return h
	}
	return nil
}

// regroup finds the groups of a host whose attributes changed.
func (h *host) regroup() {
	h.stratum = h.Attributes.Stratum()
	for _, s := range h.seats {
		s.place()
		s.home = s.release.group(h, s.ring)
		if s.say != nil {
			s.say.epoch = 0 // its groups may have changed as well
		}
	}
}

// ResumeHosts takes what another fleet of the same node knew of its hosts by
// their own word and of this moment, after this one was made from the store.
func (f *Fleet) ResumeHosts(old *Fleet) {
	for id, was := range old.hosts {
		h := f.hosts[id]
		if h == nil {
			continue
		}
		if was.Revoked && !h.Revoked {
			f.retire(h) // since the row was read
		}
		h.Attributes, h.Report, h.Connected, h.LastSeen = was.Attributes, was.Report, was.Connected, was.LastSeen
		h.sample, h.fresh = was.sample, was.fresh
		h.regroup()
		f.dirty[id] = true
		if h.Revoked {
			h.Connected = false
		} else if !was.heard.IsZero() {
			f.hear(h, was.heard)
		}
		f.settleAll(h, f.now)
	}
}

// Resume is ResumeHosts within one process, which listened all the while: what
// it knew of outages stands.
func (f *Fleet) Resume(old *Fleet) {
	f.ResumeHosts(old)
	f.outages, f.growth = old.outages, old.growth
	f.outages.untreated = 0
	for _, h := range f.hosts {
		if h.present && !h.treated {
			f.outages.untreated++
		}
	}
}

func (f *Fleet) seat(h *host, r *release) {
	s := &seat{host: h, release: r, ring: -1}
	s.place()
	i := 0
	for i < len(f.releases) && i < len(h.seats) && f.newer(h.seats[i].release, r) {
		i++
	}
	h.seats = append(h.seats, nil)
	copy(h.seats[i+1:], h.seats[i:])
	h.seats[i] = s
	f.settle(s, f.now)
}

func (f *Fleet) newer(a, b *release) bool {
	for _, r := range f.releases {
		if r == a || r == b {
			return r == a
		}
	}
	return false
}

// Host returns what is known of a host now.
func (f *Fleet) Host(id holdfast.HostID) (holdfast.Host, bool) {
	h := f.hosts[id]
	if h == nil {
		return holdfast.Host{}, false
	}
	return h.Host, true
}

// Each calls do for every host, in no order.
func (f *Fleet) Each(do func(holdfast.Host)) {
	for _, h := range f.hosts {
		do(h.Host)
	}
}

// Connected says that a host is connected, or is again: Denied if it was
// removed or revoked.
func (f *Fleet) Connected(id holdfast.HostID, at time.Time) error {
	h := f.heeded(id)
	if h == nil {
		return holdfast.Errorf(holdfast.Denied, "host %s is not enrolled, or was revoked", id)
	}
	h.Connected, h.fresh = true, false
	f.dirty[id] = true
	f.Beat(id, at)
	return nil
}

// Disconnected says that the host's connection is gone. That alone is no
// harm: it may come back before its third heartbeat is missed.
func (f *Fleet) Disconnected(id holdfast.HostID, at time.Time) {
	if h := f.hosts[id]; h != nil {
		h.Connected = false
		f.dirty[id] = true
	}
}

// Described gives a host's attributes. Its role is what enrolment gave it, if
// enrolment gave it one.
func (f *Fleet) Described(id holdfast.HostID, a holdfast.Attributes, at time.Time) {
	h := f.heeded(id)
	if h == nil || h.Attributes == a {
		return
	}
	h.Attributes = a
	h.regroup()
	f.dirty[id] = true
	f.settleAll(h, at)
}

// Reported gives a host's state: what it runs, what it tried, what it counted.
func (f *Fleet) Reported(id holdfast.HostID, r holdfast.HostReport, at time.Time) {
	h := f.heeded(id)
	if h == nil {
		return
	}
	if !alike(h.Report, r) {
		f.dirty[id] = true // counters alone are stored with the next LastSeen
	}
	changed := h.Report.Consent != r.Consent
	h.Report, h.fresh = r, true
	if changed {
		h.reconsider()
	}
	f.grow(h, at)
	for _, s := range h.seats {
		if a := s.current(); a != nil {
			f.examine(s, a, at)
		}
	}
	if r.Declined != "" {
		f.declined(h, r.Declined, r.Reason, at)
	}
	f.settleAll(h, at)
}

// alike reports whether two reports say the same but for what always grows or
// sways.
func alike(a, b holdfast.HostReport) bool {
	for _, r := range []*holdfast.HostReport{&a, &b} {
		r.Events, r.EventsDropped, r.FindingsDropped, r.RSS, r.CPU = 0, 0, 0, 0, 0
		r.EventNs, r.Costs, r.Forgotten = 0, nil, nil
	}
	return reflect.DeepEqual(a, b)
}

// declined notes that a host refused an offer: its own checks did not let it.
// That is no harm; the host is not in the comparison any more.
func (f *Fleet) declined(h *host, lease, reason string, at time.Time) {
	for _, s := range h.seats {
		if a := s.current(); a != nil && a.Lease == lease && a.Activated.IsZero() {
			f.leave(a, declinedBecause+reason, at)
		}
	}
}

// Beat says that the host is alive. It is the host's poll: if the host is
// waiting and an opening is for it, this draws its arm.
func (f *Fleet) Beat(id holdfast.HostID, at time.Time) {
	h := f.heeded(id)
	if h == nil {
		return
	}
	h.LastSeen = at
	if !h.Connected {
		// The end of an older connection was told after the newer one began.
		h.Connected, f.dirty[id] = true, true
	}
	if at.Sub(h.saved) > 10*f.clock.Heartbeat {
		h.saved = at
		f.dirty[id] = true
	}
	f.hear(h, at)
	for _, s := range h.seats {
		f.settle(s, at)
	}
	f.witness(h, at)
	for _, s := range h.seats {
		f.draw(s, at)
		f.again(s, at)
	}
}

// witness sees whether a host's presence says something about our own outages:
// not while it has what a release under way gave it, or what a completed one gave
// it less than a window ago.
func (f *Fleet) witness(h *host, at time.Time) {
	treated := false
	for _, s := range h.seats {
		a, r := s.treated, s.release
		if a != nil && !s.settled && (r.Phase != holdfast.Complete || f.Observed(a.At, at) < r.Fast) {
			treated = true
		}
	}
	switch {
	case treated == h.treated:
	case treated:
		f.outages.treat(h.present)
	case h.present:
		f.outages.untreated++
	}
	h.treated = treated
}

func (f *Fleet) hear(h *host, at time.Time) {
	h.heard = at
	if !h.present {
		f.setPresent(h, true)
	}
	f.wheel.add(h, at.Add(absentAfter*f.clock.Heartbeat))
}

func (f *Fleet) setPresent(h *host, present bool) {
	h.present = present
	if !h.treated {
		f.outages.untreated += map[bool]int{true: 1, false: -1}[present]
	}
}

// absent notes that a host has not been heard for two heartbeats.
func (f *Fleet) absent(h *host, now time.Time) {
	if h.present && now.Sub(h.heard) >= absentAfter*f.clock.Heartbeat {
		f.setPresent(h, false)
		f.settleAll(h, now)
	}
}

// silent notes the harm of three missed heartbeats, or puts the host back into
// the wheel until it can be known.
func (f *Fleet) silent(h *host, now time.Time) {
	if f.hosts[h.ID] != h {
		return
	}
	beat := f.clock.Heartbeat
	switch {
	case h.present:
		f.wheel.add(h, h.heard.Add(absentAfter*beat))
	case !h.observed():
		// Nothing to notice until it beats again.
	case f.outages.open:
		f.wheel.add(h, now.Add(beat))
	default:
		silent := f.outages.heard(h.heard).Add(silentAfter * beat)
		if now.Before(silent) {
			f.wheel.add(h, silent)
			return
		}
		for _, s := range h.seats {
			if a := s.current(); a != nil && f.within(a, silent) {
				f.harm(s, a, holdfast.Silence, silent, "no heartbeat since "+h.heard.UTC().Format(time.TimeOnly))
			}
		}
	}
}

// observed reports whether silence of the host would be evidence.
func (h *host) observed() bool {
	for _, s := range h.seats {
		if a := s.current(); a != nil && !a.had(holdfast.Silence) {
			return true
		}
	}
	return false
}

func (f *Fleet) settleAll(h *host, at time.Time) {
	for _, s := range h.seats {
		f.settle(s, at)
	}
}
