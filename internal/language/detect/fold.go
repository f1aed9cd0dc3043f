package detect

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"unicode"
	"unicode/utf8"
)

// Sigma compares without regard to case. Both sides are folded, once, by
// Unicode's simple case folding, which maps one character to one character
// (so that "?" still stands for one), and then compared byte by byte. Bytes
// that are not UTF-8 stand for themselves.

// appendFold appends the folded form of s.
func appendFold(dst []byte, s string) []byte {
	n := len(dst)
	dst = slices.Grow(dst, len(s)+slack)
	return dst[:n+foldInto(dst[n:n+len(s)+slack], s)]
}

const notASCII = 0x8080808080808080

// foldInto folds s into out and returns how long the folded form is, which is at
// most as long as s. It may write eight bytes more than that.
func foldInto(out []byte, s string) int {
	in := bytesOf(s)
	var all uint64
	switch n := len(in); {
	case n >= 8:
		last := binary.LittleEndian.Uint64(in[n-8:])
		all = last
		to := out
		for len(in) > 8 && len(to) >= 8 {
			w := binary.LittleEndian.Uint64(in)
			all |= w
			binary.LittleEndian.PutUint64(to, foldWord(w))
			in, to = in[8:], to[8:]
		}
		binary.LittleEndian.PutUint64(out[n-8:], foldWord(last)) // some bytes again
	default:
		all = shortWord(in)
		binary.LittleEndian.PutUint64(out, foldWord(all))
	}
	if all&notASCII != 0 {
		return foldRunesInto(out, s)
	}
	return len(s)
}

// shortWord returns up to seven bytes, followed by zeros.
func shortWord(b []byte) uint64 {
	switch n := len(b); {
	case n >= 4:
		return uint64(binary.LittleEndian.Uint32(b)) | uint64(binary.LittleEndian.Uint32(b[n-4:]))<<(8*(n-4))
	case n >= 2:
		return uint64(binary.LittleEndian.Uint16(b)) | uint64(b[n-1])<<(8*(n-1))
	case n == 1:
		return uint64(b[0])
	}
	return 0
}

// foldWord sets bit 5 of those of eight bytes of ASCII that are between 'A' and
// 'Z'.
func foldWord(w uint64) uint64 {
	fromA, afterZ := w+0x3f3f3f3f3f3f3f3f, w+0x2525252525252525
	return w | (fromA&^afterZ&0x8080808080808080)>>2
}

// foldRunesInto is foldInto for texts that are not only ASCII.
func foldRunesInto(out []byte, s string) int {
	in, n := bytesOf(s), 0
	for i := 0; i < len(in); {
		if i+8 <= len(in) {
			w := binary.LittleEndian.Uint64(in[i:])
			ascii := bits.TrailingZeros64(w&notASCII) / 8 // bytes, before the first other one
			binary.LittleEndian.PutUint64(out[n:], foldWord(w))
			i, n = i+ascii, n+ascii
			if ascii == 8 {
				continue
			}
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			out[n] = in[i]
			n++
		} else {
			n += utf8.EncodeRune(out[n:], foldRune(r))
		}
		i += size
	}
	return n
}

// foldRune returns the one character that stands for all that differ from r
// only in case: the smallest of them, or its lower case if that is ASCII. So
// its encoding is never longer than that of r.
func foldRune(r rune) rune {
	if uint(r) < uint(len(foldedEarly)) {
		return rune(foldedEarly[r])
	}
	return leastOf(r)
}

func leastOf(r rune) rune {
	least := r
	for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
		least = min(least, f)
	}
	if 'A' <= least && least <= 'Z' {
		least += 'a' - 'A'
	}
	return least
}

// foldedEarly are the characters of Latin, Greek and Cyrillic, folded.
var foldedEarly = func() (t [0x530]uint16) {
	for r := range t {
		t[r] = uint16(leastOf(rune(r)))
	}
	return t
}()

func fold(s string) string { return string(appendFold(nil, s)) }
