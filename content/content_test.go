package content_test

import (
	"strings"
	"testing"

	"github.com/holdfast-security/holdfast/content"
	"github.com/holdfast-security/holdfast/internal/language/bundle"
	"github.com/holdfast-security/holdfast/internal/language/detect"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/ruletest"
)

func pack(t testing.TB) *bundle.Bundle {
	t.Helper()
	b, err := bundle.FromRepository(content.Default, "test")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func compile(t testing.TB, b *bundle.Bundle) *detect.Engine {
	t.Helper()
	e, _, problems := ruletest.Load(b)
	for _, p := range problems {
		t.Error(p)
	}
	return e
}

func launch(t testing.TB, e bundle.Event) *ocsf.Event {
	t.Helper()
	ev, err := ocsf.ProcessActivity().FromWritten(e)
	if err != nil {
		t.Fatal(err)
	}
	return ev
}

func TestPackPassesItsOwnTests(t *testing.T) {
	b := pack(t)
	r, err := ruletest.Run(b)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range append(r.Problems, r.Warnings...) {
		t.Errorf("%s: %s", p.File, p.Reason)
	}
	if len(r.Untested) > 0 {
		t.Errorf("without tests: %v", r.Untested)
	}
	if len(r.Weak) > 2 {
		t.Errorf("expensive on every host: %v", r.Weak)
	}
	if r.Rules < 50 || r.Benign < 300 {
		t.Errorf("%d rules, %d benign events", r.Rules, r.Benign)
	}
	cases, err := b.Cases()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		if len(c.Match) < 2 || len(c.NoMatch) < 2 {
			t.Errorf("%s: %d matching and %d other events; at least two of each are needed", c.File, len(c.Match), len(c.NoMatch))
		}
	}
	t.Logf("%d rules, %d events found, %d others, %d benign", r.Rules, r.Matched, r.Silent, r.Benign)
}

func TestRulesSayWhatAnAnalystNeeds(t *testing.T) {
	all := compile(t, pack(t))
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
	all := compile(t, pack(t))
	var found []string
	all.NewEvaluator().Evaluate(launch(t, bundle.Event{
		"Image": "/usr/bin/" + strings.TrimPrefix(strings.Fields(content.Paste)[0], "/bin/"), "CommandLine": content.Paste,
	}), func(m *detect.Match) { found = append(found, m.Rule.Title) })
	if len(found) != 1 {
		t.Errorf("%q is found by %v", content.Paste, found)
	}
}

// BenchmarkBenign is what an event costs a host that runs the pack.
func BenchmarkBenign(b *testing.B) {
	p := pack(b)
	all := compile(b, p)
	var events []*ocsf.Event
	err := p.Benign(func(_ string, _ int, e bundle.Event) error {
		events = append(events, launch(b, e))
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
