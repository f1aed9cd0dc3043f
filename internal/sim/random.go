package sim

import (
	"math"
	"math/rand/v2"
)

// newRandom returns the generator of a seed and a stream. Independent parts of
// a run use streams of their own, so that one's draws do not shift another's.
func newRandom(seed, stream uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, stream)) }

// binomial draws from Binomial(n, p), exactly: large n are halved by the median
// of a beta order statistic (Devroye, "Non-Uniform Random Variate Generation",
// X.4), small ones are drawn by inversion.
func binomial(r *rand.Rand, n int, p float64) int {
	switch {
	case n <= 0 || p <= 0:
		return 0
	case p >= 1:
		return n
	case p > .5:
		return n - binomial(r, n, 1-p)
	}
	k := 0
	for float64(n)*p > 16 {
		a := 1 + n/2
		x := beta(r, float64(a), float64(n+1-a))
		if x >= p {
			n, p = a-1, p/x
		} else {
			k += a
			n, p = n-a, (p-x)/(1-x)
		}
		if p > .5 {
			return k + n - binomial(r, n, 1-p)
		}
	}
	if n <= 0 || p <= 0 {
		return k
	}
	// Inversion: walk up from zero.
	u, odds := r.Float64(), p/(1-p)
	f := math.Exp(float64(n) * math.Log1p(-p))
	for i := 0; i < n; i++ {
		if u < f {
			return k + i
		}
		u -= f
		f *= odds * float64(n-i) / float64(i+1)
		if f == 0 && i > 200 {
			break
		}
	}
	return k + min(n, 200)
}

// exponent is the hazard h of an event of probability p: p = 1-e^-h.
func exponent(p float64) float64 {
	if p >= 1 {
		return math.Inf(1)
	}
	return -math.Log1p(-p)
}

// A walk finds those among a long line of hosts to whom something happens, each
// with a small probability of its own. It asks nobody: it draws how far it is to
// the next, which is geometric, as the integer part of an exponential number
// over the hazard; and what is left of that number is exponential again, so the
// hazard may change from host to host (Devroye, X.2).
type walk struct {
	random *rand.Rand
	left   float64
}

func newWalk(r *rand.Rand) walk { return walk{r, r.ExpFloat64()} }

// among passes n hosts of one hazard, and returns to how many it happened.
func (w *walk) among(n int, hazard float64) (hits int) {
	for n > 0 {
		if all := float64(n) * hazard; w.left >= all {
			w.left -= all
			break
		}
		n -= int(w.left/hazard) + 1
		w.left = w.random.ExpFloat64()
		hits++
	}
	return hits
}

// beta draws from Beta(a, b) for a, b ≥ 1.
func beta(r *rand.Rand, a, b float64) float64 {
	x, y := gamma(r, a), gamma(r, b)
	return x / (x + y)
}

// gamma draws from Gamma(a, 1) for a ≥ 1 (Marsaglia and Tsang 2000).
func gamma(r *rand.Rand, a float64) float64 {
	d := a - 1./3
	c := 1 / math.Sqrt(9*d)
	for {
		x := r.NormFloat64()
		v := 1 + c*x
		if v <= 0 {
			continue
		}
		v = v * v * v
		if math.Log(r.Float64()) < x*x/2+d-d*v+d*math.Log(v) {
			return d * v
		}
	}
}

// hypergeometric draws how many of n hosts, taken without replacement from all
// of which marked are marked, are marked. It is exact while the smallest of the
// four counts is at most 512, and a rounded normal beyond, where nothing that
// is decided depends on the difference.
func hypergeometric(r *rand.Rand, all, marked, n int) int {
	n, marked = min(max(n, 0), all), min(max(marked, 0), all)
	if n > marked {
		n, marked = marked, n // symmetric
	}
	switch {
	case n == 0 || marked == all:
		return n
	case n <= 512:
		return sequential(r, all, marked, n)
	case all-marked <= 512: // count the unmarked instead, one by one
		return n - sequential(r, all, n, all-marked)
	}
	p := float64(marked) / float64(all)
	mean := float64(n) * p
	sd := math.Sqrt(mean * (1 - p) * float64(all-n) / float64(all-1))
	k := int(math.Round(mean + sd*r.NormFloat64()))
	return min(max(k, 0, n+marked-all), n, marked)
}

func sequential(r *rand.Rand, all, marked, n int) (k int) {
	for range n {
		if r.IntN(all) < marked {
			k++
			marked--
		}
		all--
	}
	return k
}
