package sim

import (
	"math"
	"testing"
)

// TestDraws compares mean and variance with theory, within five standard
// errors.
func TestDraws(t *testing.T) {
	r := newRandom(7, 1)
	check := func(name string, draw func() int, mean, variance float64, low, high int) {
		t.Helper()
		const runs = 20000
		var sum, square float64
		for range runs {
			k := draw()
			if k < low || k > high {
				t.Fatalf("%s: %d lies outside %d to %d", name, k, low, high)
			}
			sum += float64(k)
			square += (float64(k) - mean) * (float64(k) - mean)
		}
		if got := sum / runs; math.Abs(got-mean) > 5*math.Sqrt(variance/runs)+1e-9 {
			t.Errorf("%s: mean %.4f, want %.4f", name, got, mean)
		}
		if got := square / runs; math.Abs(got-variance) > .1*variance+1e-9 {
			t.Errorf("%s: variance %.4f, want %.4f", name, got, variance)
		}
	}
	for _, c := range []struct {
		n int
		p float64
	}{{5, .3}, {100, .02}, {1000, .5}, {1000, .9}, {100000, .3}, {5000000, 1e-6}, {40, 1}} {
		check("binomial", func() int { return binomial(r, c.n, c.p) }, float64(c.n)*c.p, float64(c.n)*c.p*(1-c.p), 0, c.n)
	}
	for _, c := range []struct{ all, marked, n int }{{10, 3, 4}, {1000, 10, 400}, {1000, 990, 400}, {100000, 20000, 3000}, {50, 50, 7}, {50, 0, 7}, {6000, 5000, 4000}} {
		p := float64(c.marked) / float64(c.all)
		v := float64(c.n) * p * (1 - p) * float64(c.all-c.n) / float64(max(1, c.all-1))
		check("hypergeometric", func() int { return hypergeometric(r, c.all, c.marked, c.n) }, float64(c.n)*p, v, max(0, c.n+c.marked-c.all), min(c.n, c.marked))
	}
}

// TestWalkIsBinomial: what a walk finds among hosts in pieces of changing size
// is as many as asking each of them would.
func TestWalkIsBinomial(t *testing.T) {
	r := newRandom(9, 1)
	const runs, hosts = 4000, 5000
	for _, p := range []float64{1e-4, .003, .2, .9, 1} {
		var sum, square float64
		w := newWalk(r)
		for range runs {
			k, left := 0, hosts
			for left > 0 {
				n := 1 + r.IntN(left)
				hits := w.among(n, exponent(p))
				if hits > n {
					t.Fatalf("p=%g: %d of %d", p, hits, n)
				}
				k, left = k+hits, left-n
			}
			d := float64(k) - hosts*p
			sum, square = sum+d, square+d*d
		}
		variance := hosts * p * (1 - p)
		if math.Abs(sum/runs) > 5*math.Sqrt(variance/runs)+1e-9 {
			t.Errorf("p=%g: the mean is off by %g", p, sum/runs)
		}
		if math.Abs(square/runs-variance) > .15*variance+1e-9 {
			t.Errorf("p=%g: variance %g, want %g", p, square/runs, variance)
		}
	}
}
