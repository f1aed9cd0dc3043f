package detect

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
)

// grams finds which of many literals are anywhere in a text, in one pass.
//
// Of each literal one window of four bytes (two, for the shortest) is chosen,
// the rarest it has. A pass slides a window over the text and asks a bitmap
// that fits the first-level cache whether any literal chose this one; only then
// the literal is compared. Unlike in an Aho-Corasick automaton no step waits
// for the memory access of the step before, and the tables are a hundredth of
// the size. How often a window may be shared is a constant of the rule set, so
// a pass stays linear in the text.
type grams struct {
	four, two *window
	one       []gramLiteral
}

// gramLiteral is a literal and the number it is known by.
type gramLiteral struct {
	lit string
	id  int
}

func newGrams(lits []gramLiteral, c census) *grams {
	var long, short []gramLiteral
	g := &grams{}
	for _, l := range lits {
		switch {
		case len(l.lit) >= 4:
			long = append(long, l)
		case len(l.lit) >= 2:
			short = append(short, l)
		default:
			g.one = append(g.one, l)
		}
	}
	g.four, g.two = newWindow(long, 4, c), newWindow(short, 2, c)
	return g
}

// find appends the numbers of the literals that are in text; one may be
// appended several times.
func (g *grams) find(text []byte, found []int32) []int32 {
	if g.four != nil {
		found = g.four.find(text, found, false)
	}
	if g.two != nil {
		found = g.two.find(text, found, false)
	}
	for _, l := range g.one {
		if l.lit == "" || bytes.IndexByte(text, l.lit[0]) >= 0 {
			found = append(found, int32(l.id))
		}
	}
	return found
}

// any reports whether at least one literal is in text.
func (g *grams) any(text []byte) bool {
	for _, l := range g.one {
		if l.lit == "" || bytes.IndexByte(text, l.lit[0]) >= 0 {
			return true
		}
	}
	var room [8]int32
	return g.four != nil && len(g.four.find(text, room[:0], true)) > 0 ||
		g.two != nil && len(g.two.find(text, room[:0], true)) > 0
}

// window is the pass for literals of at least size bytes.
type window struct {
	size    int
	stride  int  // only windows at multiples of it are looked at: 1 or 4
	shift   uint // from a hash to a bit of the bitmap
	bitmap  []uint64
	slots   []windowSlot // open addressing by the upper bits of the hash
	entries []windowEntry
}

type windowSlot struct {
	key          uint32
	first, count int32 // in entries; an empty slot has count 0
}

type windowEntry struct {
	lit    string
	offset int32 // of the window in lit
	id     int32
}

const windowHash = 0x9E3779B1 // 2^32 over the golden ratio

func newWindow(lits []gramLiteral, size int, c census) *window {
	if len(lits) == 0 {
		return nil
	}
	w := &window{size: size, stride: 1}
	if size == 4 && !slices.ContainsFunc(lits, func(l gramLiteral) bool { return len(l.lit) < 7 }) {
		// Wherever a literal of seven bytes stands, one of four neighbouring
		// windows of it is at a multiple of four.
		w.stride = 4
	}
	type filed struct {
		key    uint32
		lit    int
		offset int
	}
	var all []filed
	for i, o := range chooseWindows(lits, size, w.stride, c) {
		for j := range w.stride {
			all = append(all, filed{keyAt(lits[i].lit, o+j, size), i, o + j})
		}
	}
	slices.SortFunc(all, func(a, b filed) int {
		return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.lit, b.lit), cmp.Compare(a.offset, b.offset))
	})
	// A bitmap about one in 64 full, between 1 Kbit and 128 Kbit.
	order := min(max(bits.Len(uint(len(all)*64)), 10), 17)
	w.shift = uint(32 - order)
	w.bitmap = make([]uint64, 1<<order/64)
	w.slots = make([]windowSlot, 1<<bits.Len(uint(len(all)*2)))
	for _, f := range all {
		h := f.key * windowHash
		w.bitmap[h>>w.shift>>6] |= 1 << (h >> w.shift & 63)
		slot := w.slot(f.key)
		if slot.count == 0 {
			slot.key, slot.first = f.key, int32(len(w.entries))
		}
		slot.count++
		w.entries = append(w.entries, windowEntry{lits[f.lit].lit, int32(f.offset), int32(lits[f.lit].id)})
	}
	return w
}

// slot returns the slot of key, or the empty one where it would be.
func (w *window) slot(key uint32) *windowSlot {
	mask := uint32(len(w.slots) - 1)
	for i := key * windowHash >> 7; ; i++ {
		if s := &w.slots[i&mask]; s.count == 0 || s.key == key {
			return s
		}
	}
}

func (w *window) find(text []byte, found []int32, first bool) []int32 {
	switch {
	case len(text) < w.size:
		return found
	case w.size == 4 && len(text) >= 8:
		return w.findFours(text, found, first)
	}
	for i := 0; i+w.size <= len(text); i++ {
		key := uint32(text[i]) | uint32(text[i+1])<<8
		if w.size == 4 {
			key |= uint32(text[i+2])<<16 | uint32(text[i+3])<<24
		}
		if h := key * windowHash >> (w.shift & 31); w.bitmap[h>>6]>>(h&63)&1 != 0 {
			found = w.verify(text, i, key, found)
			if first && len(found) > 0 {
				return found
			}
		}
	}
	return found
}

// findFours looks at the windows of four bytes of a text of at least eight:
// four, or with a stride all that matter, out of one load; one branch for all
// of them.
func (w *window) findFours(text []byte, found []int32, first bool) []int32 {
	bitmap, shift, last := w.bitmap, w.shift&31, len(text)-8
	if w.stride == 4 {
		i := 0
		for ; i <= last; i += 8 {
			x := binary.LittleEndian.Uint64(text[i:])
			h0, h1 := uint32(x)*windowHash>>shift, uint32(x>>32)*windowHash>>shift
			b0, b1 := bitmap[h0>>6]>>(h0&63), bitmap[h1>>6]>>(h1&63)
			if (b0|b1)&1 == 0 {
				continue
			}
			if b0&1 != 0 {
				found = w.verify(text, i, uint32(x), found)
			}
			if b1&1 != 0 {
				found = w.verify(text, i+4, uint32(x>>32), found)
			}
			if first && len(found) > 0 {
				return found
			}
		}
		if i+4 <= len(text) {
			key := binary.LittleEndian.Uint32(text[i:])
			if h := key * windowHash >> shift; bitmap[h>>6]>>(h&63)&1 != 0 {
				found = w.verify(text, i, key, found)
			}
		}
		return found
	}
	for i := 0; i <= last; i += 4 {
		x := binary.LittleEndian.Uint64(text[i:])
		h0, h1 := uint32(x)*windowHash>>shift, uint32(x>>8)*windowHash>>shift
		h2, h3 := uint32(x>>16)*windowHash>>shift, uint32(x>>24)*windowHash>>shift
		b0, b1 := bitmap[h0>>6]>>(h0&63), bitmap[h1>>6]>>(h1&63)
		b2, b3 := bitmap[h2>>6]>>(h2&63), bitmap[h3>>6]>>(h3&63)
		if (b0|b1|b2|b3)&1 == 0 {
			continue
		}
		if b0&1 != 0 {
			found = w.verify(text, i, uint32(x), found)
		}
		if b1&1 != 0 {
			found = w.verify(text, i+1, uint32(x>>8), found)
		}
		if b2&1 != 0 {
			found = w.verify(text, i+2, uint32(x>>16), found)
		}
		if b3&1 != 0 {
			found = w.verify(text, i+3, uint32(x>>24), found)
		}
		if first && len(found) > 0 {
			return found
		}
	}
	// The last windows, some of them again.
	x := binary.LittleEndian.Uint64(text[last:])
	for j := range 5 {
		key := uint32(x >> (8 * j))
		if h := key * windowHash >> shift; bitmap[h>>6]>>(h&63)&1 != 0 {
			found = w.verify(text, last+j, key, found)
		}
	}
	return found
}

// verify compares the literals that chose the window key, which is at i.
func (w *window) verify(text []byte, i int, key uint32, found []int32) []int32 {
	slot := w.slot(key)
	for _, e := range w.entries[slot.first : slot.first+slot.count] {
		from := i - int(e.offset)
		if from >= 0 && len(text)-from >= len(e.lit) && string(text[from:from+len(e.lit)]) == e.lit {
			found = append(found, e.id)
		}
	}
	return found
}

func keyAt(lit string, offset, size int) uint32 {
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
		if size == 4 && c != nil {
			cost += 8 * min(int(*c.at(key)), 128)
		}
		for j := range size {
			cost += int(commonness[lit[o+j]])
		}
		return cost
	}
	chosen := make([]int, len(lits))
	for i, l := range lits {
		best := math.MaxInt
		for o := 0; o+size+run-1 <= len(l.lit); o++ {
			sum := 0
			for j := range run {
				sum += cost(l.lit, o+j)
			}
			if sum < best {
				best, chosen[i] = sum, o
			}
		}
	}
	return chosen
}

// census counts windows of four bytes: how common they are in what rules look
// for and, weighing more, in what every host runs.
//
// It is a table by hash: two windows may share a count, which costs nothing but
// a little of the choice.
type census []uint16

const censusOrder = 16

func (c census) at(key uint32) *uint16 { return &c[key*windowHash>>(32-censusOrder)] }

func newCensus() census {
	c := make(census, 1<<censusOrder)
	for _, text := range everyday {
		c.add(text, 40)
	}
	return c
}

func (c census) add(lit string, weight uint16) {
	for o := 0; o+4 <= len(lit); o++ {
		if n := c.at(keyAt(lit, o, 4)); *n < math.MaxUint16-weight {
			*n += weight
		}
	}
}

// everyday are texts that paths, command lines and registry keys are full of.
var everyday = []string{
	`c:\windows\system32\`, `c:\windows\syswow64\`, `\windows\winsxs\amd64_`, `c:\program files (x86)\`, `c:\program files\`, `c:\programdata\microsoft\windows\`,
	`c:\users\`, `\appdata\local\`, `\appdata\roaming\`, `\appdata\local\temp\`, `\microsoft\`, `\google\chrome\application\chrome.exe`, `\microsoft office\root\office16\`,
	`\windowspowershell\v1.0\powershell.exe`, `svchost.exe -k `, `services.exe`, `explorer.exe`, `cmd.exe /c `, `conhost.exe`, `.exe" --type=`, `\system\currentcontrolset\services\`,
	`hklm\software\microsoft\windows nt\currentversion\`, `hkcu\software\microsoft\windows\currentversion\`, `hku\s-1-5-21-`, `software\classes\`, `.dll`, `.exe`, ` -command `, `http://`, `https://www.`,
	`/usr/bin/`, `/usr/local/bin/`, `/usr/sbin/`, `/usr/lib/`, `/usr/lib/x86_64-linux-gnu/`, `/bin/bash -c `, `/bin/sh -c `, `/etc/systemd/system/`, `/var/lib/`, `/var/log/`, `/proc/`, `/home/`, `/tmp/`, `/opt/`, `python3 `,
	`.json`, `.conf`, `.service`, ` --config=`, ` --version`, `microsoft corporation`, `true`, `system`, `.com`, `.net`,
}

// commonness ranks bytes by how often paths and command lines have them.
var commonness = func() (t [256]uint8) {
	const commonFirst = ` e\s/toirnac.mdlp-wu"xyh3g2b0:1fv45=68k_97jqz,$%;&|`
	for i := range len(commonFirst) {
		t[commonFirst[i]] = uint8(max(60-i, 12))
	}
	return t
}()
