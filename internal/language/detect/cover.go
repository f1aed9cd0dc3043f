package detect

import (
	"math"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// A cover of a rule is a set of atoms of which at least one is in every event
// that the rule matches: its necessary condition. The compiler takes, where it
// has the choice, the cover that is least likely to be in an event.
type cover struct {
	atoms []atom
	cost  float64 // expected share of events that have one of the atoms
}

var noCover = cover{cost: math.Inf(1)}

// pricing estimates how likely atoms are.
type pricing struct {
	uses map[atom]int // in how many predicates of the program an atom is
}

// price estimates the share of events that have the atom. Nobody knows a
// host's events beforehand; but short literals are more common than long ones,
// what many rules name (cmd.exe, /bin/sh) is what hosts run, what stands in
// everyday texts is in every other text, and a whole value that is one word
// (true, System, root) is one of few.
func (p pricing) price(a atom) float64 {
	var share float64
	switch a.kind {
	case present:
		return 1
	case longer:
		return lengthShare(a.bytes)
	case whole:
		share = wholeShare(a.lit)
	case start, end:
		share = [...]float64{1, 0.9, 0.3, 0.1, 0.05, 0.02, 0.01}[min(len(a.lit), 6)]
	default:
		share = [...]float64{1, 0.8, 0.4, 0.15, 0.05, 0.02, 0.012, 0.008, 0.006}[min(len(a.lit), 8)]
	}
	if a.kind != whole && len(a.lit) <= 4 {
		share *= rarity(a.lit)
	}
	if a.kind != whole && strings.Contains(everydayText, a.lit) {
		share = max(share, 0.2)
	}
	return min(share*(1+0.3*float64(min(p.uses[a], 200)-1)), 0.95)
}

func wholeShare(lit string) float64 {
	switch lit {
	case "true", "false", "system", "root", "high", "medium", "microsoft corporation", "setvalue", "0x3e7", "-", "0", "1":
		return 0.3
	}
	if strings.ContainsAny(lit, `.\/`) && len(lit) > 4 {
		return 0.004 // a file, an address, a name in a domain
	}
	return 0.06
}

// lengthShare is for command lines and scripts: what else a rule asks a length of.
func lengthShare(bytes int) float64 {
	switch {
	case bytes >= 1024:
		return 0.02
	case bytes >= 256:
		return 0.08
	case bytes >= 64:
		return 0.25
	}
	return 0.6
}

// rarity is how much rarer than usual the rarest byte of a literal is. A byte
// that paths and command lines hardly have may still stand in every script, so
// the shorter a literal is, the less is believed.
func rarity(lit string) float64 {
	least := uint8(255)
	for i := range len(lit) {
		least = min(least, commonness[lit[i]])
	}
	return max(float64(least)/60, [...]float64{1, 0.4, 0.1, 0.05, 0.03}[min(len(lit), 4)])
}

func (p pricing) of(atoms []atom) cover {
	c := cover{atoms: atoms}
	for _, a := range atoms {
		c.cost += p.price(a)
	}
	return c
}

// cover returns the cheapest cover of a tree; leaves are those of predicates.
func (t *tree) cover(leaves []cover) cover {
	switch t.op {
	case leaf:
		return leaves[t.pred]
	case and:
		best := noCover
		for _, kid := range t.kids {
			if c := kid.cover(leaves); c.cost < best.cost {
				best = c
			}
		}
		return best
	case or, atLeast:
		all := cover{}
		for _, kid := range t.kids {
			c := kid.cover(leaves)
			if math.IsInf(c.cost, 1) {
				return noCover
			}
			all.atoms, all.cost = append(all.atoms, c.atoms...), all.cost+c.cost
		}
		return all
	}
	return noCover
}

// necessary returns atoms of which the event has at least one if the predicate
// holds; none if no such atoms are known.
func (p *predicate) necessary() []atom {
	there := []atom{{field: p.field, kind: present}}
	if p.field == everything {
		there = nil
	}
	switch p.op {
	case sigma.Match:
		var atoms []atom
		pats := p.patterns()
		for i := range pats {
			a := pats[i].atom(p.field, p.cased)
			if a.kind == present {
				return there
			}
			atoms = append(atoms, a)
		}
		return atoms
	case sigma.Equal:
		if p.whole && p.int > -1<<53 && p.int < 1<<53 && canonical(p.text) {
			return []atom{{field: p.field, kind: whole, lit: p.text}}
		}
		return there
	case sigma.Regex:
		lits, least := regexNeeds(p.re.re.String())
		var atoms []atom
		for _, lit := range lits {
			atoms = append(atoms, atom{field: p.field, kind: inside, lit: lit})
		}
		if least >= fewBytes && p.field != everything && (atoms == nil || likelihood(lits) > lengthShare(least)) {
			return []atom{{field: p.field, kind: longer, bytes: least}}
		}
		if atoms != nil {
			return atoms
		}
		return there
	case sigma.Exists:
		if p.want {
			return there
		}
		return nil
	case sigma.IsNull:
		return nil
	}
	return there
}

// canonical says whether a number is written as events' numbers are.
func canonical(s string) bool {
	return s == "0" || s != "" && s[0] >= '1' && s[0] <= '9' || len(s) > 1 && s[0] == '-' && s[1] >= '1' && s[1] <= '9'
}

// atom returns what every text that fits the pattern has.
func (p *pattern) atom(field int, cased bool) atom {
	lit := func(s string) string {
		if cased {
			return fold(s)
		}
		return s
	}
	switch p.shape {
	case exact:
		return atom{field: field, kind: whole, lit: lit(p.lit)}
	case prefix:
		return atom{field: field, kind: start, lit: lit(p.lit)}
	case suffix:
		return atom{field: field, kind: end, lit: lit(p.lit)}
	case contains:
		return atom{field: field, kind: inside, lit: lit(p.lit)}
	}
	// Of a glob, the part that is least likely in a text.
	best := atom{field: field, kind: present}
	consider := func(kind atomKind, part sigma.Part) {
		if part.Kind != sigma.Plain || part.Text == "" {
			return
		}
		a := atom{field: field, kind: kind, lit: lit(part.Text)}
		if best.kind == present || (pricing{}).price(a) < (pricing{}).price(best) {
			best = a
		}
	}
	for _, s := range p.segments {
		for _, part := range s.parts {
			consider(inside, part)
		}
	}
	if n := len(p.segments); n > 0 {
		if parts := p.segments[0].parts; !p.open {
			consider(start, parts[0])
		}
		if parts := p.segments[n-1].parts; !p.ended {
			consider(end, parts[len(parts)-1])
		}
	}
	return best
}

// exactAtom says whether the atom is there exactly if the pattern fits.
func (p *pattern) exactAtom() bool { return p.shape != glob && p.shape != anything }

const (
	mostRegexLiterals = 64
	mostRegexChoices  = 16 // of one run of neighbours
	fewBytes          = 24 // up to which nearly every command line is as long
)

// regexNeeds returns folded literals of which every text that the expression is
// found in has at least one, none if there are no useful ones; and how many
// bytes such a text has at least, folded too.
func regexNeeds(expr string) (lits []string, least int) {
	re, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return nil, 0
	}
	return requiredIn(re), leastLength(re)
}

func requiredIn(re *syntax.Regexp) []string {
	switch re.Op {
	case syntax.OpLiteral:
		return useful(fold(string(re.Rune)))
	case syntax.OpCharClass:
		return choicesOf(re)
	case syntax.OpCapture, syntax.OpPlus:
		return requiredIn(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min >= 1 {
			return requiredIn(re.Sub[0])
		}
	case syntax.OpAlternate:
		var all []string
		for _, sub := range re.Sub {
			lits := requiredIn(sub)
			if lits == nil {
				return nil
			}
			all = append(all, lits...)
		}
		if len(all) > 0 && len(all) <= mostRegexLiterals {
			return all
		}
	case syntax.OpConcat:
		return requiredInConcat(re.Sub)
	}
	return nil
}

// requiredInConcat multiplies neighbours out that are one of few texts, and
// takes the part that is least likely to be in a text.
func requiredInConcat(subs []*syntax.Regexp) []string {
	var best []string
	consider := func(lits []string) {
		if lits != nil && (best == nil || likelihood(lits) < likelihood(best)) {
			best = lits
		}
	}
	run := []string{""}
	end := func() {
		if run[0] != "" {
			consider(run)
		}
		run = []string{""}
	}
	for _, sub := range subs {
		if lits := choicesOf(sub); lits != nil && len(lits)*len(run) <= mostRegexChoices {
			var next []string
			for _, head := range run {
				for _, tail := range lits {
					next = append(next, head+tail)
				}
			}
			run = next
			continue
		}
		end()
		consider(requiredIn(sub))
	}
	end()
	return best
}

// likelihood is a rough share of texts that have one of the literals.
func likelihood(lits []string) float64 {
	p := pricing{}
	sum := 0.0
	for _, l := range lits {
		sum += p.price(atom{kind: inside, lit: l})
	}
	return sum
}

// choicesOf returns the folded texts of an expression that fits only them and
// their other cases, if they are few and none is empty: a literal, a class such
// as [Pp] or [WR], an alternation of those.
func choicesOf(re *syntax.Regexp) []string {
	var all []string
	add := func(s string) bool {
		if s == "" || strings.ContainsRune(s, utf8.RuneError) || len(all) >= mostRegexChoices {
			return false
		}
		if !slices.Contains(all, s) {
			all = append(all, s)
		}
		return true
	}
	switch re.Op {
	case syntax.OpLiteral:
		if !add(fold(string(re.Rune))) {
			return nil
		}
	case syntax.OpCapture:
		return choicesOf(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min == 1 && re.Max == 1 {
			return choicesOf(re.Sub[0])
		}
	case syntax.OpCharClass:
		for i := 0; i+1 < len(re.Rune); i += 2 {
			if re.Rune[i+1]-re.Rune[i] > mostRegexChoices {
				return nil
			}
			for r := re.Rune[i]; r <= re.Rune[i+1]; r++ {
				if !add(string(foldRune(r))) {
					return nil
				}
			}
		}
	case syntax.OpAlternate:
		for _, sub := range re.Sub {
			lits := choicesOf(sub)
			if lits == nil {
				return nil
			}
			for _, l := range lits {
				if !add(l) {
					return nil
				}
			}
		}
	case syntax.OpConcat:
		all = []string{""}
		for _, sub := range re.Sub {
			lits := choicesOf(sub)
			if lits == nil || len(lits)*len(all) > mostRegexChoices {
				return nil
			}
			var next []string
			for _, head := range all {
				for _, tail := range lits {
					next = append(next, head+tail)
				}
			}
			all = next
		}
	}
	return all
}

func useful(lit string) []string {
	// U+FFFD in an expression also fits bytes that are not UTF-8.
	if lit == "" || strings.ContainsRune(lit, utf8.RuneError) {
		return nil
	}
	return []string{lit}
}
