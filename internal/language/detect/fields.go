package detect

import (
	"cmp"
	"math"
	"slices"
)

// A field that the index looks at costs every event that has it: the text is
// folded, and looked up. Where few rules look for something in it, and those
// need something in another field as well, it is cheaper to leave it out, and to
// evaluate those rules a little more often.

// Rough figures, from profiles of SigmaHQ's rules: a wrong one costs time, and
// changes no match.
const (
	fieldCost = 100.0 // nanoseconds, of folding a field's text and looking it up
	mereCost  = 40.0  // … of looking it up, where keywords are looked for in every text anyway
	ruleCost  = 60.0  // … of evaluating a rule, and of folding what it asks for
)

// covers chooses each tree's cover, and which fields' texts the index does not
// look at: no cover needs them. The choice is the cheapest only step by step,
// the fields that fewest covers need first. It also returns what each tree's cover
// costs if all fields are looked at, which is what people can mend.
func (p pricing) covers(trees []*tree, preds []predicate, needs [][]atom) (covers []cover, costs []float64, ignored map[int]bool) {
	leaves := make([]cover, len(preds))
	ofField := map[int][]int{} // predicates that need something in a field's text
	for i := range needs {
		if leaves[i] = noCover; len(needs[i]) > 0 {
			leaves[i] = p.of(needs[i])
		}
		if f := preds[i].field; f != everything && slices.ContainsFunc(needs[i], ofText) {
			ofField[f] = append(ofField[f], i)
		}
	}
	covers = make([]cover, len(trees))
	for i, t := range trees {
		covers[i] = t.cover(leaves)
		costs = append(costs, covers[i].cost)
	}
	users, cost := map[int][]int{}, fieldCost // covers by field
	for i, c := range covers {
		for _, a := range c.atoms {
			if a.field == everything {
				cost = mereCost
			}
			if u := users[a.field]; ofText(a) && (len(u) == 0 || u[len(u)-1] != i) {
				users[a.field] = append(u, i)
			}
		}
	}
	var fields []int
	for f := range ofField {
		fields = append(fields, f)
	}
	slices.SortFunc(fields, func(a, b int) int {
		return cmp.Or(cmp.Compare(len(users[a]), len(users[b])), cmp.Compare(a, b))
	})
	ignored = map[int]bool{}
	for _, f := range fields {
		mere := p.of([]atom{{field: f, kind: present}})
		var before, others []cover // of its predicates; of those trees whose covers need it
		for _, i := range ofField[f] {
			before, leaves[i] = append(before, leaves[i]), mere
		}
		added := 0.0
		for _, i := range users[f] {
			other := trees[i].cover(leaves)
			if len(other.atoms) == 0 || slices.ContainsFunc(other.atoms, func(a atom) bool { return !ofText(a) }) {
				added = math.Inf(1) // the rule would have nothing to go by
				break
			}
			others, added = append(others, other), added+min(other.cost, 1)-covers[i].cost
		}
		if added*ruleCost < cost {
			ignored[f] = true
			for n, i := range users[f] {
				covers[i] = others[n]
				for _, a := range others[n].atoms {
					if ofText(a) && !slices.Contains(users[a.field], i) {
						users[a.field] = append(users[a.field], i)
					}
				}
			}
			continue
		}
		for n, i := range ofField[f] {
			leaves[i] = before[n]
		}
	}
	return covers, costs, ignored
}

// ofText says whether finding the atom takes more than to know that the field is
// there.
func ofText(a atom) bool { return a.kind != present }
