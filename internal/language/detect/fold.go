package detect

import (
	"unicode"
	"unicode/utf8"
)

// Sigma compares without regard to case. Both sides are folded, once, by
// Unicode's simple case folding, which maps one character to one character
// (so that "?" still stands for one), and then compared byte by byte. Bytes
// that are not UTF-8 stand for themselves.

// appendFold appends the folded form of s.
func appendFold(dst []byte, s string) []byte {
	i := 0
	for ; i+8 <= len(s); i += 8 {
		w := uint64(s[i]) | uint64(s[i+1])<<8 | uint64(s[i+2])<<16 | uint64(s[i+3])<<24 |
			uint64(s[i+4])<<32 | uint64(s[i+5])<<40 | uint64(s[i+6])<<48 | uint64(s[i+7])<<56
		if w&0x8080808080808080 != 0 {
			return appendFoldRunes(dst, s[i:])
		}
		// Eight bytes at once: set bit 5 of those between 'A' and 'Z'.
		fromA := w + 0x3f3f3f3f3f3f3f3f
		afterZ := w + 0x2525252525252525
		w |= (fromA &^ afterZ & 0x8080808080808080) >> 2
		dst = append(dst, byte(w), byte(w>>8), byte(w>>16), byte(w>>24), byte(w>>32), byte(w>>40), byte(w>>48), byte(w>>56))
	}
	return appendFoldRunes(dst, s[i:])
}

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
