// Package fleet turns what hosts say into what a rollout needs to know: who
// could be drawn, what became of those who were, and harm events.
//
// It is pure: it does no I/O, reads no clock, and draws from the random source
// it is given. It holds every host of one node in memory; a heartbeat costs
// O(releases under way), and a snapshot O(groups and cells). A heartbeat never
// becomes a row. What must be durable before it counts (admissions, harm
// events, and what became of an admission) is handed out by [Fleet.Take], and
// counts once [Fleet.Stored] says that it is stored.
//
// After a restart a Fleet is rebuilt from the stored hosts, releases,
// openings, admissions and harm events, and the heartbeats that follow.
//
// A Fleet is not safe for concurrent use.
package fleet

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/consent"
)

// Clock is the pace at which hosts beat and offers live. The procedure is the
// same under each; only its clock differs.
type Clock struct {
	Heartbeat time.Duration `json:"heartbeat_ns"`
	// Lease is how long a host may take from a renewal to activation: the time
	// a halt may come too late.
	Lease time.Duration `json:"lease_ns"`
}

const (
	absentAfter = 2 // heartbeats without which a host is not waiting to be drawn
	silentAfter = 3 // missed heartbeats that are a harm event
)

// Fleet is the hosts of one node.
type Fleet struct {
	clock    Clock
	random   *rand.Rand
	now      time.Time // the latest moment it was told of
	hosts    map[holdfast.HostID]*host
	releases []*release // newest first
	wheel    wheel
	due      []*host // room for those the wheel brings back
	outages  outages
	changes  Changes
	dirty    map[holdfast.HostID]bool
	growth   growth

	policies map[holdfast.OrgID]*consent.Policy
	epoch    uint64 // counts what could change an answer of theirs
}

// New returns an empty fleet. If the control plane was alive before, at
// lastAlive, it has not heard the hosts since; either way it must hear them
// for three heartbeats before silence means anything.
func New(clock Clock, random *rand.Rand, lastAlive, now time.Time) *Fleet {
	f := &Fleet{clock: clock, random: random, now: now, hosts: map[holdfast.HostID]*host{}, dirty: map[holdfast.HostID]bool{}, growth: growth{}}
	f.wheel.grain = max(clock.Heartbeat/4, time.Millisecond)
	if lastAlive.IsZero() || lastAlive.After(now) {
		lastAlive = now
	}
	f.outages.begin(lastAlive)
	f.outages.until = now.Add(silentAfter * clock.Heartbeat)
	return f
}

// Changes is what must be stored before it counts.
type Changes struct {
	Drawn []holdfast.Admission // new admissions
	Harms []holdfast.Harm
	Marks []holdfast.Admission // what became of admissions
	Hosts []holdfast.Host      // what changed about hosts

	drawn, marks []*admission
}

// Empty reports whether there is nothing to store.
func (c Changes) Empty() bool {
	return len(c.Drawn)+len(c.Harms)+len(c.Marks)+len(c.Hosts) == 0
}

// Take hands out what is to be stored. Take must not be called again before
// Stored; if storing failed, or its outcome is unknown, the fleet must be
// rebuilt from what is stored.
func (f *Fleet) Take() Changes {
	c := f.changes
	f.changes = Changes{}
	slices.SortFunc(c.marks, byOrder)
	c.marks = slices.Compact(c.marks)
	for _, a := range c.drawn {
		c.Drawn = append(c.Drawn, a.Admission)
	}
	for _, a := range c.marks {
		c.Marks = append(c.Marks, a.Admission)
	}
	// Harms detected at one moment get their sequence numbers in random
	// order, so that ties between the arms are broken fairly.
	f.random.Shuffle(len(c.Harms), func(i, j int) { c.Harms[i], c.Harms[j] = c.Harms[j], c.Harms[i] })
	for id := range f.dirty {
		if h := f.hosts[id]; h != nil {
			c.Hosts = append(c.Hosts, h.Host)
		}
	}
	clear(f.dirty)
	slices.SortFunc(c.Hosts, func(a, b holdfast.Host) int { return compare(a.ID, b.ID) })
	return c
}

// Stored says that everything in c is durable: admissions may be offered, and
// what became of them counts. It returns the hosts that have an offer now.
func (f *Fleet) Stored(c Changes) []holdfast.HostID {
	var offered []holdfast.HostID
	for _, a := range c.drawn {
		a.stored = true
		a.cell.arm(a.Arm).Drawn++
		offered = append(offered, a.Host)
	}
	for _, a := range c.marks {
		a.count()
	}
	return offered
}

func compare[T ~string](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Advance tells the fleet the time: it notices who fell silent, and whether
// the control plane itself was away. Call it about four times a heartbeat.
func (f *Fleet) Advance(now time.Time) {
	if gap := now.Sub(f.now); gap > silentAfter*f.clock.Heartbeat {
		// Whoever calls was stopped or starved: nobody was listening.
		f.outages.begin(f.now)
		f.outages.until = now.Add(silentAfter * f.clock.Heartbeat)
	}
	f.now = now
	// Who is absent first, then whether that is our own outage, and only then
	// whether it is silence.
	due := f.due[:0]
	f.wheel.advance(now, func(h *host) {
		f.absent(h, now)
		due = append(due, h)
	})
	f.outages.advance(f, now)
	for _, h := range due {
		f.silent(h, now)
	}
	f.due = due
}

// Outage reports whether the control plane cannot hear the fleet: admission
// must stop, and silence is not evidence.
func (f *Fleet) Outage() bool { return f.outages.open }

// Outages lists the spans in which the control plane could not hear the fleet,
// oldest first; those too old to matter are forgotten. Store them, and give
// them back to Restore.
func (f *Fleet) Outages() []Span { return slices.Clone(f.outages.past) }

// Restore gives back the outages before this one.
func (f *Fleet) Restore(past []Span) { f.outages.past = slices.Clone(past) }
