package fleet

import (
	"slices"
	"time"

	"github.com/holdfast-security/holdfast"
)

// Desired is what a host should do now, if anything: give back what was
// recalled, or carry out the offer it was drawn for. It is derived from what
// the host says it runs, so an offer that was lost is made again, and one that
// was carried out is not. A digest that the host shunned, or that was halted,
// is never offered.
func (f *Fleet) Desired(id holdfast.HostID, at time.Time) (holdfast.Offer, bool) {
	h := f.heeded(id)
	if h == nil {
		return holdfast.Offer{}, false
	}
	for _, s := range h.seats {
		if o, ok := f.recall(s); ok {
			return o, true
		}
	}
	for _, s := range h.seats {
		a := s.offered()
		if a == nil {
			continue
		}
		return holdfast.Offer{
			Lease: a.Lease, Expires: at.Add(f.clock.Lease), Channel: s.release.Channel, Digest: a.target(),
			Version: s.version(a), Release: s.release.ID, Arm: a.Arm,
		}, true
	}
	return holdfast.Offer{}, false
}

func (s *seat) version(a *admission) string {
	if a.Arm == holdfast.New {
		return s.release.Version
	}
	return ""
}

// recall tells a host that has, or may have, a recalled release to give it
// back.
func (f *Fleet) recall(s *seat) (holdfast.Offer, bool) {
	r, h := s.release, s.host
	has := h.Report.Running[r.Channel] == r.Digest
	may := s.treated != nil && !s.settled
	if !r.recalled(h.Org) || !has && !may {
		return holdfast.Offer{}, false
	}
	o := holdfast.Offer{Channel: r.Channel, Release: r.ID, Arm: holdfast.New, Recall: r.Digest}
	if s.treated != nil {
		o.Digest = s.treated.Before
	} else {
		o.Digest = h.Report.Previous[r.Channel]
	}
	if o.Digest == r.Digest || f.halted(o.Digest, h.Org) {
		o.Digest = f.fallback(h, r.Channel)
	}
	return o, true
}

// fallback is the newest completed release of a channel that was not recalled:
// what a host returns to when what it had before was recalled as well.
func (f *Fleet) fallback(h *host, c holdfast.Channel) holdfast.Digest {
	for _, r := range f.releases {
		if r.Channel == c && r.Phase == holdfast.Complete && r.meant(h) && !r.recalled(h.Org) {
			return r.Digest
		}
	}
	return ""
}

// halted reports whether a digest was recalled from an organisation.
func (f *Fleet) halted(d holdfast.Digest, org holdfast.OrgID) bool {
	return d != "" && slices.ContainsFunc(f.releases, func(r *release) bool { return r.Digest == d && r.recalled(org) })
}

// offered is the admission whose offer the host should carry out, or nil.
func (s *seat) offered() *admission {
	a, h, r := s.current(), s.host, s.release
	if a == nil || !a.stored || !a.Left.IsZero() || !a.Activated.IsZero() || r.recalled(h.Org) {
		return nil
	}
	t := a.target()
	if a.Arm == holdfast.New {
		if h.Report.Running[r.Channel] == t || h.Report.Failed[r.Channel] == t && !a.Again() || slices.Contains(h.Report.Shunned, t) || !r.Approved[s.ring] || s.forbids() || s.delays(h.heard) {
			return nil
		}
		return a
	}
	// A placebo means something only while it is what the host has, and while
	// somebody watches.
	if h.Report.Running[r.Channel] != t || r.Phase.Done() || h.observedFor(a) >= r.Fast {
		return nil
	}
	return a
}

// observedFor is how long ago an admission was made when the host was last
// heard.
func (h *host) observedFor(a *admission) time.Duration { return h.heard.Sub(a.At) }

// Renew answers a host that is about to activate an offer: until when it may,
// or Conflict if it may not any more.
func (f *Fleet) Renew(id holdfast.HostID, lease string, at time.Time) (time.Time, error) {
	h := f.heeded(id)
	if h == nil {
		return time.Time{}, holdfast.Errorf(holdfast.Denied, "host %s is not enrolled, or was revoked", id)
	}
	for _, s := range h.seats {
		if a := s.current(); a != nil && a.Lease == lease {
			if s.offered() == nil || f.halted(a.target(), h.Org) {
				return time.Time{}, holdfast.Errorf(holdfast.Conflict, "this offer was withdrawn or has been carried out")
			}
			return at.Add(f.clock.Lease), nil
		}
	}
	return time.Time{}, holdfast.Errorf(holdfast.Conflict, "there is no such offer for this host any more")
}

// Outstanding counts the hosts that may still have a recalled release. Those
// that are away stay outstanding until they come back.
func (f *Fleet) Outstanding(id holdfast.ReleaseID) int {
	if r := f.release(id); r != nil && len(r.Recalled) > 0 {
		n := 0
		if slices.Contains(r.Recalled, "") {
			return r.outstanding
		}
		for _, h := range f.hosts {
			if s := h.seatOf(r); s != nil && s.treated != nil && !s.settled && r.recalled(h.Org) {
				n++
			}
		}
		return n
	}
	return 0
}

// Kept counts the hosts that had a recalled release, or may have had it, and were
// revoked before they said that they gave it back. They are not outstanding.
func (f *Fleet) Kept(id holdfast.ReleaseID) int {
	if r := f.release(id); r != nil {
		return r.kept
	}
	return 0
}

// OutstandingHosts lists them, at most n.
func (f *Fleet) OutstandingHosts(id holdfast.ReleaseID, n int) []holdfast.HostID {
	var all []holdfast.HostID
	r := f.release(id)
	if r == nil {
		return nil
	}
	for _, h := range f.hosts {
		if s := h.seatOf(r); s != nil && s.treated != nil && !s.settled && r.recalled(h.Org) {
			all = append(all, h.ID)
		}
	}
	slices.Sort(all)
	return all[:min(n, len(all))]
}
