package sim

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestJuly19 plays a small fleet once, or the whole one when HOLDFAST_SIM_RUNS
// says how often.
func TestJuly19(t *testing.T) {
	o := July19Options{Runs: 1, Hosts: 100_000}
	if s := os.Getenv("HOLDFAST_SIM_RUNS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		o = July19Options{Runs: n}
	}
	r, err := July19(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range r.Rows {
		t.Logf("%-32s %-9s median %v p95 %v, clean %.0f min", row.Rule, row.Variant, row.Median, row.P95, row.CleanMinutes)
		if len(row.Median) != len(r.Faults) || row.Source == "" {
			t.Errorf("%s: %d figures for %d faults, source %q", row.Rule, len(row.Median), len(r.Faults), row.Source)
		}
	}
	for _, ours := range r.Rows[:2] {
		if ours.Rule != "Holdfast" || ours.Median[0] > 6 || ours.P95[1] > 7 {
			t.Errorf("Holdfast: %+v", ours)
		}
	}
	var page strings.Builder
	if err := r.Picture(&page); err != nil {
		t.Fatal(err)
	}
	for _, no := range []string{"<script", "src=", "href=", "url(", "NaN", "Inf"} {
		if strings.Contains(page.String(), no) {
			t.Errorf("the page contains %q", no)
		}
	}
	back := 0
	for _, l := range r.Lines {
		back += min(1, len(l.Recovered))
	}
	if n := strings.Count(page.String(), "<path"); n != 2*len(r.Lines)+back || back != 3 {
		t.Errorf("%d lines are drawn of %d and %d of recovery", n, len(r.Lines), back)
	}
}
