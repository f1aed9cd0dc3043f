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
