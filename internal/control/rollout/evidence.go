package rollout

import (
	"math"

	"github.com/holdfast-security/holdfast"
)

// The grids of alternatives and their weights. A fast alternative is a hazard:
// the share of hosts harmed within the window; a slow one is a rate ratio.
var (
	fastH = [...]float64{1e-4, 1e-3, 1e-2, .1, .5}
	fastV = [...]float64{.15, .20, .25, .20, .20}
	slowR = [...]float64{1.5, 2, 3, 5, 10, 30}
	slowV = [...]float64{.2, .3, .2, .1, .1, .1}
)

// Weights of the combination; each is divided equally among its scopes and the
// enabled signals. They sum to 1.
const (
	weightPoolFast    = .35
	weightStrataFast  = .175
	weightFactorsFast = .175
	weightPoolSlow    = .20
	weightStrataSlow  = .10
)

// defaultRate stands in for a baseline nobody measured: that of servers.
const defaultRate = 2e-5

// mostL keeps exp(L) finite, so that evidence can always be stored and shown.
const mostL = 680

type (
	fastL [len(fastH)]float64
	slowL [len(slowR)]float64
)

// A grid holds r, ln r and r-1 of every alternative.
type fastGrid struct{ r, lnR, rLess1 [len(fastH)]float64 }

// fastGridFor returns the alternatives r = max(1, (q+h)/(qθ)) for a baseline q.
func fastGridFor(q, theta float64) (g fastGrid) {
	for i, h := range fastH {
		r := max(1, (q+h)/(q*theta))
		g.r[i], g.lnR[i], g.rLess1[i] = r, math.Log(r), r-1
	}
	return g
}

var slowGrid = func() (g struct{ r, lnR, rLess1 [len(slowR)]float64 }) {
	for i, r := range slowR {
		g.r[i], g.lnR[i], g.rLess1[i] = r, math.Log(r), r-1
	}
	return g
}()

// share is pi: the probability, at the boundary of the null hypothesis, that
// an event falls on a treated host when y treated and c controls are at risk.
func share(y, c int, theta float64) float64 {
	ty := theta * float64(y)
	return ty / (ty + float64(c))
}

// A fastStep is the likelihood ratio of one event under each alternative, and
// its logarithm.
type fastStep struct {
	factor fastL
	log    fastL
}

type slowStep struct {
	factor slowL
	log    slowL
}

func (g *fastGrid) step(treated bool, pi float64) (s fastStep) {
	for i := range s.log {
		x := g.rLess1[i] * pi
		s.factor[i], s.log[i] = 1/(1+x), -math.Log1p(x)
		if treated {
			s.factor[i] *= g.r[i]
			s.log[i] += g.lnR[i]
		}
	}
	return s
}

func stepSlow(treated bool, pi float64) (s slowStep) {
	for i := range s.log {
		x := slowGrid.rLess1[i] * pi
		s.factor[i], s.log[i] = 1/(1+x), -math.Log1p(x)
		if treated {
			s.factor[i] *= slowGrid.r[i]
			s.log[i] += slowGrid.lnR[i]
		}
	}
	return s
}

// A scope's likelihoods are kept as logarithms, which are stored, and within
// one decision as themselves, so that an event costs no exponential.
type (
	fastScope struct {
		exp   fastL
		value float64 // the e-value: the mixture over alternatives
	}
	slowScope struct {
		exp   slowL
		value float64
	}
)

func (l *fastL) scope() (s fastScope) {
	if *l == (fastL{}) {
		return fastScope{fastL{1, 1, 1, 1, 1}, 1}
	}
	for i, x := range l {
		s.exp[i] = math.Exp(x)
		s.value += fastV[i] * s.exp[i]
	}
	return s
}

func (l *slowL) scope() (s slowScope) {
	if *l == (slowL{}) {
		return slowScope{slowL{1, 1, 1, 1, 1, 1}, 1}
	}
	for i, x := range l {
		s.exp[i] = math.Exp(x)
		s.value += slowV[i] * s.exp[i]
	}
	return s
}

// value is the e-value of a scope.
func (l *fastL) value() float64 { s := l.scope(); return s.value }

func (l *slowL) value() float64 { s := l.scope(); return s.value }

// move multiplies a scope by one event's factors, and returns by how much its
// e-value changed.
func (s *fastScope) move(l *fastL, step *fastStep) float64 {
	before := s.value
	s.value = 0
	for i := range l {
		l[i] += step.log[i]
		s.exp[i] *= step.factor[i]
		if l[i] > mostL {
			l[i], s.exp[i] = mostL, math.Exp(mostL)
		}
		s.value += fastV[i] * s.exp[i]
	}
	return s.value - before
}

func (s *slowScope) move(l *slowL, step *slowStep) float64 {
	before := s.value
	s.value = 0
	for i := range l {
		l[i] += step.log[i]
		s.exp[i] *= step.factor[i]
		if l[i] > mostL {
			l[i], s.exp[i] = mostL, math.Exp(mostL)
		}
		s.value += slowV[i] * s.exp[i]
	}
	return s.value - before
}

// layout numbers the scopes: 0 is the pool, then levels of factors, then
// strata.
type layout struct{ levels, strata, signals int }

func (a layout) scopes() int              { return 1 + a.levels + a.strata }
func (a layout) at(scope, signal int) int { return scope*a.signals + signal }
func (a layout) level(i int) int          { return 1 + i }
func (a layout) stratum(i int) int        { return 1 + a.levels + i }
func (a layout) isStratum(scope int) bool { return scope > a.levels }
func (a layout) fastWeight(sc int) float64 {
	return a.weight(sc, weightPoolFast, weightFactorsFast, weightStrataFast)
}

func (a layout) slowWeight(sc int) float64 { return a.weight(sc, weightPoolSlow, 0, weightStrataSlow) }

// weight divides a family's weight among its scopes and signals. Without any
// level (every stratum merged into one) the levels' weight goes to the pool, so
// that the weights still sum to 1.
func (a layout) weight(scope int, pool, levels, strata float64) float64 {
	var w float64
	switch {
	case scope == 0 && a.levels == 0:
		w = pool + levels
	case scope == 0:
		w = pool
	case !a.isStratum(scope):
		w = levels / float64(a.levels)
	default:
		w = strata / float64(a.strata)
	}
	return w / float64(a.signals)
}

// scopeValues caches the scopes of a party within one decision.
type scopeValues struct {
	fast []fastScope
	slow []slowScope
}

// combine evaluates every scope, and returns E and the pool's fast e-value (the
// mean over signals).
func (a layout) combine(l *Likelihoods) (v scopeValues, e, pooled float64) {
	v = scopeValues{make([]fastScope, len(l.fast)), make([]slowScope, len(l.slow))}
	for sc := range a.scopes() {
		wf, ws := a.fastWeight(sc), a.slowWeight(sc)
		for k := range a.signals {
			i := a.at(sc, k)
			v.fast[i] = l.fast[i].scope()
			e += wf * v.fast[i].value
			if sc == 0 {
				pooled += v.fast[i].value / float64(a.signals)
			}
			if ws > 0 {
				v.slow[i] = l.slow[i].scope()
				e += ws * v.slow[i].value
			}
		}
	}
	return v, e, pooled
}

// A spectrum holds the log-likelihood of the events so far under a grid of
// hazard ratios. It gives the confidence sequence: a ratio ρ is excluded once
// the mixture of all ratios beats it by 1/δ.
type spectrum [spectrumSize]float64

const (
	spectrumSize = 17 // ratios 2^-6 … 2^10
	spectrumLow  = -6
)

var ratios = func() (r [spectrumSize]float64) {
	for j := range r {
		r[j] = math.Exp2(float64(spectrumLow + j))
	}
	return r
}()

func (s *spectrum) step(treated bool, y, c int) {
	if y == 0 || c == 0 {
		return // the event had to fall where it fell
	}
	odds := float64(y) / float64(c)
	ln := math.Log(odds)
	for j, rho := range ratios {
		s[j] -= math.Log1p(rho * odds)
		if treated {
			s[j] += ln + float64(spectrumLow+j)*math.Ln2
		}
	}
}

// HazardRatio is a confidence sequence: with probability 1-δ it contains the
// true ratio of hazards at every moment.
type HazardRatio struct {
	Low  float64 `json:"low"`  // 0: not bounded from below
	High float64 `json:"high"` // 0: not bounded from above
}

func (s *spectrum) interval(delta float64) (h HazardRatio) {
	top := s[0]
	for _, l := range s {
		top = max(top, l)
	}
	var sum float64
	for _, l := range s {
		sum += math.Exp(l - top)
	}
	mixture := top + math.Log(sum/spectrumSize)
	kept := func(j int) bool { return mixture-s[j] < -math.Log(delta) }
	for j := range s {
		if kept(j) {
			if j > 0 {
				h.Low = ratios[j-1]
			}
			break
		}
	}
	for j := len(s) - 1; j >= 0; j-- {
		if kept(j) {
			if j < len(s)-1 {
				h.High = ratios[j+1]
			}
			break
		}
	}
	return h
}

// rate returns the baseline of a stratum and signal: the most specific entry,
// the last one if several match.
func (p *Policy) rate(s holdfast.Stratum, k holdfast.HarmKind) float64 {
	general, special := 0.0, 0.0
	for _, b := range p.Baselines {
		switch {
		case b.Signal != k:
		case b.Stratum == s:
			special = b.Rate
		case b.Stratum == "":
			general = b.Rate
		}
	}
	switch {
	case special > 0:
		return special
	case general > 0:
		return general
	}
	return defaultRate
}
