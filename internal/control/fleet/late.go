package fleet

import (
	"cmp"
	"slices"

	"github.com/holdfast-security/holdfast"
)

// Who comes when a release is complete is compared with nobody, and may be many at
// one moment: a delay ends, or all laptops of a kernel that were off come back on
// Monday at nine. So they come at the pace of the harm budget: nobody waits who is
// of a kind that has proved itself, and of one that has not, five have the release
// until some of them are clean.

// proof is what hosts of one kind, or all of them, have shown of a release. Those
// that are offered it again count once.
type proof struct {
	taken int // drawn for it
	clean int
	left  int // without harm, before they were clean
	idle  int // beat, and for long have neither carried the offer out nor failed
}

const lateFirst, lateGrowth = 5, 5 // as in package rollout's harm budget

// room reports whether one more host may be drawn. Whoever is not clean keeps its
// share, unless it left without harm, or cannot come to any as it does not take
// the release.
func (p *proof) room() bool {
	return p.taken-p.clean-p.left-p.idle < lateFirst+lateGrowth*p.clean
}

// proofs are the kinds that a host counts in: its own stratum, the one that this was
// merged into, and everybody. What is merged for the sake of comparison may be
// unlike: a handful of odd hosts is not proved by its parent.
type proofs [3]*proof

// each calls do for every kind.
func (all proofs) each(do func(*proof)) {
	for _, p := range all {
		if p != nil {
			do(p)
		}
	}
}

// proofs are those that an admission is counted in.
func (s *seat) proofs(a *admission) (all proofs) {
	own := a.ownStratum(s)
	for i, of := range kinds(own, a.Stratum) {
		if i == 1 && of == own {
			continue // once
		}
		if s.release.proved[of] == nil {
			s.release.proved[of] = &proof{}
		}
		all[i] = s.release.proved[of]
	}
	return all
}

// room reports whether a host of a group may follow after the release is complete.
func (r *release) room(g *group) bool {
	for _, of := range kinds(cmp.Or(g.cell, g.stratum), g.stratum) {
		if p := r.proved[of]; p != nil && !p.room() {
			return false
		}
	}
	return true
}

// fails notices that a host which came late came to harm with the release. It is
// counted once, however often it is offered the release.
func (s *seat) fails() {
	a, r, rep := s.treated, s.release, &s.host.Report
	if a == nil {
		return
	}
	own := cmp.Or(a.first, a)
	if own.Block != Late || own.failed || !own.stored {
		return
	}
	if slices.Contains(rep.Shunned, r.Digest) || a == own && (rep.Failed[r.Channel] == r.Digest || s.died(a)) {
		own.failed = true
		own.cell.failed++
	}
}

// died reports whether the worker of a host that came late died with the release.
// It is no proof then, though the guard has started it again.
func (s *seat) died(a *admission) bool {
	rep := &s.host.Report
	return a.Block == Late && rep.Running[s.release.Channel] == s.release.Digest && rep.Crashes > a.Crashes
}

// Latecomers are the hosts of one stratum that came when a release was complete.
type Latecomers struct {
	Org     holdfast.OrgID
	Stratum holdfast.Stratum
	Drawn   int // were given it
	Clean   int // of those, after the fast window without harm
	Failed  int // of those, came to harm
	Waiting int // are not given it before some of those are clean
}

// Latecomers counts those of a release, by organisation and stratum.
func (f *Fleet) Latecomers(id holdfast.ReleaseID) []Latecomers {
	r := f.release(id)
	if r == nil {
		return nil
	}
	type kind struct {
		org     holdfast.OrgID
		stratum holdfast.Stratum
	}
	by := map[kind]*Latecomers{}
	of := func(k key) *Latecomers {
		kind := kind{k.org, cmp.Or(k.cell, k.stratum)}
		if by[kind] == nil {
			by[kind] = &Latecomers{Org: kind.org, Stratum: kind.stratum}
		}
		return by[kind]
	}
	for k, c := range r.cells {
		if arm := c.arms[0]; k.block == Late && arm.Drawn > 0 {
			l := of(k)
			l.Drawn += arm.Drawn
			l.Clean += arm.Clean
			l.Failed += c.failed
		}
	}
	for k, g := range r.groups {
		if n := g.by[waiting] + g.by[last]; n > 0 && r.Phase == holdfast.Complete && !r.room(g) {
			of(k).Waiting += n
		}
	}
	all := make([]Latecomers, 0, len(by))
	for _, l := range by {
		all = append(all, *l)
	}
	slices.SortFunc(all, func(a, b Latecomers) int {
		return cmp.Or(b.Failed-a.Failed, b.Waiting-a.Waiting, compare(a.Org, b.Org), compare(a.Stratum, b.Stratum))
	})
	return all
}

// kinds names what a host of a stratum counts in.
func kinds(own, merged holdfast.Stratum) [3]holdfast.Stratum {
	return [3]holdfast.Stratum{own, merged, ""}
}

// ownStratum is the host's stratum before it was merged, when it was drawn. That is
// not stored of those who were drawn for the comparison: after a restart it is what
// the host is then.
func (a *admission) ownStratum(s *seat) holdfast.Stratum {
	if g := s.group; a.Cell == "" && g != nil && g.stratum == a.Stratum {
		return cmp.Or(g.cell, g.stratum)
	}
	return cmp.Or(a.Cell, a.Stratum)
}

// idle notices who was drawn late and does not take up the offer: it cannot fetch
// the content, perhaps. The offer stands, and the others need not wait for it.
func (f *Fleet) idle(s *seat) {
	a, h, r := s.treated, s.host, s.release
	if a == nil || a.Block != Late {
		return
	}
	idle := a.idle
	switch {
	case !a.Left.IsZero() || !a.Activated.IsZero() || h.Report.Running[r.Channel] == r.Digest || h.Report.Failed[r.Channel] == r.Digest || h.Report.Boot != a.Boot:
		idle = false
	case a.stored && !h.Report.Probation && f.Observed(a.At, h.heard) >= 3*r.Fast:
		idle = true
	}
	if idle != a.idle {
		a.idle = idle
		by := -1
		if idle {
			by = 1
		}
		a.proofs.each(func(p *proof) { p.idle += by })
	}
}
