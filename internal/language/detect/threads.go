package detect

import (
	"regexp/syntax"
	"unicode/utf8"
)

// threads follows every way through the program of a regular expression at
// once, character by character (Pike's machine; Russ Cox, “Regular Expression
// Matching: the Virtual Machine Approach”). It says only whether the expression
// is found, so a thread is no more than the instruction it has come to. Any
// program of at most as many instructions as it was made for may use it, one
// after the other; it allocates nothing.
type threads struct {
	waiting []uint32 // the instructions that wait for the next character
	passed  []uint32 // those it leads to
	stack   []uint32
	seen    []uint32 // by instruction: the number of the closure that reached it last
	number  uint32   // of the closure
}

func newThreads(instructions int) threads {
	return threads{
		waiting: make([]uint32, 0, instructions),
		passed:  make([]uint32, 0, instructions+1),
		stack:   make([]uint32, 0, instructions),
		seen:    make([]uint32, instructions),
	}
}

// find reports whether prog matches anywhere in text. It takes time in
// proportion to the length of text, times that of prog at worst.
func (t *threads) find(prog *syntax.Prog, text string) bool {
	t.passed = t.passed[:0]
	for before := rune(-1); ; {
		next, size := rune(-1), 0
		if text != "" {
			next, size = utf8.DecodeRuneInString(text)
		}
		t.passed = append(t.passed, uint32(prog.Start)) // a match may start anywhere
		if t.closure(prog, t.passed, syntax.EmptyOpContext(before, next)) {
			return true
		}
		if size == 0 {
			return false
		}
		t.passed = t.pass(prog, next, t.passed[:0])
		before, text = next, text[size:]
	}
}

// closure follows what needs no character from insts on, where flags hold, to
// the instructions that do. It reports whether there is a match already.
func (t *threads) closure(prog *syntax.Prog, insts []uint32, flags syntax.EmptyOp) bool {
	if t.number++; t.number == 0 {
		clear(t.seen)
		t.number = 1
	}
	t.waiting = t.waiting[:0]
	for _, pc := range insts {
		t.reach(pc)
		for len(t.stack) > 0 {
			pc := t.stack[len(t.stack)-1]
			t.stack = t.stack[:len(t.stack)-1]
			switch inst := &prog.Inst[pc]; inst.Op {
			case syntax.InstMatch:
				t.stack = t.stack[:0]
				return true
			case syntax.InstAlt, syntax.InstAltMatch:
				t.reach(inst.Out)
				t.reach(inst.Arg)
			case syntax.InstCapture, syntax.InstNop:
				t.reach(inst.Out)
			case syntax.InstEmptyWidth:
				if syntax.EmptyOp(inst.Arg)&^flags == 0 {
					t.reach(inst.Out)
				}
			case syntax.InstFail:
			default:
				t.waiting = append(t.waiting, pc)
			}
		}
	}
	return false
}

func (t *threads) reach(pc uint32) {
	if t.seen[pc] != t.number {
		t.seen[pc] = t.number
		t.stack = append(t.stack, pc)
	}
}

// pass appends where those of the waiting instructions lead that accept c.
func (t *threads) pass(prog *syntax.Prog, c rune, to []uint32) []uint32 {
	for _, pc := range t.waiting {
		if inst := &prog.Inst[pc]; inst.MatchRune(c) {
			to = append(to, inst.Out)
		}
	}
	return to
}
