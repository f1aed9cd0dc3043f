package detect_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/detect"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
)

// reasons plays lines and returns the reasons of the last match, one a line:
// "search: field test [values] =counted".
func reasons(v *detect.Evaluator, lines ...string) (facts []holdfast.Fact, got string) {
	for i, line := range lines {
		var second int
		var action, user, peer string
		var size int64
		fmt.Sscan(line, &second, &action, &user, &peer, &size)
		v.Evaluate(login(second, action, user, peer, size), func(m *detect.Match) {
			if i < len(lines)-1 {
				return
			}
			var why []holdfast.Reason
			facts, why = m.Why()
			var b strings.Builder
			for _, r := range why {
				fmt.Fprintln(&b, strings.TrimRight(fmt.Sprintf("%s: %s %s %v =%s", r.Search, r.Field, r.Test, r.Fits, r.Counted), " ="))
			}
			got = strings.TrimSpace(b.String())
		})
	}
	return facts, got
}

func TestAFindingSaysWhichSearchMatchedWhat(t *testing.T) {
	for name, c := range map[string]struct{ detection, want string }{
		"values that fit, and no others": {
			"{who: {user: [bob, ann, eve]}, condition: who}", "who: user  [ann]",
		},
		"modifiers": {
			"{part: {'peer|contains|all': [a, bc]}, condition: part}", "part: peer contains|all [a bc]",
		},
		"searches that do not match, and those the condition excludes, are left out": {
			"{who: {user: ann}, other: {user: bob}, filter: {action: ok}, condition: (who or other) and not filter}", "who: user  [ann]",
		},
		"a search that the condition does not name is no reason": {
			"{who: {user: ann}, also: {peer: abc}, condition: who}", "who: user  [ann]",
		},
		"an alternative that fails as a whole is no reason, whatever of it matched": {
			"{any: [{user: ann, peer: zzz}, {action: fail}], condition: any}", "any: action  [fail]",
		},
		"one of many": {
			"{sel_a: {user: bob}, sel_b: {peer: abc}, sel_c: {action: fail}, condition: 1 of sel_*}", "sel_b: peer  [abc]\nsel_c: action  [fail]",
		},
		"keywords": {
			"{words: [nothing, ABC], condition: words}", "words: message  [ABC]",
		},
		"at most five values": {
			"{many: {'peer|contains': ['', a, b, c, ab, bc, abc]}, condition: many}", "many: peer contains [ a b c ab]",
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := compile(t, "title: R\nid: r\nlogsource: {product: test}\ndetection: "+c.detection+"\n", detect.Options{Classes: []*ocsf.Class{loginClass}})
			if _, got := reasons(e.NewEvaluator(), "0 fail ann abc 5"); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestACorrelationSaysWhatItCountedAndWhatCompletedIt(t *testing.T) {
	for name, c := range map[string]struct {
		rule  string
		lines []string
		want  string
	}{
		"event_count": {
			correlationOf("event_count", "  rules: [failed]\n  condition: {gte: 2}\n"),
			[]string{"0 fail ann a", "1 fail ann b"},
			"group-by: user  []\nevent_count:  gte 2 within 1m [] =2\nFailed login: s: action  [fail]",
		},
		"a field": {
			strings.Replace(correlationOf("value_sum", "  rules: [failed]\n  condition: {field: bytes, gt: 10, lte: 99}\n"), "60s", "3h", 1),
			[]string{"0 fail ann a 5", "1 fail ann b 7"},
			"group-by: user  []\nvalue_sum: bytes gt 10, lte 99 within 3h [] =12\nFailed login: s: action  [fail]",
		},
		"the input that completed it": {
			strings.Replace(correlationOf("temporal_ordered", "  rules: [failed, success]\n"), "60s", "10m", 1),
			[]string{"0 fail ann", "1 ok ann"},
			"group-by: user  []\ntemporal_ordered:  gte 2 within 10m [] =2\nSuccessful login: s: action  [ok]",
		},
		"its own alias": {
			"title: C\nid: c\ncorrelation:\n  type: temporal\n  rules: [failed, success]\n  group-by: [who]\n  timespan: 90s\n  aliases:\n    who:\n      failed: user\n      success: peer\n",
			[]string{"0 fail ann x", "1 ok bob ann"},
			"group-by: peer  []\ntemporal:  gte 2 within 1m30s [] =2\nSuccessful login: s: action  [ok]",
		},
		"chained": {
			"title: Many\nid: b\nname: many\ncorrelation:\n  type: event_count\n  rules: [failed]\n  group-by: [user]\n  timespan: 60s\n  condition: {gte: 2}\n---\n" +
				correlationOf("event_count", "  rules: [many]\n  condition: {gte: 1}\n"),
			[]string{"0 fail ann", "1 fail ann"},
			"group-by: user  []\nevent_count:  gte 1 within 1m [] =1\ngroup-by: user  []\nevent_count:  gte 2 within 1m [] =2\nFailed login: s: action  [fail]",
		},
	} {
		t.Run(name, func(t *testing.T) {
			facts, got := reasons(loginEngine(t, c.rule).NewEvaluator(), c.lines...)
			if got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			if !slices.ContainsFunc(facts, func(f holdfast.Fact) bool { return f.Field == "action" }) || !slices.ContainsFunc(facts, func(f holdfast.Fact) bool { return f.Value == "ann" }) {
				t.Errorf("the facts do not say who, and what: %v", facts)
			}
		})
	}
}
