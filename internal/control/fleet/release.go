package fleet

import (
	"slices"
	"time"

	"github.com/holdfast-security/holdfast"
)

// Release is what the fleet must know about a release under way, or one that
// was completed or recalled and may still matter to a host.
type Release struct {
	ID       holdfast.ReleaseID
	Org      holdfast.OrgID // DefaultOrg's releases are for every organisation
	Channel  holdfast.Channel
	Digest   holdfast.Digest
	Version  string
	Platform string // GOOS/GOARCH of the hosts it is for; empty: all
	Rings    holdfast.RingPlan
	Signed   time.Time
	Created  time.Time
	Fast     time.Duration // the windows of observation
	Slow     time.Duration
	Phase    holdfast.Phase
	Baseline Baseline
	// Recalled lists the organisations whose part is recalled; an empty name
	// is all of them. RecalledAt is when.
	Recalled   []holdfast.OrgID
	RecalledAt time.Time
	// Sequence is the release's place in its channel, Critical whether
	// customers may only delay it; the publishers signed both.
	Sequence int64
	Critical bool
	// Approved lists the rings in which the director names the digest. No
	// offer goes to another ring.
	Approved map[int]bool
	Paused   bool
}

// Late is the block of those who come after a release was complete. Blocks below
// it are of hosts that are offered it again; no block below 0 is compared.
const Late = holdfast.LateBlock

// Opening lets hosts be drawn: those of the rings, organisation and stratum
// (and Cell, if it is not empty) that beat before Until. With t treatments and
// p placebos still to give, a host gets the release with probability t/(t+p).
type Opening struct {
	Block   int              `json:"block"`
	Ring    int              `json:"ring"`
	Through int              `json:"through"` // the last ring it is for; those drawn count under Ring
	Org     holdfast.OrgID   `json:"org"`
	Stratum holdfast.Stratum `json:"stratum"`
	Cell    holdfast.Stratum `json:"cell,omitempty"`
	Treat   int              `json:"treat"`
	Placebo int              `json:"placebo"`
	Until   time.Time        `json:"until"`
	Redraw  bool             `json:"redraw,omitempty"` // also controls being watched
	Last    bool             `json:"last,omitempty"`   // also hosts that must go last
}

type key struct {
	block, ring   int
	org           holdfast.OrgID
	stratum, cell holdfast.Stratum
}

type opening struct {
	Opening
	treat, placebo int // still to give
}

type release struct {
	Release
	groups map[key]*group // block is 0 in these keys
	cells  map[key]*cell
	proved map[holdfast.Stratum]*proof // by kind; "" is everybody
	open   []*opening

	outstanding int // hosts drawn for the release that may still have it after a recall
	kept        int // and those that were revoked before they gave it back
	suspending  map[holdfast.OrgID]int
}

// group counts the hosts that are alike for a release.
type group struct {
	key
	eligible int
	by       [classes]int
	open     []*opening
}

// class is what a host is to a release.
type class uint8

const (
	neither  class = iota
	waiting        // may be drawn
	watching       // a control whose window is open, but which a probe may take
	last           // may be drawn when everybody else has been
	later          // would be one of these, and its organisation allows it later
	held           // its organisation does not allow it at all: not eligible
	classes
)

func (r *release) recalled(org holdfast.OrgID) bool {
	return slices.Contains(r.Recalled, "") || slices.Contains(r.Recalled, org)
}

func (r *release) meant(h *host) bool {
	return (r.Org == holdfast.DefaultOrg || r.Org == h.Org) && !h.Revoked &&
		(r.Platform == "" || r.Platform == h.Attributes.OS+"/"+h.Attributes.Arch)
}

func (r *release) group(h *host, ring int) *group {
	cell := h.stratum
	k := key{ring: ring, org: h.Org, stratum: cell}
	if to, ok := r.Baseline.Merged[cell]; ok && to != cell {
		k.stratum, k.cell = to, cell
	}
	g := r.groups[k]
	if g == nil {
		g = &group{key: k}
		r.groups[k] = g
		for _, o := range r.open {
			if g.matches(&o.Opening) {
				g.open = append(g.open, o)
			}
		}
	}
	return g
}

func (g *group) matches(o *Opening) bool {
	own := g.cell
	if own == "" {
		own = g.stratum
	}
	return o.Ring <= g.ring && g.ring <= max(o.Ring, o.Through) && o.Org == g.org && o.Stratum == g.stratum && (o.Cell == "" || o.Cell == own)
}

// SetRelease adds a release, or replaces what is known about it. A release
// that has begun keeps its strata.
func (f *Fleet) SetRelease(r Release) {
	known := f.release(r.ID)
	f.epoch++
	if known == nil {
		known = &release{groups: map[key]*group{}, cells: map[key]*cell{}, proved: map[holdfast.Stratum]*proof{}, suspending: map[holdfast.OrgID]int{}}
		known.Release = r
		i, _ := slices.BinarySearchFunc(f.releases, known, func(a, b *release) int {
			if c := b.Created.Compare(a.Created); c != 0 {
				return c
			}
			return compare(b.ID, a.ID)
		})
		f.releases = slices.Insert(f.releases, i, known)
		for _, h := range f.hosts {
			f.seat(h, known)
		}
		return
	}
	recalled := len(r.Recalled) > len(known.Recalled)
	known.Release = r
	if recalled || r.Paused || r.Phase.Done() {
		known.close(func(o *opening) bool { return r.Paused || r.Phase.Done() || known.recalled(o.Org) })
	}
	for _, h := range f.hosts {
		if s := h.seatOf(known); s != nil {
			f.settle(s, f.now)
		}
	}
}

// DropRelease forgets a release that matters to no host any more.
func (f *Fleet) DropRelease(id holdfast.ReleaseID) {
	r := f.release(id)
	if r == nil {
		return
	}
	f.epoch++
	f.releases = slices.DeleteFunc(f.releases, func(o *release) bool { return o == r })
	for _, h := range f.hosts {
		h.seats = slices.DeleteFunc(h.seats, func(s *seat) bool { return s.release == r })
	}
}

func (f *Fleet) release(id holdfast.ReleaseID) *release {
	for _, r := range f.releases {
		if r.ID == id {
			return r
		}
	}
	return nil
}

// Open lets hosts be drawn. Openings that were stored before are opened again
// with what is left of them: call it after RestoreAdmission.
func (f *Fleet) Open(id holdfast.ReleaseID, all []Opening) {
	r := f.release(id)
	if r == nil {
		return
	}
	for _, o := range all {
		k := key{o.Block, o.Ring, o.Org, o.Stratum, o.Cell}
		if slices.ContainsFunc(r.open, func(p *opening) bool { return p.key() == k }) {
			continue
		}
		given := r.cell(k)
		p := &opening{Opening: o, treat: max(0, o.Treat-given.taken[0]), placebo: max(0, o.Placebo-given.taken[1])}
		r.open = append(r.open, p)
		for _, g := range r.groups {
			if g.matches(&o) {
				g.open = append(g.open, p)
			}
		}
	}
}

func (o *opening) key() key { return key{o.Block, o.Ring, o.Org, o.Stratum, o.Cell} }

// close takes openings away.
func (r *release) close(which func(*opening) bool) {
	r.open = slices.DeleteFunc(r.open, which)
	for _, g := range r.groups {
		g.open = slices.DeleteFunc(g.open, which)
	}
}

// draw gives a host its arm, if an opening is for it.
func (f *Fleet) draw(s *seat, at time.Time) {
	r, g := s.release, s.group
	if f.outages.open || r.Paused || s.class == neither || s.class == later || s.class == held || r.recalled(s.host.Org) || at.Before(r.Rings.Opens(g.ring, r.Signed)) {
		return
	}
	if r.Phase == holdfast.Complete {
		if r.Approved[g.ring] && f.latest(r, s.host) && r.room(g) {
			f.admit(s, nil, Late, holdfast.New, at)
		}
		return
	}
	for _, o := range g.open {
		if !at.Before(o.Until) || o.treat+o.placebo == 0 ||
			s.class == watching && !o.Redraw || s.class == last && !o.Last {
			continue
		}
		if s.class == watching && s.current().Block == o.Block {
			continue // it is this block's control already
		}
		arm := holdfast.Placebo
		if f.random.IntN(o.treat+o.placebo) < o.treat {
			arm = holdfast.New
			o.treat--
		} else {
			o.placebo--
		}
		f.admit(s, o, o.Block, arm, at)
		return
	}
}

// latest reports whether r is the newest release of its channel that host h
// should have, so that hosts that come late are not given what was replaced.
// What its organisation does not allow, or not yet, replaces nothing.
func (f *Fleet) latest(r *release, h *host) bool {
	for _, o := range f.releases { // newest first
		if o.Channel != r.Channel || !o.meant(h) {
			continue
		}
		if o == r {
			return true
		}
		if s := h.seatOf(o); !o.recalled(h.Org) && (h.Report.Running[o.Channel] == o.Digest || s.treated != nil || o.Phase == holdfast.Complete && !s.forbids() && !s.delays(f.now)) {
			return false
		}
	}
	return false
}
