package rehearsal

import (
	"os"
	"path/filepath"
	"testing"
)

// Other people's rules: every line of every SigmaHQ rule for Linux processes can
// be exercised without its author's help, and harms nothing.
func TestSigmaHQForLinuxProcesses(t *testing.T) {
	data := os.Getenv("HOLDFAST_DATA")
	if data == "" {
		t.Skip("HOLDFAST_DATA does not name the directory of third parties' test data")
	}
	files, err := filepath.Glob(filepath.Join(data, "sigmahq/rules/linux/process_creation/*.yml"))
	if err != nil || len(files) < 100 {
		t.Fatalf("%d rules, %v", len(files), err)
	}
	repo := map[string]string{"benign/on.jsonl": benign}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(f)
		if len(name) > 60 {
			name = name[:56] + ".yml"
		}
		repo["rules/"+name] = string(raw)
	}
	v := rehearsed(t, content(t, repo), "agent")
	for _, p := range v.Builds[0].Failures {
		if p.Stage == "static" { // a field our sensor does not supply
			t.Logf("not for this sensor: %s: %s", p.File, p.Reason)
			continue
		}
		t.Errorf("%+v", p)
	}
	t.Logf("%+v", v.Builds[0].Figures)
}
