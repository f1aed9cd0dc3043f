package detect

import (
	"cmp"
	"slices"
)

// atom is something the index can find in an event: the least a rule needs.
type atom struct {
	field int
	kind  atomKind
	lit   string // folded
	bytes int    // longer
}

type atomKind uint8

const (
	present atomKind = iota // the field is there
	whole                   // a text of the field is lit
	start                   // … starts with lit
	end                     // … ends with lit
	inside                  // … has lit in it
	longer                  // … has at least so many bytes
)

// posting says what follows when an atom is found: parts of program.follow.
type posting struct {
	first int32 // rules that become candidates,
	preds int32 // then predicates that hold,
	end   int32 // up to here

	keyword bool // in an event with a message, counts only if it is in that
}

// fieldIndex finds the atoms of one field.
type fieldIndex struct {
	field    int
	keywords bool    // inside finds keywords too, in the same pass
	present  int32   // atom, or -1
	text     bool    // there is more to look for than presence
	anchored anchors // whole, start, end
	inside   grams
	longer   []lengthAtom // the shortest first
}

type lengthAtom struct {
	bytes int
	id    int32
}

// newIndexes groups atoms, whose numbers are their places in the list, by field,
// in the order of fields.
func newIndexes(atoms []atom, c census) []fieldIndex {
	byField := map[int][]int{}
	var fields []int
	for i, a := range atoms {
		if byField[a.field] == nil {
			fields = append(fields, a.field)
		}
		byField[a.field] = append(byField[a.field], i)
	}
	slices.Sort(fields)
	var keywords []gramLiteral
	for _, i := range byField[everything] {
		keywords = append(keywords, gramLiteral{atoms[i].lit, i})
	}
	all := make([]fieldIndex, 0, len(fields))
	for _, field := range fields {
		f := fieldIndex{field: field, present: -1}
		var anchored []anchorLiteral
		var any []gramLiteral
		for _, i := range byField[field] {
			switch a := atoms[i]; a.kind {
			case present:
				f.present = int32(i)
			case whole, start, end:
				anchored = append(anchored, anchorLiteral{a.lit, a.kind, i})
			case inside:
				any = append(any, gramLiteral{a.lit, i})
			case longer:
				f.longer = append(f.longer, lengthAtom{a.bytes, int32(i)})
			}
		}
		slices.SortFunc(f.longer, func(a, b lengthAtom) int { return cmp.Compare(a.bytes, b.bytes) })
		f.anchored = newAnchors(anchored)
		if len(any) > 0 {
			// What is looked for at every fourth place only is better looked for
			// by itself.
			dense := slices.ContainsFunc(any, func(l gramLiteral) bool { return len(l.lit) < sparseLength })
			if field != everything && dense {
				f.keywords = len(keywords) > 0
				any = append(any, keywords...)
			}
			f.inside = newGrams(any, c)
		}
		f.text = !f.anchored.empty() || !f.inside.empty() || f.longer != nil
		all = append(all, f)
	}
	return all
}

// search finds the field's atoms in one text.
func (f *fieldIndex) search(folded []byte, found []int32) []int32 {
	if !f.anchored.empty() {
		found = f.anchored.find(folded, found)
	}
	if !f.inside.empty() {
		found = f.inside.find(folded, found)
	}
	for i := range f.longer {
		if len(folded) < f.longer[i].bytes {
			break
		}
		found = append(found, f.longer[i].id)
	}
	return found
}
