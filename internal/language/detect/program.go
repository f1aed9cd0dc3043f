package detect

import (
	"slices"

	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// program is what the events of one class run: the rules that want to see them,
// the index that finds the few that might match, and the predicates they share.
// It does not change once it is made.
type program struct {
	class    *ocsf.Class
	preds    []predicate
	code     code
	rules    []programRule
	atoms    []posting
	atomList []atom        // what they are, in the same order
	indexes  []*fieldIndex // of fields, by ordinal
	byField  []*fieldIndex // the same, at their ordinals; nil without atoms
	keywords *fieldIndex   // of the whole event; nil if no rule needs it
	always   []int32       // rules without a cover
}

type programRule struct {
	rule int32 // in the engine
	root int32 // in the code
}

// admitted is a rule that wants to see a class's events.
type admitted struct {
	rule   int
	source *sigma.Rule
	when   []ocsf.Source // it wants only events of these sources; nil for all
	filter []*sigma.Filter
}

// weakness is a rule whose necessary condition filters little.
type weakness struct {
	rule int
	cost float64 // expected share of events it is evaluated on
}

// weak is from which expected share of events a rule is reported.
const weak = 0.5

type ruleProblem struct {
	rule    int
	problem sigma.Problem
}

func newProgram(class *ocsf.Class, rules []admitted, s shared) (*program, []weakness, []ruleProblem) {
	b := &builder{class: class, shared: s, known: map[string]int{}}
	var (
		trees    []*tree
		kept     []int
		problems []ruleProblem
	)
	for _, r := range rules {
		t, ps := b.rule(r)
		for _, p := range ps {
			problems = append(problems, ruleProblem{r.rule, p})
		}
		if len(ps) == 0 && t.op != never {
			trees, kept = append(trees, t), append(kept, r.rule)
		}
	}
	p := &program{class: class}
	weaknesses := p.index(b, trees, kept)
	p.preds = b.preds
	for i, t := range trees {
		t.order(p.preds)
		p.rules = append(p.rules, programRule{int32(kept[i]), p.code.add(t)})
	}
	return p, weaknesses, problems
}

// rule makes the tree of a rule with its filters, for the sources it may see.
func (b *builder) rule(r admitted) (*tree, []sigma.Problem) {
	t, problems := b.lower(&r.source.Detection)
	for _, f := range r.filter {
		ft, ps := b.lower(&f.Detection)
		for i := range ps {
			ps[i].File = f.File
			ps[i].Reason = "filter " + f.Title + ": " + ps[i].Reason
		}
		problems = append(problems, ps...)
		if f.Detection.Condition.Op != sigma.Not {
			ft = notOf(ft)
		}
		t = allOf(t, ft)
	}
	if r.when != nil {
		var any []*tree
		for _, s := range r.when {
			test := sigma.Test{Op: sigma.Equal, Number: float64(s.Is), Integer: true, Int: s.Is}
			any = append(any, &tree{op: leaf, pred: b.intern(newPredicate(&test, s.When, 0), identity(&test, s.When, 0))})
		}
		t = allOf(anyOf(any...), t)
	}
	return t, problems
}

// index chooses each rule's cover and builds the index of all of them.
func (p *program) index(b *builder, trees []*tree, kept []int) (weaknesses []weakness) {
	price := pricing{uses: map[atom]int{}}
	for i := range b.preds {
		for _, a := range b.preds[i].necessary() {
			price.uses[a]++
		}
	}
	var atoms []atom
	numbers := map[atom]int{}
	for i, t := range trees {
		c := price.cover(t, b)
		if c.cost >= weak {
			weaknesses = append(weaknesses, weakness{kept[i], min(c.cost, 1)})
		}
		if c.atoms == nil {
			p.always = append(p.always, int32(i))
			continue
		}
		for _, a := range c.atoms {
			n, ok := numbers[a]
			if !ok {
				n = len(atoms)
				numbers[a] = n
				atoms = append(atoms, a)
				p.atoms = append(p.atoms, posting{})
			}
			if rules := &p.atoms[n].rules; !slices.Contains(*rules, int32(i)) {
				*rules = append(*rules, int32(i))
			}
		}
	}
	p.atomList = atoms
	p.markKnown(b, numbers)
	p.byField = make([]*fieldIndex, len(p.class.Fields))
	for _, f := range newIndexes(atoms, b.census) {
		if f.field == everything {
			p.keywords = f
		} else {
			p.indexes = append(p.indexes, f)
			p.byField[f.field] = f
		}
	}
	return weaknesses
}

// markKnown finds the predicates that the index decides by itself.
func (p *program) markKnown(b *builder, numbers map[atom]int) {
	for i := range b.preds {
		pred := &b.preds[i]
		if pred.op != sigma.Match || pred.cased {
			continue
		}
		pats := pred.pats
		if pats == nil {
			pats = []pattern{pred.pat}
		}
		exact := !slices.ContainsFunc(pats, func(pat pattern) bool {
			_, indexed := numbers[pat.atom(pred.field, false)]
			return !pat.exactAtom() || !indexed
		})
		if !exact {
			continue
		}
		pred.known = true
		pred.set = nil
		for _, pat := range pats {
			n := numbers[pat.atom(pred.field, false)]
			p.atoms[n].preds = append(p.atoms[n].preds, int32(i))
		}
		pred.pats = nil
	}
}

// run finds the rules of the program that match, and appends their numbers in
// the engine to matches.
func (p *program) run(s *scratch, matches []int32) []int32 {
	p.candidates(s)
	for _, r := range s.candidates {
		if rule := p.rules[r].rule; !s.suspended[rule] && p.code.eval(s, p.rules[r].root) {
			matches = append(matches, rule)
		}
	}
	return matches
}

// candidates fills s.candidates with the rules that might match the event.
func (p *program) candidates(s *scratch) {
	s.candidates = append(s.candidates, p.always...)
	if ev := s.event; ev.Set != nil {
		for _, field := range ev.Set {
			if f := p.byField[field]; f != nil {
				p.look(s, f)
			}
		}
	} else {
		for _, f := range p.indexes {
			p.look(s, f)
		}
	}
	if p.keywords != nil {
		for _, t := range s.allTexts() {
			s.found = p.keywords.search(t.folded, s.found[:0])
			p.mark(s)
		}
	}
}

func (p *program) look(s *scratch, f *fieldIndex) {
	if !s.event.Values[f.field].Present() {
		return
	}
	if f.present >= 0 {
		s.found = append(s.found[:0], f.present)
		p.mark(s)
	}
	if !f.needsText() {
		return
	}
	for _, t := range s.textsOf(f.field) {
		s.found = f.search(t.folded, s.found[:0])
		p.mark(s)
	}
}

// mark follows the atoms found: predicates they decide, candidates they make.
func (p *program) mark(s *scratch) {
	for _, a := range s.found {
		if s.hit[a] == s.stamp {
			continue
		}
		s.hit[a] = s.stamp
		post := &p.atoms[a]
		for _, pred := range post.preds {
			s.truth[pred] = s.stamp<<1 | 1
		}
		for _, r := range post.rules {
			if s.asked[r] != s.stamp {
				s.asked[r] = s.stamp
				s.candidates = append(s.candidates, r)
			}
		}
	}
}

// silence makes the rules in failed never match.
func (p *program) silence(failed map[int]bool) {
	for i := range p.rules {
		if failed[int(p.rules[i].rule)] {
			p.code.nodes[p.rules[i].root] = node{op: never}
		}
	}
}
