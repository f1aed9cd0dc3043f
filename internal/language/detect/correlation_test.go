package detect_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast/internal/language/detect"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// logins are the base rules of the correlations below.
const logins = `
title: Failed login
id: failed
name: failed
logsource: {product: test}
detection:
  s: {action: fail}
  condition: s
---
title: Successful login
id: success
name: success
logsource: {product: test}
detection:
  s: {action: ok}
  condition: s
---
`

var loginClass = (&ocsf.Class{
	UID: 7, Name: "login", Sources: []ocsf.Source{{LogSource: ocsf.LogSource{Product: "test"}, When: -1}},
	Fields: []ocsf.Field{{Path: "action"}, {Path: "user"}, {Path: "peer"}, {Path: "bytes"}, {Path: "account"}},
}).Index()

// login makes an event at a second of the test's day.
func login(second int, action, user, peer string, size int64) *ocsf.Event {
	ev := &ocsf.Event{Class: loginClass.UID, Time: time.Unix(1_700_000_000+int64(second), 0), Values: []ocsf.Value{
		ocsf.StringValue(action), ocsf.StringValue(user), ocsf.StringValue(peer), ocsf.IntValue(size), ocsf.StringValue(user),
	}}
	return ev
}

func loginEngine(t *testing.T, correlations string) *detect.Engine {
	t.Helper()
	return compile(t, logins+correlations, detect.Options{Classes: []*ocsf.Class{loginClass}})
}

// story plays lines "second action user [peer] [bytes]" and returns what
// matched, as "second:id".
func story(v *detect.Evaluator, lines ...string) string {
	var got []string
	for _, line := range lines {
		var second int
		var action, user, peer string
		var size int64
		fmt.Sscan(line, &second, &action, &user, &peer, &size)
		v.Evaluate(login(second, action, user, peer, size), func(m *detect.Match) {
			got = append(got, fmt.Sprintf("%d:%s", second, m.Rule.ID))
		})
	}
	return strings.Join(got, " ")
}

func correlationOf(kind, rest string) string {
	return "title: C\nid: c\ncorrelation:\n  type: " + kind + "\n  group-by: [user]\n  timespan: 60s\n" + rest
}

func TestCorrelations(t *testing.T) {
	three := []string{"0 fail ann a 5", "10 fail ann b 6", "20 fail ann c 7"}
	for name, c := range map[string]struct {
		rule  string
		lines []string
		want  string
	}{
		"event_count fires when the count is reached, once": {
			correlationOf("event_count", "  rules: [failed]\n  condition: {gte: 3}\n"), append(three, "30 fail ann d 1"), "20:c",
		},
		"event_count forgets what left the window": {
			correlationOf("event_count", "  rules: [failed]\n  condition: {gte: 3}\n"), []string{"0 fail ann", "10 fail ann", "61 fail ann", "69 fail ann"}, "69:c",
		},
		"event_count fires again a timespan later": {
			correlationOf("event_count", "  rules: [failed]\n  condition: {gte: 2}\n"), []string{"0 fail ann", "30 fail ann", "60 fail ann", "90 fail ann"}, "30:c 90:c",
		},
		"groups are apart": {
			correlationOf("event_count", "  rules: [failed]\n  condition: {gte: 2}\n"), []string{"0 fail ann", "1 fail bob", "2 fail bob"}, "2:c",
		},
		"a range": {
			correlationOf("event_count", "  rules: [failed]\n  condition: {gt: 1, lte: 2}\n"), three, "10:c",
		},
		"value_count counts distinct values": {
			correlationOf("value_count", "  rules: [failed]\n  condition: {field: peer, gte: 3}\n"), []string{"0 fail ann a", "1 fail ann a", "2 fail ann b", "3 fail ann c"}, "3:c",
		},
		"value_count of two fields counts pairs": {
			correlationOf("value_count", "  rules: [failed]\n  condition: {field: [peer, bytes], gte: 3}\n"), []string{"0 fail ann a 1", "1 fail ann a 2", "2 fail ann a 2", "3 fail ann b 2"}, "3:c",
		},
		"value_sum": {
			correlationOf("value_sum", "  rules: [failed]\n  condition: {field: bytes, gt: 17}\n"), three, "20:c",
		},
		"value_avg": {
			correlationOf("value_avg", "  rules: [failed]\n  condition: {field: bytes, gte: 6}\n"), three, "20:c",
		},
		"value_percentile of a number": {
			correlationOf("value_percentile", "  rules: [failed]\n  condition: {field: bytes, percentile: 50, gte: 6}\n"), three, "20:c",
		},
		"value_percentile without one is how rare the value is": {
			correlationOf("value_percentile", "  rules: [failed]\n  condition: {field: peer, lte: 25}\n"), []string{"0 fail ann a", "1 fail ann a", "2 fail ann a", "3 fail ann b", "4 fail ann a"}, "3:c",
		},
		"temporal takes any order": {
			correlationOf("temporal", "  rules: [failed, success]\n"), []string{"0 ok ann", "50 fail ann", "200 fail ann", "300 ok ann"}, "50:c",
		},
		"temporal_ordered wants the order": {
			correlationOf("temporal_ordered", "  rules: [failed, success]\n"), []string{"0 ok ann", "10 fail ann", "20 ok ann"}, "20:c",
		},
		"temporal_ordered wants it within the timespan": {
			correlationOf("temporal_ordered", "  rules: [failed, success]\n"), []string{"0 fail ann", "61 ok ann"}, "",
		},
		"generate lets the rules stand alone too": {
			correlationOf("event_count", "  rules: [failed]\n  condition: {gte: 2}\n  generate: true\n"), []string{"0 fail ann", "1 fail ann"}, "0:failed 1:failed 1:c",
		},
		"chained": {
			"title: B\nid: b\nname: many\ncorrelation:\n  type: event_count\n  rules: [failed]\n  group-by: [user]\n  timespan: 60s\n  condition: {gte: 2}\n---\n" +
				correlationOf("temporal_ordered", "  rules: [many, success]\n"),
			[]string{"0 fail ann", "1 ok ann", "2 fail ann", "3 ok bob", "4 ok ann"},
			"4:c",
		},
		"aliases": {
			"title: C\nid: c\ncorrelation:\n  type: temporal\n  rules: [failed, success]\n  group-by: [who]\n  timespan: 60s\n  aliases:\n    who:\n      failed: user\n      success: peer\n",
			[]string{"0 fail ann x", "1 ok ann x", "2 ok bob ann"},
			"2:c",
		},
		"rules no correlation counts are findings": {
			correlationOf("event_count", "  rules: [failed]\n  condition: {gte: 2}\n"), []string{"0 ok ann"}, "0:success",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := story(loginEngine(t, c.rule).NewEvaluator(), c.lines...)
			if !strings.Contains(c.want, "success") {
				got = strings.Join(strings.Fields(dropIDs(got, "success")), " ")
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func dropIDs(got, id string) string {
	var kept []string
	for _, f := range strings.Fields(got) {
		if !strings.HasSuffix(f, ":"+id) {
			kept = append(kept, f)
		}
	}
	return strings.Join(kept, " ")
}

// A flood of groups stays within its bounds, and what is forgotten is counted.
func TestStateIsBoundedAndEvictionCounted(t *testing.T) {
	set := parse(t, logins+correlationOf("event_count", "  rules: [failed]\n  condition: {gte: 50}\n"))
	e, problems := detect.Compile(set, detect.Options{Classes: []*ocsf.Class{loginClass}, Correlation: detect.Bounds{Groups: 100, Entries: 200}})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	v := e.NewEvaluator()
	for i := range 5000 {
		story(v, fmt.Sprintf("%d fail user%d", i/100, i%1000))
	}
	if got := v.Evicted()["c"]; got < 4000 {
		t.Errorf("evicted %d groups, want most of 5,000", got)
	}
	saved, left := v.AppendState(nil, 1<<20)
	again := e.NewEvaluator()
	r, err := again.Restore(saved, time.Unix(1_700_000_000+50, 0))
	if err != nil || left != 0 || r.Groups == 0 || r.Groups > 100 {
		t.Errorf("kept %d groups (%d left out), and 100 is the bound: %v", r.Groups, left, err)
	}
	if got, want := again.Evicted()["c"], v.Evicted()["c"]; got != want {
		t.Errorf("after a restart %d evictions are counted, before it %d", got, want)
	}
	for i := range 49 {
		if got := story(v, fmt.Sprintf("%d fail ann", 100+i/10)); got != "" {
			t.Fatalf("fired after %d events: %s", i, got)
		}
	}
	if got := story(v, "106 fail ann"); got != "106:c" {
		t.Errorf("a group that is busy was lost: %q", got)
	}
}

func TestCorrelationProblems(t *testing.T) {
	circle := "title: A\nid: a\ncorrelation: {type: event_count, rules: [b], group-by: [user], timespan: 5m, condition: {gte: 2}}\n---\n" +
		"title: B\nid: b\ncorrelation: {type: event_count, rules: [c], group-by: [user], timespan: 5m, condition: {gte: 2}}\n---\n" +
		"title: C\nid: c\ncorrelation: {type: event_count, rules: [a], group-by: [user], timespan: 5m, condition: {gte: 2}}\n"
	for name, c := range map[string]struct{ rule, where, reason string }{
		"cyclic":        {circle, "test.yml:28:42", "the correlation counts itself: a counts b counts c counts a"},
		"missing rule":  {correlationOf("event_count", "  rules: [nobody]\n  condition: {gte: 3}\n"), "test.yml:24:11", `counts "nobody", which is not in this set`},
		"unknown field": {strings.Replace(correlationOf("event_count", "  rules: [failed]\n  condition: {gte: 3}\n"), "[user]", "[colour]", 1), "test.yml:18:1", "the field colour is unknown to the class login"},
		"too much":      {correlationOf("event_count", "  rules: [failed]\n  condition: {gte: 1000000}\n"), "test.yml:18:1", "needs 1000002 entries for one group"},
	} {
		t.Run(name, func(t *testing.T) {
			e, problems := detect.Compile(parse(t, logins+c.rule), detect.Options{Classes: []*ocsf.Class{loginClass}})
			if !slices.ContainsFunc(problems, func(p sigma.Problem) bool { return p.Where() == c.where && strings.Contains(p.Reason, c.reason) }) {
				t.Errorf("problems %v, want %s: %s", problems, c.where, c.reason)
			}
			if got := story(e.NewEvaluator(), "0 fail ann", "1 ok ann"); got != "0:failed 1:success" {
				t.Errorf("the other rules were affected: %q", got)
			}
		})
	}
}

func TestAPlaceholderWithoutAListIsAProblemOfItsRuleAlone(t *testing.T) {
	rule := "title: P\nid: p\nlogsource: {product: test}\ndetection:\n  s:\n    user|expand: '%Administrators%'\n  condition: s\n"
	set := parse(t, logins+rule)
	o := detect.Options{Classes: []*ocsf.Class{loginClass}}
	e, problems := detect.Compile(set, o)
	if len(problems) != 1 || problems[0].Where() != "test.yml:23:18" || !strings.Contains(problems[0].Reason, "%Administrators% has no list") {
		t.Errorf("problems %v", problems)
	}
	if got := story(e.NewEvaluator(), "0 fail ann"); got != "0:failed" {
		t.Errorf("the other rules were affected: %q", got)
	}
	o.Placeholders = map[string][]string{"Administrators": {"root", "adm_*"}}
	e, problems = detect.Compile(set, o)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if got := story(e.NewEvaluator(), "0 x adm_joe", "1 x ann", "2 x ROOT"); got != "0:p 2:p" {
		t.Errorf("got %q", got)
	}
}

// A filter takes away what it describes, whether its condition names it or
// negates it, from the rules it names and from no others.
func TestFilters(t *testing.T) {
	for name, c := range map[string]struct{ rules, condition, want string }{
		"named":       {"[failed]", "selection", "1:failed 2:success"},
		"negated":     {"[failed]", "not selection", "1:failed 2:success"},
		"any":         {"any", "selection", "1:failed"},
		"other rules": {"[success]", "selection", "0:failed 1:failed"},
	} {
		t.Run(name, func(t *testing.T) {
			e := loginEngine(t, "title: F\nlogsource: {product: test}\nfilter:\n  rules: "+c.rules+"\n  selection: {user|startswith: adm_}\n  condition: "+c.condition+"\n")
			if got := story(e.NewEvaluator(), "0 fail adm_joe", "1 fail ann", "2 ok adm_joe"); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	if _, problems := detect.Compile(parse(t, logins+"title: F\nlogsource: {product: test}\nfilter:\n  rules: [nobody]\n  selection: {user: a}\n  condition: selection\n"), detect.Options{Classes: []*ocsf.Class{loginClass}}); len(problems) != 1 || !problems[0].Warning {
		t.Errorf("a filter of a rule that is not there: %v", problems)
	}
}

// A rule over budget is suspended alone.
func TestSuspend(t *testing.T) {
	v := loginEngine(t, "title: T\nid: t\nlogsource: {product: test}\ndetection: {s: {user: ann}, condition: s}\n").NewEvaluator()
	if !v.Suspend("failed") || v.Suspend("nobody") {
		t.Error("Suspend knows the wrong rules")
	}
	if got := story(v, "0 fail ann", "1 ok ann"); got != "0:t 1:success 1:t" {
		t.Errorf("suspended, got %q", got)
	}
	v.Resume("failed")
	if got := story(v, "0 fail bob"); got != "0:failed" {
		t.Errorf("resumed, got %q", got)
	}
}

// Once warm, evaluating allocates nothing: matches, correlations that fire, and
// groups that come and go included.
func TestEvaluateAllocatesNothing(t *testing.T) {
	set := parse(t, logins+correlationOf("value_count", "  rules: [failed]\n  condition: {field: peer, gte: 3}\n")+"---\n"+
		"title: R\nid: r\nlogsource: {product: test}\ndetection: {s: {'peer|re': 'x{3}[0-9]+', bytes|gt: 5}, k: [keyword, 'k?y*d'], n: {peer|cidr: 10.0.0.0/8}, condition: 1 of them}\n")
	e, problems := detect.Compile(set, detect.Options{Classes: []*ocsf.Class{loginClass}, Correlation: detect.Bounds{Groups: 64, Entries: 512}})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	v := e.NewEvaluator()
	var events []*ocsf.Event
	for i := range 2000 {
		events = append(events, login(i, []string{"fail", "ok"}[i%2], fmt.Sprint("user", i%97), fmt.Sprint([]string{"xxx", "10.0.0.", "keyword", "é"}[i%4], i%13), int64(i%20)))
	}
	matched := 0
	run := func() {
		for _, ev := range events {
			v.Evaluate(ev, func(*detect.Match) { matched++ })
		}
	}
	for range 20 { // until every group's window has been as long as it gets
		run()
	}
	if n := testing.AllocsPerRun(3, run); n > 0 {
		t.Errorf("%v allocations in %d events", n, len(events))
	}
	if matched == 0 {
		t.Error("nothing matched")
	}
}

func TestCompileIsDeterministic(t *testing.T) {
	set := parse(t, logins+correlationOf("event_count", "  rules: [failed, success]\n  condition: {gte: 3}\n"))
	describe := func() string {
		e, problems := detect.Compile(set, detect.Options{Classes: []*ocsf.Class{loginClass}})
		return fmt.Sprintf("%v %v %v", e.Literals(loginClass.UID), e.Weak(), problems)
	}
	first := describe()
	for range 5 {
		if again := describe(); again != first {
			t.Fatalf("compiled to %s, then to %s", first, again)
		}
	}
}

// An older control plane checks rules against a newer manifest, and a newer one
// against an older.
func TestCheckNamesRuleFileLineAndField(t *testing.T) {
	set := parse(t, curlRule+"---\ntitle: Twin\nid: twin\nlogsource: {product: linux, category: process_creation}\ndetection:\n  s:\n    ParentCurrentDirectory: /tmp\n  condition: s\n")
	m := ocsf.Manifest("1.0", "linux/amd64")
	if ocsf.ProcessInputs == 20 {
		got := detect.Check(set, m, nil)
		if len(got) != 1 || got[0].Rule != "twin" || got[0].Field != "ParentCurrentDirectory" || got[0].Line != 20 || got[0].Stage != "static" {
			t.Errorf("problems %+v", got)
		}
		inputs := &m.Classes[0].Inputs
		*inputs = append(*inputs, m.Classes[0].Inputs[0])
		(*inputs)[20].Path = "process.parent_process.working_directory"
	}
	if got := detect.Check(set, m, nil); len(got) != 0 {
		t.Errorf("a build that promises 21 inputs was refused: %+v", got)
	}
}
