package detect

import (
	"encoding/binary"
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
	dst = slices.Grow(dst, len(s))[:n+len(s)]
	out, in := dst[n:], bytesOf(s)
	if len(s) < 8 {
		for i, c := range in {
			if c >= utf8.RuneSelf {
				return appendFoldRunes(dst[:n+i], s[i:])
			}
			out[i] = foldASCII[c]
		}
		return dst
	}
	for i := 0; ; i += 8 {
		if i+8 > len(in) {
			if i == len(in) {
				return dst
			}
			i = len(in) - 8 // the last eight, some of them again
		}
		w := binary.LittleEndian.Uint64(in[i:])
		if w&0x8080808080808080 != 0 {
			for i > 0 && in[i] >= utf8.RuneSelf && !utf8.RuneStart(in[i]) {
				i-- // not from within a character
			}
			return appendFoldRunes(dst[:n+i], s[i:])
		}
		// Eight bytes at once: set bit 5 of those between 'A' and 'Z'.
		fromA := w + 0x3f3f3f3f3f3f3f3f
		afterZ := w + 0x2525252525252525
		binary.LittleEndian.PutUint64(out[i:], w|(fromA&^afterZ&0x8080808080808080)>>2)
		if i+8 == len(in) {
			return dst
		}
	}
}

// foldASCII is what each byte of ASCII is folded to.
var foldASCII = func() (t [256]byte) {
	for c := range t {
		t[c] = byte(c)
		if 'A' <= c && c <= 'Z' {
			t[c] += 'a' - 'A'
		}
	}
	return t
}()

func appendFoldRunes(dst []byte, s string) []byte {
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			dst = append(dst, c)
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			dst = append(dst, c)
		} else {
			dst = utf8.AppendRune(dst, foldRune(r))
		}
		i += size
	}
	return dst
}

// foldRune returns the one character that stands for all that differ from r
// only in case: the smallest of them, or its lower case if that is ASCII.
func foldRune(r rune) rune {
	least := r
	for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
		least = min(least, f)
	}
	if 'A' <= least && least <= 'Z' {
		least += 'a' - 'A'
	}
	return least
}

func fold(s string) string { return string(appendFold(nil, s)) }
