package rehearsal

import (
	"fmt"
	"strings"
	"testing"

	"github.com/holdfast-security/holdfast/internal/language/detect"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// For each way to write a line, an event that it matches and one that it does
// not are found without help.
func TestEveryKindOfLineIsExercised(t *testing.T) {
	for _, line := range []string{
		`Image: /bin/sh`, `Image: '/bin/*sh'`, `Image: '*'`, `Image: '?in\*\?'`, `Image|startswith: /tmp/`, `Image|endswith: [/a, /b]`,
		`CommandLine|contains|all: [one, ' two ', three]`, `CommandLine|cased: Abc`, `Image|neq: /bin/sh`, `Image|contains|neq: sh`,
		`CommandLine|windash|contains: ' -enc '`, `CommandLine|base64: text`, `CommandLine|base64offset|contains: text`, `CommandLine|wide|base64offset|contains: text`,
		`CommandLine|re: '^(a|b)[0-9]{2,4}\.(sh|py)$'`, `CommandLine|re|i: 'CURL\s+.*\|\s*(ba)?sh'`, `CommandLine|re: '\d+\.\d+\.\d+'`, `CommandLine|re: '[^\x00-\x7f]{3}'`,
		`CommandLine|cidr: 10.0.0.0/8`, `CommandLine|cidr: '2001:db8::/32'`, `User: null`, `User: ''`, `User|exists: true`, `User|exists: false`,
		`ProcessId: 4`, `ProcessId: [1, 2]`, `process.file.nlink: 0`, `ProcessId|gt: 100`, `ProcessId|lte: -3`, `ExitCode|gte: 1`,
		`User|fieldref: ParentUser`, `CommandLine|fieldref|contains: Image`, `CommandLine: 'quotes " and '' and \\ and "'`, "CommandLine: \"tab\\tnul\\0end\\u2028\"",
		`UtcTime|hour: 3`, `UtcTime|year|gt: 2030`, `UtcTime|month: 12`, `UtcTime|week: 20`, `UtcTime|minute|lt: 10`,
	} {
		t.Run(line, func(t *testing.T) {
			rule := fmt.Sprintf("title: t\nid: %s\nlogsource: {product: linux, category: process_creation}\ndetection:\n  s:\n    %s\n  condition: s\n", probeID(1), line)
			set, problems := sigma.Parse("t.yml", []byte(rule))
			if len(set.Rules) != 1 {
				t.Fatal(problems)
			}
			r := &run{classes: []*ocsf.Class{ocsf.ProcessActivity()}}
			items := r.items(set.Rules[0], nil)
			if len(items) != 1 {
				t.Fatal(items)
			}
			it := items[0]
			if it.match == nil || it.miss == nil {
				t.Fatalf("match %v, miss %v\n%s", it.match, it.miss, it.text)
			}
			for want, fields := range map[bool]map[string]string{true: it.match, false: it.miss} {
				e, err := it.class.FromWritten(fields)
				if err != nil {
					t.Fatal(err)
				}
				// The line in its rule and the line alone are of one mind.
				for _, rule := range []*sigma.Rule{set.Rules[0], it.probe} {
					if got := detect.Explain(rule, it.class, e, nil).Matched; got != want {
						t.Errorf("%v on %v: %v", strings.TrimSpace(line), fields, got)
					}
				}
			}
		})
	}
}

func TestKeywordsAreExercised(t *testing.T) {
	rule := "title: t\nid: " + probeID(1) + "\nlogsource: {product: linux, category: process_creation}\ndetection:\n  s: [mimikatz, 'two words']\n  condition: s\n"
	set, _ := sigma.Parse("t.yml", []byte(rule))
	r := &run{classes: []*ocsf.Class{ocsf.ProcessActivity()}}
	items := r.items(set.Rules[0], nil)
	if len(items) != 1 || items[0].match == nil || items[0].miss == nil {
		t.Fatalf("%+v", items[0])
	}
}
