// Package reference evaluates Sigma rules the slow and obvious way. It exists so
// that the engine can be compared with something that has no index, no cache,
// no folding in advance and no shared code with it but the reading of YAML and
// of conditions' structure. It is for tests and for settling arguments.
package reference

import (
	"encoding/base64"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// Event is an event the simplest way: the values of each field. A field that is
// there without a value (null) has an empty list.
type Event struct {
	Fields  map[string][]any // string, int64, float64, bool, time.Time
	Message string
}

// Matches says whether a rule's detection matches.
func Matches(d *sigma.Detection, ev Event, placeholders map[string][]string) bool {
	return condition(d.Condition, d, ev, placeholders)
}

func condition(c *sigma.Condition, d *sigma.Detection, ev Event, ph map[string][]string) bool {
	search := func(i int) bool { return node(d.Searches[i].Node, ev, ph) }
	switch c.Op {
	case sigma.One:
		return search(c.Search)
	case sigma.Not:
		return !condition(c.Kids[0], d, ev, ph)
	case sigma.And:
		for _, k := range c.Kids {
			if !condition(k, d, ev, ph) {
				return false
			}
		}
		return true
	case sigma.Of:
		n := 0
		for _, i := range c.Searches {
			if search(i) {
				n++
			}
		}
		return n >= c.N
	}
	for _, k := range c.Kids {
		if condition(k, d, ev, ph) {
			return true
		}
	}
	return false
}

func node(n sigma.Node, ev Event, ph map[string][]string) bool {
	if n.Item != nil {
		return item(*n.Item, ev, ph)
	}
	count := 0
	for _, k := range n.Kids {
		if node(k, ev, ph) {
			count++
		}
	}
	if n.All {
		return count == len(n.Kids)
	}
	return count > 0
}

func item(it sigma.Item, ev Event, ph map[string][]string) bool {
	count := 0
	for _, v := range it.Values {
		if value(it, v, ev, ph) {
			count++
		}
	}
	result := count > 0
	if slices.Contains(it.Modifiers, "all") {
		result = count == len(it.Values)
	}
	return result != slices.Contains(it.Modifiers, "neq")
}

// value says whether one value of an item fits any value of its field.
func value(it sigma.Item, l sigma.Literal, ev Event, ph map[string][]string) bool {
	has := func(m string) bool { return slices.Contains(it.Modifiers, m) }
	have, present := ev.Fields[it.Field]
	if it.Field == "" {
		have, present = nil, true
		if ev.Message != "" {
			have = []any{ev.Message}
		} else {
			for _, vs := range ev.Fields {
				have = append(have, vs...)
			}
		}
	}
	if l.Kind == sigma.Nothing {
		return !present || len(have) == 0
	}
	for _, source := range expand(l.Text, has("expand"), ph) {
		if has("exists") {
			return strings.EqualFold(source, "true") == present
		}
		for _, h := range have {
			if one(it, l, source, h, ev) {
				return true
			}
		}
	}
	return false
}

func expand(s string, on bool, ph map[string][]string) []string {
	if !on {
		return []string{s}
	}
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			continue
		}
		if i > 0 && s[i-1] == '\\' {
			var all []string
			for _, tail := range expand(s[i+1:], true, ph) {
				all = append(all, s[:i-1]+"%"+tail)
			}
			return all
		}
		end := strings.IndexByte(s[i+1:], '%')
		if end <= 0 {
			continue
		}
		var all []string
		for _, v := range ph[s[i+1:i+1+end]] {
			for _, tail := range expand(s[i+end+2:], true, ph) {
				all = append(all, s[:i]+v+tail)
			}
		}
		return all
	}
	return []string{s}
}

func one(it sigma.Item, l sigma.Literal, source string, have any, ev Event) bool {
	has := func(m string) bool { return slices.Contains(it.Modifiers, m) }
	text := textOf(have)
	switch {
	case has("re"):
		flags := ""
		for _, f := range []string{"i", "m", "s"} {
			if has(f) {
				flags += f
			}
		}
		if flags != "" {
			source = "(?" + flags + ")" + source
		}
		return regexp.MustCompile(source).MatchString(text)
	case has("cidr"):
		if !strings.Contains(source, "/") {
			source = source + "/" + strconv.Itoa(netip.MustParseAddr(source).BitLen())
		}
		text, _, _ = strings.Cut(text, "%")
		a, err := netip.ParseAddr(text)
		return err == nil && netip.MustParsePrefix(source).Masked().Contains(a.Unmap())
	case has("fieldref"):
		for _, o := range ev.Fields[source] {
			p := literal(textOf(o))
			if has("contains") || has("endswith") {
				p = append([]token{{any: true}}, p...)
			}
			if has("contains") || has("startswith") {
				p = append(p, token{any: true})
			}
			if fits(p, chars(text), has("cased")) {
				return true
			}
		}
		return false
	}
	for _, part := range []string{"minute", "hour", "day", "week", "month", "year"} {
		if has(part) {
			n, ok := datePart(part, have)
			return ok && compare(it, float64(n), source)
		}
	}
	if has("lt") || has("lte") || has("gt") || has("gte") {
		f, ok := numberOf(have)
		return ok && compare(it, f, source)
	}
	if l.Kind == sigma.Number && it.Field != "" && !slices.ContainsFunc(it.Modifiers, isText) {
		if s, ok := have.(string); ok {
			return s == source
		}
		f, ok := numberOf(have)
		want, _ := strconv.ParseFloat(source, 64)
		return ok && f == want
	}
	for _, p := range patterns(it, source) {
		if fits(p, chars(text), has("cased")) {
			return true
		}
	}
	return false
}

func isText(m string) bool {
	return slices.Contains([]string{"contains", "startswith", "endswith", "windash", "base64", "base64offset", "utf16", "utf16le", "utf16be", "wide"}, m)
}

func compare(it sigma.Item, have float64, source string) bool {
	want, _ := strconv.ParseFloat(source, 64)
	for _, m := range it.Modifiers {
		switch m {
		case "lt":
			return have < want
		case "lte":
			return have <= want
		case "gt":
			return have > want
		case "gte":
			return have >= want
		}
	}
	return have == want
}

func textOf(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	case bool:
		return strconv.FormatBool(v)
	case time.Time:
		return v.UTC().Format("2006-01-02T15:04:05.000000000Z")
	}
	return ""
}

func numberOf(v any) (float64, bool) {
	switch v := v.(type) {
	case int64:
		return float64(v), true
	case float64:
		return v, v == v
	case string:
		if strings.Trim(v, "0123456789.+-eE") != "" || len(v) > 32 {
			return 0, false // no hexadecimal, no "inf"
		}
		f, err := strconv.ParseFloat(v, 64)
		return f, err == nil
	}
	return 0, false
}

func datePart(part string, v any) (int, bool) {
	var t time.Time
	switch v := v.(type) {
	case time.Time:
		t = v.UTC()
	case int64:
		t = time.UnixMilli(v).UTC()
	case string:
		var err error
		for _, layout := range []string{"2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02"} {
			if len(v) >= len(layout) {
				if t, err = time.Parse(layout, v[:len(layout)]); err == nil {
					if layout == "2006-01-02" && (part == "hour" || part == "minute") {
						return 0, false
					}
					break
				}
			}
		}
		if t.IsZero() {
			return 0, false
		}
	default:
		return 0, false
	}
	_, week := t.ISOWeek()
	return map[string]int{"minute": t.Minute(), "hour": t.Hour(), "day": t.Day(), "week": week, "month": int(t.Month()), "year": t.Year()}[part], true
}

// token is one character of a pattern, or a wildcard.
type token struct {
	char           string
	any, one, dash bool
}

func literal(s string) []token {
	var p []token
	for _, c := range chars(s) {
		p = append(p, token{char: c})
	}
	return p
}

// chars splits text into characters; bytes that are not UTF-8 stand alone.
func chars(s string) []string {
	var all []string
	for s != "" {
		_, n := utf8.DecodeRuneInString(s)
		all, s = append(all, s[:n]), s[n:]
	}
	return all
}

// patterns applies the text modifiers, in order.
func patterns(it sigma.Item, source string) [][]token {
	var p []token
	for rest := chars(source); len(rest) > 0; rest = rest[1:] {
		switch {
		case rest[0] == `\` && len(rest) > 1 && strings.Contains(`\*?`, rest[1]):
			rest = rest[1:]
			p = append(p, token{char: rest[0]})
		case rest[0] == "*":
			p = append(p, token{any: true})
		case rest[0] == "?":
			p = append(p, token{one: true})
		default:
			p = append(p, token{char: rest[0]})
		}
	}
	all := [][]token{p}
	for _, m := range it.Modifiers {
		var next [][]token
		for _, p := range all {
			next = append(next, apply(m, p)...)
		}
		all = next
	}
	if it.Field == "" {
		for i := range all {
			all[i] = append(append([]token{{any: true}}, all[i]...), token{any: true})
		}
	}
	return all
}

const dashes = "-/–—―"

func apply(m string, p []token) [][]token {
	switch m {
	case "contains":
		return [][]token{append(append([]token{{any: true}}, p...), token{any: true})}
	case "startswith":
		return [][]token{append(slices.Clone(p), token{any: true})}
	case "endswith":
		return [][]token{append([]token{{any: true}}, p...)}
	case "windash":
		p = slices.Clone(p)
		for i := range p {
			if p[i].char != "" && strings.Contains(dashes, p[i].char) && utf8.ValidString(p[i].char) {
				p[i] = token{dash: true}
			}
		}
		return [][]token{p}
	case "base64", "base64offset", "utf16", "utf16le", "utf16be", "wide":
		var all [][]token
		for _, s := range spell(p) {
			for _, e := range encode(m, s) {
				if e != "" {
					all = append(all, literal(e))
				}
			}
		}
		return all
	}
	return [][]token{p}
}

func spell(p []token) []string {
	if len(p) == 0 {
		return []string{""}
	}
	var all []string
	for _, tail := range spell(p[1:]) {
		if !p[0].dash {
			all = append(all, p[0].char+tail)
			continue
		}
		for _, d := range dashes {
			all = append(all, string(d)+tail)
		}
	}
	return all
}

func encode(m, s string) []string {
	b64 := base64.StdEncoding.EncodeToString
	switch m {
	case "base64":
		return []string{b64([]byte(s))}
	case "base64offset":
		// What stays the same whatever stands around s: encode it between all
		// kinds of neighbours and keep the characters that do not change.
		var all []string
		for offset := range 3 {
			pad := (3 - (offset+len(s))%3) % 3
			first := b64([]byte(strings.Repeat("\x00", offset) + s + strings.Repeat("\x00", pad)))
			second := b64([]byte(strings.Repeat("\xff", offset) + s + strings.Repeat("\xff", pad)))
			stable := ""
			from := (offset*8 + 5) / 6
			for i := from; i < (offset+len(s))*8/6; i++ {
				if first[i] == second[i] {
					stable += first[i : i+1]
				}
			}
			all = append(all, stable)
		}
		return all
	}
	out := ""
	if m == "utf16" {
		out = "\xff\xfe"
	}
	for _, u := range utf16.Encode([]rune(s)) {
		if m == "utf16be" {
			out += string([]byte{byte(u >> 8), byte(u)})
		} else {
			out += string([]byte{byte(u), byte(u >> 8)})
		}
	}
	return []string{out}
}

// fits matches one character after the other; where that fails, the latest "*"
// takes one character more.
func fits(p []token, text []string, cased bool) bool {
	i, j, star, from := 0, 0, -1, 0
	for j < len(text) {
		switch {
		case i < len(p) && p[i].any:
			star, from = i, j
			i++
		case i < len(p) && same(p[i], text[j], cased):
			i, j = i+1, j+1
		case star >= 0:
			from++
			i, j = star+1, from
		default:
			return false
		}
	}
	for i < len(p) && p[i].any {
		i++
	}
	return i == len(p)
}

func same(t token, char string, cased bool) bool {
	switch {
	case t.one:
		return true
	case t.dash:
		return utf8.ValidString(char) && strings.Contains(dashes, char)
	case t.char == char:
		return true
	}
	return !cased && utf8.ValidString(char) && utf8.ValidString(t.char) && strings.EqualFold(t.char, char)
}
