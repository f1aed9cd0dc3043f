package report_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/holdfast-security/holdfast/internal/language/detect"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/report"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

const soundRule = "title: Sound\nid: sound\nlogsource: {product: linux, category: process_creation}\ndetection:\n  s:\n    Image|endswith: /sound\n  condition: s\n"

// badRule is a rule with its detection replaced; the detection begins in line 5.
func badRule(detection string) string {
	return "title: Bad\nid: bad\nlogsource: {product: linux, category: process_creation}\ndetection:\n" + detection
}

func yamlBomb() string {
	b := "title: Bomb\na: &a [x, x, x, x, x, x, x, x, x]\n"
	for c := 'b'; c <= 'i'; c++ {
		b += fmt.Sprintf("%c: &%c [%s]\n", c, c, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c, ", c-1), 9), ", "))
	}
	return b
}

// The bad rules that people and attackers write: each is named with its file,
// line and column and says what to do, and the rules beside it run.
func TestEachBadRuleIsNamedAndTheOthersRun(t *testing.T) {
	cyclic := "title: A\nid: bad\ncorrelation: {type: event_count, rules: [other], group-by: [User], timespan: 5m, condition: {gte: 2}}\n---\n" +
		"title: B\nid: other\ncorrelation: {type: event_count, rules: [bad], group-by: [User], timespan: 5m, condition: {gte: 2}}\n"
	for name, c := range map[string]struct{ rule, where, says string }{
		"unknown modifier": {
			badRule("  s:\n    Image|endwith: /x\n  condition: s\n"), ":6:5", `there is no modifier "endwith" (did you mean endswith?)`,
		},
		"modifier on the wrong type": {
			badRule("  s:\n    ProcessId|gte: many\n  condition: s\n"), ":6:20", `the modifier gte needs a number, not "many"`,
		},
		"modifier on the wrong type of value": {
			badRule("  s:\n    Image|base64: 5\n  condition: s\n"), ":6:19", "the modifier base64 is for text",
		},
		"regular expression RE2 cannot do": {
			badRule("  s:\n    CommandLine|re: 'a(?!b)'\n  condition: s\n"), ":6:21", "cannot be evaluated in linear time",
		},
		"condition names a missing selection": {
			badRule("  s:\n    Image: /x\n  condition: s and not filter\n"), ":7:24", `the search "filter" does not exist (there are: s)`,
		},
		"cyclic correlation": {
			cyclic, ":7:42", "the correlation counts itself: bad counts other counts bad",
		},
		"field unknown to this sensor build": {
			badRule("  s:\n    RegistryKey: x\n  condition: s\n"), ":6:5", "the field RegistryKey is unknown to the class process_activity of this sensor build",
		},
		"placeholder without a list": {
			badRule("  s:\n    User|expand: '%admins%'\n  condition: s\n"), ":6:18", "the placeholder %admins% has no list of values",
		},
		"YAML bomb": {
			yamlBomb(), ":2:23", "more than 50000 nodes, counting what aliases stand for",
		},
		"duplicate key": {
			badRule("  s:\n    Image: /x\n    Image: /y\n  condition: s\n"), ":7:5", `the key "Image" is there twice, first in line 6`,
		},
		"a rule of 10 MB": {
			badRule("  s:\n    Image:\n" + strings.Repeat("      - /usr/bin/some-program\n", 10<<20/30) + "  condition: s\n"), ":1:1", "1048576 is the most a file of rules may have (split it into several files)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			set, problems, err := sigma.Load(fstest.MapFS{
				"rules/a.yml": {Data: []byte(soundRule)}, "rules/bad.yml": {Data: []byte(c.rule)},
				"rules/z.yml": {Data: []byte(strings.NewReplacer("Sound", "Last", "sound", "last").Replace(soundRule))},
			}, "rules")
			if err != nil {
				t.Fatal(err)
			}
			var said []string
			found := false
			for _, f := range report.Lint(set, problems, nil, nil) {
				if f.Level != "error" {
					continue
				}
				message := f.Message
				if f.Do != "" {
					message += " (" + f.Do + ")"
				}
				said = append(said, fmt.Sprintf("%s:%d:%d: %s", f.File, f.Line, f.Column, message))
				found = found || strings.HasPrefix(said[len(said)-1], "rules/bad.yml"+c.where+": ") && strings.Contains(message, c.says)
				if f.File != "rules/bad.yml" {
					t.Errorf("a sound rule is blamed: %s", said[len(said)-1])
				}
			}
			if !found {
				t.Errorf("want rules/bad.yml%s: %s\ngot  %s", c.where, c.says, strings.Join(said, "\n     "))
			}
			engine, _ := detect.Compile(set, detect.Options{})
			for _, image := range []string{"/bin/sound", "/bin/last"} {
				ev := &ocsf.Event{Class: ocsf.ProcessActivityUID, Values: make([]ocsf.Value, len(ocsf.ProcessActivity().Fields))}
				ev.Values[ocsf.ActivityID], ev.Values[ocsf.ProcessPath] = ocsf.IntValue(ocsf.ActivityLaunch), ocsf.StringValue(image)
				var got bytes.Buffer
				engine.NewEvaluator().Evaluate(ev, func(m *detect.Match) { fmt.Fprint(&got, m.Rule.ID) })
				if want := strings.TrimPrefix(image, "/bin/"); got.String() != want {
					t.Errorf("beside the bad rule, %s matches %q", image, got.String())
				}
			}
		})
	}
}
