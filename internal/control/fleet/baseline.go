package fleet

import (
	"math/bits"
	"time"

	"github.com/holdfast-security/holdfast"
)

// Baseline is what is frozen before a release begins.
type Baseline struct {
	// Merged names the parent of strata too small to stand alone.
	Merged map[holdfast.Stratum]holdfast.Stratum `json:"merged,omitempty"`
	// Limits are the 99th percentiles of how much an undisturbed host of a
	// stratum grows within a fast window. A stratum without enough samples has
	// none, and raises no events of that kind.
	Limits map[holdfast.Stratum]Limits `json:"limits,omitempty"`
}

// Limits bound growth that is not an event.
type Limits struct {
	RSS uint64 `json:"rss"`       // bytes
	CPU uint64 `json:"cpu_milli"` // thousandths of a core
}

// sample is how an undisturbed host was, to be compared a window later.
type sample struct {
	at       time.Time
	rss, cpu uint64
}

// growth counts how much undisturbed hosts grew, by stratum, in buckets that
// widen by a quarter: enough for a percentile, and of fixed size.
type growth map[holdfast.Stratum]*[2]histogram

type histogram struct {
	n       uint32
	buckets [64 * 4]uint32
}

const (
	leastSamples = 200
	mostStrata   = 10_000 // hosts choose their attributes: this bounds memory
	growthWindow = 10     // heartbeats between two samples
)

// Growth below these is no regression, however even a stratum is: a percentile
// of hosts that hardly differ would call every second one harmed, in both arms.
const (
	leastRSS = 16 << 20 // bytes
	leastCPU = 100      // thousandths of a core
)

// bucket numbers quarter-octaves; its inverse, upper, is the largest value of
// a bucket.
func bucket(v uint64) int {
	if v < 4 {
		return int(v)
	}
	e := bits.Len64(v) - 1
	return 4*(e-1) + int(v>>(e-2)&3)
}

func upper(b int) uint64 {
	if b < 4 {
		return uint64(b)
	}
	e, q := b/4+1, uint64(b%4)
	return (4+q+1)<<(e-2) - 1
}

func (h *histogram) add(v uint64) {
	h.n++
	h.buckets[bucket(v)]++
}

// p99 is an upper bound of the 99th percentile, tight to a quarter.
func (h *histogram) p99() uint64 {
	need := h.n - h.n/100
	var seen uint32
	for b, n := range h.buckets {
		if seen += n; seen >= need {
			return upper(b)
		}
	}
	return 0
}

// grow samples a host that no release has touched for a window.
func (f *Fleet) grow(h *host, at time.Time) {
	r := &h.Report
	for _, s := range h.seats {
		if a := s.current(); a != nil && f.Observed(a.At, at) < 2*s.release.Fast {
			h.sample = sample{}
			return
		}
	}
	if r.Probation || r.RSS == 0 {
		h.sample = sample{}
		return
	}
	if h.sample.at.IsZero() {
		h.sample = sample{at, r.RSS, r.CPU}
		return
	}
	if at.Sub(h.sample.at) < growthWindow*f.clock.Heartbeat {
		return
	}
	g := f.growth[h.stratum]
	if g == nil {
		if len(f.growth) >= mostStrata {
			return
		}
		g = &[2]histogram{}
		f.growth[h.stratum] = g
	}
	g[0].add(r.RSS - min(r.RSS, h.sample.rss))
	g[1].add(r.CPU - min(r.CPU, h.sample.cpu))
	h.sample = sample{at, r.RSS, r.CPU}
}

// Freeze returns the limits as they are now, for strata merged as merged says.
func (f *Fleet) Freeze(merged map[holdfast.Stratum]holdfast.Stratum) Baseline {
	sum := growth{}
	for s, g := range f.growth {
		if to, ok := merged[s]; ok {
			s = to
		}
		if sum[s] == nil {
			sum[s] = &[2]histogram{}
		}
		for i := range g {
			sum[s][i].n += g[i].n
			for b, n := range g[i].buckets {
				sum[s][i].buckets[b] += n
			}
		}
	}
	b := Baseline{Merged: merged, Limits: map[holdfast.Stratum]Limits{}}
	for s, g := range sum {
		if g[0].n >= leastSamples {
			b.Limits[s] = Limits{RSS: max(leastRSS, g[0].p99()), CPU: max(leastCPU, g[1].p99())}
		}
	}
	return b
}
