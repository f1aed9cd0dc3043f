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
	dst = slices.Grow(dst, len(s)+slack)
	if done := foldWords(dst[n:n+len(s)+slack], s); done < len(s) {
		return appendFoldRunes(dst[:n+done], s[done:])
	}
	return dst[:n+len(s)]
}

// foldWords folds s into out, eight bytes at a time, up to the first of them
// that are not ASCII, and returns where it stopped: at the start of a character.
// It may write up to eight bytes more than s has.
func foldWords(out []byte, s string) int {
	in := bytesOf(s)
	i := 0
	for ; i+8 <= len(in); i += 8 {
		w := binary.LittleEndian.Uint64(in[i:])
		if w&0x8080808080808080 != 0 {
			return runeStart(in, i)
		}
		binary.LittleEndian.PutUint64(out[i:], foldWord(w))
	}
	if i == len(in) {
		return i
	}
	if len(in) < 8 {
		for ; i < len(in); i++ {
			c := in[i]
			if c >= utf8.RuneSelf {
				return i
			}
			out[i] = foldASCII[c]
		}
		return i
	}
	last := len(in) - 8 // some bytes again
	w := binary.LittleEndian.Uint64(in[last:])
	if w&0x8080808080808080 != 0 {
		return runeStart(in, i)
	}
	binary.LittleEndian.PutUint64(out[last:], foldWord(w))
	return len(in)
}

// foldWord sets bit 5 of those of eight bytes of ASCII that are between 'A' and
// 'Z'.
func foldWord(w uint64) uint64 {
	fromA, afterZ := w+0x3f3f3f3f3f3f3f3f, w+0x2525252525252525
	return w | (fromA&^afterZ&0x8080808080808080)>>2
}

// runeStart returns i, or where the character starts that i is within.
func runeStart(in []byte, i int) int {
	for i > 0 && in[i] >= utf8.RuneSelf && !utf8.RuneStart(in[i]) {
		i--
	}
	return i
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
