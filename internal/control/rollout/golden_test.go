package rollout

import (
	"math"
	"testing"
)

func near(t *testing.T, name string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > 5e-10*math.Abs(want) && math.Abs(got-want) > 1e-4*math.Pow(10, math.Floor(math.Log10(math.Abs(want)))-5) {
		t.Errorf("%s: got %.10g, want %.10g", name, got, want)
	}
}

// TestGoldenEvidence pins the statistic to values computed independently.
func TestGoldenEvidence(t *testing.T) {
	for _, c := range []struct {
		name   string
		q      float64
		y, c   int
		events string
		want   []float64
	}{
		{"two crashes among five treated", 2e-5, 5, 500, "TT", []float64{55.05775062, 4714.395790}},
		{"a control between", 2e-5, 5, 500, "TCT", []float64{55.05775062, 8.464370227, 439.2269062}},
		{"the whole fleet as control", 2e-5, 5, 8_500_000, "T", []float64{4849.051200}},
		{"laptops", 5e-3, 3, 300, "TTT", []float64{11.89167458, 439.8732630, 24720.82709}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := fastGridFor(c.q, 1.25)
			var l fastL
			y, n := c.y, c.c
			for i, ev := range c.events {
				step := g.step(ev == 'T', share(y, n, 1.25))
				l.add(&step)
				near(t, c.events[:i+1], l.value(), c.want[i])
				if ev == 'T' {
					y--
				} else {
					n--
				}
			}
		})
	}
}

// TestGoldenRateRatios checks the factor on a grid of rate ratios.
func TestGoldenRateRatios(t *testing.T) {
	rs := []float64{1.25, 1.5, 2, 3, 5, 10, 30, 100, 1000}
	vs := []float64{.10, .15, .20, .15, .10, .10, .08, .07, .05}
	want := []float64{3.906096633, 24.84219870, 6.787140285, 36.63064789}
	l := make([]float64, len(rs))
	for n, ev := range "TTCT" {
		var e float64
		for i, r := range rs {
			l[i] -= math.Log1p((r - 1) / 11)
			if ev == 'T' {
				l[i] += math.Log(r)
			}
			e += vs[i] * math.Exp(l[i])
		}
		near(t, "TTCT"[:n+1], e, want[n])
	}
}
