package detect

import (
	"encoding/binary"
	"math/bits"
)

// anchors finds which of many literals a text starts with, ends with, or is.
// Each literal is filed under its first (or last) eight bytes, or four, two or
// one if it is shorter; a text is looked up under its own, which takes as many
// look-ups as there are sizes, however many literals there are.
type anchors struct {
	backward bool
	always   []int32 // empty literals that need not be the whole text
	empty    []int32 // empty literals that must
	tables   []anchorTable
}

// anchorTable files literals of one size of key.
type anchorTable struct {
	size    int
	shift   uint         // from a hash to a bit of the bitmap
	bitmap  []uint64     // of the hashes of keys: most texts are turned away here
	slots   []anchorSlot // open addressing
	entries []anchorEntry
}

type anchorSlot struct {
	key          uint64
	first, count int32 // in entries; an empty slot has count 0
}

type anchorEntry struct {
	lit   string
	whole bool
	id    int32
}

// anchorLiteral is a literal, the number it is known by, and whether it must be
// the whole text.
type anchorLiteral struct {
	lit   string
	whole bool
	id    int
}

const anchorHash = 0x9E3779B97F4A7C15 // 2^64 over the golden ratio

var anchorSizes = [...]int{8, 4, 2, 1}

func newAnchors(lits []anchorLiteral, backward bool) *anchors {
	if len(lits) == 0 {
		return nil
	}
	a := &anchors{backward: backward}
	left := lits
	for _, size := range anchorSizes {
		var fit, shorter []anchorLiteral
		for _, l := range left {
			if len(l.lit) >= size {
				fit = append(fit, l)
			} else {
				shorter = append(shorter, l)
			}
		}
		if len(fit) > 0 {
			a.tables = append(a.tables, newAnchorTable(fit, size, backward))
		}
		left = shorter
	}
	for _, l := range left {
		if l.whole {
			a.empty = append(a.empty, int32(l.id))
		} else {
			a.always = append(a.always, int32(l.id))
		}
	}
	return a
}

func newAnchorTable(lits []anchorLiteral, size int, backward bool) anchorTable {
	order := max(bits.Len(uint(len(lits)*16)), 6)
	t := anchorTable{size: size, shift: uint(64 - order), bitmap: make([]uint64, 1<<order/64), slots: make([]anchorSlot, 1<<bits.Len(uint(2*len(lits))))}
	var keys []uint64 // in the order they come, so that equal rules give equal tables
	byKey := map[uint64][]anchorEntry{}
	for _, l := range lits {
		key := anchorKey(bytesOf(l.lit), size, backward)
		if byKey[key] == nil {
			keys = append(keys, key)
		}
		byKey[key] = append(byKey[key], anchorEntry{l.lit, l.whole, int32(l.id)})
	}
	for _, key := range keys {
		h := key * anchorHash >> t.shift
		t.bitmap[h>>6] |= 1 << (h & 63)
		*t.slot(key) = anchorSlot{key, int32(len(t.entries)), int32(len(byKey[key]))}
		t.entries = append(t.entries, byKey[key]...)
	}
	return t
}

// anchorKey packs the first, or last, size bytes of b.
func anchorKey(b []byte, size int, backward bool) uint64 {
	if backward {
		b = b[len(b)-size:]
	}
	switch size {
	case 8:
		return binary.LittleEndian.Uint64(b)
	case 4:
		return uint64(binary.LittleEndian.Uint32(b))
	case 2:
		return uint64(binary.LittleEndian.Uint16(b))
	}
	return uint64(b[0])
}

// slot returns the slot of key, or the empty one where it would be.
func (t *anchorTable) slot(key uint64) *anchorSlot {
	mask := uint64(len(t.slots) - 1)
	for i := key * anchorHash >> 32; ; i++ {
		if s := &t.slots[i&mask]; s.count == 0 || s.key == key {
			return s
		}
	}
}

// find appends the numbers of the literals that fit.
func (a *anchors) find(text []byte, found []int32) []int32 {
	found = append(found, a.always...)
	if len(text) == 0 {
		return append(found, a.empty...)
	}
	for i := range a.tables {
		t := &a.tables[i]
		if len(text) < t.size {
			continue
		}
		key := anchorKey(text, t.size, a.backward)
		if h := key * anchorHash >> (t.shift & 63); t.bitmap[h>>6]>>(h&63)&1 == 0 {
			continue
		}
		slot := t.slot(key)
		for _, e := range t.entries[slot.first : slot.first+slot.count] {
			if len(text) < len(e.lit) || e.whole && len(text) != len(e.lit) {
				continue
			}
			part := text[:len(e.lit)]
			if a.backward {
				part = text[len(text)-len(e.lit):]
			}
			if string(part) == e.lit {
				found = append(found, e.id)
			}
		}
	}
	return found
}
