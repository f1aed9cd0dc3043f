package detect

// literalSet is a list of many literals, of which any must be there: the lists
// of values in rules, when a candidate needs them. Those to be found anywhere
// share one pass over the text; the others are compared one by one.
type literalSet struct {
	anchored []pattern
	inside   grams
}

// manyLiterals is from how many literals on one pass for all is cheaper than a
// search for each.
const manyLiterals = 6

func newLiteralSet(pats []pattern, cased bool, c census) *literalSet {
	s := &literalSet{}
	var lits []gramLiteral
	for _, p := range pats {
		if p.shape == contains && !cased { // only folded texts have slack

			lits = append(lits, gramLiteral{p.lit, len(lits)})
		} else {
			s.anchored = append(s.anchored, p)
		}
	}
	if len(lits) > 0 {
		s.inside = newGrams(lits, c)
	}
	return s
}

func (s *literalSet) any(text []byte) bool {
	for i := range s.anchored {
		if s.anchored[i].match(text) {
			return true
		}
	}
	return s.inside.any(text)
}
