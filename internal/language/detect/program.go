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
	atoms    []posting     // by atom
	follow   []int32       // what they lead to
	atomList []atom        // what they are, in the same order
	indexes  []fieldIndex  // of fields, by ordinal
	byField  []*fieldIndex // the same, at their ordinals; nil without atoms
	keywords *fieldIndex   // of the whole event; nil if no rule needs it
	always   []int32       // rules without a cover
}

type programRule struct {
	rule int32 // in the engine
	root int32 // its first step in the code
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
	answers, likely, weaknesses := p.index(b, trees, kept)
	p.preds = b.preds
	for i := range p.preds {
		if pred := &p.preds[i]; answers[i].exact {
			pred.pats = nil
		} else {
			pred.prepare(s)
		}
	}
	for i, t := range trees {
		t.order(p.preds, answers, likely)
		p.rules = append(p.rules, programRule{int32(kept[i]), p.code.add(t, answers, accept, reject)})
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
			any = append(any, &tree{op: leaf, pred: b.predicate(&test, s.When, 0)})
		}
		t = allOf(anyOf(any...), t)
	}
	return t, problems
}

// index chooses each rule's cover and builds the index of all of them. It
// returns by predicate what the index knows of it, and how likely it holds.
func (p *program) index(b *builder, trees []*tree, kept []int) ([]answers, []float64, []weakness) {
	needs := make([][]atom, len(b.preds))
	price := pricing{uses: map[atom]int{}}
	for i := range b.preds {
		needs[i] = b.preds[i].necessary()
		for _, a := range needs[i] {
			price.uses[a]++
		}
	}
	var (
		weaknesses []weakness
		atoms      = atomTable{number: map[atom]int32{}}
		rules      [][]int32 // by atom
	)
	covers, costs, ignored := price.covers(trees, b.preds, needs)
	for i, c := range covers {
		if costs[i] >= weak {
			weaknesses = append(weaknesses, weakness{kept[i], min(costs[i], 1)})
		}
		if c.atoms == nil {
			p.always = append(p.always, int32(i))
		}
		for _, a := range c.atoms {
			n := atoms.add(a)
			if int(n) == len(rules) {
				rules = append(rules, nil)
			}
			if !slices.Contains(rules[n], int32(i)) {
				rules[n] = append(rules[n], int32(i))
			}
		}
	}
	// Whether a text starts or ends with something, or is it, costs no more to
	// find out for many literals than for one: so it is, for all there are.
	for i := range b.preds {
		if b.preds[i].op == sigma.Match && !ignored[b.preds[i].field] && !slices.ContainsFunc(needs[i], func(a atom) bool { return a.kind == inside || a.kind == present }) {
			for _, a := range needs[i] {
				atoms.add(a)
			}
		}
	}
	answers := atoms.answer(b.preds, needs)
	marks := make([][]int32, len(atoms.list))
	for i, a := range answers {
		if a.marked {
			for _, n := range a.atoms {
				marks[n] = append(marks[n], int32(i))
			}
		}
	}
	for n := range atoms.list {
		post := posting{first: int32(len(p.follow)), keyword: atoms.list[n].field == everything}
		if n < len(rules) {
			p.follow = append(p.follow, rules[n]...)
		}
		post.preds = int32(len(p.follow))
		p.follow = append(p.follow, marks[n]...)
		post.end = int32(len(p.follow))
		p.atoms = append(p.atoms, post)
	}
	p.atomList = atoms.list
	p.byField = make([]*fieldIndex, len(p.class.Fields))
	p.indexes = newIndexes(atoms.list, b.census)
	if len(p.indexes) > 0 && p.indexes[0].field == everything {
		p.keywords, p.indexes = &p.indexes[0], p.indexes[1:]
	}
	for i := range p.indexes {
		p.byField[p.indexes[i].field] = &p.indexes[i]
	}
	likely := make([]float64, len(b.preds))
	for i := range likely {
		likely[i] = 0.5
		if len(needs[i]) > 0 {
			likely[i] = min(price.of(needs[i]).cost, 0.95)
		}
	}
	return answers, likely, weaknesses
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
		for i := range p.indexes {
			p.look(s, &p.indexes[i])
		}
	}
	if p.keywords != nil {
		p.lookForKeywords(s)
	}
}

// lookForKeywords looks at the message or, if there is none, at what look did
// not look at for keywords already.
func (p *program) lookForKeywords(s *scratch) {
	ev := s.event
	switch {
	case ev.Message != "":
		s.found = p.keywords.search(s.allTexts()[0].folded, s.found[:0])
		p.mark(s, true)
	case ev.Set != nil:
		for _, field := range ev.Set {
			p.lookForKeywordsIn(s, int(field))
		}
	default:
		for field := range min(len(p.byField), len(ev.Values)) {
			p.lookForKeywordsIn(s, field)
		}
	}
}

func (p *program) lookForKeywordsIn(s *scratch, field int) {
	if f := p.byField[field]; f != nil && f.keywords {
		return
	}
	for _, t := range s.textsOf(field) {
		s.found = p.keywords.search(t.folded, s.found[:0])
		p.mark(s, true)
	}
}

func (p *program) look(s *scratch, f *fieldIndex) {
	if s.event.Values[f.field].Kind == ocsf.Absent {
		return
	}
	if f.present >= 0 {
		s.found = append(s.found[:0], f.present)
		p.mark(s, false)
	}
	if !f.text {
		return
	}
	for _, t := range s.textsOf(f.field) {
		if s.found = f.search(t.folded, s.found[:0]); len(s.found) > 0 {
			p.mark(s, s.event.Message == "")
		}
	}
}

// mark follows the atoms found: candidates they make, predicates they decide.
// Keywords only count where they are looked for.
func (p *program) mark(s *scratch, keywords bool) {
	for _, a := range s.found {
		if s.hit[a] == s.stamp {
			continue
		}
		post := &p.atoms[a]
		if post.keyword && !keywords {
			continue
		}
		s.hit[a] = s.stamp
		for _, r := range p.follow[post.first:post.preds] {
			if s.asked[r] != s.stamp {
				s.asked[r] = s.stamp
				s.candidates = append(s.candidates, r)
			}
		}
		for _, pred := range p.follow[post.preds:post.end] {
			s.truth[pred] = s.stamp<<1 | 1
		}
	}
}

// silence makes the rules in failed never match.
func (p *program) silence(failed map[int]bool) {
	for i := range p.rules {
		if failed[int(p.rules[i].rule)] {
			p.rules[i].root = reject
		}
	}
}
