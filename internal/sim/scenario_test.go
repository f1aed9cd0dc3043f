package sim

import (
	"strings"
	"testing"

	"github.com/holdfast-security/holdfast"
)

const goodScenario = `name: a tenth of one kernel
seed: 7
until: 8h
server: {crash: 5%}
fleet:
  kinds:
    - {kernel: "6.1", distro: debian-12, role: server, hosts: 9000}
    - {kernel: "6.8", distro: ubuntu-24.04, role: laptop, hosts: 3000, offline: 500, silence: 0.5%}
release:
  profile: urgent
  signals: [silence, crash]
  rings:
    - {name: internal, through: 5%}
    - {name: all, through: 100%, soak: 15m}
faults:
  - {kind: dead, share: 10%, where: {kernel: "6.8"}}
outages:
  - {of: server, from: 12m, for: 5m}
`

func TestScenarioRuns(t *testing.T) {
	s, err := ParseScenario("a.yaml", []byte(goodScenario))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Plays(InCounts); err != nil {
		t.Fatal(err)
	}
	a, err := Counts(s.Policy, s.World)
	if err != nil {
		t.Fatal(err)
	}
	if a.Phase != holdfast.Halted || a.Broken == 0 || a.Broken > 40 {
		t.Errorf("phase %s with %d broken hosts: want halted with few", a.Phase, a.Broken)
	}
	b, err := Counts(s.Policy, s.World)
	if err != nil {
		t.Fatal(err)
	}
	if a.Exposed != b.Exposed || a.Broken != b.Broken || a.Decided != b.Decided || a.Evidence != b.Evidence {
		t.Errorf("the same seed gave another run: %+v and %+v", a, b)
	}
}

func TestScenarioErrorsNameTheLine(t *testing.T) {
	for _, c := range []struct{ name, old, new, want string }{
		{"unknown field", "{crash: 5%}", "{clash: 5%}", `a.yaml:4: there is no field "clash" here`},
		{"unknown field of a kind", "offline: 500", "ofline: 500", `a.yaml:8: there is no field "ofline" here`},
		{"unknown field of a fault", "share: 10%", "shard: 10%", `a.yaml:16: there is no field "shard" here`},
		{"unknown field of a selection", `where: {kernel: "6.8"}`, `where: {kernal: "6.8"}`, `a.yaml:16: there is no field "kernal" here`},
		{"bad duration", "until: 8h", "until: soon", `a.yaml:3: "soon" is not a duration`},
		{"bad share", "share: 10%,", "share: 110%,", `a.yaml:16: "110%" is not a share`},
		{"selects nothing", `where: {kernel: "6.8"}`, `where: {kernel: "7.0"}`, "a.yaml:16: where selects no host"},
		{"unknown fault", "kind: dead", "kind: tired", `a.yaml:16: "tired" is not a kind of fault`},
		{"mute later", "kind: dead,", "kind: mute, soonest: 5m,", "a.yaml:16: what never reaches the server does so from its start"},
		{"a stratum that is none", `kernel: "6.1", distro: debian-12, role: server`, "stratum: 6.1", `a.yaml:7: "6.1" is not a stratum`},
		{"unknown profile", "profile: urgent", "profile: hasty", "a.yaml:"},
		{"unknown signal", "[silence, crash]", "[silence, boredom]", "a.yaml:"},
		{"rings end early", "through: 100%", "through: 90%", "a.yaml:14: "},
		{"outage of nothing", "of: server", "of: moon", "a.yaml:18: "},
		{"negative hosts", "hosts: 9000", "hosts: -1", "a.yaml:7: "},
		{"server for some", "of: server", "of: server, share: 5%", "a.yaml:18: the server is away for everybody"},
		{"stratum without where", "of: server", "of: stratum", "a.yaml:18: an outage of a stratum needs where"},
		{"unknown fidelity", "seed: 7", "fidelity: vague", `a.yaml:2: "vague" is not a fidelity`},
		{"unknown lie", "seed: 7", "hostile: [{lie: sulks}]", `a.yaml:2: "sulks" is not what a hostile host does`},
		{"clock", "seed: 7", "clocks: [{skew: 1y}]", `a.yaml:2: "1y" is not an offset of a clock`},
		{"not YAML", "fleet:", "fleet: [", "a.yaml:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := strings.Replace(goodScenario, c.old, c.new, 1)
			if in == goodScenario {
				t.Fatal("the test changes nothing")
			}
			_, err := ParseScenario("a.yaml", []byte(in))
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.HasPrefix(err.Error(), c.want) || holdfast.KindOf(err) != holdfast.Invalid {
				t.Errorf("error %q, want %q…", err, c.want)
			}
		})
	}
	if _, err := ParseScenario("b.yaml", nil); err == nil || !strings.HasPrefix(err.Error(), "b.yaml:1: ") {
		t.Errorf("an empty file: %v", err)
	}
}

// TestWhatCannotBePlayedIsRefused with file, line and reason: never ignored.
func TestWhatCannotBePlayedIsRefused(t *testing.T) {
	for _, c := range []struct {
		name, old, new string
		in             Fidelity
		want           string
	}{
		{"messages", "seed: 7", "messages: {reorder: 10%}", InCounts, "a.yaml:2: counts plays no single messages"},
		{"clocks", "seed: 7", "clocks: [{skew: -5m, share: 10%}]", InCounts, "a.yaml:2: counts plays no single hosts, and so no clocks"},
		{"hostile", "seed: 7", "hostile: [{lie: garbage, share: 10%}]", InCounts, "a.yaml:2: counts plays no single hosts, and so none that lies"},
		{"takeover", "crash: 5%", "takeover: 5%", InCounts, "a.yaml:4: a takeover"},
		{"store", "crash: 5%", "store: 5%", InCounts, "a.yaml:4: a takeover"},
		{"cut off", "kind: dead", "cut_off: true, kind: dead", InCounts, "a.yaml:16: counts plays no single hosts that are cut off"},
		{"large fleet", "hosts: 9000", "hosts: 19000", Exact, "a.yaml:8: at most 20,000 hosts"},
		{"tick", "seed: 7", "tick: 5s", Exact, "a.yaml:2: host by host, a step is a quarter of a heartbeat"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := ParseScenario("a.yaml", []byte(strings.Replace(goodScenario, c.old, c.new, 1)))
			if err != nil {
				t.Fatal(err)
			}
			err = s.Plays(c.in)
			if err == nil || !strings.HasPrefix(err.Error(), c.want) || holdfast.KindOf(err) != holdfast.Invalid {
				t.Errorf("error %v, want %q…", err, c.want)
			}
			other := map[Fidelity]Fidelity{InCounts: Exact, Exact: InCounts}[c.in]
			if err := s.Plays(other); err != nil {
				t.Errorf("%s plays it: %v", other, err)
			}
		})
	}
}

func FuzzScenario(f *testing.F) {
	f.Add([]byte(goodScenario))
	f.Add([]byte(policyScenario))
	f.Add([]byte("fleet: {hosts: 5}\nrelease: {profile: standard}\n"))
	f.Add([]byte("fleet: &a [*a]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseScenario("fuzz.yaml", b)
		if err == nil && len(s.World.Kinds) == 0 {
			t.Fatal("a scenario without hosts was accepted")
		}
	})
}
