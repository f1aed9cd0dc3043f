package detect

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// anchors finds which of many literals a text is, starts with, or ends with.
// Literals that must be the whole text are filed under a hash of it; the others
// under some of their first, or last, bytes (keyLengths), which keySizes chooses. A text is looked up under its own, which takes as many look-ups as
// there are kinds of key, however many literals there are.
type anchors struct {
	kinds   [mostKinds]anchorKind
	count   int          // of kinds
	shift   uint         // from a hash to a bit of the bitmap
	bitmap  []uint64     // of the hashes of keys: most texts are turned away here
	slots   []anchorSlot // open addressing
	entries []anchorEntry
	always  []int32 // empty literals that a text starts or ends with
}

// anchorKind is how literals, or a text, are made into a key: some of the bytes
// of one of its sources.
type anchorKind struct {
	of       atomKind // whole, start or end
	source   uint8
	up, down uint8 // bits shifted out at the top, then at the bottom
	salt     uint8 // 1: keys are inverted, so that ends are not taken for starts
}

// keyLengths are how many of its first, or last, bytes may be the key of a
// literal.
var keyLengths = [...]int{1, 2, 4, 6, 8, 16, 32}

// mostKinds is one for whole texts, and the sizes of key for either end.
const mostKinds = 1 + 2*len(keyLengths)

// What keys are made of.
const (
	wholeSource = iota
	headSource  // the first eight bytes
	tailSource  // the last eight
	longHead    // a hash of the first sixteen
	longTail    // … of the last
	longestHead // a hash of the first thirty-two
	longestTail // … of the last
	numSources  = 8
)

func newAnchorKind(of atomKind, size int) anchorKind {
	k := anchorKind{of: of}
	drop := uint8(64-8*size) & 63
	switch {
	case of == whole:
		k.source = wholeSource
	case of == start && size == 16:
		k.source = longHead
	case of == start && size == 32:
		k.source = longestHead
	case of == start:
		k.source, k.up, k.down = headSource, drop, drop
	case size == 16:
		k.source, k.salt = longTail, 1
	case size == 32:
		k.source, k.salt = longestTail, 1
	default:
		k.source, k.down, k.salt = tailSource, drop, 1
	}
	return k
}

// mostShared is how many literals may share a key before they get longer ones.
const mostShared = 4

type anchorSlot struct {
	key          uint64
	first, count int32 // in entries; an empty slot has count 0
}

type anchorEntry struct {
	word
	kind, id int32
}

// anchorLiteral is a literal, the number it is known by, and where it must be.
type anchorLiteral struct {
	lit string
	of  atomKind
	id  int
}

const anchorHash = 0x9E3779B97F4A7C15 // 2^64 over the golden ratio

func newAnchors(lits []anchorLiteral) anchors {
	if len(lits) == 0 {
		return anchors{}
	}
	order := max(bits.Len(uint(len(lits)*16)), 6)
	a := anchors{shift: uint(64 - order), bitmap: make([]uint64, 1<<order/64), slots: make([]anchorSlot, 1<<bits.Len(uint(2*len(lits))))}
	sizes := keySizes(lits)
	var keys []uint64 // in the order they come, so that equal rules give equal tables
	byKey := map[uint64][]anchorEntry{}
	for _, of := range [...]atomKind{whole, start, end} {
		for _, size := range append([]int{0}, keyLengths[:]...) {
			kind := newAnchorKind(of, size)
			some := false
			for i, l := range lits {
				if l.of != of || sizes[i] != size {
					continue
				}
				if size == 0 && of != whole {
					a.always = append(a.always, int32(l.id))
					continue
				}
				some = true
				var of sources
				of.fill(padded(bytesOf(l.lit)))
				key := kind.key(&of)
				if byKey[key] == nil {
					keys = append(keys, key)
				}
				byKey[key] = append(byKey[key], anchorEntry{newWord(l.lit), int32(a.count), int32(l.id)})
			}
			if some {
				a.kinds[a.count] = kind
				a.count++
			}
		}
	}
	for _, key := range keys {
		h := key * anchorHash >> a.shift
		a.bitmap[h>>6] |= 1 << (h & 63)
		*a.slot(key) = anchorSlot{key, int32(len(a.entries)), int32(len(byKey[key]))}
		a.entries = append(a.entries, byKey[key]...)
	}
	return a
}

// keySizes chooses of how many bytes the key of each literal is: 0 of those that
// must be the whole text. Each size is one look-up more for every text, so a
// literal takes the smallest from four on that another cannot do without, if
// few others have the same key then.
func keySizes(lits []anchorLiteral) []int {
	sizes := make([]int, len(lits))
	for _, of := range [...]atomKind{start, end} {
		var rest []int
		for i, l := range lits {
			switch {
			case l.of != of || l.lit == "":
			case len(l.lit) < 4:
				sizes[i] = 1 << (len(l.lit) / 2)
			default:
				rest = append(rest, i)
			}
		}
		for n := slices.Index(keyLengths[:], 4); len(rest) > 0; n++ {
			size, longest := keyLengths[n], n+1 == len(keyLengths)
			short := func(i int) bool { return longest || len(lits[i].lit) < keyLengths[n+1] }
			if !slices.ContainsFunc(rest, short) {
				continue
			}
			key := func(i int) string {
				if of == start {
					return lits[i].lit[:size]
				}
				return lits[i].lit[len(lits[i].lit)-size:]
			}
			sharing := map[string]int{}
			for _, i := range rest {
				sharing[key(i)]++
			}
			rest = slices.DeleteFunc(rest, func(i int) bool {
				if short(i) || sharing[key(i)] <= mostShared {
					sizes[i] = size
				}
				return sizes[i] != 0
			})
		}
	}
	return sizes
}

// sources are what the keys of a text are made of.
type sources [numSources]uint64

// fill takes a padded text. One of less than eight bytes is followed by zeros in
// its head, and preceded by them in its tail.
func (s *sources) fill(text []byte) {
	n := len(text)
	padded := text[:n+slack]
	head := binary.LittleEndian.Uint64(padded)
	tail := head << (uint(64-8*n) & 63)
	if n >= 8 {
		tail = binary.LittleEndian.Uint64(text[n-8:])
	}
	s[headSource], s[tailSource] = head, tail
	s[wholeSource] = (head*anchorHash^tail)*anchorHash + uint64(n)
	if n >= 16 {
		s[longHead] = head*anchorHash ^ binary.LittleEndian.Uint64(text[8:])
		s[longTail] = tail*anchorHash ^ binary.LittleEndian.Uint64(text[n-16:])
	}
	if n >= 32 {
		s[longestHead] = (s[longHead]*anchorHash^binary.LittleEndian.Uint64(text[16:]))*anchorHash ^ binary.LittleEndian.Uint64(text[24:])
		s[longestTail] = (s[longTail]*anchorHash^binary.LittleEndian.Uint64(text[n-24:]))*anchorHash ^ binary.LittleEndian.Uint64(text[n-32:])
	}
}

// key makes a key of a text. If that is shorter than the key, the key may be
// any.
func (k *anchorKind) key(s *sources) uint64 {
	return s[k.source%numSources]<<(k.up&63)>>(k.down&63) ^ -uint64(k.salt)
}

func (a *anchors) empty() bool { return a.count == 0 && a.always == nil }

// slot returns the slot of key, or the empty one where it would be.
func (a *anchors) slot(key uint64) *anchorSlot {
	mask := uint64(len(a.slots) - 1)
	for i := key * anchorHash >> 32; ; i++ {
		if s := &a.slots[i&mask]; s.count == 0 || s.key == key {
			return s
		}
	}
}

// find appends the numbers of the literals that fit a padded text.
func (a *anchors) find(text []byte, found []int32) []int32 {
	if len(a.always) > 0 {
		found = append(found, a.always...)
	}
	var of sources
	of.fill(text)
	for i := a.next(&of, 0); i < a.count; i = a.next(&of, i+1) {
		found = a.compare(text, a.kinds[i].key(&of), int32(i), found)
	}
	return found
}

// next returns the first kind from i on whose key of a text is expected, or the
// count of kinds. It calls nothing, as window.next.
func (a *anchors) next(of *sources, i int) int {
	bitmap, shift, kinds := a.bitmap, a.shift&63, a.kinds[:a.count]
	for ; i < len(kinds); i++ {
		if h := kinds[i].key(of) * anchorHash >> shift; bitmap[h>>6]&(1<<(h&63)) != 0 {
			break
		}
	}
	return i
}

// compare compares the literals filed under key.
func (a *anchors) compare(text []byte, key uint64, kind int32, found []int32) []int32 {
	slot := a.slot(key)
	entries := a.entries[slot.first : slot.first+slot.count]
	for i := range entries {
		e := &entries[i]
		n, from := len(e.lit), 0
		switch of := a.kinds[kind].of; {
		case n > len(text) || e.kind != kind || of == whole && n != len(text):
			continue
		case of == end:
			from = len(text) - n
		}
		if e.is(text[from : from+n]) {
			found = append(found, e.id)
		}
	}
	return found
}
