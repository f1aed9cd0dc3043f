package detect

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// everything is the field number of keywords, which look at the whole event.
const everything = -1

// predicate is one test of one field. Equal predicates of a program are one.
type predicate struct {
	op    sigma.Op
	part  sigma.TimePart
	where sigma.Where
	cased bool
	want  bool
	whole bool // num is exactly int
	field int
	other int // Same
	int   int64
	num   float64
	pat   pattern
	re    *automaton
	nets  []netip.Prefix // Within any of several
	pats  []pattern      // a Match of any of several
	set   *literalSet    // made of pats
	text  string         // Equal: the number as written
}

// newPredicate prepares a test of a field; other is the second field of Same.
func newPredicate(t *sigma.Test, field, other int) predicate {
	p := predicate{
		op: t.Op, part: t.Part, where: t.Where, cased: t.Cased, want: t.Want, field: field, other: other,
		int: t.Int, whole: t.Integer, num: t.Number,
	}
	switch t.Op {
	case sigma.Match:
		p.pat = newPattern(t.Pattern, !t.Cased)
	case sigma.Equal:
		p.text = t.Source
	case sigma.Regex:
		p.re = &automaton{re: t.Regexp}
	case sigma.Within:
		p.nets = []netip.Prefix{t.Prefix}
	}
	return p
}

// prepare makes what evaluating the predicate needs, if the index does not
// decide it.
func (p *predicate) prepare(s shared) {
	if p.pats != nil {
		p.set = newLiteralSet(p.pats, p.cased, s.census)
	}
	if p.re != nil {
		expr := p.re.re.String()
		if s.automata[expr] == nil {
			s.automata[expr] = newAutomaton(p.re.re)
		}
		p.re = s.automata[expr]
	}
}

// holds evaluates the predicate on the scratch's event.
func (p *predicate) holds(s *scratch) bool {
	switch p.op {
	case sigma.Match:
		for _, t := range s.textsOf(p.field) {
			if p.matches(t) {
				return true
			}
		}
		return false
	case sigma.Regex:
		for _, t := range s.textsOf(p.field) {
			if p.re.find(t.raw, &s.threads) {
				return true
			}
		}
		return false
	case sigma.Within:
		for _, t := range s.textsOf(p.field) {
			if a, ok := parseAddr(t.raw); ok && slices.ContainsFunc(p.nets, func(n netip.Prefix) bool { return n.Contains(a) }) {
				return true
			}
		}
		return false
	case sigma.Exists:
		return s.event.Values[p.field].Present() == p.want
	case sigma.IsNull:
		k := s.event.Values[p.field].Kind
		return k == ocsf.Null || k == ocsf.Absent
	case sigma.Same:
		return p.same(s)
	}
	v := s.event.Values[p.field]
	if v.Kind != ocsf.List {
		return p.compares(v)
	}
	for _, el := range s.event.Lists[v.Num] {
		if p.compares(el) {
			return true
		}
	}
	return false
}

func (p *predicate) matches(t text) bool {
	b := t.folded
	if p.cased {
		b = t.bytes()
	}
	if p.set != nil {
		return p.set.any(b)
	}
	return p.pat.match(b)
}

// compares evaluates the operations on numbers.
func (p *predicate) compares(v ocsf.Value) bool {
	if p.part != sigma.TimeWhole {
		n, ok := datePart(p.part, v)
		if !ok {
			return false
		}
		v = ocsf.IntValue(int64(n))
	}
	if p.op == sigma.Equal && v.Kind == ocsf.String {
		return v.Str == p.text
	}
	if v.Kind == ocsf.Int && p.whole {
		return ordered(p.op, compare(v.Num, p.int))
	}
	f, ok := number(v)
	return ok && ordered(p.op, compare(f, p.num))
}

func compare[T int64 | float64](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func ordered(op sigma.Op, c int) bool {
	switch op {
	case sigma.Less:
		return c < 0
	case sigma.LessEqual:
		return c <= 0
	case sigma.Greater:
		return c > 0
	case sigma.GreaterEqual:
		return c >= 0
	}
	return c == 0 // Equal, PartIs
}

// number reads a value as a number. Text that is none is turned away before
// strconv would allocate an error for it.
func number(v ocsf.Value) (float64, bool) {
	switch v.Kind {
	case ocsf.Int, ocsf.Float:
		f := v.Float()
		return f, f == f
	case ocsf.String:
		if v.Str == "" || len(v.Str) > 32 || strings.Trim(v.Str, "0123456789") != "" && strings.Trim(v.Str, "0123456789.+-eE") != "" {
			return 0, false
		}
		f, err := strconv.ParseFloat(v.Str, 64)
		return f, err == nil
	}
	return 0, false
}

// same compares two fields of the event as text, without regard to case unless
// the test is cased. Either being absent is no match.
func (p *predicate) same(s *scratch) bool {
	// Both slots are filled before either is read: filling may move them.
	s.textsOf(p.field)
	s.textsOf(p.other)
	for _, t := range s.textsOf(p.field) {
		for _, o := range s.textsOf(p.other) {
			a, b := view(t.folded), view(o.folded)
			if p.cased {
				a, b = t.raw, o.raw
			}
			switch p.where {
			case sigma.Whole:
				if a == b {
					return true
				}
			case sigma.Start:
				if strings.HasPrefix(a, b) {
					return true
				}
			case sigma.End:
				if strings.HasSuffix(a, b) {
					return true
				}
			case sigma.Anywhere:
				if strings.Contains(a, b) {
					return true
				}
			}
		}
	}
	return false
}

// parseAddr reads an address. Text that cannot be one is turned away before
// netip would allocate an error for it.
func parseAddr(s string) (netip.Addr, bool) {
	if len(s) < 2 || len(s) > 64 || strings.IndexByte(s, '.') < 0 && strings.IndexByte(s, ':') < 0 {
		return netip.Addr{}, false
	}
	for i := range len(s) {
		if c := s[i]; c == '%' {
			s = s[:i] // a zone names an interface of one host
			break
		} else if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') && c != '.' && c != ':' {
			return netip.Addr{}, false
		}
	}
	a, err := netip.ParseAddr(s)
	return a.Unmap(), err == nil
}
