package sim

import (
	"errors"
	"fmt"
	"slices"

	"github.com/holdfast-security/holdfast/internal/control/rollout"
)

// mostShrinks bounds the runs that look for a smaller world.
const mostShrinks = 200

// Shrink looks for the smallest world that still breaks a promise: it leaves
// out one thing after the other as long as the promise breaks without it. again
// plays a world and returns the promise that it breaks, or nil. What it returns
// says in its trace what was left, and what happened there.
func Shrink(w World, v *Violation, again func(World) *Violation) *Violation {
	runs := 0
	for progress := true; progress; {
		progress = false
		for _, less := range w.lesser() {
			if runs++; runs > mostShrinks {
				break
			}
			if found := again(less); found != nil && found.Promise == v.Promise {
				w, v, progress = less, found, true
				break
			}
		}
	}
	v.Trace = append([]string{"the smallest world found that breaks it: " + w.String()}, v.Trace...)
	return v
}

// ShrinkCounts is Shrink for a world that is played in counts.
func ShrinkCounts(p rollout.Policy, w World, v *Violation) *Violation {
	return Shrink(w, v, func(less World) (found *Violation) {
		_, err := Counts(p, less)
		errors.As(err, &found)
		return found
	})
}

// lesser are worlds with one thing less, the greatest savings first.
func (w World) lesser() (all []World) {
	without := func(change func(*World)) {
		less := w
		less.Kinds = slices.Clone(w.Kinds)
		change(&less)
		all = append(all, less)
	}
	for i := range w.Kinds {
		if len(w.Kinds) > 1 {
			without(func(x *World) { x.Kinds = slices.Delete(x.Kinds, i, i+1) })
		}
	}
	for i, k := range w.Kinds {
		for _, n := range []int{k.Hosts / 2, k.Hosts - 1} {
			if n > 0 && n < k.Hosts {
				without(func(x *World) { x.Kinds[i].Hosts, x.Kinds[i].Offline = n, min(k.Offline, n-1) })
			}
		}
		if k.Offline > 0 {
			without(func(x *World) { x.Kinds[i].Offline = 0 })
		}
		if k.Silence > 0 || k.Crash > 0 {
			without(func(x *World) { x.Kinds[i].Silence, x.Kinds[i].Crash = 0, 0 })
		}
	}
	for i := range w.Faults {
		without(func(x *World) { x.Faults = slices.Delete(slices.Clone(w.Faults), i, i+1) })
	}
	for i := range w.Outage {
		without(func(x *World) { x.Outage = slices.Delete(slices.Clone(w.Outage), i, i+1) })
	}
	for i := range w.Clocks {
		without(func(x *World) { x.Clocks = slices.Delete(slices.Clone(w.Clocks), i, i+1) })
	}
	for i := range w.Hostile {
		without(func(x *World) { x.Hostile = slices.Delete(slices.Clone(w.Hostile), i, i+1) })
	}
	for i := range w.Consents {
		without(func(x *World) { x.Consents = slices.Delete(slices.Clone(w.Consents), i, i+1) })
		for j := range w.Consents[i].Policy.Groups {
			without(func(x *World) {
				x.Consents = slices.Clone(w.Consents)
				p := &x.Consents[i].Policy
				p.Groups = slices.Delete(slices.Clone(p.Groups), j, j+1)
			})
		}
	}
	if w.Halt > 0 {
		without(func(x *World) { x.Halt = 0 })
	}
	if w.Critical {
		without(func(x *World) { x.Critical = false })
	}
	if w.Signed > 0 {
		without(func(x *World) { x.Signed = 0 })
	}
	for _, chance := range []func(*World) *float64{
		func(x *World) *float64 { return &x.Restart }, func(x *World) *float64 { return &x.Takeover }, func(x *World) *float64 { return &x.StoreFails },
		func(x *World) *float64 { return &x.Guard }, func(x *World) *float64 { return &x.Forget },
		func(x *World) *float64 { return &x.Messages.Lose }, func(x *World) *float64 { return &x.Messages.Duplicate }, func(x *World) *float64 { return &x.Messages.Reorder },
	} {
		if *chance(&w) > 0 {
			without(func(x *World) { *chance(x) = 0 })
		}
	}
	return all
}

// String says in a line what is in a world.
func (w World) String() string {
	s := fmt.Sprintf("seed %d,", w.Seed)
	for _, k := range w.Kinds {
		s += fmt.Sprintf(" %d hosts %s", k.Hosts, k.Stratum)
		if k.Offline > 0 {
			s += fmt.Sprintf(" (%d offline)", k.Offline)
		}
	}
	for _, f := range w.Faults {
		s += fmt.Sprintf(", fault %s of %g %%", f.Name, 100*f.Share)
	}
	for _, o := range w.Outage {
		s += fmt.Sprintf(", outage from %s for %s", o.From, o.For)
	}
	for _, c := range w.Clocks {
		s += fmt.Sprintf(", clocks wrong by %s", c.Skew)
	}
	for _, h := range w.Hostile {
		s += fmt.Sprintf(", %s", h.Lie)
	}
	if w.Halt > 0 {
		s += fmt.Sprintf(", halted by a person at %s", w.Halt)
	}
	if w.Critical {
		s += ", critical"
	}
	if w.Signed > 0 {
		s += fmt.Sprintf(", signed %s before", w.Signed)
	}
	for i := range w.Consents {
		s += ", " + w.Consents[i].String()
	}
	for _, x := range []struct {
		name   string
		chance float64
	}{
		{"crash", w.Restart},
		{"takeover", w.Takeover},
		{"store", w.StoreFails},
		{"guard", w.Guard},
		{"forget", w.Forget},
		{"lose", w.Messages.Lose},
		{"duplicate", w.Messages.Duplicate},
		{"reorder", w.Messages.Reorder},
	} {
		if x.chance > 0 {
			s += fmt.Sprintf(", %s %g %%", x.name, 100*x.chance)
		}
	}
	return s
}
