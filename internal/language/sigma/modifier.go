package sigma

import (
	"slices"
	"strings"
)

// chain is what the modifiers of one item say, sorted by what they do.
type chain struct {
	all, cased, neq, expand bool

	steps   []string // what changes text, in order
	typ     string   // re, cidr, exists, fieldref, lt, lte, gt, gte; empty for text
	flags   string   // of re
	part    string   // minute … year
	compare bool     // typ is one of lt, lte, gt, gte
}

var (
	textSteps    = []string{"contains", "startswith", "endswith", "windash", "base64", "base64offset", "utf16le", "utf16be", "utf16", "wide"}
	wildSteps    = []string{"contains", "startswith", "endswith"}
	encodings    = []string{"base64", "base64offset", "utf16le", "utf16be", "utf16", "wide"}
	comparisons  = []string{"lt", "lte", "gt", "gte"}
	typeNames    = []string{"re", "cidr", "exists", "fieldref"}
	regexFlags   = []string{"i", "m", "s"}
	timeParts    = []string{"minute", "hour", "day", "week", "month", "year"}
	generic      = []string{"all", "cased", "neq", "expand"}
	allModifiers = slices.Concat(generic, textSteps, typeNames, comparisons, timeParts, regexFlags)
)

func parseChain(item *Item) (chain, *Problem) {
	var c chain
	fail := func(format string, args ...any) (chain, *Problem) {
		return c, problem(item.Pos, format, args...).field(item.Field)
	}
	for i, m := range item.Modifiers {
		isFlag := slices.Contains(regexFlags, m)
		switch {
		case !slices.Contains(allModifiers, m):
			_, p := fail("there is no modifier %q", m)
			if near := nearest(m, allModifiers); near != "" {
				p.Do = "did you mean " + near + "?"
			}
			return c, p
		case slices.Contains(item.Modifiers[:i], m):
			return fail("the modifier %s is there twice", m)
		case isFlag && c.typ != "re":
			return fail("the modifier %s only follows re", m)
		case isFlag:
			c.flags += m
		case m == "all":
			c.all = true
		case m == "cased":
			c.cased = true
		case m == "neq":
			c.neq = true
		case m == "expand":
			c.expand = true
		case slices.Contains(timeParts, m):
			if c.part != "" {
				return fail("the modifiers %s and %s exclude one another", c.part, m)
			}
			c.part = m
		case slices.Contains(textSteps, m):
			c.steps = append(c.steps, m)
		default:
			if c.typ != "" {
				return fail("the modifiers %s and %s exclude one another", c.typ, m)
			}
			c.typ, c.compare = m, slices.Contains(comparisons, m)
		}
	}
	return c.check(fail)
}

// check refuses combinations without a meaning.
func (c chain) check(fail func(string, ...any) (chain, *Problem)) (chain, *Problem) {
	wild, encoded := "", false
	for _, s := range c.steps {
		switch {
		case c.typ != "" && (c.typ != "fieldref" || !slices.Contains(wildSteps, s)):
			return fail("the modifier %s is for text and cannot be combined with %s", s, c.typ)
		case slices.Contains(wildSteps, s):
			if wild != "" {
				return fail("the modifiers %s and %s exclude one another", wild, s)
			}
			wild = s
		case slices.Contains(encodings, s) && wild != "":
			return fail("%s after %s would encode the wildcards", s, wild)
		case s == "windash" && encoded:
			return fail("windash must come before an encoding")
		}
		encoded = encoded || slices.Contains(encodings, s)
	}
	switch {
	case c.part != "" && (len(c.steps) > 0 || c.typ != "" && !c.compare):
		return fail("the modifier %s takes a number out of a date, and only lt, lte, gt, gte and neq can follow", c.part)
	case c.cased && (c.compare || c.part != "" || c.typ == "cidr" || c.typ == "exists"):
		return fail("the modifier cased is for text")
	case c.expand && (c.typ == "exists" || c.typ == "fieldref"):
		return fail("the modifiers expand and %s exclude one another", c.typ)
	case c.typ == "exists" && c.all:
		return fail("the modifiers exists and all exclude one another")
	}
	return c, nil
}

// nearest returns the word that is one or two edits away from a wrong one.
func nearest(wrong string, words []string) string {
	best, bestCost := "", 3
	for _, w := range words {
		if cost := edits(strings.ToLower(wrong), w); cost < bestCost && cost < len(w) {
			best, bestCost = w, cost
		}
	}
	return best
}

// edits is the Levenshtein distance, of short words only.
func edits(a, b string) int {
	if len(a) > 32 || len(b) > 32 {
		return 32
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
