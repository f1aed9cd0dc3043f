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
			e := l.scope()
			y, n := c.y, c.c
			for i, ev := range c.events {
				step := g.step(ev == 'T', share(y, n, 1.25))
				e.move(&l, &step)
				near(t, c.events[:i+1], e.value, c.want[i])
				near(t, c.events[:i+1]+" by logarithms", l.value(), c.want[i])
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

// TestGoldenHarmBound pins hU to §3's values, and its beta mixture to what it
// must at least be.
func TestGoldenHarmBound(t *testing.T) {
	for n, want := range map[int]float64{20: .168433, 100: .036217, 1000: .003682, 10_000: 3.6882e-4} {
		if got := HarmBound(n, 0, .05); math.Abs(got-want) > 5e-4*want {
			t.Errorf("hU after %d clean hosts is %.6g, want %.6g", n, got, want)
		}
	}
	for _, n := range []int{1, 20, 1000} {
		for x := range 5 {
			h := HarmBound(n, x, .05)
			if h < float64(x)/float64(n+x) || h > 1 || x > 0 && h <= HarmBound(n, x-1, .05) {
				t.Errorf("hU(%d clean, %d harmed) = %g", n, x, h)
			}
		}
	}
	if got := HarmBound(0, 0, .05); got != 1 {
		t.Errorf("hU without any host is %g", got)
	}
}

// TestGoldenMaxSPRT is an offline cross-check of the same family of statistics:
// critical values of the exact Poisson maxSPRT at level 0.05 (Kulldorff et al.
// 2011), found by exact recursion.
func TestGoldenMaxSPRT(t *testing.T) {
	for _, c := range []struct {
		horizon float64
		least   int
		want    float64
	}{{10, 1, 3.467952}, {10, 3, 3.064248}, {10, 4, 2.921561}, {50, 1, 3.819903}} {
		low, high := .5, 8.
		for range 60 {
			if cv := (low + high) / 2; maxSPRTLevel(c.horizon, c.least, cv) > .05 {
				low = cv
			} else {
				high = cv
			}
		}
		if math.Abs(low-c.want) > 2e-5 {
			t.Errorf("T=%g, M=%d: critical value %.6f, want %.6f", c.horizon, c.least, low, c.want)
		}
	}
}

// maxSPRTLevel is the probability that a Poisson process of rate 1 ever signals
// up to the horizon when the critical value is cv and at least least events are
// needed.
func maxSPRTLevel(horizon float64, least int, cv float64) float64 {
	// The n-th event signals if it comes before the time mu at which the log
	// likelihood ratio mu - n + n ln(n/mu) falls to cv.
	limit := func(n int) float64 {
		if n < least {
			return 0
		}
		lo, hi := 0., float64(n)
		for range 100 {
			mu := (lo + hi) / 2
			if mu-float64(n)+float64(n)*math.Log(float64(n)/mu) > cv {
				lo = mu
			} else {
				hi = mu
			}
		}
		return lo
	}
	// alive[k] is the probability of k events by the time reached so far and
	// no signal. Between two limits nothing is absorbed.
	alive, at, n := []float64{1}, 0., 1
	for ; ; n++ {
		to := min(limit(n), horizon)
		next := make([]float64, n)
		for k, p := range alive {
			for j := k; j < n; j++ { // j < n: an n-th event before its limit signals
				next[j] += p * poisson(j-k, to-at)
			}
		}
		alive, at = next, to
		if to == horizon {
			break
		}
	}
	var quiet float64
	for _, p := range alive {
		quiet += p
	}
	return 1 - quiet
}

func poisson(k int, mu float64) float64 {
	if mu == 0 {
		if k == 0 {
			return 1
		}
		return 0
	}
	g, _ := math.Lgamma(float64(k) + 1)
	return math.Exp(float64(k)*math.Log(mu) - mu - g)
}
