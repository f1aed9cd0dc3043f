package sigma_test

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// The property: a condition means what a second reading of the specification
// says it means, for every way the searches may turn out. The second reading
// (plainly) knows nothing of the first: it rewrites the text to postfix by
// precedence, and computes.

var conditionSearches = []string{"a", "b", "sel_1", "sel_2", "_x"}

// parsedCondition parses a condition over conditionSearches, and returns it as a
// function of which searches hold.
func parsedCondition(text string) (func(holds []bool) bool, bool) {
	doc := "title: t\nid: t\nlogsource: {product: p}\ndetection:\n"
	for _, s := range conditionSearches {
		doc += "  " + s + ": {f: v}\n"
	}
	set, problems := sigma.Parse("t.yml", []byte(doc+"  condition: "+strconv.Quote(text)+"\n"))
	if len(problems) > 0 || len(set.Rules) == 0 {
		return nil, false
	}
	c := set.Rules[0].Detection.Condition
	return func(holds []bool) bool { return judged(c, holds) }, true
}

func judged(c *sigma.Condition, holds []bool) bool {
	switch c.Op {
	case sigma.One:
		return holds[c.Search]
	case sigma.Not:
		return !judged(c.Kids[0], holds)
	case sigma.Of:
		n := 0
		for _, i := range c.Searches {
			if holds[i] {
				n++
			}
		}
		return n >= c.N
	case sigma.And:
		return !slices.ContainsFunc(c.Kids, func(k *sigma.Condition) bool { return !judged(k, holds) })
	}
	return slices.ContainsFunc(c.Kids, func(k *sigma.Condition) bool { return judged(k, holds) })
}

var errCondition = errors.New("no condition")

// plainly evaluates the text of a condition for one outcome of the searches.
func plainly(text string, holds []bool) (result bool, err error) {
	for _, c := range "()" {
		text = strings.ReplaceAll(text, string(c), " "+string(c)+" ")
	}
	words := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\r\n", r) })
	var (
		values []bool
		ops    []string
		level  = map[string]int{"or": 1, "and": 2, "not": 3}
	)
	apply := func(op string) {
		n := len(values) - 1
		switch {
		case n < 0 || op != "not" && n < 1:
			err = errCondition
		case op == "not":
			values[n] = !values[n]
		case op == "and":
			values = append(values[:n-1], values[n-1] && values[n])
		default:
			values = append(values[:n-1], values[n-1] || values[n])
		}
	}
	operand := true // one is expected next
	for i := 0; i < len(words) && err == nil; i++ {
		switch w := strings.ToLower(words[i]); {
		case i+2 < len(words) && strings.EqualFold(words[i+1], "of") && operand:
			var v bool
			if v, err = quantified(w, words[i+2], holds); err == nil {
				values, operand = append(values, v), false
			}
			i += 2
		case w == "(" || w == "not":
			if !operand {
				return false, errCondition
			}
			ops = append(ops, w)
		case w == ")":
			for len(ops) > 0 && ops[len(ops)-1] != "(" {
				apply(ops[len(ops)-1])
				ops = ops[:len(ops)-1]
			}
			if operand || len(ops) == 0 {
				return false, errCondition
			}
			ops = ops[:len(ops)-1]
		case w == "and" || w == "or":
			if operand {
				return false, errCondition
			}
			for len(ops) > 0 && level[ops[len(ops)-1]] >= level[w] {
				apply(ops[len(ops)-1])
				ops = ops[:len(ops)-1]
			}
			ops, operand = append(ops, w), true
		default:
			at := slices.Index(conditionSearches, words[i])
			if at < 0 || !operand {
				return false, errCondition
			}
			values, operand = append(values, holds[at]), false
		}
	}
	for i := len(ops) - 1; i >= 0 && err == nil; i-- {
		if ops[i] == "(" {
			return false, errCondition
		}
		apply(ops[i])
	}
	if err != nil || len(values) != 1 || operand {
		return false, errCondition
	}
	return values[0], nil
}

// quantified is "1 of sel_*", "all of them".
func quantified(quantity, pattern string, holds []bool) (bool, error) {
	total, n := 0, 0
	for i, name := range conditionSearches {
		if strings.HasPrefix(name, "_") && !strings.HasPrefix(pattern, "_") || !strings.EqualFold(pattern, "them") && !glob(pattern, name) {
			continue
		}
		total++
		if holds[i] {
			n++
		}
	}
	if total == 0 {
		return false, errCondition
	}
	switch quantity {
	case "all":
		return n == total, nil
	case "any":
		return n > 0, nil
	}
	want, err := strconv.Atoi(quantity)
	if err != nil || want < 1 {
		return false, errCondition
	}
	return n >= want, nil
}

func glob(pattern, name string) bool {
	if pattern == "" {
		return name == ""
	}
	if pattern[0] == '*' {
		return glob(pattern[1:], name) || name != "" && glob(pattern, name[1:])
	}
	return name != "" && pattern[0] == name[0] && glob(pattern[1:], name[1:])
}

func sameMeaning(t interface {
	Helper()
	Errorf(string, ...any)
}, text string,
) (understood bool) {
	t.Helper()
	parsed, ok := parsedCondition(text)
	for bits := range 1 << len(conditionSearches) {
		holds := make([]bool, len(conditionSearches))
		for i := range holds {
			holds[i] = bits>>i&1 != 0
		}
		want, err := plainly(text, holds)
		if ok != (err == nil) {
			t.Errorf("%q: parsed %v, and read plainly: %v", text, ok, err)
			return ok
		}
		if ok && parsed(holds) != want {
			t.Errorf("%q is %v where %v of %v hold", text, !want, holds, conditionSearches)
			return ok
		}
	}
	return ok
}

func TestAConditionMeansWhatItSays(t *testing.T) {
	understood := 0
	rapid.Check(t, func(t *rapid.T) {
		var words []string
		for range rapid.IntRange(1, 6).Draw(t, "operands") { // mostly sound
			words = append(words, rapid.SampledFrom([]string{"", "", "not ", "(", "not (", "not not "}).Draw(t, "before")+
				rapid.SampledFrom(append([]string{"1 of sel_*", "all of them", "2 of them", "any of _*"}, conditionSearches...)).Draw(t, "operand"))
			words = append(words, rapid.SampledFrom([]string{"and", "or", ") and", ") or", "and not"}).Draw(t, "after"))
		}
		text := strings.Join(words[:len(words)-1], " ")
		if open, closed := strings.Count(text, "("), strings.Count(text, ")"); open > closed {
			text += strings.Repeat(")", open-closed)
		}
		if sameMeaning(t, text) {
			understood++
		}
	})
	if understood < 10 {
		t.Errorf("only %d of the conditions were any", understood)
	}
}

func FuzzCondition(f *testing.F) {
	for _, c := range []string{
		"a", "a and b or sel_1", "not a or b and not (sel_1 or _x)", "1 of sel_* and not all of them", "not not a", "2 of them", "((a))", "a or (b and", "of them", "1 of", "a b", "3 of sel_*", "any of *", "NOT a AND b", "a | count() > 1", ")(",
	} {
		f.Add(c)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 200 || strings.ContainsAny(text, "|\x00") || strings.Count(text, "(")+strings.Count(strings.ToLower(text), "not") > 30 {
			return // an aggregation, or nested deeper than is read
		}
		for _, r := range text {
			if r < ' ' && !strings.ContainsRune("\t\r\n", r) || r > '~' {
				return // YAML has its own mind about these
			}
		}
		sameMeaning(t, text)
	})
}
