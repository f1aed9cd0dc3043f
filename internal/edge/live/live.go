// Package live answers what the console asks from the store, the reconciler
// and the registry. It decides nothing and stores nothing.
//
// What costs a look at every host or admission is held in memory between looks
// (a host's row takes some 2 KB), and read again for at most a tenth of the time,
// however many people look.
package live

import (
	"context"
	"sync"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/fleet"
	"github.com/holdfast-security/holdfast/internal/control/reconcile"
	"github.com/holdfast-security/holdfast/internal/edge/store"
	"github.com/holdfast-security/holdfast/internal/language/consent"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
	"github.com/holdfast-security/holdfast/internal/view"
)

// Driver is what drives rollouts, for what is not stored at every moment.
// reconcile.Service is one.
type Driver interface {
	View(id holdfast.ReleaseID) (reconcile.View, bool)
	Host(id holdfast.HostID) (holdfast.Host, bool)
	Preview(d holdfast.Digest) (rows []consent.Preview, have int, err error)
	RingOf(id holdfast.ReleaseID, host holdfast.HostID) (int, bool)
	Latecomers(id holdfast.ReleaseID) []fleet.Latecomers
	OverrideAsked(ctx context.Context, id holdfast.ReleaseID) (string, error)
}

// Content reads what was registered, by digest. registry.Files is one.
type Content interface {
	Read(d holdfast.Digest) ([]byte, error)
}

// Trust says what publishers signed; holdfast.NotFound if a threshold did not.
type Trust interface {
	Released(d holdfast.Digest) (tuf.Release, error)
}

// Config is what a Source reads. Store and Driver are required.
type Config struct {
	Store   *store.Store
	Driver  Driver
	Content Content // nil: the console shows no rules
	Trust   Trust   // nil: the console does not say who signed
	// Checkpoint signs the record as it stands; nil: the latest stored
	// checkpoint is shown and exported. LogKey is the public key that belongs
	// to it, as a note verifier key.
	Checkpoint func(ctx context.Context) ([]byte, error)
	LogKey     string
	Now        func() time.Time // nil: time.Now
}

// Source implements view.Source. It is safe for concurrent use.
type Source struct {
	Config
	org      holdfast.OrgID // whose people it is for; empty: of the whole
	all      *Source        // the whole; itself, if it is that
	scopes   scopes
	enrolled cached[[]holdfast.Host]
	fleet    cached[*snapshot]
	trends   cached[view.Trend]
	list     cached[[]view.RolloutRow]
	details  details
	settled  settledRows
	rules    ruleCache
	proofs   proofs
}

var _ view.Source = (*Source)(nil)

// New returns a Source. Run makes it remember how evidence moved.
func New(c Config) *Source {
	if c.Now == nil {
		c.Now = time.Now
	}
	s := newSource(c)
	s.all = s
	return s
}

func newSource(c Config) *Source {
	s := &Source{Config: c}
	s.enrolled.load = s.readEnrolled
	s.fleet.load = s.readFleet
	s.trends.load = s.readTrend
	s.list.load = s.readRollouts
	return s
}

// Builds lists the sensor builds that are known.
func (s *Source) Builds(ctx context.Context) ([]holdfast.Build, error) {
	all, err := s.Store.Builds(ctx)
	if err != nil || s.all == s {
		return all, err
	}
	f, err := s.fleet.get(ctx)
	if err != nil {
		return nil, err
	}
	own := map[holdfast.Digest]int{}
	for i := range f.hosts {
		own[f.hosts[i].Attributes.Build]++
	}
	for i := range all {
		all[i].Hosts = own[all[i].Digest]
	}
	return all, nil
}

// freshness is how old a cached value may be if reading it costs nothing. It is
// less than what a hint waits before it is passed on.
const freshness = 200 * time.Millisecond

// cached is a value that is read again when it is older than freshness, and
// older than ten times what reading it took.
type cached[T any] struct {
	load func(context.Context) (T, error)

	mu    sync.Mutex
	value T
	until time.Time // monotonic; not a fact anybody sees
}

func (c *cached[T]) get(ctx context.Context) (T, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	start := time.Now()
	if start.Before(c.until) {
		return c.value, nil
	}
	v, err := c.load(ctx)
	if err != nil {
		return v, err
	}
	done := time.Now()
	c.value, c.until = v, done.Add(max(freshness, 10*done.Sub(start)))
	return v, nil
}

// forget makes the next get read again: tests do not wait.
func (c *cached[T]) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.until = time.Time{}
}

// details keeps the rollouts that people look at.
type details struct {
	mu sync.Mutex
	by map[holdfast.ReleaseID]*cached[view.RolloutDetail]
}

const detailsKept = 32

func (d *details) of(id holdfast.ReleaseID, load func(context.Context) (view.RolloutDetail, error)) *cached[view.RolloutDetail] {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.by[id]
	if c == nil {
		if d.by == nil || len(d.by) >= detailsKept {
			d.by = map[holdfast.ReleaseID]*cached[view.RolloutDetail]{}
		}
		c = &cached[view.RolloutDetail]{load: load}
		d.by[id] = c
	}
	return c
}
