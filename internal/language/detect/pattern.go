package detect

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// shape is the form of a pattern; most need no more than one comparison.
type shape uint8

const (
	exact    shape = iota // the whole text is lit
	prefix                // the text starts with lit
	suffix                // the text ends with lit
	contains              // lit is in the text
	anything              // any text
	glob                  // see segments
)

// pattern is a value with wildcards, ready to match.
type pattern struct {
	shape    shape
	lit      string
	segments []segment // of a glob: what stands between the "*"
	open     bool      // a glob starts with "*"
	ended    bool      // a glob ends with "*"
}

// segment is a run of parts without "*".
type segment struct {
	parts []sigma.Part
	plain string // if the segment is one plain part
}

// newPattern prepares p; folded says that it will be matched with folded text.
func newPattern(p sigma.Pattern, folded bool) pattern {
	parts := make(sigma.Pattern, len(p))
	for i, part := range p {
		if folded && part.Kind == sigma.Plain {
			part.Text = fold(part.Text)
		}
		parts[i] = part
	}
	kinds := make([]byte, len(parts))
	for i, part := range parts {
		kinds[i] = "p?*-"[part.Kind]
	}
	switch string(kinds) {
	case "":
		return pattern{shape: exact}
	case "p":
		return pattern{shape: exact, lit: parts[0].Text}
	case "p*":
		return pattern{shape: prefix, lit: parts[0].Text}
	case "*p":
		return pattern{shape: suffix, lit: parts[1].Text}
	case "*p*":
		return pattern{shape: contains, lit: parts[1].Text}
	case "*":
		return pattern{shape: anything}
	}
	return newGlob(parts)
}

func newGlob(parts sigma.Pattern) pattern {
	g := pattern{shape: glob, open: parts[0].Kind == sigma.AnyRun, ended: parts[len(parts)-1].Kind == sigma.AnyRun}
	var s segment
	end := func() {
		if len(s.parts) > 0 {
			if len(s.parts) == 1 && s.parts[0].Kind == sigma.Plain {
				s.plain = s.parts[0].Text
			}
			g.segments = append(g.segments, s)
			s = segment{}
		}
	}
	for _, part := range parts {
		if part.Kind == sigma.AnyRun {
			end()
		} else {
			s.parts = append(s.parts, part)
		}
	}
	end()
	return g
}

// match reports whether text fits. It is linear in the length of text.
func (p *pattern) match(text []byte) bool {
	switch p.shape {
	case exact:
		return string(text) == p.lit
	case prefix:
		return len(text) >= len(p.lit) && string(text[:len(p.lit)]) == p.lit
	case suffix:
		return len(text) >= len(p.lit) && string(text[len(text)-len(p.lit):]) == p.lit
	case contains:
		return index(text, p.lit) >= 0
	case anything:
		return true
	}
	return p.matchGlob(text)
}

// matchGlob takes the first place that fits for each segment, which is as good
// as any later one; the last segment, if the pattern ends with it, is compared
// at the end of the text.
func (p *pattern) matchGlob(text []byte) bool {
	segments, from := p.segments, 0
	if !p.open {
		n, ok := segments[0].at(text)
		if !ok {
			return false
		}
		from, segments = n, segments[1:]
		if len(segments) == 0 {
			return p.ended || from == len(text)
		}
	}
	if !p.ended {
		last := segments[len(segments)-1]
		n, ok := last.atEnd(text[from:])
		if !ok {
			return false
		}
		text, segments = text[:len(text)-n], segments[:len(segments)-1]
	}
	for _, s := range segments {
		n, ok := s.find(text[from:])
		if !ok {
			return false
		}
		from += n
	}
	return true
}

// at matches the segment with the start of text and returns its length there.
func (s *segment) at(text []byte) (int, bool) {
	n := 0
	for _, part := range s.parts {
		rest := text[n:]
		switch part.Kind {
		case sigma.Plain:
			if len(rest) < len(part.Text) || string(rest[:len(part.Text)]) != part.Text {
				return 0, false
			}
			n += len(part.Text)
		case sigma.AnyOne:
			if len(rest) == 0 {
				return 0, false
			}
			_, size := utf8.DecodeRune(rest)
			n += size
		case sigma.AnyDash:
			size := dashAt(rest)
			if size == 0 {
				return 0, false
			}
			n += size
		}
	}
	return n, true
}

// atEnd matches the segment with the end of text and returns its length there.
func (s *segment) atEnd(text []byte) (int, bool) {
	n := 0
	for i := len(s.parts) - 1; i >= 0; i-- {
		part, rest := s.parts[i], text[:len(text)-n]
		switch part.Kind {
		case sigma.Plain:
			if len(rest) < len(part.Text) || string(rest[len(rest)-len(part.Text):]) != part.Text {
				return 0, false
			}
			n += len(part.Text)
		case sigma.AnyOne:
			if len(rest) == 0 {
				return 0, false
			}
			_, size := utf8.DecodeLastRune(rest)
			n += size
		case sigma.AnyDash:
			size := dashBefore(rest)
			if size == 0 {
				return 0, false
			}
			n += size
		}
	}
	return n, true
}

// find returns where the first place ends at which the segment fits.
func (s *segment) find(text []byte) (int, bool) {
	if s.plain != "" {
		i := index(text, s.plain)
		return i + len(s.plain), i >= 0
	}
	for i := 0; i <= len(text); {
		if s.parts[0].Kind == sigma.Plain {
			skip := index(text[i:], s.parts[0].Text)
			if skip < 0 {
				return 0, false
			}
			i += skip
		}
		if n, ok := s.at(text[i:]); ok {
			return i + n, true
		}
		if i == len(text) {
			break
		}
		_, size := utf8.DecodeRune(text[i:])
		i += size
	}
	return 0, false
}

func dashAt(text []byte) int {
	for _, d := range sigma.Dashes {
		if len(text) >= len(d) && string(text[:len(d)]) == d {
			return len(d)
		}
	}
	return 0
}

func dashBefore(text []byte) int {
	for _, d := range sigma.Dashes {
		if len(text) >= len(d) && string(text[len(text)-len(d):]) == d {
			return len(d)
		}
	}
	return 0
}

// index is strings.Index of bytes, by the faster of the two.
func index(text []byte, lit string) int {
	if len(lit) == 1 {
		return bytes.IndexByte(text, lit[0])
	}
	return strings.Index(view(text), lit)
}
