package sigma_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// BenchmarkLoad reads all of SigmaHQ's rules, files included.
func BenchmarkLoad(b *testing.B) {
	data := os.Getenv("HOLDFAST_DATA")
	if data == "" {
		b.Skip("HOLDFAST_DATA is not set: it names a directory with sigmahq/rules")
	}
	fsys := os.DirFS(filepath.Join(data, "sigmahq"))
	b.ReportAllocs()
	for b.Loop() {
		rules := 0
		for _, dir := range []string{"rules", "rules-emerging-threats", "rules-threat-hunting"} {
			set, _, err := sigma.Load(fsys, dir)
			if err != nil {
				b.Fatal(err)
			}
			rules += len(set.Rules)
		}
		if rules == 0 {
			b.Fatal("no rules below", data)
		}
		b.ReportMetric(float64(rules), "rules")
	}
}
