package sigma

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Operator is what a Condition does with its kids.
type Operator uint8

// The operators of conditions.
const (
	Or Operator = iota
	And
	Not
	One // the search at index Search
	Of  // at least N of the searches in Searches
)

// Condition is how the searches of a detection combine. Names are resolved to
// indexes into Detection.Searches.
type Condition struct {
	Op       Operator
	Kids     []*Condition
	Search   int
	N        int
	Searches []int
	Pos      Pos
}

const maxConditionDepth = 64

// condition reads one condition, or a list of them of which any may hold.
func (r *reader) condition(n *yaml.Node, searches []Search) *Condition {
	if n.Kind == yaml.SequenceNode {
		any := &Condition{Op: Or, Pos: at(n)}
		for _, kid := range n.Content {
			if c := r.condition(resolve(kid), searches); c != nil {
				any.Kids = append(any.Kids, c)
			}
		}
		if len(any.Kids) == 0 {
			r.report(problem(at(n), "the condition is empty"))
		}
		return any
	}
	if n.Kind != yaml.ScalarNode {
		r.report(problem(at(n), "a condition is text, or a list of texts"))
		return nil
	}
	p := conditionParser{text: n.Value, node: n, searches: searches}
	p.next()
	c := p.or(0)
	if p.fail == nil && p.token == "|" {
		p.aggregation()
	}
	if p.fail == nil && p.token != "" {
		p.failf("%q is not expected here", p.token)
	}
	r.report(p.fail)
	return c
}

// conditionParser is a recursive-descent parser of, from the least binding to
// the most: or, and, not, "x of", parentheses.
type conditionParser struct {
	text     string
	node     *yaml.Node
	searches []Search
	token    string
	offset   int // of token
	rest     int // after token
	fail     *Problem
}

func (p *conditionParser) next() {
	t := p.text
	i := p.rest
	for i < len(t) && strings.IndexByte(" \t\r\n", t[i]) >= 0 {
		i++
	}
	p.offset = i
	if i < len(t) && strings.IndexByte("()|", t[i]) >= 0 {
		p.token, p.rest = t[i:i+1], i+1
		return
	}
	j := i
	for j < len(t) && strings.IndexByte(" \t\r\n()|", t[j]) < 0 {
		j++
	}
	p.token, p.rest = t[i:j], j
}

func (p *conditionParser) is(word string) bool { return strings.EqualFold(p.token, word) }

// pos is where the current token stands. In a folded or literal block the
// column counts from the block's own indentation, which YAML does not keep, so
// only the line is known.
func (p *conditionParser) pos() Pos {
	before := p.text[:p.offset]
	at := at(p.node)
	switch p.node.Style {
	case yaml.LiteralStyle, yaml.FoldedStyle:
		return Pos{at.Line + 1 + strings.Count(before, "\n"), 1}
	case yaml.SingleQuotedStyle, yaml.DoubleQuotedStyle:
		at.Column++
	}
	at.Column += len([]rune(before))
	return at
}

func (p *conditionParser) failf(format string, args ...any) *Condition {
	if p.fail == nil {
		p.fail = problem(p.pos(), "condition: "+format, args...)
	}
	p.token, p.rest = "", len(p.text)
	return nil
}

func (p *conditionParser) or(depth int) *Condition {
	return p.chain("or", Or, depth, p.and)
}

func (p *conditionParser) and(depth int) *Condition {
	return p.chain("and", And, depth, p.not)
}

func (p *conditionParser) chain(word string, op Operator, depth int, operand func(int) *Condition) *Condition {
	first := operand(depth)
	if !p.is(word) {
		return first
	}
	c := &Condition{Op: op, Kids: []*Condition{first}, Pos: p.pos()}
	for p.is(word) {
		p.next()
		c.Kids = append(c.Kids, operand(depth))
	}
	return c
}

func (p *conditionParser) not(depth int) *Condition {
	if !p.is("not") {
		return p.primary(depth)
	}
	c := &Condition{Op: Not, Pos: p.pos()}
	if depth++; depth > maxConditionDepth {
		return p.failf("nested more than %d deep", maxConditionDepth)
	}
	p.next()
	c.Kids = []*Condition{p.not(depth)}
	return c
}

func (p *conditionParser) primary(depth int) *Condition {
	switch {
	case p.token == "":
		return p.failf("a search name or an opening parenthesis is missing at the end")
	case p.token == "(":
		if depth++; depth > maxConditionDepth {
			return p.failf("nested more than %d deep", maxConditionDepth)
		}
		p.next()
		c := p.or(depth)
		if p.fail != nil {
			return c
		}
		if p.token != ")" {
			return p.failf("a closing parenthesis is missing")
		}
		p.next()
		return c
	case p.token == "|":
		return p.aggregation()
	case p.token == ")" || p.is("and") || p.is("or"):
		return p.failf("%q is not expected here", p.token)
	}
	return p.name()
}

func (p *conditionParser) aggregation() *Condition {
	p.failf("aggregations belong to Sigma 1, which Sigma 2 does not have")
	p.fail.Do = "write a correlation document"
	return nil
}

// name reads a search name, or "1 of them", "all of selection_*".
func (p *conditionParser) name() *Condition {
	pos, word := p.pos(), p.token
	p.next()
	if !p.is("of") {
		for i, s := range p.searches {
			if s.Name == word {
				return &Condition{Op: One, Search: i, Pos: pos}
			}
		}
		p.missing(pos, "the search %q does not exist", word)
		return nil
	}
	p.next()
	if p.token == "" || p.token == "(" || p.token == ")" {
		return p.failf(`"them" or a name pattern must follow "of"`)
	}
	c := &Condition{Op: Of, Pos: pos}
	for i, s := range p.searches {
		if selects(p.token, s.Name) {
			c.Searches = append(c.Searches, i)
		}
	}
	if len(c.Searches) == 0 {
		p.missing(p.pos(), "no search has a name like %q", p.token)
		return nil
	}
	switch n, err := strconv.Atoi(word); {
	case strings.EqualFold(word, "all"):
		c.N = len(c.Searches)
	case strings.EqualFold(word, "any"):
		c.N = 1
	case err == nil && n >= 1:
		c.N = n
	default:
		if p.fail == nil {
			p.fail = problem(pos, `condition: %q must be a number, "any" or "all"`, word)
		}
	}
	p.next()
	return c
}

func (p *conditionParser) missing(pos Pos, format, name string) {
	if p.fail != nil {
		return
	}
	var have []string
	for _, s := range p.searches {
		have = append(have, s.Name)
	}
	p.fail = problem(pos, "condition: %s", fmt.Sprintf(format, name)).do("there are: " + strings.Join(have, ", "))
	p.token, p.rest = "", len(p.text)
}

// selects says whether a pattern of "x of" takes a search: "them" takes all but
// those whose name starts with an underscore, and so does any pattern that does
// not itself start with one. "*" stands for any number of characters.
func selects(pattern, name string) bool {
	if strings.HasPrefix(name, "_") && !strings.HasPrefix(pattern, "_") {
		return false
	}
	if strings.EqualFold(pattern, "them") {
		return true
	}
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == name
	}
	if !strings.HasPrefix(name, parts[0]) {
		return false
	}
	name = name[len(parts[0]):]
	last := parts[len(parts)-1]
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(name, part)
		if i < 0 {
			return false
		}
		name = name[i+len(part):]
	}
	return len(name) >= len(last) && strings.HasSuffix(name, last)
}
