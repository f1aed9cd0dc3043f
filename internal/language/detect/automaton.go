package detect

import (
	"encoding/binary"
	"regexp"
	"regexp/syntax"
	"slices"
	"unicode"
	"unicode/utf8"
)

// automaton decides whether a regular expression is found in a text, one table
// look-up a character. It is the deterministic automaton of the program that
// package regexp would interpret, built when rules are compiled, if it stays
// small; else threads run the program. Either is linear in the text, and
// allocates nothing.
type automaton struct {
	re      *regexp.Regexp
	prog    *syntax.Prog // if there is no table; nil if it is too large for threads, too
	table   []uint16     // by state<<shift | class of the character
	classes [utf8.RuneSelf]uint16
	wide    []wideClass // of the characters beyond ASCII, ascending
	shift   uint
	atEnd   []bool              // by state: the expression is found if the text ends here
	idle    uint32              // the state in which nothing of a match has been seen
	starts  [utf8.RuneSelf]bool // the characters that end it
	least   int                 // bytes that any match has at least
}

// wideClass is the class of the characters from one up to the next entry's.
type wideClass struct {
	from  rune
	class uint16
}

const (
	mostStates = 1024
	mostVisits = 2_000_000 // instructions looked at while building: some ten milliseconds

	// What threads need is kept for each evaluator and class: half a megabyte at
	// this size. SigmaHQ's largest program has 1,003 instructions. Beyond, package
	// regexp is asked, which allocates.
	mostInstructions = 1 << 15

	foundState = 0 // stays found
	startState = 1
)

// newAutomaton returns an automaton for re, which has no table if it would be
// too large.
func newAutomaton(re *regexp.Regexp) *automaton {
	a := &automaton{re: re}
	parsed, err := syntax.Parse(re.String(), syntax.Perl)
	if err != nil {
		return a
	}
	a.least = leastLength(parsed)
	prog, err := syntax.Compile(parsed.Simplify())
	if err != nil || len(prog.Inst) > mostInstructions {
		return a
	}
	a.prog = prog
	if b := newAutomatonBuilder(prog); b.build(a) {
		a.prog = nil
	} else {
		a.table, a.atEnd = nil, nil
	}
	return a
}

// instructions is how many the threads that find is given must be made for.
func (a *automaton) instructions() int {
	if a.prog == nil {
		return 0
	}
	return len(a.prog.Inst)
}

// find reports whether the expression is found in text.
func (a *automaton) find(text string, t *threads) bool {
	switch {
	case len(text) < a.least:
		return false
	case a.prog != nil:
		return t.find(a.prog, text)
	case a.table == nil:
		return a.re.MatchString(text)
	}
	state := uint32(startState)
	for i := 0; i < len(text); {
		if state == a.idle {
			for i < len(text) && text[i] < utf8.RuneSelf && !a.starts[text[i]] {
				i++
			}
			if i == len(text) {
				break
			}
		}
		class := uint16(0)
		if c := text[i]; c < utf8.RuneSelf {
			class = a.classes[c]
			i++
		} else {
			r, size := utf8.DecodeRuneInString(text[i:])
			class = a.classOf(r)
			i += size
		}
		state = uint32(a.table[state<<a.shift|uint32(class)])
		if state == foundState {
			return true
		}
	}
	return a.atEnd[state]
}

// classOf returns the class of a character beyond ASCII.
func (a *automaton) classOf(r rune) uint16 {
	low, high := 0, len(a.wide)
	for high-low > 1 {
		if mid := (low + high) / 2; a.wide[mid].from <= r {
			low = mid
		} else {
			high = mid
		}
	}
	return a.wide[low].class
}

// automatonBuilder does the subset construction. A state is the set of
// instructions that threads have passed to before the next character and, if
// the expression looks around itself (^, $, \b), what the one before was.
type automatonBuilder struct {
	prog    *syntax.Prog
	threads threads
	looks   bool
	ids     map[string]uint16
	states  []automatonState
	visits  int
	next    []uint32
	key     []byte
}

type automatonState struct {
	insts  []uint32
	before rune // -1 at the start; else as kindOf says
}

func newAutomatonBuilder(prog *syntax.Prog) *automatonBuilder {
	looks := slices.ContainsFunc(prog.Inst, func(i syntax.Inst) bool { return i.Op == syntax.InstEmptyWidth })
	return &automatonBuilder{prog: prog, threads: newThreads(len(prog.Inst)), looks: looks, ids: map[string]uint16{}}
}

// split finds the characters that no instruction tells apart, numbers their
// classes, and returns one character of each. It gives up if there would be too
// much to look at.
func (b *automatonBuilder) split(a *automaton) ([]rune, bool) {
	starts := []rune{utf8.RuneSelf} // where a class beyond ASCII may start
	for i := range b.prog.Inst {
		inst := &b.prog.Inst[i]
		if inst.Op != syntax.InstRune && inst.Op != syntax.InstRune1 {
			continue
		}
		if len(inst.Rune) == 1 { // maybe without regard to case
			r := inst.Rune[0]
			starts = append(starts, r, r+1)
			for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
				starts = append(starts, f, f+1)
			}
			continue
		}
		for j := 0; j+1 < len(inst.Rune); j += 2 {
			starts = append(starts, inst.Rune[j], inst.Rune[j+1]+1)
		}
	}
	slices.Sort(starts)
	starts = slices.DeleteFunc(slices.Compact(starts), func(r rune) bool { return r < utf8.RuneSelf })
	if (utf8.RuneSelf+len(starts))*len(b.prog.Inst) > mostVisits {
		return nil, false
	}
	var representatives []rune
	signatures := map[string]uint16{}
	classOf := func(r rune) uint16 {
		sig := b.signature(r)
		class, known := signatures[sig]
		if !known {
			class = uint16(len(representatives))
			signatures[sig] = class
			representatives = append(representatives, r)
		}
		return class
	}
	for c := range rune(utf8.RuneSelf) {
		a.classes[c] = classOf(c)
	}
	for _, r := range starts {
		a.wide = append(a.wide, wideClass{r, classOf(r)})
	}
	for 1<<a.shift < len(representatives) {
		a.shift++
	}
	return representatives, true
}

// signature is the same for characters that no instruction tells apart.
func (b *automatonBuilder) signature(r rune) string {
	sig := []byte{byte(b.kindOf(r))}
	for i := range b.prog.Inst {
		switch inst := &b.prog.Inst[i]; inst.Op {
		case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			if inst.MatchRune(r) {
				sig = append(sig, 1)
			} else {
				sig = append(sig, 0)
			}
		}
	}
	return string(sig)
}

// kindOf is all that a look around tells of a character: '\n', 'a' for a word
// character, ' ' for another.
func (b *automatonBuilder) kindOf(r rune) rune {
	switch {
	case !b.looks:
	case r == '\n':
		return '\n'
	case syntax.IsWordChar(r):
		return 'a'
	}
	return ' '
}

// build makes the tables, or gives up.
func (b *automatonBuilder) build(a *automaton) bool {
	representatives, ok := b.split(a)
	if !ok {
		return false
	}
	b.states = append(b.states, automatonState{}) // foundState
	b.id([]uint32{uint32(b.prog.Start)}, -1)
	for s := startState; s < len(b.states); s++ {
		if len(b.states) > mostStates || b.visits > mostVisits {
			return false
		}
		for len(a.table) < (s+1)<<a.shift {
			a.table = append(a.table, foundState)
		}
		found := false
		for class, c := range representatives {
			if b.looks || class == 0 {
				found = b.closure(b.states[s], c)
			}
			if !found {
				a.table[s<<a.shift|class] = b.step(c)
			}
		}
	}
	b.findIdle(a)
	a.atEnd = make([]bool, len(b.states))
	a.atEnd[foundState] = true
	for s := startState; s < len(b.states); s++ {
		a.atEnd[s] = b.closure(b.states[s], -1)
	}
	return true
}

// findIdle finds the state that most characters lead to from the first one.
// While a text has none but those, it need not be looked up.
func (b *automatonBuilder) findIdle(a *automaton) {
	count := map[uint32]int{}
	for _, class := range a.classes {
		to := uint32(a.table[startState<<a.shift|uint32(class)])
		if count[to]++; count[to] > count[a.idle] || a.idle == foundState {
			a.idle = to
		}
	}
	for c, class := range a.classes {
		a.starts[c] = uint32(a.table[a.idle<<a.shift|uint32(class)]) != a.idle
	}
}

// closure prepares a step from s when c (or the end, -1) comes next. It reports
// whether the expression is found.
func (b *automatonBuilder) closure(s automatonState, c rune) bool {
	b.visits += len(s.insts)
	return b.threads.closure(b.prog, s.insts, syntax.EmptyOpContext(s.before, c))
}

// step returns the state after character c.
func (b *automatonBuilder) step(c rune) uint16 {
	b.visits += len(b.threads.waiting)
	b.next = b.threads.pass(b.prog, c, append(b.next[:0], uint32(b.prog.Start))) // a match may start here
	return b.id(b.next, b.kindOf(c))
}

// id numbers a state. It keeps nothing of insts.
func (b *automatonBuilder) id(insts []uint32, before rune) uint16 {
	slices.Sort(insts)
	insts = slices.Compact(insts)
	b.key = binary.LittleEndian.AppendUint32(b.key[:0], uint32(before))
	for _, pc := range insts {
		b.key = binary.LittleEndian.AppendUint32(b.key, pc)
	}
	id, known := b.ids[string(b.key)]
	if !known {
		id = uint16(len(b.states))
		b.ids[string(b.key)] = id
		b.states = append(b.states, automatonState{slices.Clone(insts), before})
	}
	return id
}

// leastLength returns how many bytes a match of re has at least.
func leastLength(re *syntax.Regexp) int {
	sum := func(subs []*syntax.Regexp) (n int) {
		for _, sub := range subs {
			n += leastLength(sub)
		}
		return min(n, 1<<20)
	}
	switch re.Op {
	case syntax.OpLiteral:
		return len(re.Rune)
	case syntax.OpCharClass, syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return 1
	case syntax.OpCapture, syntax.OpPlus, syntax.OpConcat:
		return sum(re.Sub)
	case syntax.OpRepeat:
		return min(re.Min*leastLength(re.Sub[0]), 1<<20)
	case syntax.OpAlternate:
		n := leastLength(re.Sub[0])
		for _, sub := range re.Sub[1:] {
			n = min(n, leastLength(sub))
		}
		return n
	}
	return 0
}
