package detect

import "encoding/binary"

// word is a literal that is compared mostly without touching its bytes: its
// first and last eight, four, or fewer are at hand, and up to sixteen bytes
// they are all there is.
type word struct {
	head, tail uint64
	lit        string
}

func newWord(lit string) word {
	w := word{lit: lit}
	w.head, w.tail = headAndTail(bytesOf(lit))
	return w
}

// headAndTail are the first and the last bytes of b; they may overlap. Of texts
// of equal length up to sixteen, they are equal only if the texts are.
func headAndTail(b []byte) (head, tail uint64) {
	switch n := len(b); {
	case n >= 8:
		return binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[n-8:])
	case n >= 4:
		return uint64(binary.LittleEndian.Uint32(b)), uint64(binary.LittleEndian.Uint32(b[n-4:]))
	case n > 0:
		return uint64(b[0]) | uint64(b[n/2])<<8 | uint64(b[n-1])<<16, 0
	}
	return 0, 0
}

// is reports whether b, which is as long as the literal, is the literal.
func (w *word) is(b []byte) bool {
	n := len(b)
	if n >= 8 {
		return binary.LittleEndian.Uint64(b[n-8:]) == w.tail && binary.LittleEndian.Uint64(b) == w.head && (n <= 16 || string(b[8:n-8]) == w.lit[8:n-8])
	}
	head, tail := headAndTail(b)
	return head == w.head && tail == w.tail
}
