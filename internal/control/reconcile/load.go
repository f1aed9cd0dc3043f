package reconcile

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/fleet"
	"github.com/holdfast-security/holdfast/internal/control/rollout"
)

func randomName() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// load makes memory what the store says. It is the start, and what follows
// every failure: there is no other recovery.
func (s *Service) load(ctx context.Context, now time.Time) error {
	if !s.ran {
		if err := s.Store.Disconnected(ctx); err != nil {
			return err
		}
	}
	alive, past, err := s.lastAlive(ctx)
	if err != nil {
		return err
	}
	f := fleet.New(s.Clock, s.Random, alive, now)
	f.Restore(past)
	s.allowed = nil
	if _, err := s.readConsents(ctx); err != nil {
		return err
	}
	f.SetConsent(s.allowed)
	if err := s.Store.EachHost(ctx, func(h holdfast.Host) error { f.SetHost(h); return nil }); err != nil {
		return err
	}
	all, err := s.Store.Rollouts(ctx, false)
	if err != nil {
		return err
	}
	unsettled, err := s.Store.UnsettledVersions(ctx)
	if err != nil {
		return err
	}
	driving := map[holdfast.ReleaseID]*driven{}
	for _, r := range all {
		// What is settled still matters if it was recalled: it must never be
		// offered again, and who brings it back must give it back.
		_, open := unsettled[r.Release]
		if !open && !r.Phase.Recalling() {
			continue
		}
		d, err := s.decode(ctx, r)
		if err != nil {
			return err
		}
		d.settled = !open
		driving[r.Release] = d
		if len(r.Policy) > 0 {
			if err := s.restore(ctx, f, d, now); err != nil {
				return err
			}
		}
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ran {
		f.Resume(s.fleet)
	} else {
		f.ResumeHosts(s.fleet) // those that connected before the first load
	}
	s.fleet, s.rollouts = f, driving
	s.ran, s.stale, s.approved, s.outages = true, false, "", len(past)
	s.alive = time.Time{}
	return nil
}

func (s *Service) lastAlive(ctx context.Context) (alive time.Time, past []fleet.Span, err error) {
	read := func(name string, into any) error {
		v, err := s.Store.Setting(ctx, name)
		if holdfast.KindOf(err) == holdfast.NotFound {
			return nil
		}
		if err != nil {
			return err
		}
		return json.Unmarshal([]byte(v), into)
	}
	if err := read(aliveName, &alive); err != nil {
		return alive, nil, err
	}
	return alive, past, read(outagesName, &past)
}

func (s *Service) decode(ctx context.Context, r holdfast.Rollout) (*driven, error) {
	d := &driven{Rollout: r}
	var err error
	if d.release, err = s.Store.Release(ctx, r.Release); err != nil {
		return nil, err
	}
	if d.state, err = rollout.Load(r.State); err != nil {
		return nil, err
	}
	if d.signed, err = s.Director.Released(d.release.Bundle.Digest); err != nil && holdfast.KindOf(err) != holdfast.NotFound {
		return nil, err
	}
	if len(r.Policy) > 0 {
		if err := json.Unmarshal(r.Policy, &d.policy); err != nil {
			return nil, err
		}
	}
	if len(r.Baseline) > 0 {
		if err := json.Unmarshal(r.Baseline, &d.base); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// restore gives the fleet back what is stored of a rollout that has begun.
func (s *Service) restore(ctx context.Context, f *fleet.Fleet, d *driven, now time.Time) error {
	d.known = d.asFleet(fleet.Release{}, now)
	f.SetRelease(d.known)
	kinds := map[partKey][]holdfast.HarmKind{}
	for after := int64(0); ; {
		harms, err := s.Store.Harms(ctx, d.Release, after, pageOfHarms)
		if err != nil {
			return err
		}
		for _, h := range harms {
			after = h.Seq
			k := partKey{h.Host, h.Block}
			kinds[k] = append(kinds[k], h.Kind)
		}
		if len(harms) < pageOfHarms {
			break
		}
	}
	if err := s.Store.EachAdmission(ctx, d.Release, func(a holdfast.Admission) error {
		f.RestoreAdmission(a, kinds[partKey{a.Host, a.Block}])
		return nil
	}); err != nil {
		return err
	}
	rows, err := s.Store.Openings(ctx, d.Release, now)
	if err != nil {
		return err
	}
	openings := make([]fleet.Opening, len(rows))
	for i, row := range rows {
		if err := json.Unmarshal(row.Opening, &openings[i]); err != nil {
			return err
		}
	}
	if d.admits() {
		f.Open(d.Release, openings)
	}
	return nil
}

type partKey struct {
	host  holdfast.HostID
	block int
}

const pageOfHarms = 1000

// admits reports whether openings that were given are still good.
func (d *driven) admits() bool {
	return d.state.Phase == holdfast.Running || d.state.Phase == holdfast.Held
}

// asFleet is what the fleet must know about a rollout. was is what it knew:
// the director's approvals, and when the recall began.
func (d *driven) asFleet(was fleet.Release, now time.Time) fleet.Release {
	r := fleet.Release{
		ID: d.Release, Org: d.release.Org, Channel: d.release.Bundle.Channel, Digest: d.release.Bundle.Digest, Version: d.release.Bundle.Version,
		Sequence: d.signed.Sequence, Critical: d.signed.Critical, Rings: d.policy.Rings, Signed: d.policy.Signed, Created: d.release.Created, Fast: d.policy.Fast, Slow: d.policy.Slow,
		Phase: d.state.Phase, Baseline: d.base, Approved: was.Approved, RecalledAt: was.RecalledAt, Paused: d.state.Phase == holdfast.Paused,
	}
	if d.state.Phase.Recalling() {
		r.Recalled = []holdfast.OrgID{""}
	} else {
		for _, e := range d.state.Evidence {
			if e.Halted {
				r.Recalled = append(r.Recalled, e.Org)
			}
		}
	}
	if len(r.Recalled) > len(was.Recalled) {
		r.RecalledAt = now
	}
	return r
}
