package reconcile

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/fleet"
	"github.com/holdfast-security/holdfast/internal/control/rollout"
)

// Step does all there is to do now: store what the hosts said, decide every
// rollout, tell the director and the hosts. After an error the next step loads
// everything again. Without the leader's lease it does nothing.
func (s *Service) Step(ctx context.Context) error {
	s.stepping.Lock()
	defer s.stepping.Unlock()
	err := s.step(ctx, s.Now())
	if err != nil {
		s.stale = true
	}
	return err
}

func (s *Service) step(ctx context.Context, now time.Time) error {
	held, term, err := s.Store.AcquireLease(ctx, leaseName, s.Node, now, now.Add(s.Leader))
	if err != nil {
		return err
	}
	if !held || s.term != term {
		s.stale = true // whoever leads, or led meanwhile, changes what is stored
	}
	if !held {
		return nil
	}
	s.led(term, now)
	if s.stale {
		if err := s.load(ctx, now); err != nil {
			return err
		}
	}
	if err := s.discover(ctx); err != nil {
		return err
	}
	if changed, err := s.readConsents(ctx); err != nil {
		return err
	} else if changed {
		s.mu.Lock()
		s.fleet.SetConsent(s.allowed)
		s.mu.Unlock()
	}
	if err := s.flush(ctx, now); err != nil {
		return err
	}
	for _, d := range s.byAge() {
		if err := s.drive(ctx, d, now); err != nil {
			return fmt.Errorf("rollout %s: %w", d.Release, err)
		}
	}
	return s.direct(ctx, now)
}

// lead is a transaction of the leader. It fails if the lease was lost, so that
// nobody else's decisions are undone.
func (s *Service) lead(ctx context.Context, now time.Time, f func(tx Tx) error) error {
	return s.Store.Tx(ctx, func(tx Tx) error {
		if err := s.leadsYet(ctx, tx, now, now.Add(s.Leader)); err != nil {
			return err
		}
		return f(tx)
	})
}

// led notes that we lead, for as long as the lease lasts.
func (s *Service) led(term int64, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.term, s.leads = term, now.Add(s.Leader)
}

// leadsYet renews the lead: Conflict if it was lost, even if it is free again by
// now, as another node may have decided meanwhile.
func (s *Service) leadsYet(ctx context.Context, tx Tx, now, until time.Time) error {
	s.mu.Lock()
	term := s.term
	s.mu.Unlock()
	if term != 0 {
		held, has, err := tx.AcquireLease(ctx, leaseName, s.Node, now, until)
		if err != nil || held && has == term {
			return err
		}
	}
	return holdfast.Errorf(holdfast.Conflict, "another node leads now")
}

// discover takes up rollouts that somebody else created or changed: approved,
// or taken up again.
func (s *Service) discover(ctx context.Context) error {
	versions, err := s.Store.UnsettledVersions(ctx)
	if err != nil {
		return err
	}
	for id, version := range versions {
		was := s.rollouts[id]
		if was != nil && was.release.Approved != "" && was.Version == version && !was.settled {
			continue
		}
		r, err := s.Store.Rollout(ctx, id)
		if err != nil {
			return err
		}
		d, err := s.decode(ctx, r)
		if err != nil {
			return err
		}
		if was != nil {
			d.known, d.failure = was.known, was.failure
		}
		s.mu.Lock()
		s.rollouts[id] = d
		s.mu.Unlock()
	}
	return nil
}

// flush stores what the hosts said, after which it counts.
func (s *Service) flush(ctx context.Context, now time.Time) error {
	s.mu.Lock()
	s.fleet.Advance(now)
	changes := s.fleet.Take()
	outages := s.fleet.Outages()
	s.mu.Unlock()

	tell := now.Sub(s.alive) >= s.Clock.Heartbeat
	if changes.Empty() && !tell && len(outages) == s.outages {
		return nil
	}
	err := s.lead(ctx, now, func(tx Tx) error {
		if err := tx.AddAdmissions(ctx, changes.Drawn); err != nil {
			return err
		}
		if _, err := tx.AddHarms(ctx, changes.Harms); err != nil {
			return err
		}
		if err := tx.MarkAdmissions(ctx, changes.Marks); err != nil {
			return err
		}
		if err := tx.SaveHosts(ctx, changes.Hosts); err != nil {
			return err
		}
		if len(outages) != s.outages {
			if err := putJSON(ctx, tx, outagesName, outages); err != nil {
				return err
			}
		}
		if tell {
			return putJSON(ctx, tx, aliveName, now)
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.outages = len(outages)
	if tell {
		s.alive = now
	}
	s.mu.Lock()
	offered := s.fleet.Stored(changes)
	s.mu.Unlock()
	for _, h := range offered {
		s.hint(h, "")
	}
	return nil
}

func putJSON(ctx context.Context, tx Tx, name string, v any) error {
	j, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return tx.PutSetting(ctx, name, string(j))
}

// byAge lists the rollouts, oldest release first.
func (s *Service) byAge() []*driven {
	all := slices.Collect(maps.Values(s.rollouts))
	slices.SortFunc(all, func(a, b *driven) int {
		if c := a.release.Created.Compare(b.release.Created); c != 0 {
			return c
		}
		return bytes.Compare([]byte(a.Release), []byte(b.Release))
	})
	return all
}

// drive takes one rollout one step further.
func (s *Service) drive(ctx context.Context, d *driven, now time.Time) error {
	if d.settled {
		return nil
	}
	if len(d.Policy) == 0 {
		return s.begin(ctx, d, now)
	}
	in, err := s.observe(ctx, d)
	if err != nil {
		return err
	}
	state, actions := rollout.Decide(&d.policy, d.state, in, now)
	if state.Schema == 0 {
		return nil // there is no host yet to release to
	}
	encoded, err := json.Marshal(state)
	if err != nil {
		return err
	}
	settled, entry := s.isSettled(d, state, now)
	if len(actions) == 0 && !settled && bytes.Equal(encoded, d.State) {
		return nil
	}
	entries := d.entries(actions, now)
	if entry != nil {
		entries = append(entries, *entry)
	}
	openings, rows, err := d.openings(actions)
	if err != nil {
		return err
	}
	next := d.Rollout
	next.Phase, next.State, next.Updated = state.Phase, encoded, now
	if err := s.commit(ctx, next, settled, rows, entries, now); err != nil {
		return err
	}
	next.Version++

	s.mu.Lock()
	d.Rollout, d.state, d.settled = next, state, settled
	s.tell(d, now)
	if d.admits() {
		s.fleet.Open(d.Release, openings)
	}
	if settled && state.Phase == holdfast.Complete {
		s.fleet.DropRelease(d.Release)
		delete(s.rollouts, d.Release)
	}
	s.mu.Unlock()
	for _, e := range entries {
		s.Log.Info("rollout", "release", e.Release, "kind", e.Kind, "what", e.Text)
	}
	s.hint("", d.Release)
	return nil
}

func (s *Service) commit(ctx context.Context, next holdfast.Rollout, settled bool, rows []Opening, entries []holdfast.Entry, now time.Time) error {
	return s.lead(ctx, now, func(tx Tx) error {
		if err := tx.SwapRollout(ctx, next, settled); err != nil {
			return err
		}
		if err := tx.PutOpenings(ctx, rows); err != nil {
			return err
		}
		_, err := tx.Append(ctx, entries...)
		return err
	})
}

// tell brings the fleet up to date about a rollout. The caller holds mu.
func (s *Service) tell(d *driven, now time.Time) {
	r := d.asFleet(d.known, now)
	if reflect.DeepEqual(r, d.known) {
		return
	}
	d.known = r
	s.fleet.SetRelease(r)
}

// begin freezes the policy and the baseline of a release that was approved.
func (s *Service) begin(ctx context.Context, d *driven, now time.Time) error {
	if d.release.Approved == "" {
		return nil
	}
	refuse := func(err error) error {
		if why := err.Error(); why != d.failure {
			s.mu.Lock()
			d.failure = why
			s.mu.Unlock()
			s.Log.Warn("release cannot begin", "release", d.Release, "err", err)
		}
		return nil
	}
	if s.Admissible != nil {
		if err := s.Admissible(ctx, d.release); err != nil {
			if k := holdfast.KindOf(err); k == holdfast.Unavailable || k == holdfast.Internal {
				return err
			}
			return refuse(err)
		}
	}
	p := s.Config.Policy(d.release)
	p.Release, p.Rings, p.Signed, p.By, p.Approved = d.Release, d.release.Rings, d.release.Signed, d.release.By, d.release.Approved
	if err := p.Validate(); err != nil {
		return refuse(err)
	}
	next := *d
	next.policy, next.failure = p, ""
	s.mu.Lock()
	merged := rollout.Merge(s.fleet.Strata(d.asFleet(fleet.Release{}, now)), rollout.MergeBelow)
	maps.DeleteFunc(merged, func(from, to holdfast.Stratum) bool { return from == to })
	next.base = s.fleet.Freeze(merged)
	s.mu.Unlock()

	var err error
	if next.Policy, err = json.Marshal(p); err != nil {
		return err
	}
	if next.Baseline, err = json.Marshal(next.base); err != nil {
		return err
	}
	next.Phase, next.Updated = holdfast.Running, now
	entry := d.entry("begin", us, now, fmt.Sprintf("%s %s begins: %s, heartbeat %s, windows %s and %s, a false halt at most once in %.0f",
		d.release.Bundle.Channel, d.release.Bundle.Version, p.Profile, p.Heartbeat, p.Fast, p.Slow, 1/p.Alpha), nil)
	if err := s.commit(ctx, next.Rollout, false, nil, []holdfast.Entry{entry}, now); err != nil {
		return err
	}
	next.Version++
	s.mu.Lock()
	*d = next
	s.tell(d, now)
	s.mu.Unlock()
	return s.drive(ctx, d, now)
}

// observe is what Decide looks at: counters, and the rows it has not seen.
func (s *Service) observe(ctx context.Context, d *driven) (in rollout.Snapshot, err error) {
	s.mu.Lock()
	seen := s.fleet.Snapshot(d.Release)
	s.mu.Unlock()
	in = asSnapshot(seen)
	harms, err := s.Store.Harms(ctx, d.Release, d.state.EventSeq, pageOfHarms)
	if err != nil {
		return in, err
	}
	for _, h := range harms {
		in.Events = append(in.Events, rollout.Event{
			Seq: h.Seq, Block: h.Block, Ring: h.Ring, Org: h.Org, Stratum: h.Stratum, Cell: h.Cell,
			Treated: h.Arm == holdfast.New, Kind: h.Kind, First: h.First, At: h.At, After: h.After,
		})
	}
	orders, err := s.Store.Orders(ctx, d.Release, d.state.CommandSeq)
	if err != nil {
		return in, err
	}
	for _, o := range orders {
		var c rollout.Command
		if err := json.Unmarshal(o.Command, &c); err != nil {
			return in, err
		}
		c.Seq, c.By, c.At = o.Seq, o.By, o.At
		in.Commands = append(in.Commands, c)
	}
	return in, nil
}

// asSnapshot is what the fleet counted, as the rollout takes it.
func asSnapshot(seen fleet.Snapshot) (in rollout.Snapshot) {
	in.Outage = seen.Outage
	for _, g := range seen.Groups {
		in.Groups = append(in.Groups, rollout.Group(g))
	}
	for _, c := range seen.Cells {
		in.Cells = append(in.Cells, rollout.Cell{
			Block: c.Block, Ring: c.Ring, Org: c.Org, Stratum: c.Stratum, Cell: c.Cell,
			Treated: rollout.Arm(c.Treated), Control: rollout.Arm(c.Control),
		})
	}
	for org, n := range seen.Suspending {
		in.Suspending = append(in.Suspending, rollout.Suspending{Org: org, Hosts: n})
	}
	return in
}

// isSettled reports whether nothing is left to drive, and what the record says
// about it: every host gave a recalled release back, or a completed one was
// replaced so often that no host should run it any more.
func (s *Service) isSettled(d *driven, state rollout.State, now time.Time) (bool, *holdfast.Entry) {
	switch {
	case state.Phase.Recalling() && d.state.Phase.Recalling():
		s.mu.Lock()
		out, kept := s.fleet.Outstanding(d.Release), s.fleet.Kept(d.Release)
		s.mu.Unlock()
		if out > 0 {
			return false, nil
		}
		text := "every host that had it has given it back"
		if kept > 0 {
			text += fmt.Sprintf(", but for %d that were revoked before they did", kept)
		}
		e := d.entry("recalled", us, now, text, nil)
		return true, &e
	case state.Phase == holdfast.Complete:
		newer := 0
		for _, o := range s.rollouts {
			if o.release.Bundle.Channel == d.release.Bundle.Channel && o.release.Org == d.release.Org && o.state.Phase == holdfast.Complete && o.release.Created.After(d.release.Created) {
				newer++
			}
		}
		if newer >= keptReleases {
			e := d.entry("replaced", us, now, "replaced by newer releases", nil)
			return true, &e
		}
	}
	return false, nil
}

// openings are the cells that the actions open, as the fleet and the store
// take them.
func (d *driven) openings(actions []rollout.Action) (openings []fleet.Opening, rows []Opening, err error) {
	for _, a := range actions {
		admit, ok := a.(rollout.Admit)
		if !ok {
			continue
		}
		o := fleet.Opening{
			Block: admit.Block, Ring: admit.Ring, Through: admit.Through, Org: admit.Org, Stratum: admit.Stratum, Cell: admit.Cell,
			Treat: admit.Treat, Placebo: admit.Placebo, Until: admit.Until, Redraw: admit.Redraw, Last: admit.Last,
		}
		j, err := json.Marshal(o)
		if err != nil {
			return nil, nil, err
		}
		openings = append(openings, o)
		rows = append(rows, Opening{Release: d.Release, Block: o.Block, Number: len(rows), Until: o.Until, Opening: j})
	}
	return openings, rows, nil
}
