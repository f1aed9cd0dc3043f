package content_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/holdfast-security/holdfast/content"
	"github.com/holdfast-security/holdfast/internal/language/bundle"
	"github.com/holdfast-security/holdfast/internal/language/detect"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

func pack(t testing.TB) *bundle.Bundle {
	t.Helper()
	b, err := bundle.FromRepository(content.Default, "test")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// compile compiles the pack's rules, one engine each and all together.
func compile(t testing.TB, b *bundle.Bundle) (all *detect.Engine, each map[string]*detect.Engine) {
	t.Helper()
	var set sigma.Set
	each = map[string]*detect.Engine{}
	for _, p := range b.Paths("rules") {
		one, problems := sigma.Parse(p, b.Files[p])
		e, more := detect.Compile(one, detect.Options{})
		for _, problem := range append(problems, more...) {
			t.Error(problem)
		}
		each[p] = e
		set.Add(one)
	}
	all, problems := detect.Compile(set, detect.Options{})
	for _, p := range problems {
		t.Error(p)
	}
	return all, each
}

// launch makes an event of the fields people write in tests.
func launch(t testing.TB, where string, e bundle.Event) *ocsf.Event {
	t.Helper()
	class := ocsf.ProcessActivity()
	values := make([]ocsf.Value, len(class.Fields))
	values[ocsf.ActivityID] = ocsf.IntValue(ocsf.ActivityLaunch)
	for name, text := range e {
		i, ok := class.Ordinal(name)
		if !ok || class.Fields[i].Type != "string" {
			t.Fatalf("%s: %s is not a text field of a process's launch", where, name)
		}
		values[i] = ocsf.StringValue(text)
	}
	return &ocsf.Event{Class: class.UID, Values: values}
}

func matches(e *detect.Engine, ev *ocsf.Event) []string {
	var titles []string
	e.NewEvaluator().Evaluate(ev, func(m *detect.Match) { titles = append(titles, m.Rule.Title) })
	return titles
}

func TestEveryRuleMatchesItsOwnEventsAndNoOthers(t *testing.T) {
	b := pack(t)
	_, each := compile(t, b)
	cases, err := b.Cases()
	if err != nil {
		t.Fatal(err)
	}
	tested := map[string]bool{}
	for _, c := range cases {
		tested[c.Rule] = true
		if len(c.Match) < 2 || len(c.NoMatch) < 2 {
			t.Errorf("%s: %d matching and %d other events; at least two of each are needed", c.File, len(c.Match), len(c.NoMatch))
		}
		for i, e := range c.Match {
			where := fmt.Sprintf("%s: match %d", c.File, i+1)
			if len(matches(each[c.Rule], launch(t, where, e))) == 0 {
				t.Errorf("%s is not found: %v", where, e)
			}
		}
		for i, e := range c.NoMatch {
			where := fmt.Sprintf("%s: no_match %d", c.File, i+1)
			if len(matches(each[c.Rule], launch(t, where, e))) != 0 {
				t.Errorf("%s is found: %v", where, e)
			}
		}
	}
	for _, p := range b.Paths("rules") {
		if !tested[p] {
			t.Errorf("%s has no tests", p)
		}
	}
	if n := len(b.Paths("rules")); n < 30 {
		t.Errorf("%d rules", n)
	}
}

func TestNoRuleFindsBenignEvents(t *testing.T) {
	b := pack(t)
	all, _ := compile(t, b)
	n := 0
	err := b.Benign(func(file string, line int, e bundle.Event) error {
		n++
		where := fmt.Sprintf("%s:%d", file, line)
		for _, title := range matches(all, launch(t, where, e)) {
			t.Errorf("%s: %q finds %v", where, title, e)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n < 300 {
		t.Errorf("a corpus of %d events says little", n)
	}
}

func TestRulesSayWhatAnAnalystNeeds(t *testing.T) {
	all, _ := compile(t, pack(t))
	ids := map[string]bool{}
	for _, r := range all.Rules() {
		m := r.Source.Meta
		if len(m.ID) != 36 || ids[m.ID] {
			t.Errorf("%s: the id %q is no UUID, or used twice", m.File, m.ID)
		}
		ids[m.ID] = true
		if m.Description == "" || m.Level == "" || len(m.FalsePositives) == 0 || len(r.Techniques) == 0 || m.Author == "" {
			t.Errorf("%s: needs a description, a level, notes on false positives, an author and an ATT&CK technique", m.File)
		}
	}
}

func TestThePastedLineIsFound(t *testing.T) {
	all, _ := compile(t, pack(t))
	found := matches(all, launch(t, "paste", bundle.Event{
		"Image": "/usr/bin/" + strings.TrimPrefix(strings.Fields(content.Paste)[0], "/bin/"), "CommandLine": content.Paste,
	}))
	if len(found) != 1 {
		t.Errorf("%q is found by %v", content.Paste, found)
	}
}

// BenchmarkBenign is what an event costs a host that runs the pack.
func BenchmarkBenign(b *testing.B) {
	p := pack(b)
	all, _ := compile(b, p)
	var events []*ocsf.Event
	err := p.Benign(func(file string, line int, e bundle.Event) error {
		events = append(events, launch(b, file, e))
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	v := all.NewEvaluator()
	sink := func(*detect.Match) {}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		v.Evaluate(events[i], sink)
		if i++; i == len(events) {
			i = 0
		}
	}
}
