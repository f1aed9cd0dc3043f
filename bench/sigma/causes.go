package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	sigmago "github.com/bradleyjkemp/sigma-go"
	"github.com/bradleyjkemp/sigma-go/evaluator/modifiers"

	"github.com/holdfast-security/holdfast/internal/language/detect/reference"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// cause is why two engines differ, and the sentence that decides: of the Sigma
// Rules Specification, version 2.1.0, or of its appendix on modifiers.
type cause struct{ what, section, sentence string }

var (
	escapes = cause{
		"A backslash before a backslash or wildcard is an escape. sigma-go compares it as written.",
		"Rules, Detection, Escape Character",
		"The backslash character `\\` is used for escaping of wildcards `*` and `?` as well as the backslash character itself.",
	}
	wildcards = cause{
		"`*` and `?` in a value stand for other characters. sigma-go compares them as written.",
		"Rules, Detection, General",
		"You can use wildcard characters `*` and `?` in strings.",
	}
	nulls = cause{
		"null is a field without a value. sigma-go compares with the text “null”, or with nothing.",
		"Rules, Detection, Special Field Values",
		"A null value is defined with `null`.",
	}
	empties = cause{
		"The empty text is a value; a field that is absent has none. sigma-go takes both for the same.",
		"Rules, Detection, Special Field Values",
		"An empty value is defined with `''`.",
	}
	folding = cause{
		"Letters beyond ASCII are folded too.",
		"Rules, Detection, General",
		"All values are treated as case-insensitive strings.",
	}
	expressions = cause{
		"A regular expression is case-sensitive unless it says otherwise.",
		"Modifiers, Regular Expression",
		"Regex is matched case-sensitive by default.",
	}
	numbers = cause{
		"Numbers are compared as numbers.",
		"Modifiers, Numeric Modifiers",
		"Field is less than the value.",
	}
	conditions = cause{
		"Each part of the rule has the same verdict in both: they are combined differently.",
		"Rules, Condition",
		"Operator Precedence (least to most binding).",
	}
	absents = cause{
		"A field that the event lacks has no text. sigma-go compares with the text “<nil>”.",
		"Modifiers, Generic Modifiers, `contains`",
		"… such that the value is matched anywhere in the field.",
	}
	unexplained = cause{"No single part of the rule explains it.", "", ""}
)

// causeOf finds the value of the rule about which the engines differ on an
// event, each value asked alone, and names the cause by what the value holds.
func causeOf(rule sigmago.Rule, ref reference.Event, event map[string]any) cause {
	for _, name := range slices.Sorted(maps.Keys(rule.Detection.Searches)) {
		for _, matcher := range rule.Detection.Searches[name].EventMatchers {
			for _, field := range matcher {
				for _, v := range field.Values {
					if c, differ := differs(field, v, ref, event); differ {
						return c
					}
				}
			}
		}
	}
	return conditions
}

func differs(field sigmago.FieldMatcher, v any, ref reference.Event, event map[string]any) (cause, bool) {
	mods := slices.DeleteFunc(slices.Clone(field.Modifiers), func(m string) bool { return m == "all" })
	compare, err := modifiers.GetComparator(field.Field, nil, mods...)
	if err != nil {
		return unexplained, false
	}
	text := fmt.Sprint(v)
	if v == nil {
		text = "null"
	}
	there, _ := compare(event[field.Field], text)
	value, err := json.Marshal(v)
	if err != nil {
		return unexplained, false
	}
	key := strings.Join(append([]string{field.Field}, mods...), "|")
	set, problems := sigma.Parse("one.yml", fmt.Appendf(nil, "title: one\nid: one\nlogsource: {product: any}\ndetection: {s: {%q: %s}, condition: s}\n", key, value))
	if len(set.Rules) == 0 {
		return cause{what: "the value alone is no rule: " + fmt.Sprint(problems)}, false
	}
	if here := reference.Matches(&set.Rules[0].Detection, ref, nil); here == there {
		return cause{}, false
	}
	_, present := event[field.Field]
	switch {
	case v == nil:
		return nulls, true
	case !present && strings.Contains("<nil>", strings.ToLower(text)):
		return absents, true
	case text == "":
		return empties, true
	case slices.Contains(mods, "re"):
		return expressions, true
	case slices.ContainsFunc(mods, func(m string) bool { return slices.Contains([]string{"lt", "lte", "gt", "gte"}, m) }):
		return numbers, true
	case wild(text):
		return wildcards, true
	case strings.Contains(text, `\\`) || strings.Contains(text, `\*`) || strings.Contains(text, `\?`):
		return escapes, true
	case strings.ContainsFunc(text, func(r rune) bool { return r > 127 }):
		return folding, true
	}
	return cause{what: fmt.Sprintf("The test %s of the field %s.", strings.Join(mods, "|"), field.Field)}, true
}

// wild says whether a value has a wildcard that is not escaped.
func wild(text string) bool {
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '\\' && i+1 < len(text) && strings.IndexByte(`\*?`, text[i+1]) >= 0:
			i++
		case text[i] == '*' || text[i] == '?':
			return true
		}
	}
	return false
}

func (a *agreement) print(w io.Writer) {
	fmt.Fprintf(w, "%d verdicts, %d of them not those of the naive reference, and %d (of %d rules) not those of\nsigma-go v0.6.6.\n",
		a.Verdicts, a.WithReference, a.WithSigmaGo, len(a.disagreements))
	by := map[cause][]*disagreement{}
	for _, d := range a.disagreements {
		by[d.cause] = append(by[d.cause], d)
	}
	causes := slices.SortedFunc(maps.Keys(by), func(x, y cause) int { return cmp.Or(cmp.Compare(len(by[y]), len(by[x])), cmp.Compare(x.what, y.what)) })
	for _, c := range causes {
		fmt.Fprintf(w, "\n**%s**", c.what)
		if c.section != "" {
			fmt.Fprintf(w, " %s: “%s”", c.section, c.sentence)
		}
		fmt.Fprint(w, "\n\n| Rule | here | sigma-go | events |\n|---|---|---|---|\n")
		ds := by[c]
		slices.SortFunc(ds, func(x, y *disagreement) int { return cmp.Compare(x.rule.ID, y.rule.ID) })
		for _, d := range ds {
			fmt.Fprintf(w, "| `%s` | %s | %s | %d |\n", d.rule.ID, verdict(d.ours), verdict(!d.ours), d.count)
		}
	}
	fmt.Fprintf(w, "\nsigma-go gave no verdict in %d further cases:\n\n| Why | Rules |\n|---|---|\n", a.SigmaGoErrors)
	for _, why := range slices.SortedFunc(maps.Keys(a.noVerdict), func(x, y string) int {
		return cmp.Or(cmp.Compare(len(a.noVerdict[y]), len(a.noVerdict[x])), cmp.Compare(x, y))
	}) {
		ids := slices.Sorted(maps.Keys(a.noVerdict[why]))
		fmt.Fprintf(w, "| %s | %d", why, len(ids))
		if len(ids) <= 8 {
			fmt.Fprintf(w, ": `%s`", strings.Join(ids, "`, `"))
		}
		fmt.Fprintln(w, " |")
	}
}

func verdict(matches bool) string {
	if matches {
		return "matches"
	}
	return "does not"
}
