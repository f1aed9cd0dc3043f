package detect

import (
	"slices"

	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// atomTable numbers the atoms that the index of a program looks for.
type atomTable struct {
	list   []atom
	number map[atom]int32
}

func (t *atomTable) add(a atom) int32 {
	n, ok := t.number[a]
	if !ok {
		n = int32(len(t.list))
		t.number[a] = n
		t.list = append(t.list, a)
	}
	return n
}

// numbers returns the numbers of atoms; ok says whether all of them have one.
func (t *atomTable) numbers(atoms []atom) (all []int32, ok bool) {
	for _, a := range atoms {
		n, has := t.number[a]
		if !has {
			return nil, false
		}
		all = append(all, n)
	}
	return all, len(all) > 0
}

// answers is what the index tells about a predicate once it has looked for all
// atoms: it holds exactly if one of them is there (exact), or only then. No
// atoms: it tells nothing.
type answers struct {
	atoms  []int32
	exact  bool
	marked bool // exact, and of so many atoms that the index marks the predicate when it finds one
}

// manyAtoms is from how many atoms on a predicate is marked, instead of asking
// for each of its atoms.
const manyAtoms = 12

// answer finds out which predicates the index decides.
func (t *atomTable) answer(preds []predicate, needs [][]atom) []answers {
	all := make([]answers, len(preds))
	for i := range preds {
		atoms, ok := t.numbers(needs[i])
		if !ok {
			continue
		}
		p := &preds[i]
		exact := p.op == sigma.Match && !p.cased && !slices.ContainsFunc(p.patterns(), func(pat pattern) bool { return !pat.exactAtom() })
		all[i] = answers{atoms, exact, exact && len(atoms) >= manyAtoms}
	}
	return all
}

// patterns returns the patterns of a Match.
func (p *predicate) patterns() []pattern {
	if p.pats != nil {
		return p.pats
	}
	return []pattern{p.pat}
}
