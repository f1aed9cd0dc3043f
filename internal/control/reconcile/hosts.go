package reconcile

import (
	"context"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/fleet"
	"github.com/holdfast-security/holdfast/internal/control/rollout"
)

// Connected says that a host is connected, or is again. A Denied error refuses
// it: it was removed, or its identity revoked.
func (s *Service) Connected(ctx context.Context, id holdfast.HostID, at time.Time) error {
	// The row is what enrolment and operators decided; it may be new.
	h, err := s.Store.Host(ctx, id)
	if holdfast.KindOf(err) == holdfast.NotFound {
		return holdfast.Errorf(holdfast.Denied, "host %s is not enrolled", id)
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fleet.SetHost(h)
	return s.fleet.Connected(id, at)
}

// Described gives what a host says it is.
func (s *Service) Described(_ context.Context, id holdfast.HostID, a holdfast.Attributes, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fleet.Described(id, a, at)
}

// Reported gives the state a host reports of itself.
func (s *Service) Reported(_ context.Context, id holdfast.HostID, r holdfast.HostReport, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fleet.Reported(id, r, at)
}

// Beat says that a host is alive.
func (s *Service) Beat(_ context.Context, id holdfast.HostID, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fleet.Beat(id, at)
}

// Disconnected says that a host's connection is gone.
func (s *Service) Disconnected(_ context.Context, id holdfast.HostID, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fleet.Disconnected(id, at)
}

// Desired is what a host should do now, if anything. The beat that came with
// the question drew the host's arm; the offer follows once that is stored.
func (s *Service) Desired(_ context.Context, id holdfast.HostID, at time.Time) (holdfast.Offer, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fleet.Desired(id, at)
}

// RenewLease answers a host that is about to activate: until when it may. A node
// whose own lease is over asks the store first, and prolongs nothing: if another
// took the lead, the release may have been halted there.
func (s *Service) RenewLease(ctx context.Context, id holdfast.HostID, lease string, at time.Time) (time.Time, error) {
	s.mu.Lock()
	overdue := !at.Before(s.leads)
	s.mu.Unlock()
	if overdue {
		if err := s.leadsYet(ctx, s.Store, at, at); err != nil {
			return time.Time{}, holdfast.Errorf(holdfast.Unavailable, "this node cannot say whether the offer still stands: %w", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fleet.Renew(id, lease, at)
}

// Refresh takes up what an operator decided about a host: that it is revoked,
// or must not be among the first.
func (s *Service) Refresh(ctx context.Context, id holdfast.HostID) error {
	h, err := s.Store.Host(ctx, id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fleet.SetHost(h)
	return nil
}

// Host returns what is known of a host this moment; false if it never
// connected to this process and was enrolled since.
func (s *Service) Host(id holdfast.HostID) (holdfast.Host, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fleet.Host(id)
}

// View is a rollout as it stands, for people. Nothing in it may be changed.
type View struct {
	Release     holdfast.Release
	Phase       holdfast.Phase
	Policy      rollout.Policy // zero until it begins
	State       rollout.State
	Seen        fleet.Snapshot
	Outstanding int // hosts that may still have a recalled release
	Kept        int // hosts that were revoked before they gave it back
	Settled     bool
	Failure     string // why an approved release cannot begin; empty if nothing is wrong
	Version     int64
	Updated     time.Time
}

// View returns a rollout that is being driven, or was recalled; false for one
// that is long done: the store has it.
func (s *Service) View(id holdfast.ReleaseID) (View, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.rollouts[id]
	if d == nil {
		return View{}, false
	}
	return View{
		Release: d.release, Phase: d.Phase, Policy: d.policy, State: d.state, Seen: s.fleet.Snapshot(id),
		Outstanding: s.fleet.Outstanding(id), Kept: s.fleet.Kept(id), Settled: d.settled, Failure: d.failure, Version: d.Version, Updated: d.Updated,
	}, true
}

// Report is what the procedure itself says about the rollout at this moment.
func (v *View) Report(now time.Time) rollout.Report {
	return rollout.Describe(&v.Policy, v.State, asSnapshot(v.Seen), now)
}

// RingOf is the ring in which a host counts for a release; false if the release
// is not driven any more.
func (s *Service) RingOf(id holdfast.ReleaseID, host holdfast.HostID) (int, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fleet.RingOf(id, host)
}

// Latecomers counts who came when a release was complete, by organisation and
// stratum: the worst first.
func (s *Service) Latecomers(id holdfast.ReleaseID) []fleet.Latecomers {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fleet.Latecomers(id)
}

// OutstandingHosts lists hosts that may still have a recalled release, at most
// n.
func (s *Service) OutstandingHosts(id holdfast.ReleaseID, n int) []holdfast.HostID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fleet.OutstandingHosts(id, n)
}

// Outage reports whether the control plane cannot hear the fleet now.
func (s *Service) Outage() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fleet.Outage()
}
