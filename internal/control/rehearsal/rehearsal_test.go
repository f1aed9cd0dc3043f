package rehearsal

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/bundle"
)

// built compiles the real programs once, or takes them from the directory that
// HOLDFAST_PROGRAMS names.
var built = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("HOLDFAST_PROGRAMS"); dir != "" {
		return dir, nil
	}
	dir, err := os.MkdirTemp("", "holdfast-rehearsal-test-")
	if err != nil {
		return "", err
	}
	for name, args := range map[string][]string{
		"guard":   {"github.com/holdfast-security/holdfast/cmd/holdfast-guard"},
		"agent":   {"github.com/holdfast-security/holdfast/cmd/holdfast-agent"},
		"sincere": {"-tags", "holdfast_sincere", "github.com/holdfast-security/holdfast/cmd/holdfast-agent"},
		"twin":    {"-tags", "holdfast_twin", "github.com/holdfast-security/holdfast/cmd/holdfast-agent"},
	} {
		cmd := exec.Command("go", append([]string{"build", "-o", filepath.Join(dir, name)}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return dir, fmt.Errorf("%s: %w\n%s", name, err, out)
		}
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "manifest" || os.Args[1] == "rehearse" || os.Args[1] == "run") {
		os.Exit(fake(os.Args[1:]))
	}
	code := m.Run()
	if dir, _ := built(); dir != os.Getenv("HOLDFAST_PROGRAMS") {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

func program(t *testing.T, name string) string {
	t.Helper()
	dir, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

func content(t *testing.T, files map[string]string) []byte {
	t.Helper()
	repo := fstest.MapFS{"pack.yml": {Data: []byte("name: test\nchannel: rules\nversion: \"1\"\n")}}
	for name, data := range files {
		repo[name] = &fstest.MapFile{Data: []byte(data)}
	}
	b, err := bundle.FromRepository(repo, "")
	if err != nil {
		t.Fatal(err)
	}
	data, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func rehearsed(t *testing.T, data []byte, builds ...string) holdfast.Verdict {
	t.Helper()
	o := Options{Channel: holdfast.Rules, Content: data, Guard: program(t, "guard"), Seed: 1, Limits: Limits{Event: 5 * time.Second, Fuzz: 200}}
	for _, b := range builds {
		o.Builds = append(o.Builds, program(t, b))
	}
	v, err := Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

const good = `title: Shell from the web server
id: 5f1b3a52-0000-4000-8000-000000000001
level: high
logsource: {product: linux, category: process_creation}
detection:
  web: {ParentImage|endswith: [/nginx, /apache2]}
  shell: {Image|endswith: [/sh, /bash]}
  filter: {CommandLine|re: '^bash -c [a-z]+\.sh$'}
  condition: web and shell and not filter
`

const goodTests = `match:
  - {ParentImage: /usr/sbin/nginx, Image: /bin/bash, CommandLine: bash -i}
no_match:
  - {ParentImage: /usr/sbin/cron, Image: /bin/bash, CommandLine: bash -i}
`

const benign = `{"Image":"/usr/bin/true","CommandLine":"true"}
{"Image":"/usr/bin/make","CommandLine":"make all","ParentImage":"/bin/bash"}
`

// lethal is the rule of 19 July: valid by every definition, and the first to
// look at the last input.
const lethal = `title: Started from a staging folder
id: 5f1b3a52-0000-4000-8000-000000000002
level: medium
logsource: {product: linux, category: process_creation}
detection:
  agent: {Image: /usr/bin/backup-agent}
  staging: {ParentCurrentDirectory|startswith: /var/staging/}
  condition: agent and staging
`

func goodRepo() map[string]string {
	return map[string]string{"rules/web.yml": good, "tests/web.yml": goodTests, "benign/on.jsonl": benign}
}

func TestGoodContentPassesOnEveryBuild(t *testing.T) {
	v := rehearsed(t, content(t, goodRepo()), "agent", "twin")
	if !v.Passed() || len(v.Builds) != 2 {
		t.Fatalf("%+v", v)
	}
	f := v.Builds[0].Figures
	if f.Rules != 1 || f.FieldsExercised != 3 || f.Attacks != 1 || f.AttacksFound != 1 || f.Benign != 2 || f.FalsePositives != 0 || f.NsPerEvent <= 0 || f.PeakRSS == 0 || f.LoadMillis <= 0 || f.Events < 1000 {
		t.Errorf("%+v", f)
	}
}

func TestTheTwinIsRefusedAndBuildRuleAndFieldAreNamed(t *testing.T) {
	repo := goodRepo()
	repo["rules/staging.yml"] = lethal
	v := rehearsed(t, content(t, repo), "sincere", "twin")
	if !v.Builds[0].Passed {
		t.Errorf("the sincere build: %+v", v.Builds[0])
	}
	twin := v.Builds[1]
	if twin.Passed || len(twin.Failures) == 0 {
		t.Fatalf("the twin passed: %+v", twin)
	}
	for _, p := range twin.Failures {
		t.Logf("%+v", p)
		if p.Rule != "5f1b3a52-0000-4000-8000-000000000002" || p.File != "rules/staging.yml" || p.Field != "process.parent_process.working_directory" || !strings.Contains(p.Reason, "index out of range [20]") {
			t.Errorf("blamed: %+v", p)
		}
	}
}

func TestABuildWithoutTheFieldIsRefusedByItsManifest(t *testing.T) {
	repo := goodRepo()
	repo["rules/staging.yml"] = lethal
	repo["tests/staging.yml"] = "match:\n  - {Image: /usr/bin/backup-agent, ParentCurrentDirectory: /var/staging/1}\n"
	v := rehearsed(t, content(t, repo), "agent")
	if v.Passed() {
		t.Fatal("it passed")
	}
	for _, p := range v.Builds[0].Failures {
		if p.Stage != "static" || p.File != "rules/staging.yml" {
			t.Errorf("%+v", p)
		}
	}
}

func TestWhatABundleSaysOfItselfMustHold(t *testing.T) {
	for name, c := range map[string]struct {
		file, data, stage, reason string
	}{
		"an attack is not found":   {"tests/web.yml", "match:\n  - {ParentImage: /usr/sbin/nginx, Image: /bin/cat}\n", "attack", "does not match its event"},
		"an innocent is found":     {"tests/web.yml", "no_match:\n  - {ParentImage: /usr/sbin/nginx, Image: /bin/sh}\n", "attack", "matches its event"},
		"a benign event is found":  {"benign/on.jsonl", `{"Image":"/bin/sh","ParentImage":"/x/nginx"}`, "benign", "matches the benign event benign/on.jsonl:1"},
		"a line nothing can match": {"rules/web.yml", strings.Replace(good, `'^bash -c [a-z]+\.sh$'`, `'a\bb'`, 1), "exercise", "no value is known"},
	} {
		t.Run(name, func(t *testing.T) {
			repo := goodRepo()
			repo[c.file] = c.data
			v := rehearsed(t, content(t, repo), "agent")
			if v.Passed() {
				t.Fatal("it passed")
			}
			for _, p := range v.Builds[0].Failures {
				if p.Stage == c.stage && strings.Contains(p.Reason, c.reason) && p.File == "rules/web.yml" {
					return
				}
			}
			t.Errorf("%+v", v.Builds[0].Failures)
		})
	}
}

// faulty writes a build with a fault.
func faulty(t *testing.T, fault string) string {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "agent")
	if err := os.WriteFile(path, append(self, "\nfault="+fault...), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWhatABuildDiesOfIsNamed(t *testing.T) {
	for fault, c := range map[string]struct{ stage, reason, field string }{
		"hang":              {"exercise", "hung", "process.parent_process.file.path"},
		"leak":              {"exercise", "too much memory", "process.parent_process.file.path"},
		"exit":              {"exercise", "crashed: exit status 7", "process.parent_process.file.path"},
		"blind":             {"exercise", "does not see a value that matches", "process.parent_process.file.path"},
		"dies in probation": {"load", "probation: crash", ""},
	} {
		t.Run(fault, func(t *testing.T) {
			repo := goodRepo()
			repo["rules/other.yml"] = strings.NewReplacer("000001", "000003", "/nginx, /apache2", "/lighttpd", "from the web", "from another").Replace(good)
			limit := time.Second
			if fault == "leak" {
				limit = 10 * time.Second // memory runs out first
			}
			v, err := Run(context.Background(), Options{
				Channel: holdfast.Rules, Content: content(t, repo), Guard: program(t, "guard"), Builds: []string{faulty(t, fault)},
				Limits: Limits{Event: limit, Memory: 256 << 20, Fuzz: 20},
			})
			if err != nil {
				t.Fatal(err)
			}
			if v.Passed() {
				t.Fatal("it passed")
			}
			p := v.Builds[0].Failures[0]
			if p.Stage != c.stage || !strings.Contains(p.Reason, c.reason) || p.Field != c.field || c.field != "" && p.File != "rules/web.yml" {
				t.Errorf("%+v", v.Builds[0].Failures)
			}
			for _, p := range v.Builds[0].Failures {
				if p.File == "rules/other.yml" {
					t.Errorf("an innocent rule is blamed: %+v", p)
				}
			}
		})
	}
}

func TestAnAgentIsRehearsedAsContent(t *testing.T) {
	for fault, passes := range map[string]bool{"none": true, "dies in probation": false} {
		raw, err := os.ReadFile(faulty(t, fault))
		if err != nil {
			t.Fatal(err)
		}
		v, err := Run(context.Background(), Options{
			Channel: holdfast.Agent, Content: raw, Guard: program(t, "guard"), Builds: []string{faulty(t, "before")}, Limits: Limits{Event: 2 * time.Second},
		})
		if err != nil {
			t.Fatal(err)
		}
		if v.Passed() != passes || v.Builds[0].Build != v.Bundle {
			t.Errorf("%s: %+v", fault, v)
		}
	}
}

func TestARehearsalThatIsStoppedLeavesNothing(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	ctx, stop := context.WithCancel(context.Background())
	o := Options{
		Channel: holdfast.Rules, Content: content(t, goodRepo()), Guard: program(t, "guard"), Builds: []string{program(t, "agent")}, Limits: Limits{Event: 5 * time.Second, Fuzz: 100},
		Progress: func(p Progress) {
			if p.Stage == "load" {
				time.AfterFunc(300*time.Millisecond, stop)
			}
		},
	}
	if _, err := Run(ctx, o); err != context.Canceled {
		t.Fatalf("ended with %v", err)
	}
	left, _ := filepath.Glob(filepath.Join(tmp, "holdfast-rehearsal-*"))
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		if line, _ := os.ReadFile(p); strings.Contains(string(line), tmp) {
			t.Errorf("still running: %q", line)
		}
	}
}

func TestThereIsNoVerdictWithoutARehearsal(t *testing.T) {
	good := Options{Channel: holdfast.Rules, Content: content(t, goodRepo()), Guard: program(t, "guard"), Builds: []string{program(t, "agent")}}
	for name, spoil := range map[string]func(*Options){
		"no guard":          func(o *Options) { o.Guard = "/nowhere" },
		"no builds":         func(o *Options) { o.Builds = nil },
		"no such build":     func(o *Options) { o.Builds = []string{"/nowhere"} },
		"not an agent":      func(o *Options) { o.Builds = []string{"/bin/true"} },
		"not a bundle":      func(o *Options) { o.Content = []byte("x") },
		"no such channel":   func(o *Options) { o.Channel = "x" },
		"not even a worker": func(o *Options) { o.Channel, o.Content = holdfast.Agent, []byte("x") },
	} {
		o := good
		spoil(&o)
		if v, err := Run(context.Background(), o); err == nil || v.Passed() {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
	}
}
