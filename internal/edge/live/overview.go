package live

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/edge/store"
	"github.com/holdfast-security/holdfast/internal/view"
)

// Overview sums the installation up.
func (s *Source) Overview(ctx context.Context) (o view.Overview, err error) {
	f, err := s.fleet.get(ctx)
	if err != nil {
		return o, err
	}
	o = view.Overview{Now: s.Now(), Hosts: len(f.hosts), States: map[view.HostState]int{}}
	o.Rings = make([]view.RingStates, len(f.plan))
	ring := map[string]*view.RingStates{}
	for i, r := range f.plan {
		o.Rings[i] = view.RingStates{Name: r.Name, States: map[view.HostState]int{}}
		ring[r.Name] = &o.Rings[i]
	}
	builds := map[holdfast.Digest]*buildTally{}
	for i := range f.hosts {
		h := &f.hosts[i]
		o.States[h.State]++
		if h.Simulated {
			o.Simulated++
		}
		r := ring[h.Ring]
		r.Hosts++
		r.States[h.State]++
		if len(f.hosts) <= dotsUpTo {
			r.Of = append(r.Of, view.HostDot{ID: h.ID, Hostname: h.Attributes.Hostname, State: h.State, Simulated: h.Simulated})
		}
		tally(builds, h)
		o.Loss.Events += h.Report.Events
		o.Loss.EventsDropped += h.Report.EventsDropped
		o.Loss.FindingsDropped += h.Report.FindingsDropped
		o.Loss.Crashes += h.Report.Crashes
	}
	for _, b := range builds {
		o.Builds = append(o.Builds, b.count())
	}
	slices.SortFunc(o.Builds, func(a, b view.BuildCount) int {
		return cmp.Or(cmp.Compare(b.Hosts, a.Hosts), cmp.Compare(b.Version, a.Version), cmp.Compare(a.Digest, b.Digest))
	})
	if o.Trend, err = s.trends.get(ctx); err != nil {
		return o, err
	}
	rows, err := s.Rollouts(ctx)
	if err != nil {
		return o, err
	}
	if len(rows) > 0 {
		o.Rollout = &rows[0]
	}
	found, err := s.Store.Findings(ctx, store.FindingFilter{Org: s.org, Limit: 10})
	if err != nil {
		return o, err
	}
	for _, n := range found {
		o.Findings = append(o.Findings, n.Finding)
	}
	o.Decisions, err = s.decisions(ctx, 6)
	return o, err
}

type buildTally struct {
	view.BuildCount
	sensors map[string]int
}

func tally(all map[holdfast.Digest]*buildTally, h *view.HostRow) {
	b := all[h.Attributes.Build]
	if b == nil {
		b = &buildTally{view.BuildCount{Version: h.Attributes.Version, Digest: h.Attributes.Build}, map[string]int{}}
		all[h.Attributes.Build] = b
	}
	b.Hosts++
	b.sensors[h.Attributes.Sensor]++
	if h.Simulated {
		b.Simulated++
	}
}

func (b *buildTally) count() view.BuildCount {
	tiers := slices.SortedFunc(maps.Keys(b.sensors), func(x, y string) int {
		return cmp.Or(cmp.Compare(b.sensors[y], b.sensors[x]), cmp.Compare(x, y))
	})
	b.Sensor = strings.Join(tiers, ", ")
	return b.BuildCount
}

// routine kinds of entries say how a decision was carried out; the overview
// leaves them to the record.
var routine = map[string]bool{"admit": true, "note": true, "build": true, "metadata": true}

func (s *Source) decisions(ctx context.Context, n int) ([]view.Entry, error) {
	leaves, err := s.Store.Record(ctx, store.RecordFilter{Limit: 200})
	var list []view.Entry
	for _, l := range leaves {
		if !routine[l.Kind] && len(list) < n {
			list = append(list, entry(l))
		}
	}
	return list, err
}

// The trend covers a day, or, while the oldest host is younger than that, an
// hour; and looks at no more than so many findings.
const mostTrended = 10_000

func (s *Source) readTrend(ctx context.Context) (t view.Trend, err error) {
	f, err := s.fleet.get(ctx)
	if err != nil {
		return t, err
	}
	now := s.Now()
	oldest := now
	for _, h := range f.hosts {
		if h.Enrolled.Before(oldest) {
			oldest = h.Enrolled
		}
	}
	steps := 48
	t.Step = 30 * time.Minute
	if now.Sub(oldest) < 6*time.Hour {
		steps, t.Step = 60, time.Minute
	}
	t.From = now.Truncate(t.Step).Add(-time.Duration(steps-1) * t.Step)
	t.By = map[holdfast.Severity][]int{"informational": make([]int, steps)}
	found, err := s.Store.Findings(ctx, store.FindingFilter{Org: s.org, Since: t.From, Limit: mostTrended})
	for _, n := range found {
		i := int(n.Received.Sub(t.From) / t.Step)
		if i < 0 || i >= steps {
			continue
		}
		if t.By[n.Severity] == nil {
			t.By[n.Severity] = make([]int, steps)
		}
		t.By[n.Severity][i]++
	}
	return t, err
}
