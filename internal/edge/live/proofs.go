package live

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/view"
)

// proofs remembers how the evidence of rollouts moved while this process ran.
// The store keeps the evidence as it stands, and the record what it was when
// something was decided on it: after a restart the curve has only those points.
type proofs struct {
	mu sync.Mutex
	by map[holdfast.ReleaseID][]view.Sample
}

func (p *proofs) add(id holdfast.ReleaseID, s view.Sample) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.by == nil {
		p.by = map[holdfast.ReleaseID][]view.Sample{}
	}
	all := p.by[id]
	if n := len(all); n > 0 && all[n-1].Value == s.Value {
		return
	}
	all = append(all, s)
	if len(all) > mostSamples { // forget every second of the older half
		half := len(all) / 2
		kept := all[:0]
		for i, x := range all {
			if i >= half || i%2 == 0 {
				kept = append(kept, x)
			}
		}
		all = kept
	}
	p.by[id] = all
}

// of is the curve of a rollout, from E = 1 at its start to now.
func (p *proofs) of(id holdfast.ReleaseID, d view.RolloutDetail) []view.Sample {
	all := []view.Sample{{At: d.Started, Value: 1}}
	for _, e := range d.Timeline {
		if v, ok := evidenceIn(e); ok {
			all = append(all, view.Sample{At: e.At, Value: v})
		}
	}
	p.mu.Lock()
	all = append(all, p.by[id]...)
	p.mu.Unlock()
	slices.SortStableFunc(all, func(a, b view.Sample) int { return a.At.Compare(b.At) })
	if d.Ended.IsZero() {
		return append(all, view.Sample{At: d.Now, Value: d.Evidence})
	}
	return all
}

// evidenceIn reads the E that halted a rollout out of its entry.
func evidenceIn(e view.Entry) (float64, bool) {
	if e.Kind != "halt" {
		return 0, false
	}
	var logged struct {
		Detail struct {
			Evidence float64 `json:"evidence"`
		} `json:"detail"`
	}
	err := json.Unmarshal([]byte(e.Body), &logged)
	return logged.Detail.Evidence, err == nil && logged.Detail.Evidence > 0
}

// Run notes the evidence of every driven rollout four times a heartbeat, until
// ctx ends.
func (s *Source) Run(ctx context.Context, heartbeat time.Duration) error {
	tick := time.NewTicker(min(max(heartbeat/4, 100*time.Millisecond), 15*time.Second))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		driven, err := s.Store.Rollouts(ctx, true)
		if err != nil {
			continue // the pages say so; the curve has a gap
		}
		for _, r := range driven {
			if v, ok := s.Driver.View(r.Release); ok && len(v.State.Evidence) > 0 && !v.Phase.Done() {
				s.proofs.add(r.Release, view.Sample{At: s.Now(), Value: v.State.Evidence[0].E})
			}
		}
	}
}
