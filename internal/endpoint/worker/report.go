package worker

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/lifeline"
)

// state is what the worker's parts know of the host. Safe for concurrent use.
type state struct {
	running  holdfast.Generation // what this process was started with
	counters *Counters
	queue    func() (dropped uint64) // findings lost after the loop
	consent  atomic.Int64            // version of the organisation's policy in force

	mu       sync.Mutex
	status   lifeline.Status
	known    bool // the guard has said something
	refusal  string
	declined string // the offer (lease) it is about, if it was refused for good
	cpuAt    time.Time
	cpuUsed  time.Duration
	cpu      uint64
}

func (s *state) guardStatus() (lifeline.Status, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status, s.known
}

// tell takes a status of the guard's. A refusal that came before it has been
// reported, and a new status is newer news.
func (s *state) tell(status lifeline.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.known = status, true
}

// refuse notes why an offer was not followed. It is reported until something
// else happened to a candidate.
func (s *state) refuse(reason string) { s.decline("", reason) }

// decline notes that this host's own checks refused an offer for good.
func (s *state) decline(lease, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.declined, s.refusal = lease, reason
}

func (s *state) accepted() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.declined, s.refusal = "", ""
}

// keep lists the content that some way forward or back needs; false while it
// would be rash to remove anything.
func (s *state) keep() ([]holdfast.Digest, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.known || s.status.Probation || len(s.status.Starting) > 0 {
		return nil, false
	}
	keep := append([]holdfast.Digest(nil), s.status.Keep...)
	for _, g := range []holdfast.Generation{s.status.Running, s.status.Previous, s.status.Attempted, s.running} {
		for _, d := range g {
			keep = append(keep, d)
		}
	}
	return keep, true
}

// report returns what the host says of itself now.
func (s *state) report(now time.Time) holdfast.HostReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.status.Report()
	if !s.known { // started by hand: nobody else knows
		r.Boot, r.Running = bootID(), s.running
	}
	if s.refusal != "" {
		r.Declined, r.Reason = s.declined, s.refusal
	}
	if used, span := busy(), now.Sub(s.cpuAt); span >= time.Second {
		if !s.cpuAt.IsZero() {
			s.cpu = uint64(max(0, 1000*(used-s.cpuUsed)/span))
		}
		s.cpuAt, s.cpuUsed = now, used
	}
	r.RSS, r.CPU = resident(), s.cpu
	r.Consent = s.consent.Load()
	r.Events = s.counters.Events.Load()
	r.EventsDropped = s.counters.Dropped.Load()
	r.FindingsDropped = s.counters.Lost.Load() + s.queue()
	if list := s.counters.Suspended.Load(); list != nil {
		r.Suspended = *list
	}
	if c := s.counters.Costs.Load(); c != nil {
		r.EventNs, r.Costs, r.Forgotten = uint64(c.Event.Nanoseconds()), c.Rules, c.Forgotten
	}
	return r
}
