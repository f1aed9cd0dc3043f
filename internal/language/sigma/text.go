package sigma

import (
	"encoding/base64"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
)

// text applies the text modifiers of the item, in order.
func (r *resolver) text(l Literal, source string) []Test {
	if l.Kind != Text {
		for _, s := range r.chain.steps {
			if s == "windash" || slices.Contains(encodings, s) {
				r.fail(l.Pos, "the modifier %s is for text, and %s is not", s, source).Do = "put the value in quotes"
				return nil
			}
		}
	}
	if l.Kind == Number && len(r.chain.steps) == 0 && r.item.Field != "" {
		if f, err := strconv.ParseFloat(source, 64); err == nil {
			t := Test{Op: Equal, Number: f, Source: source}
			t.Int, t.Integer = wholeNumber(source)
			return []Test{t}
		}
	}
	patterns := []Pattern{parsePattern(source)}
	for _, step := range r.chain.steps {
		var next []Pattern
		for _, p := range patterns {
			made, why := applyStep(step, p)
			if why != "" {
				r.fail(l.Pos, "the modifier %s cannot be applied to %q: %s", step, source, why)
				return nil
			}
			next = append(next, made...)
		}
		patterns = next
	}
	var tests []Test
	for _, p := range patterns {
		if r.item.Field == "" { // keywords are found anywhere
			p = surround(p, true, true)
		}
		tests = append(tests, Test{Op: Match, Pattern: p, Cased: r.chain.cased, Source: source})
	}
	return tests
}

func surround(p Pattern, before, after bool) Pattern {
	var s Pattern
	if before {
		s = append(s, Part{Kind: AnyRun})
	}
	s = append(s, p...)
	if after {
		s = append(s, Part{Kind: AnyRun})
	}
	return s.normal()
}

// applyStep returns the patterns that one modifier makes of one pattern, or why
// it cannot.
func applyStep(step string, p Pattern) ([]Pattern, string) {
	switch step {
	case "contains":
		return []Pattern{surround(p, true, true)}, ""
	case "startswith":
		return []Pattern{surround(p, false, true)}, ""
	case "endswith":
		return []Pattern{surround(p, true, false)}, ""
	case "windash":
		return []Pattern{p.dashed()}, ""
	}
	if p.has(AnyOne, AnyRun) {
		return nil, "wildcards cannot be encoded"
	}
	wholes, ok := p.undashed()
	if !ok {
		return nil, "it has too many dashes to write out"
	}
	var made []Pattern
	for _, s := range wholes {
		for _, e := range encode(step, s) {
			if e != "" {
				made = append(made, Pattern{{Plain, e}})
			}
		}
	}
	if len(made) == 0 {
		return nil, "the value is too short"
	}
	return made, ""
}

func encode(step, s string) []string {
	switch step {
	case "base64":
		return []string{base64.StdEncoding.EncodeToString([]byte(s))}
	case "base64offset":
		return base64Offsets(s)
	case "utf16be":
		return []string{toUTF16(binary.BigEndian, s)}
	case "utf16":
		return []string{"\xff\xfe" + toUTF16(binary.LittleEndian, s)}
	default: // utf16le, wide
		return []string{toUTF16(binary.LittleEndian, s)}
	}
}

// base64Offsets encodes s as it looks in the middle of base64 text when zero,
// one or two bytes stand before it: the first and last characters that depend
// on the neighbours are cut off.
func base64Offsets(s string) []string {
	var all []string
	for offset, start := range [...]int{0, 2, 3} {
		e := base64.StdEncoding.EncodeToString([]byte(strings.Repeat(" ", offset) + s))
		end := len(e) - [...]int{0, 3, 2}[(len(s)+offset)%3]
		if start < end {
			all = append(all, e[start:end])
		}
	}
	return all
}

func toUTF16(order binary.AppendByteOrder, s string) string {
	var b []byte
	for _, unit := range utf16.Encode([]rune(s)) {
		b = order.AppendUint16(b, unit)
	}
	return string(b)
}
