package store_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/edge/store"
)

// The benchmarks write to a real disk, each batch durable.
func openBench(b *testing.B) *store.Store {
	b.Helper()
	s, err := store.Open(b.Context(), filepath.Join(b.TempDir(), "holdfast.db"))
	must(b, err)
	b.Cleanup(func() { s.Close() })
	return s
}

func perSecond(b *testing.B, rows int) {
	b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkAddFindings(b *testing.B) {
	s := openBench(b)
	must(b, s.CreateHost(b.Context(), holdfast.Host{ID: "h"}))
	const batch = 100
	n := 0
	for b.Loop() {
		found := make([]holdfast.Finding, batch)
		for i := range found {
			n++
			found[i] = holdfast.Finding{ID: fmt.Sprint("f", n), Rule: "rule", Title: "A title of ordinary length", Severity: "high", At: t0, Received: t0, Event: []holdfast.Fact{{Field: "process.file.path", Value: "/usr/bin/curl"}}}
		}
		if _, err := s.AddFindings(b.Context(), "h", found); err != nil {
			b.Fatal(err)
		}
	}
	perSecond(b, batch)
}

func BenchmarkAddAdmissions(b *testing.B) {
	s := openBench(b)
	const batch = 1000
	n := 0
	for b.Loop() {
		all := make([]holdfast.Admission, batch)
		for i := range all {
			n++
			all[i] = holdfast.Admission{Release: "r", Host: holdfast.HostID(fmt.Sprint("h", n)), Stratum: "6.1|debian-12|1.0|server", Arm: holdfast.New, At: t0, Lease: fmt.Sprint("l", n), Boot: "b"}
		}
		if err := s.AddAdmissions(b.Context(), all); err != nil {
			b.Fatal(err)
		}
	}
	perSecond(b, batch)
}

func BenchmarkSaveHosts(b *testing.B) {
	s := openBench(b)
	const batch = 500
	all := make([]holdfast.Host, batch)
	for i := range all {
		all[i] = holdfast.Host{ID: holdfast.HostID(fmt.Sprint("h", i)), Org: "o", Attributes: holdfast.Attributes{Hostname: "web-1", Kernel: "6.1"}}
		must(b, s.CreateHost(b.Context(), all[i]))
	}
	for b.Loop() {
		if err := s.SaveHosts(b.Context(), all); err != nil {
			b.Fatal(err)
		}
	}
	perSecond(b, batch)
}

func BenchmarkAppendRecord(b *testing.B) {
	s := openBench(b)
	for b.Loop() {
		if _, err := s.Append(b.Context(), holdfast.Entry{At: t0, Kind: "promote", Text: "rules 1 is open to ring internal"}); err != nil {
			b.Fatal(err)
		}
	}
	perSecond(b, 1)
}
