package detect

import "slices"

// atom is something the index can find in an event: the least a rule needs.
type atom struct {
	field int
	kind  atomKind
	lit   string // folded
}

type atomKind uint8

const (
	present atomKind = iota // the field is there
	whole                   // a text of the field is lit
	start                   // … starts with lit
	end                     // … ends with lit
	inside                  // … has lit in it
)

// posting says what follows when an atom is found.
type posting struct {
	rules []int32 // these become candidates
	preds []int32 // these hold
}

// fieldIndex finds the atoms of one field.
type fieldIndex struct {
	field    int
	present  int32    // atom, or -1
	forward  *anchors // whole, start
	backward *anchors // end
	inside   *grams
}

// newIndexes groups atoms, whose numbers are their places in the list, by field,
// in the order of fields.
func newIndexes(atoms []atom, c census) []*fieldIndex {
	byField := map[int][]int{}
	var fields []int
	for i, a := range atoms {
		if byField[a.field] == nil {
			fields = append(fields, a.field)
		}
		byField[a.field] = append(byField[a.field], i)
	}
	slices.Sort(fields)
	var all []*fieldIndex
	for _, field := range fields {
		f := &fieldIndex{field: field, present: -1}
		var forward, backward []anchorLiteral
		var any []gramLiteral
		for _, i := range byField[field] {
			switch a := atoms[i]; a.kind {
			case present:
				f.present = int32(i)
			case whole, start:
				forward = append(forward, anchorLiteral{a.lit, a.kind == whole, i})
			case end:
				backward = append(backward, anchorLiteral{a.lit, false, i})
			case inside:
				any = append(any, gramLiteral{a.lit, i})
			}
		}
		f.forward, f.backward = newAnchors(forward, false), newAnchors(backward, true)
		if len(any) > 0 {
			f.inside = newGrams(any, c)
		}
		all = append(all, f)
	}
	return all
}

// needsText says whether there is more to look for than presence.
func (f *fieldIndex) needsText() bool {
	return f.forward != nil || f.backward != nil || f.inside != nil
}

// search finds the field's atoms in one text.
func (f *fieldIndex) search(folded []byte, found []int32) []int32 {
	if f.forward != nil {
		found = f.forward.find(folded, found)
	}
	if f.backward != nil {
		found = f.backward.find(folded, found)
	}
	if f.inside != nil {
		found = f.inside.find(folded, found)
	}
	return found
}
