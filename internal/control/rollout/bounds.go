package rollout

import "math"

// HarmBound is hU: with probability 1-delta, at every moment, the share of
// hosts the release harms is below it, when n treated hosts proved clean and x
// were harmed.
//
// It inverts the mixture of a point mass at 0 and a uniform prior, half each
// (the beta-mixture of Howard et al. 2021 with an atom): 1-(δ/2)^(1/n) while
// nobody was harmed.
func HarmBound(n, x int, delta float64) float64 {
	switch {
	case n <= 0:
		return 1
	case x <= 0:
		return -math.Expm1(math.Log(delta/2) / float64(n))
	}
	// p is excluded once ½·B(x+1, n+1) ≥ p^x (1-p)^n / δ.
	lx, _ := math.Lgamma(float64(x) + 1)
	ln, _ := math.Lgamma(float64(n) + 1)
	lnx, _ := math.Lgamma(float64(n+x) + 2)
	mixture := lx + ln - lnx - math.Ln2 + math.Log(delta)
	low, high := float64(x)/float64(n+x), 1.0
	for range 200 {
		p := (low + high) / 2
		if float64(x)*math.Log(p)+float64(n)*math.Log1p(-p) > mixture {
			low = p
		} else {
			high = p
		}
	}
	return high
}

// Reach says what a rollout can promise to one fleet before it starts, if every
// host that gets the release is harmed and no other is.
type Reach struct {
	// Harmed is how many hosts are harmed before the recall, at most: C0 are
	// admitted while nothing is known, then one probe at a time.
	Harmed int `json:"harmed"`
	// Events is how many harm events HALT needs; 0 if it is out of reach and
	// STOP is what ends the rollout.
	Events int `json:"events"`
	// Halts says that HALT ends it; otherwise STOP does, after StopAt hosts.
	Halts bool `json:"halts"`
}

// ReachOf computes the Reach of a policy for a single stratum of eligible
// hosts: the worst case of a small fleet. A ring that is too small for the test
// may lose hosts without evidence before the next opens; what then bounds the
// harm is STOP. A hidden few among many hosts take longer; docs/halting.md has
// measured figures.
func ReachOf(p *Policy, eligible int) Reach {
	lost := 0
	for _, r := range p.Rings {
		n := int(float64(eligible) * float64(r.Through) / 1e6)
		first := reachWithin(p, n)
		if n >= eligible || n > 0 && first.Halts {
			first.Harmed = max(first.Harmed, lost)
			return first
		}
		lost = min(eligible, mostHarmed)
	}
	return reachWithin(p, eligible)
}

// reachWithin is the Reach in one ring.
func reachWithin(p *Policy, eligible int) Reach {
	kept := 1
	if eligible > 1 {
		kept = max(1, int(math.Ceil(p.SmallControlShare*float64(eligible))))
	}
	first := min(p.C0, max(1, eligible-kept))
	a := layout{levels: 4, strata: 1, signals: len(p.Signals)}
	weight := a.fastWeight(0) + 4*a.fastWeight(1) + a.fastWeight(5)
	g := fastGridFor(defaultRate, p.ThetaFast)
	// Who is harmed within seconds meets those controls that have asked by then.
	pending, controls := first, (eligible-first+1)/2
	var l fastL
	value := l.scope()
	r := Reach{}
	for harmed := 0; controls > 0 && harmed < mostHarmed; {
		y := pending
		if y == 0 {
			y = 1
			controls--
		} else {
			pending--
		}
		step := g.step(true, share(y, controls, p.ThetaFast))
		value.move(&l, &step)
		harmed++
		if 1-weight+weight*value.value >= 1/p.Alpha {
			return Reach{Harmed: max(first, harmed), Events: harmed, Halts: true}
		}
	}
	r.Harmed = min(eligible, mostHarmed)
	return r
}
