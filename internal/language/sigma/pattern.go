package sigma

import (
	"slices"
	"strings"
)

// PartKind is what one part of a pattern stands for.
type PartKind uint8

// The kinds of part.
const (
	Plain   PartKind = iota // its own text
	AnyOne                  // ?: exactly one character
	AnyRun                  // *: any number of characters
	AnyDash                 // one of Dashes (windash)
)

// Dashes are the characters that the windash modifier takes for one another:
// hyphen, slash, en dash, em dash, horizontal bar.
var Dashes = []string{"-", "/", "–", "—", "―"}

// Part is one part of a Pattern.
type Part struct {
	Kind PartKind
	Text string // of Plain
}

// Pattern is a value with wildcards. Neighbouring plain parts are one part, and
// so are neighbouring runs.
type Pattern []Part

// parsePattern reads a value as the specification's section "Escape Character"
// says: a backslash escapes a wildcard or another backslash, and before
// anything else stands for itself.
func parsePattern(s string) Pattern {
	var (
		p     Pattern
		plain strings.Builder
	)
	flush := func(k PartKind) {
		if plain.Len() > 0 {
			p = append(p, Part{Plain, plain.String()})
			plain.Reset()
		}
		if k != Plain {
			p = append(p, Part{Kind: k})
		}
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s) && strings.IndexByte(`*?\`, s[i+1]) >= 0:
			i++
			plain.WriteByte(s[i])
		case c == '*':
			flush(AnyRun)
		case c == '?':
			flush(AnyOne)
		default:
			plain.WriteByte(c)
		}
	}
	flush(Plain)
	return p.normal()
}

// normal joins neighbours that mean the same as one part.
func (p Pattern) normal() Pattern {
	n := make(Pattern, 0, len(p))
	for _, part := range p {
		if part.Kind == Plain && part.Text == "" {
			continue
		}
		if len(n) > 0 {
			switch last := &n[len(n)-1]; {
			case last.Kind == Plain && part.Kind == Plain:
				last.Text += part.Text
				continue
			case last.Kind == AnyRun && part.Kind == AnyRun:
				continue
			}
		}
		n = append(n, part)
	}
	return n
}

// Literal returns the text of a pattern without wildcards.
func (p Pattern) Literal() (string, bool) {
	switch {
	case len(p) == 0:
		return "", true
	case len(p) == 1 && p[0].Kind == Plain:
		return p[0].Text, true
	}
	return "", false
}

func (p Pattern) has(kinds ...PartKind) bool {
	return slices.ContainsFunc(p, func(part Part) bool { return slices.Contains(kinds, part.Kind) })
}

// dashed makes each dash of the plain parts any dash.
func (p Pattern) dashed() Pattern {
	var d Pattern
	for _, part := range p {
		if part.Kind != Plain {
			d = append(d, part)
			continue
		}
		rest := part.Text
		for rest != "" {
			at, size := -1, 0
			for _, dash := range Dashes {
				if i := strings.Index(rest, dash); i >= 0 && (at < 0 || i < at) {
					at, size = i, len(dash)
				}
			}
			if at < 0 {
				break
			}
			d = append(d, Part{Plain, rest[:at]}, Part{Kind: AnyDash})
			rest = rest[at+size:]
		}
		d = append(d, Part{Plain, rest})
	}
	return d.normal()
}

// maxDashVariants bounds what windash before an encoding may multiply to: 5³.
const maxDashVariants = 125

// undashed writes a pattern of plain parts and dashes out as every text it
// stands for, for encodings, which need whole texts.
func (p Pattern) undashed() ([]string, bool) {
	all := []string{""}
	for _, part := range p {
		choices := []string{part.Text}
		switch part.Kind {
		case AnyDash:
			choices = Dashes
		case AnyOne, AnyRun:
			return nil, false
		}
		if len(all)*len(choices) > maxDashVariants {
			return nil, false
		}
		var next []string
		for _, head := range all {
			for _, tail := range choices {
				next = append(next, head+tail)
			}
		}
		all = next
	}
	return all, true
}

// String writes the pattern the way a rule would.
func (p Pattern) String() string {
	var b strings.Builder
	for _, part := range p {
		switch part.Kind {
		case AnyOne:
			b.WriteByte('?')
		case AnyRun:
			b.WriteByte('*')
		case AnyDash:
			b.WriteString("[-/–—―]")
		default:
			for i := 0; i < len(part.Text); i++ {
				if c := part.Text[i]; c == '*' || c == '?' {
					b.WriteByte('\\')
				}
				b.WriteByte(part.Text[i])
			}
		}
	}
	return b.String()
}
