package detect

import (
	"cmp"
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
)

// grams finds which of many literals are anywhere in a text.
//
// Of each literal one window of four bytes (eight, if all are long; three or
// two, for the shortest) is chosen, the rarest it has. A pass slides a window over the text and asks a
// bitmap that fits the nearest caches whether any literal chose this one; only
// then literals are compared. Unlike in an Aho-Corasick automaton no step waits
// for the memory access of the step before, and the tables are a hundredth of
// the size. How often a window may be shared is a constant of the rule set, so
// a pass stays linear in the text.
type grams struct {
	passes []window
	alone  []gramLiteral // a search for each
}

// gramLiteral is a literal and the number it is known by.
type gramLiteral struct {
	lit string
	id  int
}

const (
	// mostWild is up to how many literals that are one byte shorter than a window
	// join the pass of the others; of each the bitmap holds 256 windows.
	mostWild = 6
	// sparseLength is from which length on a literal is found by looking at every
	// fourth window of four bytes.
	sparseLength = 7
	// fewLiterals is up to how many literals one pass by windows of three bytes
	// serves for all lengths: in few, even so short a window is rare.
	fewLiterals = 400
)

// newGrams plans the passes. Where every literal is long enough, not every
// window need be looked at: wherever a literal of seven bytes stands, one of
// four neighbouring windows of it is at a multiple of four; of five bytes, one
// of two at an even place. A single one that is too short is searched for by
// itself; more of them get a pass of their own.
func newGrams(lits []gramLiteral, c census) grams {
	var g grams
	var byLength [12]int // the last are longer too
	var wanted []gramLiteral
	for _, l := range lits {
		if len(l.lit) < 2 {
			g.alone = append(g.alone, l)
			continue
		}
		wanted = append(wanted, l)
		byLength[min(len(l.lit), 11)]++
	}
	shorterThan := func(n int) (count int) {
		for _, c := range byLength[:n] {
			count += c
		}
		return count
	}
	twos, threes := byLength[2], byLength[3]
	size, stride, least := 4, 2, 5
	switch {
	case shorterThan(11) == 0:
		size, stride, least = 8, 4, 11 // and eight bytes are rarer than four
	case shorterThan(sparseLength) == 0:
		stride, least = 4, sparseLength
	case shorterThan(5) <= 1:
	case len(wanted) <= fewLiterals && twos <= mostWild:
		size, stride, least = 3, 1, 2
	case twos == 0 && threes <= mostWild:
		stride, least = 1, 3
	}
	var long, short, two []gramLiteral
	for _, l := range wanted {
		switch n := len(l.lit); {
		case n >= least:
			long = append(long, l)
		case n == 2 && twos > mostWild:
			two = append(two, l)
		default:
			short = append(short, l)
		}
	}
	if len(short) == 1 {
		g.alone, short = append(g.alone, short...), nil
	}
	for _, p := range []struct {
		lits         []gramLiteral
		size, stride int
	}{{long, size, stride}, {short, 3, 1}, {two, 2, 1}} {
		if len(p.lits) > 0 {
			g.passes = append(g.passes, newWindow(p.lits, p.size, p.stride, c))
		}
	}
	return g
}

func (g *grams) empty() bool { return g.passes == nil && g.alone == nil }

// slack is how many bytes past the end of a text a pass may read. They are zeros;
// what it finds there it does not believe.
const slack = 16

// padded returns text with slack behind it: as it is, if it has that, which
// folded texts of a scratch do.
func padded(text []byte) []byte {
	if cap(text)-len(text) >= slack {
		return text
	}
	return append(make([]byte, 0, len(text)+slack), text...)
}

// find appends the numbers of the literals that are in text; one may be
// appended several times.
func (g *grams) find(text []byte, found []int32) []int32 {
	for i := range g.passes {
		found = g.passes[i].find(text, found, false)
	}
	for i := range g.alone {
		if l := &g.alone[i]; index(text, l.lit) >= 0 {
			found = append(found, int32(l.id))
		}
	}
	return found
}

// any reports whether at least one literal is in text.
func (g *grams) any(text []byte) bool {
	for i := range g.alone {
		if index(text, g.alone[i].lit) >= 0 {
			return true
		}
	}
	var room [8]int32
	for i := range g.passes {
		if len(g.passes[i].find(text, room[:0], true)) > 0 {
			return true
		}
	}
	return false
}

// window is the pass for literals of at least size bytes.
type window struct {
	size    int
	stride  int    // only windows at multiples of it are looked at: 1, 2 or 4
	mask    uint32 // of the bytes of a window
	wild    bool   // some literals are a byte shorter than a window
	shift   uint   // from a hash to a bit of the bitmap
	bitmap  []uint64
	slots   []windowSlot // open addressing by the upper bits of the hash
	entries []windowEntry
}

type windowSlot struct {
	key   uint32
	first int32 // in entries, counted from 1; 0: the slot is empty
}

type windowEntry struct {
	word
	offset int32 // of the window in the literal
	id     int32
	last   bool // of those that chose the window
}

const windowHash = 0x9E3779B1 // 2^32 over the golden ratio

func newWindow(lits []gramLiteral, size, stride int, c census) window {
	w := window{size: size, stride: stride, mask: 1<<(8*min(size, 4)) - 1}
	type filed struct {
		key    uint32
		lit    int
		offset int
	}
	var all []filed
	wild := 0
	for i, o := range chooseWindows(lits, size, stride, c) {
		if len(lits[i].lit) < size {
			w.wild = true
			all = append(all, filed{w.wildKey(keyAt(lits[i].lit, 0, size-1)), i, 0})
			wild += 255
			continue
		}
		for j := range stride {
			all = append(all, filed{keyAt(lits[i].lit, o+j, size), i, o + j})
		}
	}
	slices.SortFunc(all, func(a, b filed) int {
		return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.lit, b.lit), cmp.Compare(a.offset, b.offset))
	})
	// A bitmap about one in 64 full, between 1 Kbit and 512 Kbit.
	order := min(max(bits.Len(uint((len(all)+wild)*64)), 10), 19)
	w.shift = uint(32 - order)
	w.bitmap = make([]uint64, 1<<order/64)
	w.slots = make([]windowSlot, 1<<bits.Len(uint(len(all)*2)))
	for i, f := range all {
		w.expect(f.key, len(lits[f.lit].lit) < size)
		w.entries = append(w.entries, windowEntry{newWord(lits[f.lit].lit), int32(f.offset), int32(lits[f.lit].id), i+1 == len(all) || all[i+1].key != f.key})
		if i == 0 || all[i-1].key != f.key {
			*w.slot(f.key) = windowSlot{f.key, int32(len(w.entries))}
		}
	}
	return w
}

// wildKey is the key under which a literal is filed that is one byte shorter
// than a window, given a window that starts with it. A full window may have the
// same key: then more is compared than need be.
func (w *window) wildKey(key uint32) uint32 { return ^(key & (w.mask >> 8)) }

// expect puts a key into the bitmap: of a wild one, all windows that start so.
func (w *window) expect(key uint32, wild bool) {
	if !wild {
		h := key * windowHash >> w.shift
		w.bitmap[h>>6] |= 1 << (h & 63)
		return
	}
	for last := range uint32(256) {
		w.expect(^key|last<<(8*(w.size-1)), false)
	}
}

// slot returns the slot of key, or the empty one where it would be.
func (w *window) slot(key uint32) *windowSlot {
	mask := uint32(len(w.slots) - 1)
	for i := key * windowHash >> 7; ; i++ {
		if s := &w.slots[i&mask]; s.first == 0 || s.key == key {
			return s
		}
	}
}

// find looks at every window whose place is a multiple of the stride, four at a
// time. Those past the end of the text are looked at too, and not believed.
func (w *window) find(text []byte, found []int32, first bool) []int32 {
	size := w.size
	if w.wild {
		size--
	}
	if len(text) < size {
		return found
	}
	text = padded(text)
	in, least := text[:len(text)+slack], size+slack
	for in = w.next(in, least); len(in) >= least; in = w.next(in[4*w.stride:], least) {
		at := len(text) + slack - len(in)
		for o := 0; o < 4*w.stride; o += w.stride {
			if key := w.key(in[o:]); isExpected(w.bitmap, w.shift, key) {
				found = w.verify(text, at+o, key, found)
			}
		}
		if first && len(found) > 0 {
			break
		}
	}
	return found
}

// next moves on, four windows at a time, to where at least one is expected, or
// to where less than least is left. It calls nothing, so that all it needs stays
// in registers.
func (w *window) next(in []byte, least int) []byte {
	bitmap, shift, mask := w.bitmap, w.shift, w.mask
	switch {
	case w.size == 8:
		for len(in) >= least && len(in) >= 20 {
			a, b := binary.LittleEndian.Uint64(in), binary.LittleEndian.Uint64(in[4:])
			if isExpected(bitmap, shift, wideKey(a)) || isExpected(bitmap, shift, wideKey(b)) {
				break
			}
			a, b = binary.LittleEndian.Uint64(in[8:]), binary.LittleEndian.Uint64(in[12:])
			if isExpected(bitmap, shift, wideKey(a)) || isExpected(bitmap, shift, wideKey(b)) {
				break
			}
			in = in[16:]
		}
	case w.stride == 4:
		for len(in) >= least && len(in) >= 16 {
			a, b := binary.LittleEndian.Uint64(in), binary.LittleEndian.Uint64(in[8:])
			if isExpected(bitmap, shift, uint32(a)) || isExpected(bitmap, shift, uint32(a>>32)) ||
				isExpected(bitmap, shift, uint32(b)) || isExpected(bitmap, shift, uint32(b>>32)) {
				break
			}
			in = in[16:]
		}
	case w.stride == 2:
		for len(in) >= least && len(in) >= 12 {
			a, b := binary.LittleEndian.Uint64(in), binary.LittleEndian.Uint64(in[4:])
			if isExpected(bitmap, shift, uint32(a)) || isExpected(bitmap, shift, uint32(a>>16)) ||
				isExpected(bitmap, shift, uint32(b)) || isExpected(bitmap, shift, uint32(b>>16)) {
				break
			}
			in = in[8:]
		}
	default:
		for len(in) >= least && len(in) >= 8 {
			a := binary.LittleEndian.Uint64(in)
			if isExpected(bitmap, shift, uint32(a)&mask) || isExpected(bitmap, shift, uint32(a>>8)&mask) ||
				isExpected(bitmap, shift, uint32(a>>16)&mask) || isExpected(bitmap, shift, uint32(a>>24)&mask) {
				break
			}
			in = in[4:]
		}
	}
	return in
}

// isExpected says whether the bitmap has the key.
func isExpected(bitmap []uint64, shift uint, key uint32) bool {
	h := key * windowHash >> (shift & 31)
	return bitmap[h>>6]&(1<<(h&63)) != 0
}

// key is the key of the window that b begins with.
func (w *window) key(b []byte) uint32 {
	if w.size == 8 {
		return wideKey(binary.LittleEndian.Uint64(b))
	}
	return binary.LittleEndian.Uint32(b) & w.mask
}

// verify compares the literals that chose the window key, which is at i.
func (w *window) verify(text []byte, i int, key uint32, found []int32) []int32 {
	found = w.compare(text, i, key, found)
	if w.wild {
		found = w.compare(text, i, w.wildKey(key), found)
	}
	return found
}

func (w *window) compare(text []byte, i int, key uint32, found []int32) []int32 {
	at := w.slot(key).first
	if at == 0 {
		return found
	}
	for n := int(at) - 1; ; n++ {
		e := &w.entries[n]
		from := i - int(e.offset)
		if to := from + len(e.lit); from >= 0 && to <= len(text) && e.is(text[from:to]) {
			found = append(found, e.id)
		}
		if e.last {
			return found
		}
	}
}

// wideKey makes a key of a window of eight bytes.
func wideKey(x uint64) uint32 { return uint32(x * anchorHash >> 32) }

func keyAt(lit string, offset, size int) uint32 {
	if size == 8 {
		return wideKey(binary.LittleEndian.Uint64(bytesOf(lit[offset:])))
	}
	var key uint32
	for i := range size {
		key |= uint32(lit[offset+i]) << (8 * i)
	}
	return key
}

// chooseWindows picks for each literal the offset of the window (or of the run
// of neighbouring windows) that is least likely in a text, avoiding those that
// other literals need.
func chooseWindows(lits []gramLiteral, size, run int, c census) []int {
	var used census
	if len(lits) > 64 { // among few, the census of all rules is enough
		used = make(census, 1<<censusOrder)
		for _, l := range lits {
			for o := 0; o+size <= len(l.lit); o++ {
				*used.at(keyAt(l.lit, o, size))++
			}
		}
	}
	cost := func(lit string, o int) (cost int) {
		key := keyAt(lit, o, size)
		if used != nil {
			cost += 16 * min(int(*used.at(key)), 64)
		}
		if c != nil {
			each := min(max(size, 3), 4)
			for at := o; at+each <= o+size; at += each {
				cost += 8 * min(int(*c.at(keyAt(lit, at, each))), 128)
			}
		}
		for j := range size {
			cost += int(commonness[lit[o+j]])
		}
		return cost
	}
	chosen := make([]int, len(lits))
	var costs []int
	for i, l := range lits {
		costs = costs[:0]
		for o := 0; o+size <= len(l.lit); o++ {
			costs = append(costs, cost(l.lit, o))
		}
		best := math.MaxInt
		for o := 0; o+run <= len(costs); o++ {
			sum := 0
			for _, c := range costs[o : o+run] {
				sum += c
			}
			if sum < best {
				best, chosen[i] = sum, o
			}
		}
	}
	return chosen
}
