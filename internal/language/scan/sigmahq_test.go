package scan_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/holdfast-security/holdfast/internal/language/scan"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// sigmaHQ returns where SigmaHQ's rules and regression data are, or skips.
func sigmaHQ(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("HOLDFAST_DATA")
	if dir == "" {
		t.Skip("HOLDFAST_DATA is not set: it names a directory with sigmahq/rules and sigmahq/regression_data")
	}
	return filepath.Join(dir, "sigmahq")
}

// loadSigmaHQ reads all of its rules.
func loadSigmaHQ(t testing.TB, dir string) (sigma.Set, []sigma.Problem) {
	t.Helper()
	var (
		set      sigma.Set
		problems []sigma.Problem
	)
	for _, sub := range []string{"rules", "rules-emerging-threats", "rules-threat-hunting"} {
		s, ps, err := sigma.Load(os.DirFS(dir), sub)
		if err != nil {
			t.Fatal(err)
		}
		set.Add(s)
		problems = append(problems, ps...)
	}
	return set, problems
}

// Every positive of the regression data must match the rule it was made for.
func TestSigmaHQRegressionData(t *testing.T) {
	dir := sigmaHQ(t)
	set, parseProblems := loadSigmaHQ(t, dir)
	s, problems := scan.New(set, scan.Options{Placeholders: map[string][]string{}})
	for _, p := range append(parseProblems, problems...) {
		t.Logf("%v", p)
	}
	t.Logf("%d rules", len(set.Rules))
	positives, hits := 0, 0
	err := filepath.WalkDir(filepath.Join(dir, "regression_data"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.Name() != "info.yml" {
			return err
		}
		var info struct {
			Rules []struct{ ID string } `yaml:"rule_metadata"`
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := yaml.Unmarshal(data, &info); err != nil {
			return err
		}
		files, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*.json"))
		for _, file := range files {
			positives++
			var ids []string
			sum, err := s.File(file, func(h scan.Hit) error { ids = append(ids, h.RuleID); return nil }, func(err error) { t.Error(err) })
			if err != nil {
				t.Error(err)
			}
			hits += len(ids)
			for _, r := range info.Rules {
				if !slices.Contains(ids, r.ID) {
					t.Errorf("%s: rule %s did not match; %+v, matched %v", strings.TrimPrefix(file, dir), r.ID, sum, ids)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d positives, %d hits", positives, hits)
	if positives < 140 {
		t.Errorf("only %d positives found", positives)
	}
}
