package sigma

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// Op is what a Test does with a field.
type Op uint8

// The operations of tests.
const (
	Match  Op = iota // the text, as a whole, fits Pattern
	Equal            // the field is the number Number, or its text is Source
	IsNull           // the field is null, or is not there
	Exists           // the field is there (or is not, if Want is false)
	Regex            // Regexp is found in the text
	Within           // the text is an address in Prefix
	Less             // number comparisons with Number
	LessEqual
	Greater
	GreaterEqual
	Same // fits another field of the event, as Where says
	PartIs
)

// Where says which part of a field another field must be, for Same.
type Where uint8

// The places.
const (
	Whole Where = iota
	Start
	End
	Anywhere
)

// Test is what one value of a rule means once its modifiers are applied.
type Test struct {
	Op      Op
	Cased   bool // Match, Same
	Pattern Pattern
	Number  float64
	Integer bool // Number is whole and exactly Int
	Int     int64
	Regexp  *regexp.Regexp
	Prefix  netip.Prefix
	Want    bool   // Exists
	Other   string // Same: the other field
	Where   Where
	Part    TimePart // the number is a part of a date; TimeWhole for the value itself
	Source  string   // the value as written
	Pos     Pos
}

// TimePart is the part of a date that a time modifier takes out.
type TimePart uint8

// The parts.
const (
	TimeWhole TimePart = iota
	Minute
	Hour
	Day
	Week // of ISO 8601
	Month
	Year
)

// Tests is what an item means: All, or any, of the values, each of which is any
// of its alternatives; and then the opposite, if Negate.
type Tests struct {
	All    bool
	Negate bool
	Values [][]Test
}

// ItemProblem is a problem of an item's modifiers or values.
type ItemProblem struct {
	Problem
	placeholder bool // it would not be one with the right placeholders
}

// Tests applies the item's modifiers to its values. Placeholders maps the name
// in %name% to what stands for it.
func (item *Item) Tests(placeholders map[string][]string) (Tests, []ItemProblem) {
	c, p := parseChain(item)
	if p != nil {
		return Tests{}, []ItemProblem{{Problem: *p}}
	}
	r := resolver{item: item, chain: c, placeholders: placeholders}
	t := Tests{All: c.all, Negate: c.neq}
	for _, l := range item.Values {
		t.Values = append(t.Values, r.value(l))
	}
	if c.all && len(item.Values) == 1 {
		r.warn(item.Pos, "the modifier all has only one value to apply to").Do = "remove it, or use a second search"
	}
	return t, r.problems
}

type resolver struct {
	item         *Item
	chain        chain
	placeholders map[string][]string
	problems     []ItemProblem
}

func (r *resolver) fail(pos Pos, format string, args ...any) *Problem {
	r.problems = append(r.problems, ItemProblem{Problem: *problem(pos, format, args...).field(r.item.Field)})
	return &r.problems[len(r.problems)-1].Problem
}

func (r *resolver) warn(pos Pos, format string, args ...any) *Problem {
	p := r.fail(pos, format, args...)
	p.Warning = true
	return p
}

// value returns the alternatives one value stands for.
func (r *resolver) value(l Literal) []Test {
	if l.Kind == Nothing {
		if r.chain.typ != "" || len(r.chain.steps) > 0 || r.chain.part != "" {
			r.fail(l.Pos, "null cannot be combined with the modifier %s", strings.Join(r.item.Modifiers, "|"))
			return nil
		}
		if r.item.Field == "" {
			r.fail(l.Pos, "a keyword cannot be null")
			return nil
		}
		if len(r.item.Values) > 1 {
			r.warn(l.Pos, "null cannot be part of a list, says the specification; here it is taken as one more value").
				Do = "put it into a search of its own"
		}
		return []Test{{Op: IsNull, Source: "null", Pos: l.Pos}}
	}
	sources := []string{l.Text}
	if r.chain.expand {
		var ok bool
		if sources, ok = r.expand(l); !ok {
			return nil
		}
	}
	var tests []Test
	for _, s := range sources {
		tests = append(tests, r.test(l, s)...)
	}
	for i := range tests {
		tests[i].Pos = l.Pos
	}
	return tests
}

func (r *resolver) test(l Literal, source string) []Test {
	c := r.chain
	switch {
	case c.part != "" || c.compare:
		return r.number(l, source)
	case c.typ == "exists":
		want, err := strconv.ParseBool(source)
		if err != nil {
			r.fail(l.Pos, "the modifier exists needs true or false, not %q", source)
		}
		return []Test{{Op: Exists, Want: want, Source: source}}
	case c.typ == "re":
		return r.regex(l, source)
	case c.typ == "cidr":
		prefix, err := parsePrefix(source)
		if err != nil {
			r.fail(l.Pos, "%q is not an address range", source).Do = "write it as 10.0.0.0/8 or 2001:db8::/32"
		}
		return []Test{{Op: Within, Prefix: prefix, Source: source}}
	case c.typ == "fieldref":
		if strings.TrimSpace(source) == "" {
			r.fail(l.Pos, "the modifier fieldref needs the name of another field")
		}
		t := Test{Op: Same, Other: source, Cased: c.cased, Source: source}
		if len(c.steps) > 0 {
			t.Where = map[string]Where{"startswith": Start, "endswith": End, "contains": Anywhere}[c.steps[0]]
		}
		return []Test{t}
	}
	return r.text(l, source)
}

func (r *resolver) number(l Literal, source string) []Test {
	f, err := strconv.ParseFloat(source, 64)
	if err != nil || f != f {
		r.fail(l.Pos, "the modifier %s needs a number, not %q", strings.Join(r.item.Modifiers, "|"), source)
		return nil
	}
	t := Test{Op: Equal, Number: f, Source: source}
	t.Int, t.Integer = wholeNumber(source)
	switch r.chain.typ {
	case "lt":
		t.Op = Less
	case "lte":
		t.Op = LessEqual
	case "gt":
		t.Op = Greater
	case "gte":
		t.Op = GreaterEqual
	}
	for i, name := range timeParts {
		if name == r.chain.part {
			t.Part = TimePart(i + 1)
			if t.Op == Equal {
				t.Op = PartIs
			}
		}
	}
	return []Test{t}
}

func wholeNumber(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

func (r *resolver) regex(l Literal, source string) []Test {
	if l.Kind != Text {
		r.warn(l.Pos, "the regular expression %s is written as a number or truth value", source).Do = "put it in quotes"
	}
	flags := ""
	for _, f := range r.chain.flags {
		flags += string(f)
	}
	expr := source
	if flags != "" {
		expr = "(?" + flags + ")" + source
	}
	if len(expr) > maxRegex {
		r.fail(l.Pos, "the regular expression has %d bytes, and %d is the most", len(expr), maxRegex)
		return nil
	}
	re, err := regexp.Compile(expr)
	if err != nil {
		text := strings.TrimPrefix(err.Error(), "error parsing regexp: ")
		r.fail(l.Pos, "this regular expression cannot be evaluated in linear time: %s", text).
			Do = "use the flavor of the specification, without look-around, back-references and possessive quantifiers"
		return nil
	}
	return []Test{{Op: Regex, Regexp: re, Source: source}}
}

const maxRegex = 4096

func parsePrefix(s string) (netip.Prefix, error) {
	s = strings.TrimSpace(s)
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return netip.Prefix{}, err
		}
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	return p.Masked(), err
}
