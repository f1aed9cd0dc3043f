package rehearsal

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/holdfast-security/holdfast/internal/language/detect"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// item is one line of a rule's search: a field and what it must be.
type item struct {
	rule   *sigma.Rule
	search string
	*sigma.Item
	class *ocsf.Class
	path  string            // OCSF path of the field; empty for a keyword
	base  map[string]string // what makes an event one that the rule wants to see
	probe *sigma.Rule       // this item alone, as a rule
	text  []byte            // … as a document

	match, miss map[string]string // the fields of an event that the item matches, and of one that it does not; nil if none is known
}

// items lists the lines of a rule's searches, with an event for and against
// each.
func (r *run) items(rule *sigma.Rule, seen []map[string]string) []*item {
	class, base := r.classOf(rule)
	if class == nil {
		return nil
	}
	var all []*item
	for i := range rule.Detection.Searches {
		s := &rule.Detection.Searches[i]
		walk(&s.Node, func(si *sigma.Item) {
			it := &item{rule: rule, search: s.Name, Item: si, class: class, base: base}
			if o, ok := class.Ordinal(si.Field); ok {
				it.path = class.Fields[o].Path
			}
			it.text = probeText(rule, si, len(all))
			if set, _ := sigma.Parse("probe.yml", it.text); len(set.Rules) == 1 {
				it.probe = set.Rules[0]
				it.choose(seen)
			}
			all = append(all, it)
		})
	}
	return all
}

func walk(n *sigma.Node, f func(*sigma.Item)) {
	if n.Item != nil {
		f(n.Item)
	}
	for i := range n.Kids {
		walk(&n.Kids[i], f)
	}
}

// classOf finds the class whose events a rule wants, and the fields that make an
// event one of them.
func (r *run) classOf(rule *sigma.Rule) (*ocsf.Class, map[string]string) {
	for _, c := range r.classes {
		for _, s := range c.Sources {
			if rule.LogSource.Accepts(s.LogSource) {
				base := map[string]string{}
				if s.When >= 0 {
					base[c.Fields[s.When].Path] = strconv.FormatInt(s.Is, 10)
				}
				return c, base
			}
		}
	}
	return nil, nil
}

// choose finds a value that matches and one that does not, by asking the
// reference evaluator about every candidate.
func (it *item) choose(seen []map[string]string) {
	for _, fields := range it.candidates(seen) {
		if it.match != nil && it.miss != nil {
			return
		}
		all := merged(it.base, fields)
		e, err := it.class.FromWritten(all)
		if err != nil {
			continue
		}
		if detect.Explain(it.probe, it.class, e, nil).Matched {
			if it.match == nil {
				it.match = all
			}
		} else if it.miss == nil && (len(fields) > 0 || len(it.rule.Detection.Searches) == 0) {
			it.miss = all
		}
	}
	if it.miss == nil { // an event without the field
		if e, err := it.class.FromWritten(it.base); err == nil && !detect.Explain(it.probe, it.class, e, nil).Matched {
			it.miss = it.base
		}
	}
}

func merged(maps ...map[string]string) map[string]string {
	out := map[string]string{}
	for _, m := range maps {
		for k, v := range m {
			out[k] = v
		}
	}
	return out
}

// keywordField is where a keyword is put: it may be anywhere.
const keywordField = "process.cmd_line"

// candidates lists fields that may match the item, or may not: what its values
// say, what the bundle's own events have there, and what nobody asks for.
func (it *item) candidates(seen []map[string]string) []map[string]string {
	field := it.path
	if it.Field == "" {
		field = keywordField
	}
	var out []map[string]string
	add := func(values ...string) {
		for _, v := range values {
			out = append(out, map[string]string{field: v})
		}
	}
	tests, _ := it.Tests(nil)
	var together []string
	for _, alternatives := range tests.Values {
		for i := range alternatives {
			t := &alternatives[i]
			values := suggestions(t)
			add(values...)
			if i == 0 && len(values) > 0 {
				together = append(together, values[0])
			}
			if o, ok := it.class.Ordinal(t.Other); t.Op == sigma.Same && ok {
				other := it.class.Fields[o].Path
				out = append(out, map[string]string{field: "same", other: "same"}, map[string]string{field: "7", other: "7"}, map[string]string{field: "one", other: "another"}, map[string]string{field: "1", other: "2"})
			}
		}
	}
	if tests.All {
		add(strings.Join(together, ""), strings.Join(together, " "))
	}
	for _, fields := range seen {
		for name, v := range fields {
			if o, ok := it.class.Ordinal(name); ok && it.class.Fields[o].Path == field {
				add(v)
			}
		}
	}
	add("holdfast-rehearsal", "7340291", "-7340291", "true", "false", "1971-01-02T03:04:05Z", "2199-11-30T23:59:59Z", "192.0.2.77", "2001:db8::77", "")
	return append(out, map[string]string{})
}

// suggestions lists texts of which one or more may pass a test.
func suggestions(t *sigma.Test) []string {
	switch t.Op {
	case sigma.Match:
		return []string{concrete(t.Pattern, ""), concrete(t.Pattern, "x")}
	case sigma.Equal:
		return []string{t.Source}
	case sigma.Exists, sigma.IsNull:
		return []string{"x", "1", "2026-01-02T03:04:05Z", "true"}
	case sigma.Regex:
		return fromRegexp(t.Regexp)
	case sigma.Within:
		return []string{t.Prefix.Addr().String()}
	case sigma.Less, sigma.LessEqual, sigma.Greater, sigma.GreaterEqual, sigma.PartIs:
		n := int64(t.Number)
		out := []string{fmt.Sprint(n), fmt.Sprint(n - 1), fmt.Sprint(n + 1)}
		if t.Part != sigma.TimeWhole {
			out = append(out, moments(n)...)
		}
		return out
	}
	return nil
}

// concrete writes a text that fits a pattern, with run for each run of any
// characters.
func concrete(p sigma.Pattern, run string) string {
	var b strings.Builder
	for _, part := range p {
		switch part.Kind {
		case sigma.Plain:
			b.WriteString(part.Text)
		case sigma.AnyOne:
			b.WriteByte('x')
		case sigma.AnyRun:
			b.WriteString(run)
		case sigma.AnyDash:
			b.WriteString(sigma.Dashes[0])
		}
	}
	return b.String()
}

// moments lists times of which some have the part n, whatever part that is.
func moments(n int64) []string {
	base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var out []string
	for _, d := range []time.Duration{time.Minute, time.Hour, 24 * time.Hour, 7 * 24 * time.Hour, 31 * 24 * time.Hour} {
		for k := n - 2; k <= n+2; k++ {
			if k >= -100 && k <= 100 {
				out = append(out, base.Add(time.Duration(k)*d).Format(time.RFC3339))
			}
		}
	}
	if n > 1970 && n < 2200 {
		out = append(out, time.Date(int(n), 6, 15, 12, 0, 0, 0, time.UTC).Format(time.RFC3339))
	}
	return out
}

// fromRegexp writes texts that an expression is found in: the first choice at
// every turn, and the shortest.
func fromRegexp(re *regexp.Regexp) []string {
	tree, err := syntax.Parse(re.String(), syntax.Perl)
	if err != nil {
		return nil
	}
	var out []string
	for _, more := range []int{0, 1} {
		var b strings.Builder
		spell(&b, tree, more, 0)
		out = append(out, b.String(), " "+b.String()+" ", b.String()+"\n")
	}
	return out
}

func spell(b *strings.Builder, re *syntax.Regexp, more, depth int) {
	if b.Len() > 4096 || depth > 100 {
		return
	}
	sub := func(n int) {
		for range n {
			spell(b, re.Sub[0], more, depth+1)
		}
	}
	switch re.Op {
	case syntax.OpLiteral:
		b.WriteString(string(re.Rune))
	case syntax.OpCharClass:
		b.WriteRune(plainest(re.Rune))
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		b.WriteByte('x')
	case syntax.OpCapture:
		sub(1)
	case syntax.OpStar, syntax.OpQuest:
		sub(more)
	case syntax.OpPlus:
		sub(1 + more)
	case syntax.OpRepeat:
		n := re.Min
		if more > 0 && re.Max != n {
			n++
		}
		sub(min(n, 1000))
	case syntax.OpConcat:
		for _, s := range re.Sub {
			spell(b, s, more, depth+1)
		}
	case syntax.OpAlternate:
		spell(b, re.Sub[more%len(re.Sub)], more, depth+1)
	}
}

// plainest picks a letter or digit of a class, if it has any.
func plainest(ranges []rune) rune {
	for _, want := range "x0aA _-/." {
		for i := 0; i+1 < len(ranges); i += 2 {
			if want >= ranges[i] && want <= ranges[i+1] {
				return want
			}
		}
	}
	for i := 0; i+1 < len(ranges); i += 2 {
		for c := ranges[i]; c <= min(ranges[i+1], ranges[i]+100); c++ {
			if c > ' ' && utf8.ValidRune(c) {
				return c
			}
		}
	}
	if len(ranges) > 0 {
		return ranges[0]
	}
	return 'x'
}

// probeText writes a rule that has one item and nothing else.
func probeText(rule *sigma.Rule, it *sigma.Item, n int) []byte {
	var b strings.Builder
	quote := quoted
	fmt.Fprintf(&b, "title: probe\nid: %q\nlogsource: {", probeID(n))
	sep := ""
	for _, part := range [...][2]string{{"category", rule.LogSource.Category}, {"product", rule.LogSource.Product}, {"service", rule.LogSource.Service}} {
		if part[1] != "" {
			fmt.Fprintf(&b, "%s%s: %s", sep, part[0], quote(part[1]))
			sep = ", "
		}
	}
	b.WriteString("}\ndetection:\n  s:\n")
	indent := "    "
	if it.Field != "" || len(it.Modifiers) > 0 {
		fmt.Fprintf(&b, "    %s:\n", quote(strings.Join(append([]string{it.Field}, it.Modifiers...), "|")))
		indent = "      "
	}
	for _, v := range it.Values {
		text := v.Text
		switch v.Kind {
		case sigma.Text:
			text = quote(v.Text)
		case sigma.Nothing:
			text = "null"
		}
		fmt.Fprintf(&b, "%s- %s\n", indent, text)
	}
	b.WriteString("  condition: s\n")
	return []byte(b.String())
}

func probeID(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012x", n) }

// quoted writes a double-quoted YAML scalar (YAML 1.2, 5.7).
func quoted(s string) string {
	if !utf8.ValidString(s) {
		s = base64.StdEncoding.EncodeToString([]byte(s)) // a document that was read cannot hold it
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c < ' ' || c == 0x7f || c >= 0x80 && c <= 0xa0 || c == 0x2028 || c == 0x2029 || c == 0xfeff:
			fmt.Fprintf(&b, "\\u%04X", c)
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
