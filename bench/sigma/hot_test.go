package main

import (
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkHot evaluates the same group again and again: what the engine costs
// when nothing is ever out of the caches.
func BenchmarkHot(b *testing.B) {
	data := os.Getenv("HOLDFAST_DATA")
	if data == "" {
		b.Skip("HOLDFAST_DATA is not set: it names a directory with sigmahq/rules")
	}
	set, err := load(filepath.Join(data, "sigmahq"))
	if err != nil {
		b.Fatal(err)
	}
	for name, linux := range map[string]bool{"all": false, "linux": true} {
		some := set
		if linux {
			some = linuxOnly(set)
		}
		m := newMeter(some, false)
		events, _ := m.decoder.decode(m.layouter.generate(newGenerator(1, some.Rules, 0.01, linux), nil))
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			m.run(events)
			c := startClock()
			for b.Loop() {
				m.run(events)
			}
			_, cpu := c.stop()
			b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N)/group, "cpu-ns/event")
		})
	}
}
