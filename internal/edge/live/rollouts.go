package live

import (
	"cmp"
	"context"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/reconcile"
	"github.com/holdfast-security/holdfast/internal/control/rollout"
	"github.com/holdfast-security/holdfast/internal/edge/store"
	"github.com/holdfast-security/holdfast/internal/view"
)

// What a rollout page shows at most.
const (
	mostHarms    = 500
	mostTimeline = 200
	mostSamples  = 600
	mostLate     = 50 // strata
)

// stand is a rollout as it is stored, decoded, and as it is driven if it is.
type stand struct {
	holdfast.Release
	stored  holdfast.Rollout
	state   rollout.State
	policy  rollout.Policy
	view    reconcile.View
	driven  bool
	byRing  map[int]map[holdfast.Arm]store.ArmCounts
	harmed  map[int]int // treated hosts, by ring
	late    map[int]int // of those, hosts that were clean before
	started time.Time
}

func (s *Source) stand(ctx context.Context, r holdfast.Rollout) (st stand, err error) {
	st.stored = r
	if st.Release, err = s.Store.Release(ctx, r.Release); err != nil {
		return st, err
	}
	if st.state, err = rollout.Load(r.State); err != nil {
		return st, err
	}
	if len(r.Policy) > 0 {
		if err := json.Unmarshal(r.Policy, &st.policy); err != nil {
			return st, err
		}
	} else {
		st.policy = rollout.DefaultPolicy(st.Profile)
		st.policy.Rings = st.Release.Rings
	}
	st.view, st.driven = s.Driver.View(r.Release)
	if st.byRing, err = s.Store.CountAdmissions(ctx, r.Release); err != nil {
		return st, err
	}
	st.harmed, st.late = map[int]int{}, map[int]int{}
	for _, b := range st.state.Blocks {
		for _, c := range b.Cells {
			st.harmed[c.Ring] += c.HarmedTreated + c.LateHarmedTreated
			st.late[c.Ring] += c.LateHarmedTreated
		}
	}
	if st.state.Collapsed {
		if err := s.ownRings(ctx, &st); err != nil {
			return st, err
		}
	}
	st.started = st.state.Started
	if st.started.IsZero() {
		st.started = st.Created
	}
	return st, nil
}

// ownRings counts again by the rings that hosts are in. A small fleet's rings
// after the first are paced as one, and its rows name that one.
func (s *Source) ownRings(ctx context.Context, st *stand) error {
	ringOf := func(h holdfast.HostID) int {
		if ring, ok := s.Driver.RingOf(st.ID, h); ok {
			return ring
		}
		return st.Release.Rings.Of(h)
	}
	st.byRing, st.harmed, st.late = map[int]map[holdfast.Arm]store.ArmCounts{}, map[int]int{}, map[int]int{}
	clean := map[holdfast.HostID]bool{}
	err := s.Store.Admissions(ctx, store.AdmissionFilter{Release: st.ID}, func(a holdfast.Admission) error {
		ring := ringOf(a.Host)
		if st.byRing[ring] == nil {
			st.byRing[ring] = map[holdfast.Arm]store.ArmCounts{}
		}
		c := st.byRing[ring][a.Arm]
		count := func(n *int, moment time.Time) {
			if !moment.IsZero() {
				*n++
			}
		}
		if a.Again() { // the same host, counted already
			if !clean[a.Host] {
				count(&c.Clean, a.Clean)
			}
		} else {
			c.Admitted++
			count(&c.Activated, a.Activated)
			count(&c.Clean, a.Clean)
			count(&c.Returned, a.Returned)
		}
		if a.Arm == holdfast.New && !a.Clean.IsZero() {
			clean[a.Host] = true
		}
		st.byRing[ring][a.Arm] = c
		return nil
	})
	if err != nil {
		return err
	}
	harms, err := s.Store.Harms(ctx, st.ID, 0, 10_000)
	for _, h := range harms {
		if !h.First || h.Arm != holdfast.New {
			continue
		}
		ring := ringOf(h.Host)
		st.harmed[ring]++
		if h.After > st.policy.Fast {
			st.late[ring]++
		}
	}
	return err
}

// evidence is the whole installation's: 1 against the policy's limit before
// anything happened.
func (st *stand) evidence() rollout.Evidence {
	if len(st.state.Evidence) > 0 {
		return st.state.Evidence[0]
	}
	return rollout.Evidence{E: 1, Peak: 1, Pooled: 1, Limit: 1 / st.policy.Alpha}
}

func (st *stand) row(f *snapshot) view.RolloutRow {
	ev := st.evidence()
	row := view.RolloutRow{Release: st.Release, Phase: st.stored.Phase, Started: st.started, Evidence: ev.E, Alpha: 1 / ev.Limit, Delayed: st.state.Delayed}
	if row.Phase.Done() {
		row.Ended = st.stored.Updated
	}
	eligible, held := st.eligible(f)
	for i, r := range st.Release.Rings {
		n, p := st.byRing[i][holdfast.New], st.byRing[i][holdfast.Placebo]
		g := view.RingProgress{
			Ring: r, Opens: st.Release.Rings.Opens(i, st.Signed), Eligible: max(eligible[i], n.Admitted), Held: held[i],
			Admitted: n.Admitted, Placebo: p.Admitted, Clean: max(0, n.Clean-st.late[i]), Harmed: st.harmed[i], Recalled: n.Returned,
		}
		if i < len(st.state.Rings) && !st.state.Rings[i].Opened.IsZero() {
			g.Opens = st.state.Rings[i].Opened
		}
		row.Eligible += g.Eligible
		row.Held += g.Held
		row.Admitted += g.Admitted
		row.Clean += g.Clean
		row.Harmed += g.Harmed
		row.Rings = append(row.Rings, g)
	}
	return row
}

// eligible counts, by ring, the hosts that can take the release, and those that
// their organisations hold back. Of one that is not driven, or has not begun,
// nobody has counted: then every host in a ring is one of it.
func (st *stand) eligible(f *snapshot) (eligible []int, held map[int]int) {
	if !st.driven || len(st.view.Seen.Groups) == 0 && len(st.view.Seen.Held) == 0 {
		return f.inRings(st.Release.Rings, st.Org), nil
	}
	eligible = make([]int, len(st.Release.Rings))
	for _, g := range st.view.Seen.Groups {
		eligible[g.Ring] += g.Eligible
	}
	return eligible, st.view.Seen.Held
}

// late counts who came when a rollout was complete. That is not stored: the fleet
// knows it of the releases that hosts may still be given.
func (s *Source) late(row *view.RolloutRow) (all []view.Latecomers) {
	for _, l := range s.Driver.Latecomers(row.ID) {
		row.LateFailed += l.Failed
		row.LateWaiting += l.Waiting
		if len(all) < mostLate {
			all = append(all, view.Latecomers(l))
		}
	}
	return all
}

// mostRollouts is how many rollouts the list shows.
const mostRollouts = 100

// Rollouts lists the rollouts, newest release first.
func (s *Source) Rollouts(ctx context.Context) ([]view.RolloutRow, error) {
	rows, err := s.all.list.get(ctx)
	return slices.Clone(rows), err
}

// settledRows keeps the rows of rollouts in which nothing happens any more.
type settledRows map[holdfast.ReleaseID]settledRow

type settledRow struct {
	version int64
	row     view.RolloutRow
}

// readRollouts is called by one goroutine at a time.
func (s *Source) readRollouts(ctx context.Context) ([]view.RolloutRow, error) {
	f, err := s.fleet.get(ctx)
	if err != nil {
		return nil, err
	}
	moving := map[holdfast.ReleaseID]bool{}
	unsettled, err := s.Store.Rollouts(ctx, true)
	if err != nil {
		return nil, err
	}
	for _, r := range unsettled {
		moving[r.Release] = true
	}
	all, err := s.Store.Rollouts(ctx, false)
	if err != nil {
		return nil, err
	}
	var rows []view.RolloutRow
	known := settledRows{}
	for _, r := range all[:min(len(all), mostRollouts)] {
		k, ok := s.settled[r.Release]
		if !ok || k.version != r.Version || moving[r.Release] {
			st, err := s.stand(ctx, r)
			if err != nil {
				return nil, err
			}
			k = settledRow{r.Version, st.row(f)}
		}
		known[r.Release] = k
		row := k.row
		s.late(&row)
		rows = append(rows, row)
	}
	s.settled = known
	return rows, nil
}

// Rollout returns all there is to see of one rollout.
func (s *Source) Rollout(ctx context.Context, id holdfast.ReleaseID) (d view.RolloutDetail, err error) {
	if s.all != s {
		d, err := s.all.Rollout(ctx, id)
		return s.ownRollout(d), err
	}
	return s.details.of(id, func(ctx context.Context) (view.RolloutDetail, error) { return s.readRollout(ctx, id) }).get(ctx)
}

func (s *Source) readRollout(ctx context.Context, id holdfast.ReleaseID) (d view.RolloutDetail, err error) {
	stored, err := s.Store.Rollout(ctx, id)
	if err != nil {
		return d, err
	}
	st, err := s.stand(ctx, stored)
	if err != nil {
		return d, err
	}
	f, err := s.fleet.get(ctx)
	if err != nil {
		return d, err
	}
	d = view.RolloutDetail{RolloutRow: st.row(f), Now: s.Now(), Pooled: st.evidence().Pooled, Why: sentence(st.state.Why)}
	d.Late = s.late(&d.RolloutRow)
	if st.state.Collapsed && !d.Phase.Done() {
		d.Why = strings.TrimSpace(d.Why + " So small a fleet is paced as one ring after the first.")
	}
	tried, err := s.exposure(ctx, &d)
	if err != nil {
		return d, err
	}
	if d.Timeline, err = s.timeline(ctx, id); err != nil {
		return d, err
	}
	d.Ended = ended(d)
	d.Proof = s.proofs.of(id, d)
	d.Bound = st.bound(d, f, tried)
	for _, o := range rollout.ByOrg(&st.policy, &st.state) {
		d.Orgs = append(d.Orgs, view.OrgEvidence{
			Org: o.Org, E: o.E, Limit: o.Limit, Halted: o.Halted, Treated: o.Treated, Control: o.Control, PValue: o.PValue, Ratio: view.Range(o.Ratio),
		})
	}
	if err := s.harms(ctx, &d, f); err != nil {
		return d, err
	}
	if !d.Phase.Done() {
		if d.Preview, err = s.preview(d.Bundle.Digest); err != nil {
			return d, err
		}
	}
	if d.Phase.Recalling() {
		d.Recall = st.recall(d.RolloutRow)
		by, err := s.Driver.OverrideAsked(ctx, id)
		if err != nil {
			return d, err
		}
		if by != "" {
			d.Overrides = []string{by}
		}
	}
	return d, nil
}

// sentence writes a reason as one.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + strings.TrimSuffix(s[1:], ".") + "."
}

// ended is when a rollout that is over was decided; what was stored later only
// carried that out.
func ended(d view.RolloutDetail) time.Time {
	if !d.Phase.Done() {
		return time.Time{}
	}
	for _, e := range d.Timeline { // latest first
		switch e.Kind {
		case "halt", "stop", "complete":
			return e.At
		}
	}
	return d.Ended
}

// exposure fills in A(t), and returns the strata in which somebody was given
// the release.
func (s *Source) exposure(ctx context.Context, d *view.RolloutDetail) ([]holdfast.Stratum, error) {
	tried := map[holdfast.Stratum]bool{}
	n, every := 0, 1
	err := s.Store.Admissions(ctx, store.AdmissionFilter{Release: d.ID, Arm: holdfast.New}, func(a holdfast.Admission) error {
		if a.Again() {
			return nil // the same host, counted already
		}
		n++
		tried[cmp.Or(a.Cell, a.Stratum)] = true
		if last := len(d.Exposure) - 1; last >= 0 && !a.At.After(d.Exposure[last].At) {
			d.Exposure[last].Value = float64(n)
			return nil
		}
		if n%every == 0 {
			d.Exposure = append(d.Exposure, view.Sample{At: a.At, Value: float64(n)})
		}
		if len(d.Exposure) > mostSamples { // keep every second
			every *= 2
			for i := range len(d.Exposure) / 2 {
				d.Exposure[i] = d.Exposure[2*i+1]
			}
			d.Exposure = d.Exposure[:len(d.Exposure)/2]
		}
		return nil
	})
	if len(d.Exposure) > 0 {
		d.Exposure = append([]view.Sample{{At: d.Started}}, d.Exposure...)
		d.Exposure[len(d.Exposure)-1].Value = float64(n)
	}
	var list []holdfast.Stratum
	for t := range tried {
		list = append(list, t)
	}
	return list, err
}

func (s *Source) timeline(ctx context.Context, id holdfast.ReleaseID) ([]view.Entry, error) {
	leaves, err := s.Store.Record(ctx, store.RecordFilter{Release: id, Limit: mostTimeline})
	var list []view.Entry
	for _, l := range leaves {
		list = append(list, entry(l))
	}
	return list, err
}

// bound is what can still not be ruled out (halting.md §3).
func (st *stand) bound(d view.RolloutDetail, f *snapshot, tried []holdfast.Stratum) view.Bound {
	p := st.policy
	kappa := p.Kappa
	if st.stored.Phase == holdfast.Held {
		kappa = p.HoldKappa
	}
	b := view.Bound{
		Delta: p.Delta, HU: rollout.HarmBound(d.Clean, d.Harmed, p.Delta), Pending: max(0, d.Admitted-d.Clean-d.Harmed),
		Budget: kappa * math.Log(2/p.Delta),
	}
	_, b.Uncovered = rollout.Uncovered(f.strata, tried)
	worst := rollout.ReachOf(&p, d.Eligible)
	b.Worst, b.Tested = min(worst.Harmed, d.Eligible), worst.Halts
	p1, ratio := rollout.Anytime(&p, &st.state)
	b.PValue, b.Ratio = p1, view.Range(ratio)
	if st.driven && len(st.state.Evidence) > 0 {
		// What the procedure itself goes by, hosts granted and not yet drawn
		// included.
		r := st.view.Report(d.Now)
		b.HU, b.Pending, b.Uncovered = r.HarmBound, r.Pending, r.UncoveredMass
	}
	if st.driven {
		for _, c := range st.view.Seen.Cells {
			b.Controls += max(0, c.Control.Drawn-c.Control.Clean-c.Control.Left)
		}
		for _, g := range st.view.Seen.Groups {
			b.Controls += g.Waiting + g.Watching + g.Last
		}
	}
	if d.Phase.Recalling() {
		b.Pending = 0
	}
	for _, delay := range []time.Duration{p.Fast, 6 * p.Fast, 144 * p.Fast} {
		b.Latent = append(b.Latent, view.Latent{Delay: delay, Hosts: exposedBy(d, delay)})
	}
	return b
}

// exposedBy is A(delay): known if the moment has passed or nobody is added any
// more, else every host the release is for.
func exposedBy(d view.RolloutDetail, delay time.Duration) int {
	at := d.Started.Add(delay)
	if at.After(d.Now) && !d.Phase.Done() {
		return d.Eligible
	}
	n := 0
	for _, s := range d.Exposure {
		if !s.At.After(at) {
			n = int(s.Value)
		}
	}
	return n
}

func (s *Source) harms(ctx context.Context, d *view.RolloutDetail, f *snapshot) error {
	all, err := s.Store.Harms(ctx, d.ID, 0, 10_000)
	if err != nil {
		return err
	}
	for _, h := range slices.Backward(all) {
		if len(d.Harms) == mostHarms {
			break
		}
		row := view.HarmRow{Harm: h, Hostname: f.hostname(h.Host)}
		if host := f.byID[h.Host]; host != nil {
			row.Back = host.State.IsProtected() && (h.Arm != holdfast.New || host.Report.Running[d.Bundle.Channel] != d.Bundle.Digest)
		}
		d.Harms = append(d.Harms, row)
	}
	return nil
}

func (st *stand) recall(row view.RolloutRow) view.Recall {
	r := view.Recall{Hosts: row.Admitted}
	if st.driven {
		r.Revoked = st.view.Kept
		r.Back = max(0, row.Admitted-st.view.Outstanding-r.Revoked)
		return r
	}
	for _, g := range row.Rings {
		r.Back += g.Recalled
	}
	return r
}
