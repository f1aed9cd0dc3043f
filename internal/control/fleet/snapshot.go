package fleet

import (
	"maps"
	"slices"

	"github.com/holdfast-security/holdfast"
)

// Snapshot is what is observed about one release: counters, never hosts.
type Snapshot struct {
	Groups []Group
	Cells  []Cell
	Outage bool
	// Held counts, by ring, the hosts that are not eligible because their
	// organisation does not allow the release at all, as things stand.
	Held map[int]int
	// Suspending counts, by organisation, the hosts that were drawn for the
	// release and stopped rules of it.
	Suspending map[holdfast.OrgID]int
}

// Group counts hosts that are alike for a release.
type Group struct {
	Ring    int
	Org     holdfast.OrgID
	Stratum holdfast.Stratum // as merged
	Cell    holdfast.Stratum // the finer one, if it was merged

	Eligible int // all it is meant for and that do not decline it, wherever they are
	Waiting  int // may be drawn now
	Watching int // controls in an open window that a probe may take
	Last     int // would be waiting but must go last
	Later    int // would be one of these, and its organisation allows it later
}

// Cell is what became of the hosts drawn by one opening. All counters are
// cumulative, and count what is stored.
type Cell struct {
	Block   int
	Ring    int
	Org     holdfast.OrgID
	Stratum holdfast.Stratum
	Cell    holdfast.Stratum
	Treated Arm
	Control Arm
}

// Snapshot returns the counters of a release now.
func (f *Fleet) Snapshot(id holdfast.ReleaseID) Snapshot {
	s := Snapshot{Outage: f.outages.open}
	r := f.release(id)
	if r == nil {
		return s
	}
	s.Suspending = maps.Clone(r.suspending)
	for _, g := range r.groups {
		if n := g.by[held]; n > 0 {
			if s.Held == nil {
				s.Held = map[int]int{}
			}
			s.Held[g.ring] += n
		}
		out := Group{Ring: g.ring, Org: g.org, Stratum: g.stratum, Cell: g.cell, Eligible: g.eligible}
		if !f.now.Before(r.Rings.Opens(g.ring, r.Signed)) {
			out.Waiting, out.Watching, out.Last, out.Later = g.by[waiting], g.by[watching], g.by[last], g.by[later]
		}
		if out != (Group{Ring: g.ring, Org: g.org, Stratum: g.stratum, Cell: g.cell}) {
			s.Groups = append(s.Groups, out)
		}
	}
	for k, c := range r.cells {
		if k.block >= 0 {
			s.Cells = append(s.Cells, Cell{Block: k.block, Ring: k.ring, Org: k.org, Stratum: k.stratum, Cell: k.cell, Treated: c.arms[0], Control: c.arms[1]})
		}
	}
	slices.SortFunc(s.Groups, func(a, b Group) int {
		return order(key{0, a.Ring, a.Org, a.Stratum, a.Cell}, key{0, b.Ring, b.Org, b.Stratum, b.Cell})
	})
	slices.SortFunc(s.Cells, func(a, b Cell) int {
		return order(key{a.Block, a.Ring, a.Org, a.Stratum, a.Cell}, key{b.Block, b.Ring, b.Org, b.Stratum, b.Cell})
	})
	return s
}

func order(a, b key) int {
	if a.block != b.block {
		return a.block - b.block
	}
	if a.ring != b.ring {
		return a.ring - b.ring
	}
	if c := compare(a.org, b.org); c != 0 {
		return c
	}
	if c := compare(a.stratum, b.stratum); c != 0 {
		return c
	}
	return compare(a.cell, b.cell)
}

// RingOf is the ring in which a host counts for a release: its own, or the
// last if its organisation says so. It is frozen once the host is drawn.
func (f *Fleet) RingOf(id holdfast.ReleaseID, host holdfast.HostID) (int, bool) {
	r, h := f.release(id), f.hosts[host]
	if r == nil || h == nil {
		return 0, false
	}
	s := h.seatOf(r)
	if s == nil || s.group == nil {
		return 0, false
	}
	return s.group.ring, true
}

// Strata counts the hosts a release would be for, by organisation-wide
// stratum: what merging small strata starts from.
func (f *Fleet) Strata(r Release) map[holdfast.Stratum]int {
	all := map[holdfast.Stratum]int{}
	like := release{Release: r}
	for _, h := range f.hosts {
		if like.meant(h) {
			all[h.stratum]++
		}
	}
	return all
}

// Admission returns the admission of a release that a host was last given.
func (f *Fleet) Admission(id holdfast.ReleaseID, host holdfast.HostID) (holdfast.Admission, bool) {
	r, h := f.release(id), f.hosts[host]
	if r == nil || h == nil {
		return holdfast.Admission{}, false
	}
	if s := h.seatOf(r); s != nil {
		if a := s.current(); a != nil {
			return a.Admission, true
		}
	}
	return holdfast.Admission{}, false
}
