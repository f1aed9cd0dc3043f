package main

import (
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkHot evaluates the same chunk again and again: what the engine costs
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
		m.generate(newGenerator(1, some.Rules, 0.01, linux))
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			m.evaluate()
			c := startClock()
			for b.Loop() {
				m.evaluate()
			}
			_, cpu := c.stop()
			b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N)/chunk, "cpu-ns/event")
		})
	}
}
