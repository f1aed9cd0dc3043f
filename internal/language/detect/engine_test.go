package detect_test

import (
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/detect"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// parse reads rules that must be right.
func parse(t *testing.T, text string) sigma.Set {
	t.Helper()
	set, problems := sigma.Parse("test.yml", []byte(text))
	for _, p := range problems {
		t.Fatalf("problem: %v", p)
	}
	return set
}

// compile compiles rules that must be right.
func compile(t *testing.T, text string, o detect.Options) *detect.Engine {
	t.Helper()
	e, problems := detect.Compile(parse(t, text), o)
	for _, p := range problems {
		t.Fatalf("problem: %v", p)
	}
	return e
}

// launch is a process start with the given fields, by Sigma's names.
func launch(fields map[string]string) *ocsf.Event {
	class := ocsf.ProcessActivity()
	ev := &ocsf.Event{Class: class.UID, Values: make([]ocsf.Value, len(class.Fields))}
	ev.Values[ocsf.ActivityID] = ocsf.IntValue(ocsf.ActivityLaunch)
	for name, v := range fields {
		i, ok := class.Ordinal(name)
		if !ok {
			panic("no field " + name)
		}
		ev.Values[i] = ocsf.StringValue(v)
	}
	return ev
}

// matches returns the ids of what matches.
func matches(v *detect.Evaluator, ev *ocsf.Event) string {
	var ids []string
	v.Evaluate(ev, func(m *detect.Match) { ids = append(ids, m.Rule.ID) })
	return strings.Join(ids, " ")
}

const curlRule = `
title: Curl to a shell
id: curl
level: high
tags: [attack.execution, attack.t1059.004]
logsource: {product: linux, category: process_creation}
detection:
  selection:
    Image|endswith: [/curl, /wget]
    CommandLine|contains: ' http'
  filter:
    User: backup
  condition: selection and not filter
`

func TestARuleMatchesLaunchesOnly(t *testing.T) {
	v := compile(t, curlRule, detect.Options{}).NewEvaluator()
	fields := map[string]string{"Image": "/usr/bin/CURL", "CommandLine": "curl -s HTTP://x", "User": "root"}
	if got := matches(v, launch(fields)); got != "curl" {
		t.Errorf("matches = %q, want curl", got)
	}
	exit := launch(fields)
	exit.Values[ocsf.ActivityID] = ocsf.IntValue(ocsf.ActivityTerminate)
	if got := matches(v, exit); got != "" {
		t.Errorf("a process that ends matched %q", got)
	}
	fields["User"] = "Backup"
	if got := matches(v, launch(fields)); got != "" {
		t.Errorf("the filter did not filter: %q", got)
	}
}

func TestAMatchSaysWhichFieldsMatched(t *testing.T) {
	v := compile(t, curlRule, detect.Options{}).NewEvaluator()
	var facts []holdfast.Fact
	v.Evaluate(launch(map[string]string{"Image": "/usr/bin/curl", "CommandLine": "curl http://x", "User": "root"}), func(m *detect.Match) {
		facts = m.Facts()
		if got := m.Rule.Techniques; !cmp.Equal(got, []string{"T1059.004"}) {
			t.Errorf("techniques = %v", got)
		}
	})
	want := []holdfast.Fact{{Field: "process.file.path", Value: "/usr/bin/curl"}, {Field: "process.cmd_line", Value: "curl http://x"}}
	if d := cmp.Diff(want, facts); d != "" {
		t.Error(d)
	}
}

func TestAnUnknownFieldIsAProblemOfItsRuleAlone(t *testing.T) {
	set := parse(t, curlRule+`---
title: Twin
id: twin
logsource: {product: linux, category: process_creation}
detection:
  s:
    NoSuchField: /tmp
  condition: s
`)
	e, problems := detect.Compile(set, detect.Options{})
	if len(problems) != 1 || problems[0].Rule != "twin" || problems[0].Field != "NoSuchField" || problems[0].Where() != "test.yml:20:5" {
		t.Fatalf("problems = %+v", problems)
	}
	if got := matches(e.NewEvaluator(), launch(map[string]string{"Image": "/usr/bin/curl", "CommandLine": "curl http://x"})); got != "curl" {
		t.Errorf("matches = %q, want curl", got)
	}
}

// A field is looked at if a rule has nothing else to go by. Leaving others out
// must lose no match, and make no rule one that people are told to mend.
func TestFieldsThatFewRulesNeedAreLeftOut(t *testing.T) {
	e := compile(t, curlRule+`---
title: From a shell of a mail server
id: mail
logsource: {product: linux, category: process_creation}
detection:
  s:
    ParentImage|endswith: /postfix-shell
    User: [postfix, www-data]
  condition: s
---
title: By nobody
id: nobody
logsource: {product: linux, category: process_creation}
detection:
  s:
    Image|endswith: /nc.traditional
    ParentUser|startswith: nobody
  condition: s
`, detect.Options{})
	class := ocsf.ProcessActivity()
	looked := e.Literals(class.UID)
	for name, want := range map[string]bool{"ParentImage": true, "User": false, "ParentUser": false} {
		f, ok := class.Ordinal(name)
		if !ok {
			t.Fatalf("no field %s", name)
		}
		if got := looked[f] != nil; got != want {
			t.Errorf("%s is looked at: %v, for %q", name, got, looked[f])
		}
	}
	if len(e.Weak()) != 0 {
		t.Errorf("weak: %v", e.Weak())
	}
	v := e.NewEvaluator()
	for _, c := range []struct {
		want   string
		fields map[string]string
	}{
		{"curl", map[string]string{"Image": "/usr/bin/curl", "CommandLine": "curl http://x", "User": "root"}},
		{"", map[string]string{"Image": "/usr/bin/curl", "CommandLine": "curl http://x", "User": "BACKUP"}},
		{"mail", map[string]string{"Image": "/bin/id", "ParentImage": "/usr/lib/Postfix-Shell", "User": "Postfix"}},
		{"", map[string]string{"Image": "/bin/id", "ParentImage": "/usr/lib/postfix-shell", "User": "postfixed"}},
		{"nobody", map[string]string{"Image": "/bin/nc.traditional", "ParentUser": "Nobody4"}},
		{"", map[string]string{"Image": "/bin/nc.traditional", "ParentUser": "anybody"}},
	} {
		if got := matches(v, launch(c.fields)); got != c.want {
			t.Errorf("%v matches %q, want %q", c.fields, got, c.want)
		}
	}
}

// Not even a garbage collection, which empties pools, makes the next event cost
// an allocation.
func TestEvaluatingAllocatesNothing(t *testing.T) {
	e, problems := detect.Compile(parse(t, curlRule+`---
title: Many states
id: states
logsource: {product: linux, category: process_creation}
detection:
  s:
    CommandLine|re: 'curl .{2,128} -o .{1,64}\\(tmp|shm)'
    pid|gt: 1
  t:
    CommandLine|contains: [one, two, three, four, five, six, seven]
    ParentImage|fieldref: Image
  condition: s or t
`), detect.Options{})
	if len(problems) != 0 {
		t.Fatal(problems)
	}
	v, seen := e.NewEvaluator(), 0
	ev := launch(map[string]string{"Image": "/usr/bin/curl", "ParentImage": "/bin/sh", "CommandLine": `curl http://é/ -s -o x\tmp`, "pid": "7"})
	sink := func(*detect.Match) { seen++ }
	n := testing.AllocsPerRun(10, func() {
		runtime.GC()
		v.Evaluate(ev, sink)
	})
	if n != 0 || seen != 11*2 {
		t.Errorf("%v allocations an event, %d matches", n, seen)
	}
}
