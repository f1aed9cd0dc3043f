package sim

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/consent"
)

const policyScenario = `fidelity: exact
begins: 2026-07-03T14:00:00Z
fleet:
  kinds:
    - {organisation: acme, role: server, distro: rhel-9, hosts: 30}
    - {organisation: acme, role: laptop, hosts: 10}
release: {version: 1.5.0, before: 1.4.2, signed: 2h}
policies:
  - at: 10m
    by: server
    policy:
      organisation: acme
      version: 7

      # theirs
      groups:
        - name: laboratory
          where: {role: laptop}
          channels:
            rules: {track: early}
        - name: trading floor
          where: {role: server, distro: rhel-9}
          channels:
            rules: {track: pin, pin: 1.4.2}
          windows:
            - {days: [sat], from: "22:00", to: "02:00", zone: Europe/Berlin}
`

// TestAPolicyFileIsPastedIntoAScenario: what docs/consent.md shows, moved to the
// right, is the same policy; and Consent.File writes it back.
func TestAPolicyFileIsPastedIntoAScenario(t *testing.T) {
	doc, err := os.ReadFile("../../docs/consent.md")
	if err != nil {
		t.Fatal(err)
	}
	_, file, _ := strings.Cut(string(doc), "```yaml\n")
	file, _, ok := strings.Cut(file, "```")
	if !ok {
		t.Fatal("docs/consent.md shows no policy any more")
	}
	want, err := consent.Parse("acme.yaml", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	in := "fleet: {kinds: [{organisation: acme, hosts: 5}]}\npolicies:\n  - policy:\n      " + strings.ReplaceAll(strings.TrimSpace(file), "\n", "\n      ")
	s, err := ParseScenario("a.yaml", []byte(in))
	if err != nil {
		t.Fatal(err)
	}
	c := &s.World.Consents[0]
	again, err := consent.Parse("again.yaml", c.File())
	if err != nil {
		t.Fatalf("%v\n%s", err, c.File())
	}
	if got := plain(c.Policy); !reflect.DeepEqual(got, plain(want)) {
		t.Errorf("pasted: %+v\nas a file: %+v", got, plain(want))
	}
	if !reflect.DeepEqual(plain(again), plain(want)) {
		t.Errorf("written back: %+v\nas a file: %+v", plain(again), plain(want))
	}
	if len(s.Notes) != 3 || !strings.Contains(s.Notes[1], `group "trading floor" of acme's policy 7 holds no host`) {
		t.Errorf("notes: %q", s.Notes)
	}
}

// plain is a policy without its lines.
func plain(p consent.Policy) consent.Policy {
	for _, g := range p.Groups {
		for _, rules := range []map[holdfast.Channel]consent.Rule{g.Rules, g.Critical} {
			for c, r := range rules {
				r.Line = 0
				rules[c] = r
			}
		}
	}
	return p
}

func TestPoliciesOfAScenarioAreRefusedWhereTheyStand(t *testing.T) {
	for _, c := range []struct{ name, old, new, want string }{
		{"a delay on a pause", "{track: early}", "{track: pause, delay: 4h}", "a.yaml:20: a delay on pause means nothing"},
		{"an unknown time zone", "Europe/Berlin", "Europe/Atlantis", `a.yaml:26: "Europe/Atlantis" is not a time zone`},
		{"a window that never opens", `to: "02:00"`, `to: "22:00"`, "a.yaml:26: a window that ends when it begins never opens"},
		{"an unknown field", "where: {role: laptop}", "whom: {role: laptop}", `a.yaml:18: there is no field "whom" here`},
		{"an unknown field beside it", "by: server", "via: server", `a.yaml:10: there is no field "via" here`},
		{"a road that is none", "by: server", "by: pigeon", `a.yaml:9: "pigeon" is not a road`},
		{"nobody's policy", "organisation: acme\n      version", "organisation: emca\n      version", `a.yaml:12: no host of this fleet is of organisation "emca"`},
		{"a pin to what nobody published", "pin: 1.4.2", "pin: 1.4.1", `a.yaml:24: group "trading floor" is pinned to rules 1.4.1, which nobody published`},
		{"no policy at all", "policy:\n      organisation: acme", "polity:\n      organisation: acme", `a.yaml:11: there is no field "polity"`},
		{"an empty entry", "policies:\n", "policies:\n  - at: 5m\n", "a.yaml:9: a policy is missing"},
		{"version zero", "version: 7", "version: 0", "a.yaml:13: version must be a number"},
		{"after the end", "at: 10m", "at: 9h", "a.yaml:9: the policy comes at 9h0m0s, and the run ends at 4h0m0s"},
		{"what runs is released", "before: 1.4.2", "before: 1.5.0", "a.yaml:7: version 1.5.0 is released, and runs already"},
		{"a moment", "2026-07-03T14:00:00Z", "tomorrow", `a.yaml:2: "tomorrow" is not a moment`},
		{"the server has a newer one", "policies:\n", "policies:\n  - policy: {organisation: acme, version: 7}\n", "a.yaml:10: version 7 of acme's policy comes after version 7"},
		{"two scenarios", "policies:\n", "---\npolicies:\n", "a.yaml:8: there is more behind the scenario's end"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := strings.Replace(policyScenario, c.old, c.new, 1)
			if in == policyScenario {
				t.Fatal("the test changes nothing")
			}
			_, err := ParseScenario("a.yaml", []byte(in))
			if err == nil || !strings.HasPrefix(err.Error(), c.want) || holdfast.KindOf(err) != holdfast.Invalid {
				t.Errorf("%v, want %s…", err, c.want)
			}
		})
	}
}

// TestCountsRefuseWhatNeedsHosts, and play other policies.
func TestCountsRefuseWhatNeedsHosts(t *testing.T) {
	whole := strings.Replace(policyScenario, "at: 10m", "at: 0s", 1)
	for _, c := range []struct{ old, new, want string }{
		{"at: 0s", "at: 10m", "a.yaml:9: counts plays only policies that are in force from the beginning"},
		{"by: server", "by: file", "a.yaml:9: counts plays no single hosts, and so no policy that comes to them past the server"},
		{"where: {role: laptop}", "where: {hosts: [host-00001]}", `a.yaml:9: group "laboratory" names hosts`},
		{"", "", ""},
	} {
		s, err := ParseScenario("a.yaml", []byte(strings.Replace(whole, c.old, c.new, 1)))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Plays(Exact); err != nil {
			t.Error(err)
		}
		err = s.Plays(InCounts)
		if c.want == "" && err == nil {
			continue
		}
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%v, want %s…", err, c.want)
		}
		if _, err := Counts(s.Policy, s.World); err == nil {
			t.Errorf("%s: played all the same", c.want)
		}
	}
}

// TestPropertyNobodyHasItBeforeTheirPolicySays, in counts; and once the rollout is
// complete, everybody has it who may.
func TestPropertyNobodyHasItBeforeTheirPolicySays(t *testing.T) {
	met := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		rule := rapid.SampledFrom([]string{"track: early", "track: general", "track: delay, delay: 3h", "track: delay, delay: 9h", "track: n-1", "track: pin, pin: \"2\"", "track: pin, pin: \"1\"", "track: pause"})
		critical := rapid.SampledFrom([]string{"track: early", "track: general", "track: delay, delay: 5h"})
		window := rapid.SampledFrom([]string{"", "windows: [{days: [fri, sat], from: \"18:00\", to: \"23:00\", zone: Europe/Berlin}]", "windows: [{days: [sat], from: \"00:00\", to: \"24:00\", zone: Asia/Kolkata}]"})
		where := rapid.SampledFrom([]string{"", "role: laptop", "role: server"})
		text := "organisation: acme\nversion: 1\ngroups:\n"
		for _, name := range []string{"one", "two"}[:rapid.IntRange(0, 2).Draw(t, "groups")] {
			text += "  - name: " + name + "\n    where: {" + where.Draw(t, "where") + "}\n    channels: {rules: {" + rule.Draw(t, "rule") + "}}\n    critical: {rules: {" + critical.Draw(t, "critical") + "}}\n"
			if w := window.Draw(t, "window"); w != "" {
				text += "    " + w + "\n"
			}
		}
		p, err := consent.Parse("p.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		kinds := append(SmallFleet(600), SmallFleet(400)...)
		kinds[0].Org = "acme"
		policy := UrgentPolicy(kinds)
		policy.Rings = holdfast.RingPlan{{Name: "internal", Through: 100_000}, {Name: "all", Through: 1_000_000, Soak: 2 * time.Hour}}
		w := World{
			Seed: rapid.Uint64().Draw(t, "seed"), Kinds: kinds, Until: 30 * time.Hour, Tick: time.Minute, Begins: time.Date(2026, 7, 3, 14, 0, 0, 0, time.UTC),
			Signed: time.Duration(rapid.IntRange(0, 4).Draw(t, "signed")) * time.Hour, Critical: rapid.Bool().Draw(t, "critical release"),
			Consents: []Consent{{Policy: p, Road: ByServer}},
		}
		o, err := Counts(policy, w)
		if err != nil {
			t.Fatal(err)
		}
		acme := o.Groups[0]
		from, may := firstAllowed(&p, &w, policy.Rings)
		switch {
		case acme.Had > 0 && (!may || acme.First < from):
			t.Fatalf("acme had it after %s; allowed: %t, from %s on\n%s", acme.First, may, from, text)
		case may && o.Phase == holdfast.Complete && acme.Had != acme.Hosts:
			t.Fatalf("%d of %d have it in the end, which they may from %s on\n%s", acme.Had, acme.Hosts, from, text)
		case !may:
			met["never"]++
		case from > 0:
			met["later"]++
		default:
			met["at once"]++
		}
	})
	if len(met) < 3 {
		t.Errorf("the generator never met a case: %v", met)
	}
}

// firstAllowed asks a policy minute by minute when a host of acme's may have the
// release.
func firstAllowed(p *consent.Policy, w *World, rings holdfast.RingPlan) (at time.Duration, ok bool) {
	a, signed := w.Kinds[0].Attributes(), w.Begins.Add(-w.Signed)
	for ; at < w.Until; at += time.Minute {
		now := w.Begins.Add(at)
		for i := range rings {
			r := consent.Release{Channel: holdfast.Rules, Version: NewVersion, Critical: w.Critical, Signed: signed, Newest: true, Opens: rings.Opens(i, signed), General: rings.Opens(len(rings)-1, signed)}
			if p.Ask("", &a, r, now).Allows(now) {
				return at, true
			}
		}
	}
	return 0, false
}
