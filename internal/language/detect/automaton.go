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
// small; for others regexp itself is asked. Either is linear in the text.
type automaton struct {
	re      *regexp.Regexp
	table   []uint16 // by state<<shift | class of the character
	classes [utf8.RuneSelf]uint16
	wide    []wideClass // of the characters beyond ASCII, ascending
	shift   uint
	atEnd   []bool // by state: the expression is found if the text ends here
	least   int    // bytes that any match has at least
}

// wideClass is the class of the characters from one up to the next entry's.
type wideClass struct {
	from  rune
	class uint16
}

const (
	mostStates = 1024
	mostVisits = 300_000 // instructions looked at while building: some milliseconds

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
	if err != nil || len(prog.Inst) > 4096 {
		return a
	}
	b := automatonBuilder{prog: prog, ids: map[string]uint16{}, seen: make([]uint32, len(prog.Inst))}
	if representatives, ok := b.split(a); !ok || !b.build(a, representatives) {
		a.table, a.atEnd = nil, nil
	}
	return a
}

// find reports whether the expression is found in text.
func (a *automaton) find(text string) bool {
	if len(text) < a.least {
		return false
	}
	if a.table == nil {
		return a.re.MatchString(text)
	}
	state := uint32(startState)
	for i := 0; i < len(text); {
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
// instructions that wait before the next character, and what the one before was,
// for ^, $ and \b.
type automatonBuilder struct {
	prog   *syntax.Prog
	ids    map[string]uint16
	states []automatonState
	seen   []uint32 // by instruction: the closure it was last added in
	number uint32
	visits int
	list   []uint32
}

type automatonState struct {
	insts  []uint32
	before rune // -1 at the start; else '\n', 'a' for a word character, ' ' for another
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
	if len(starts)*len(b.prog.Inst) > mostVisits {
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
	sig := []byte{byte(kindOf(r))}
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

func kindOf(r rune) rune {
	switch {
	case r == '\n':
		return '\n'
	case syntax.IsWordChar(r):
		return 'a'
	}
	return ' '
}

func (b *automatonBuilder) build(a *automaton, representatives []rune) bool {
	b.states = append(b.states, automatonState{}) // foundState
	b.id([]uint32{uint32(b.prog.Start)}, -1)
	for s := startState; s < len(b.states); s++ {
		if len(b.states) > mostStates || b.visits > mostVisits {
			return false
		}
		for len(a.table) < (s+1)<<a.shift {
			a.table = append(a.table, foundState)
		}
		for class, c := range representatives {
			a.table[s<<a.shift|class] = b.step(b.states[s], c)
		}
	}
	a.atEnd = make([]bool, len(b.states))
	a.atEnd[foundState] = true
	for s := startState; s < len(b.states); s++ {
		a.atEnd[s] = b.closure(b.states[s], -1)
	}
	return true
}

// step returns the state after character c.
func (b *automatonBuilder) step(s automatonState, c rune) uint16 {
	if b.closure(s, c) {
		return foundState
	}
	var next []uint32
	for _, pc := range b.list {
		if inst := &b.prog.Inst[pc]; inst.MatchRune(c) {
			next = append(next, inst.Out)
		}
	}
	next = append(next, uint32(b.prog.Start)) // a search may start anywhere
	return b.id(next, kindOf(c))
}

// closure follows everything that needs no byte, when c (or the end, -1) comes
// next, and leaves the instructions that do in b.list. It reports whether the
// expression is found.
func (b *automatonBuilder) closure(s automatonState, c rune) bool {
	b.number++
	b.list = b.list[:0]
	flags := syntax.EmptyOpContext(s.before, c)
	stack := slices.Clone(s.insts)
	for len(stack) > 0 {
		pc := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		b.visits++
		if b.seen[pc] == b.number {
			continue
		}
		b.seen[pc] = b.number
		switch inst := &b.prog.Inst[pc]; inst.Op {
		case syntax.InstMatch:
			return true
		case syntax.InstAlt, syntax.InstAltMatch:
			stack = append(stack, inst.Out, inst.Arg)
		case syntax.InstCapture, syntax.InstNop:
			stack = append(stack, inst.Out)
		case syntax.InstEmptyWidth:
			if syntax.EmptyOp(inst.Arg)&^flags == 0 {
				stack = append(stack, inst.Out)
			}
		case syntax.InstFail:
		default:
			b.list = append(b.list, pc)
		}
	}
	return false
}

// id numbers a state.
func (b *automatonBuilder) id(insts []uint32, before rune) uint16 {
	slices.Sort(insts)
	insts = slices.Compact(insts)
	key := binary.LittleEndian.AppendUint32(nil, uint32(before))
	for _, pc := range insts {
		key = binary.LittleEndian.AppendUint32(key, pc)
	}
	id, known := b.ids[string(key)]
	if !known {
		id = uint16(len(b.states))
		b.ids[string(key)] = id
		b.states = append(b.states, automatonState{insts, before})
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
