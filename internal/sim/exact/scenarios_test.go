package exact

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/sim"
)

const scenarios = "../../../docs/scenarios"

func scenario(t *testing.T, name, text string) sim.Scenario {
	t.Helper()
	s, err := sim.ParseScenario(name, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Plays(s.Fidelity); err != nil {
		t.Fatal(err)
	}
	return s
}

func example(t *testing.T, name string) sim.Scenario {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(scenarios, name))
	if err != nil {
		t.Fatal(err)
	}
	return scenario(t, name, string(b))
}

// TestEveryExampleIsPlayed: what lies in docs/scenarios can be played as it is,
// and keeps every promise.
func TestEveryExampleIsPlayed(t *testing.T) {
	files, err := filepath.Glob(scenarios + "/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("there are no examples", err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			s := example(t, filepath.Base(f))
			if s.Fidelity == sim.Exact {
				play(t, s.Policy, s.World)
			} else if _, err := sim.Counts(s.Policy, s.World); err != nil {
				t.Error(err)
			}
		})
	}
	doc, err := os.ReadFile("../../../docs/halting.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(doc), "## Scenarios")
	blocks := strings.Split(text, "```yaml\n")
	if len(blocks) < 4 {
		t.Fatal("docs/halting.md shows fewer scenarios than it did")
	}
	for i, b := range blocks[1:4] {
		b, _, _ = strings.Cut(b, "```")
		if i > 0 { // it shows only what is new
			b = "fidelity: exact\nfleet: {kinds: [{organisation: acme, hosts: 5}]}\nuntil: 8h\n" + b
		}
		scenario(t, "halting.md", b)
	}
}

// TestPoliciesOfTheExample: each group takes the release when its organisation
// says, by the clock on its wall.
func TestPoliciesOfTheExample(t *testing.T) {
	s := example(t, "policies.yaml")
	o := play(t, s.Policy, s.World)
	if o.Phase != holdfast.Complete {
		t.Errorf("%s: %s", o.Phase, o.Why)
	}
	// Approved on Friday at 14:00, signed two hours before; the last ring opens
	// three hours after that.
	for _, c := range []struct {
		org         holdfast.OrgID
		group       string
		hosts       int
		first, last time.Duration
	}{
		{"acme", "", 5, time.Hour, 3 * time.Hour},
		{"acme", "laboratory", 15, 0, 3 * time.Hour},
		{"acme", "trading floor", 25, 26 * time.Hour, 30 * time.Hour}, // Saturday, 18:00 in Berlin
		{"default", "", 30, 0, 3 * time.Hour},
		{"globex", "all", 15, 5 * time.Hour, 8 * time.Hour},
	} {
		found := false
		for _, g := range o.Groups {
			if g.Org == c.org && g.Group == c.group {
				found = g.Hosts == c.hosts && g.Had == c.hosts && g.First >= c.first && g.Last <= c.last
			}
		}
		if !found {
			t.Errorf("want %+v, got %+v", c, o.Groups)
		}
	}
}

// TestBothFidelitiesKeepToPolicies: the same groups have the release, and begin
// to at about the same time.
func TestBothFidelitiesKeepToPolicies(t *testing.T) {
	s := scenario(t, "both.yaml", `seed: 5
until: 9h
begins: 2026-10-24T22:30:00Z
fleet:
  kinds:
    - {organisation: early, hosts: 60}
    - {organisation: paused, hosts: 60}
    - {organisation: night, role: server, hosts: 40}
    - {organisation: night, role: laptop, hosts: 20}
    - {hosts: 60}
release: {signals: [crash], signed: 1h, rings: [{name: internal, through: 20%}, {name: all, through: 100%, soak: 2h}]}
policies:
  - policy: {organisation: early, version: 1, groups: [{name: all, channels: {rules: {track: early}}}]}
  - policy: {organisation: paused, version: 1, groups: [{name: all, channels: {rules: {track: pause}}}]}
  - policy:
      organisation: night
      version: 1
      groups:
        - name: servers
          where: {role: server}
          channels: {rules: {track: delay, delay: 2h}}
          windows: [{days: [sun], from: "03:00", to: "05:00", zone: Europe/Berlin}] # clocks are put back then
`)
	e := play(t, s.Policy, s.World)
	o, err := sim.Counts(s.Policy, s.World)
	if err != nil {
		t.Fatal(err)
	}
	if e.Phase != holdfast.Complete || o.Phase != holdfast.Complete || len(e.Groups) != 5 || len(o.Groups) != 5 {
		t.Fatalf("exact %s %+v, counts %s %+v", e.Phase, e.Groups, o.Phase, o.Groups)
	}
	for i, g := range e.Groups {
		c := o.Groups[i]
		if g.Org != c.Org || g.Group != c.Group || g.Hosts != c.Hosts || g.Had != c.Had || (g.First-c.First).Abs() > time.Hour {
			t.Errorf("exact %+v, counts %+v", g, c)
		}
		if at := 3*time.Hour + 30*time.Minute; g.Group == "servers" && (g.First < at || g.First > at+30*time.Minute || c.First < at || c.First > at+30*time.Minute) {
			t.Errorf("03:00 in Berlin is %s after the approval: exact %s, counts %s", at, g.First, c.First)
		}
	}
}
