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
	ruleCost  = 150.0 // … of evaluating a rule, and of folding what it asks for
)

// covers chooses each tree's cover, and which fields' texts the index does not
// look at: no cover needs them. The choice is the cheapest only step by step,
// the fields that fewest covers need first.
func (p pricing) covers(trees []*tree, preds []predicate, needs [][]atom) (covers []cover, ignored map[int]bool) {
	covers = make([]cover, len(trees))
	for i, t := range trees {
		covers[i] = p.cover(t, needs)
	}
	looksAt := map[int]bool{}
	for i := range needs {
		if preds[i].field != everything && slices.ContainsFunc(needs[i], ofText) {
			looksAt[preds[i].field] = true
		}
	}
	users, cost := map[int][]int{}, fieldCost // covers by field
	for i, c := range covers {
		for _, a := range c.atoms {
			if a.field == everything {
				cost = mereCost
			}
			if ofText(a) && !slices.Contains(users[a.field], i) {
				users[a.field] = append(users[a.field], i)
			}
		}
	}
	var fields []int
	for f := range looksAt {
		fields = append(fields, f)
	}
	slices.SortFunc(fields, func(a, b int) int {
		return cmp.Or(cmp.Compare(len(users[a]), len(users[b])), cmp.Compare(a, b))
	})
	ignored = map[int]bool{}
	for _, f := range fields {
		without := slices.Clone(needs)
		for i := range without {
			if preds[i].field == f && slices.ContainsFunc(needs[i], ofText) {
				without[i] = []atom{{field: f, kind: present}}
			}
		}
		others, added := slices.Clone(covers), 0.0
		for i, t := range trees {
			if slices.ContainsFunc(covers[i].atoms, func(a atom) bool { return a.field == f && ofText(a) }) {
				others[i] = p.cover(t, without)
				if others[i].cost >= weak { // then people would be told to mend the rule
					added = math.Inf(1)
					break
				}
				added += others[i].cost - covers[i].cost
			}
		}
		if added*ruleCost < cost {
			covers, needs, ignored[f] = others, without, true
		}
	}
	return covers, ignored
}

// ofText says whether finding the atom takes more than to know that the field is
// there.
func ofText(a atom) bool { return a.kind != present }
