package drill

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"testing/fstest"
)

// launch is one recorded event that guards replay.
type launch struct {
	Image       string
	CommandLine string `json:",omitempty"`
	ParentImage string `json:",omitempty"`
}

// idle is a launch that no rule of a drill looks at.
var idle = launch{Image: "/usr/bin/true", CommandLine: "true", ParentImage: "/usr/sbin/cron"}

// write writes a recording.
func write(file string, recording []launch) error {
	var all []byte
	for _, l := range recording {
		raw, err := json.Marshal(l)
		if err != nil {
			return err
		}
		all = append(append(all, raw...), '\n')
	}
	return os.WriteFile(file, all, 0o600)
}

// cycle is the recording of 19 July: every other launch is of another program,
// so that a rule about one of them meets it at a moment of its own.
func cycle() []launch {
	var all []launch
	for i := range 2 * len(programs) {
		l := idle
		if i%2 == 1 {
			l = launch{Image: programs[i/2], CommandLine: "--incremental", ParentImage: "/usr/sbin/cron"}
		}
		all = append(all, l)
	}
	return all
}

// programs are eight, so that the last is met 3.75 seconds after a worker's
// start: after probation, and well within the window of observation.
var programs = []string{
	"/opt/drill/backup-agent", "/opt/drill/inventory", "/opt/drill/log-shipper", "/opt/drill/cert-renewer",
	"/opt/drill/patch-scan", "/opt/drill/queue-worker", "/opt/drill/db-vacuum", "/opt/drill/dns-probe",
}

// strike is what a lethal rule looks for, and how it compares the input that a
// faulty twin does not supply.
type strike struct {
	program int // in programs
	how     string
}

// strikeOf is what a seed makes of it: as many seeds in a row as there are
// programs meet each of them.
func strikeOf(seed uint64) strike {
	r := rand.New(rand.NewPCG(seed, 19))
	return strike{int((5*seed + 2) % uint64(len(programs))), []string{"startswith", "endswith", "contains", "re"}[r.IntN(4)]}
}

// after is how many launches a worker sees before it meets the program.
func (s strike) after() int { return 2*s.program + 1 }

func (s strike) image() string { return programs[s.program] }

// quiet is content that is good: its one rule looks only at what every build
// supplies, and finds nothing.
func quiet(version int) fstest.MapFS {
	return repoOf("drill-base", fmt.Sprint(version), fmt.Sprintf(`title: Drill Base Rule %[1]d
id: 0f6f4d5a-7e0c-4e57-9c3f-%012[1]x
level: low
logsource: {product: linux, category: process_creation}
detection:
  marker:
    Image|endswith: /drill-marker-%[1]d
  condition: marker
`, version), fmt.Sprintf("match:\n  - Image: /opt/drill-marker-%d\nno_match:\n  - Image: /opt/drill/other\n", version))
}

// lethal is content that is valid by every definition: its one rule looks at
// the parent's working directory, input 21.
func lethal(n uint64, s strike) fstest.MapFS {
	return repoOf("drill-lethal", fmt.Sprintf("2.%d", n), fmt.Sprintf(`title: A Job Started From A Staging Folder (%[1]d)
id: 0f6f4d5a-7e0c-4e57-9c3e-%012[1]x
level: medium
logsource: {product: linux, category: process_creation}
detection:
  job:
    Image: %[2]s
  staging:
    ParentCurrentDirectory|%[3]s: /var/staging/%[1]d
  condition: job and staging
`, n, s.image(), s.how), fmt.Sprintf("match:\n  - Image: %[2]s\n    ParentCurrentDirectory: /var/staging/%[1]d\nno_match:\n  - Image: %[2]s\n    ParentCurrentDirectory: /home\n", n, s.image()))
}

// noisy is content that takes a program for an attacker's which this fleet
// launches all day, and its authors' machines never.
func noisy(image string) fstest.MapFS {
	return repoOf("drill-noisy", "2", fmt.Sprintf(`title: Unknown Program Below opt
id: 0f6f4d5a-7e0c-4e57-9c3e-5707a11a50ff
level: high
logsource: {product: linux, category: process_creation}
detection:
  program:
    Image: %s
  condition: program
`, image), fmt.Sprintf("match:\n  - Image: %s\nno_match:\n  - Image: /usr/bin/true\n", image))
}

func repoOf(name, version, rule, tests string) fstest.MapFS {
	return fstest.MapFS{
		"pack.yml":        {Data: []byte(fmt.Sprintf("name: %s\nchannel: rules\nversion: %q\n", name, version))},
		"rules/rule.yml":  {Data: []byte(rule)},
		"tests/rule.yml":  {Data: []byte(tests)},
		"benign/on.jsonl": {Data: []byte("{\"Image\":\"/usr/bin/true\",\"CommandLine\":\"true\"}\n")},
	}
}
