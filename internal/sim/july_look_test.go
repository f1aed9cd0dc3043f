package sim

import (
	"os"
	"testing"
)

func TestJulyLook(t *testing.T) {
	r, err := July19(July19Options{Runs: 3, Hosts: 8_500_000})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range r.Rows {
		t.Logf("%-34s %-9s %v p95 %v clean %.0f", w.Rule, w.Variant, w.Median, w.P95, w.CleanMinutes)
	}
	f, _ := os.Create("/tmp/july19.html")
	defer f.Close()
	_ = r.Picture(f)
}
