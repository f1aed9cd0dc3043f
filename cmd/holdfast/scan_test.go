package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// scanned runs the command line on a rule, a broken rule and an event log.
func scanned(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"rules/curl.yml":   "title: Curl\nid: curl\nlevel: high\ntags: [attack.t1105]\nlogsource: {product: linux, category: process_creation}\ndetection: {s: {'Image|endswith': /curl}, condition: s}\n",
		"rules/broken.yml": "title: Broken\nid: broken\nlogsource: {product: linux}\ndetection: {s: {'Image|endswth': x}, condition: s}\n",
		"rules/win.yml":    "title: Win\nid: win\nlogsource: {product: windows, service: security}\ndetection: {s: {EventID: 1}, condition: s}\n",
		"log.gz":           "\x1f\x8b\x08\x00 not really",
		"binary":           "\x7fELF\x00\x01",
		"cut.evtx":         "ElfFile\x00cut",
		"events.jsonl":     `{"Image":"/usr/bin/ls","CommandLine":"ls"}` + "\n" + `{"Image":"/usr/bin/CURL","CommandLine":"curl x"}` + "\nnot json\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i, a := range args {
		args[i] = strings.ReplaceAll(a, "DIR", dir)
	}
	var out, err bytes.Buffer
	code = run(context.Background(), args, &out, &err)
	return code, out.String(), err.String()
}

func TestScanPrintsOneObjectAMatchAndProblemsApart(t *testing.T) {
	code, stdout, stderr := scanned(t, "scan", "--rules", "DIR/rules", "--json", "DIR/events.jsonl")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	var hit struct {
		RuleID    string `json:"rule_id"`
		RuleTitle string `json:"rule_title"`
		File      string
		Line      int
		Matched   []struct{ Field, Value string }
	}
	if err := json.Unmarshal([]byte(stdout), &hit); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
	if hit.RuleID != "curl" || hit.RuleTitle != "Curl" || filepath.Base(hit.File) != "events.jsonl" || hit.Line != 2 || len(hit.Matched) != 1 || hit.Matched[0].Value != "/usr/bin/CURL" {
		t.Errorf("hit %+v", hit)
	}
	if !strings.Contains(stderr, `there is no modifier "endswth"`) || !strings.Contains(stderr, "events.jsonl:3") {
		t.Errorf("problems: %s", stderr)
	}
}

func TestScanWithoutRulesIsAnError(t *testing.T) {
	if code, _, stderr := scanned(t, "scan", "--rules", "DIR/nowhere", "DIR/events.jsonl"); code != 3 || !strings.Contains(stderr, "there are no rules") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

func TestScanSaysWhatItCannotRead(t *testing.T) {
	for name, c := range map[string]struct {
		files []string
		code  int
		says  string
	}{
		"a missing file alone":    {[]string{"DIR/missing"}, 3, "no such file"},
		"beside one that is read": {[]string{"DIR/missing", "DIR/events.jsonl"}, 0, "no such file"},
		"a directory":             {[]string{"DIR/rules"}, 2, "this is a directory"},
		"compressed":              {[]string{"DIR/log.gz"}, 2, "zcat"},
		"neither text nor EVTX":   {[]string{"DIR/binary"}, 2, "not text"},
		"an EVTX that is cut":     {[]string{"DIR/cut.evtx"}, 2, "cut.evtx: the EVTX file ends in its header"},
		"nothing of several":      {[]string{"DIR/binary", "DIR/missing"}, 2, "none of the files"},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, stderr := scanned(t, append([]string{"scan", "--rules", "DIR/rules"}, c.files...)...)
			if code != c.code || strings.Count(stderr, c.says) != 1 {
				t.Errorf("exit code %d, want %d and once %q: %s", code, c.code, c.says, stderr)
			}
		})
	}
}

func TestImportTakesWhatRunsAndSaysWhyNot(t *testing.T) {
	code, _, stderr := scanned(t, "content", "import", "DIR/rules", "DIR/repo")
	if code != 2 || !strings.Contains(stderr, "no pack.yml") {
		t.Errorf("into no repository: exit code %d: %s", code, stderr)
	}
	dir := t.TempDir() + "/repo"
	if code, _, stderr := scanned(t, "content", "new", dir); code != 0 {
		t.Fatal(stderr)
	}
	for _, want := range []string{"taken: 1 file into", "taken: 0 files into " + dir + "/rules, 1 were there already"} {
		code, stdout, stderr := scanned(t, "content", "import", "DIR/rules", dir)
		if code != 0 || !strings.Contains(stdout, want) || !strings.Contains(stdout, "rules: 1 run here, 1 are for what this sensor does not supply, 1 have errors") ||
			!strings.Contains(stdout, "1: no class of these events answers to the log source product=windows") || !strings.Contains(stdout, "win  ") {
			t.Errorf("exit code %d, want %q: %s%s", code, want, stdout, stderr)
		}
	}
	if b, err := os.ReadFile(dir + "/rules/curl.yml"); err != nil || !strings.HasPrefix(string(b), "title: Curl\n") {
		t.Errorf("what was taken is not what it was: %q %v", b, err)
	}
	if code, stdout, stderr := scanned(t, "content", "lint", dir); code != 0 || strings.Contains(stdout, "tests/") {
		t.Errorf("lint takes tests for rules: exit code %d: %s%s", code, stdout, stderr)
	}
}

func TestRuleCommands(t *testing.T) {
	code, stdout, stderr := scanned(t, "content", "lint", "DIR/rules", "--sarif", "DIR/out.sarif")
	if code != 2 || !strings.Contains(stdout, "broken.yml:4:17: error: there is no modifier \"endswth\" (did you mean endswith?)") {
		t.Errorf("lint: exit code %d: %s %s", code, stdout, stderr)
	}
	code, stdout, stderr = scanned(t, "content", "explain", "DIR/rules/curl.yml", "DIR/events.jsonl", "--line", "1")
	if code != 0 || !strings.Contains(stdout, `✗ Image|endswith: "/usr/bin/ls" does not fit ["/curl"]`) || !strings.Contains(stdout, "s does not match") {
		t.Errorf("explain: exit code %d: %s %s", code, stdout, stderr)
	}
	code, stdout, stderr = scanned(t, "content", "coverage", "DIR/rules", "--layer", "DIR/l.json", "--picture", "DIR/p.svg")
	if code != 0 || !strings.Contains(stdout, "T1105") {
		t.Errorf("coverage: exit code %d: %s %s", code, stdout, stderr)
	}
	code, stdout, stderr = scanned(t, "content", "bench", "--rules", "DIR/rules", "--for", "1ms", "DIR/events.jsonl")
	if code != 0 || !strings.Contains(stdout, "2 events of 1 files") {
		t.Errorf("bench: exit code %d: %s %s", code, stdout, stderr)
	}
}
