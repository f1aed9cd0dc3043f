// Package reconcile drives rollouts: it loads what is stored, lets
// [rollout.Decide] decide, stores the decision with its rows and its entries on
// the record in one transaction, and then brings the outside to it: the
// director repository, and hints to the hosts' connections.
//
// The store is the truth. Everything else is derived from it and from what the
// hosts say, so a crash at any point is followed by the ordinary start: load,
// and go on. An action is repeated rather than forgotten, and every action is
// absolute, so repeating it changes nothing.
//
// Of several nodes one leads, by a lease in the store; every transaction of the
// leader renews that lease, so one that lost it can store nothing.
package reconcile

import (
	"context"
	"encoding/json"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/fleet"
	"github.com/holdfast-security/holdfast/internal/control/rollout"
	"github.com/holdfast-security/holdfast/internal/language/consent"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

// Order is something a person told a rollout, as stored. Command is JSON of a
// rollout.Command.
type Order struct {
	Seq     int64              `json:"seq"`
	Release holdfast.ReleaseID `json:"release"`
	Kind    string             `json:"kind"`
	By      string             `json:"by"`
	At      time.Time          `json:"at"`
	Command json.RawMessage    `json:"command"`
}

// Opening is a stored cell of a block that hosts may be drawn in. Opening is
// JSON of a fleet.Opening.
type Opening struct {
	Release holdfast.ReleaseID
	Block   int
	Number  int // within the block
	Until   time.Time
	Opening json.RawMessage
}

// Store is the durable truth. What f does through tx in Tx is durable together
// when Tx returns nil, and none of it happened if f failed; an Unavailable
// error leaves the outcome unknown.
type Store interface {
	Tx(ctx context.Context, f func(tx Tx) error) error
	Tx
}

// Tx is what can be done in a transaction or, each as one of its own, outside.
type Tx interface {
	AcquireLease(ctx context.Context, name, holder string, now, expires time.Time) (held bool, term int64, err error)
	ReleaseLease(ctx context.Context, name, holder string) error

	Host(ctx context.Context, id holdfast.HostID) (holdfast.Host, error)
	EachHost(ctx context.Context, each func(holdfast.Host) error) error
	SaveHosts(ctx context.Context, hosts []holdfast.Host) error
	Disconnected(ctx context.Context) error

	Release(ctx context.Context, id holdfast.ReleaseID) (holdfast.Release, error)
	ApproveRelease(ctx context.Context, id holdfast.ReleaseID, by string) error
	// Rollouts lists all of them (false), the newest release's first.
	Rollouts(ctx context.Context, unsettled bool) ([]holdfast.Rollout, error)
	Rollout(ctx context.Context, id holdfast.ReleaseID) (holdfast.Rollout, error)
	// UnsettledVersions is the version of every rollout with something left to
	// drive.
	UnsettledVersions(ctx context.Context) (map[holdfast.ReleaseID]int64, error)
	// SwapRollout is the one fact of a decision: Conflict if the stored
	// version is not r.Version.
	SwapRollout(ctx context.Context, r holdfast.Rollout, settled bool) error

	AddOrder(ctx context.Context, o Order) (seq int64, err error)
	Orders(ctx context.Context, id holdfast.ReleaseID, after int64) ([]Order, error)
	PutOpenings(ctx context.Context, all []Opening) error
	Openings(ctx context.Context, id holdfast.ReleaseID, now time.Time) ([]Opening, error)

	AddAdmissions(ctx context.Context, all []holdfast.Admission) error
	MarkAdmissions(ctx context.Context, all []holdfast.Admission) error
	// EachAdmission calls each in the order of admission; each must not use
	// the store.
	EachAdmission(ctx context.Context, id holdfast.ReleaseID, each func(holdfast.Admission) error) error
	// AddHarms numbers and stores what is the first of its kind, and drops the
	// rest.
	AddHarms(ctx context.Context, all []holdfast.Harm) ([]holdfast.Harm, error)
	Harms(ctx context.Context, id holdfast.ReleaseID, after int64, most int) ([]holdfast.Harm, error)

	// Append puts entries on the record.
	Append(ctx context.Context, entries ...holdfast.Entry) ([]holdfast.Entry, error)

	Setting(ctx context.Context, name string) (string, error)
	PutSetting(ctx context.Context, name, value string) error
}

// Director is the director repository: Approve publishes what each ring may
// run, replacing what was approved for the rings it names. Approving the same
// twice changes nothing. It refuses the whole if the publishers do not vouch
// for a part; Released tells, with NotFound, which part that is.
type Director interface {
	Approve(approvals map[string][]tuf.Approval, now time.Time) error
	Released(d holdfast.Digest) (tuf.Release, error)
}

// Consents is what organisations allow on their hosts. Their signatures were
// verified when it was stored; the hosts verify them again.
type Consents interface {
	ConsentVersions(ctx context.Context) (map[holdfast.OrgID]int64, error)
	Consent(ctx context.Context, org holdfast.OrgID) (holdfast.Consent, error)
}

// Hints tells whoever holds the hosts' connections to look again. A hint may
// be lost. With no host it is about every host of the release.
type Hints interface {
	Changed(host holdfast.HostID, release holdfast.ReleaseID)
}

// Config is what a Service is made of. Store, Director and Now are required.
type Config struct {
	Store    Store
	Director Director
	Consents Consents      // nil: nobody has a say
	Hints    Hints         // nil: nobody to tell
	Clock    fleet.Clock   // zero: production, a heartbeat of 60 s
	Node     string        // names this process to others; empty: drawn at random
	Leader   time.Duration // how long the leader's lease lasts; zero: three heartbeats, within 3 and 10 s
	Now      func() time.Time
	Random   *rand.Rand // nil: seeded by the system
	Log      *slog.Logger
	// Policy makes the policy of a release; nil: rollout.DefaultPolicy on the
	// clock's heartbeat. It is asked once, when the release begins.
	Policy func(holdfast.Release) rollout.Policy
	// Admissible says whether a release may begin; registry.Registry has it.
	// nil: always.
	Admissible func(ctx context.Context, r holdfast.Release) error
}

// Service drives the rollouts of an installation. Hosts' connections call it
// (it is edge/opamp's Control), and people (it is the console's Actions).
type Service struct {
	Config

	mu       sync.Mutex // guards the fields below
	fleet    *fleet.Fleet
	rollouts map[holdfast.ReleaseID]*driven
	term     int64     // of our lead, as it was when memory was loaded; 0: never led
	leads    time.Time // until when nobody else can have taken it

	stepping sync.Mutex // one step at a time; taken before mu
	stale    bool       // what is in memory may not be what is stored: load
	ran      bool       // loaded before, by this process
	alive    time.Time  // when the store was last told that we are
	outages  int        // how many are stored
	approved string     // what the director was last told, as JSON
	allowed  map[holdfast.OrgID]*consent.Policy
	unread   map[holdfast.OrgID]string // why what is allowed could not be read

	kick chan struct{}
}

// driven is a rollout as it is stored, decoded.
type driven struct {
	holdfast.Rollout
	release holdfast.Release
	policy  rollout.Policy
	state   rollout.State
	base    fleet.Baseline
	known   fleet.Release // as the fleet was last told
	settled bool
	signed  tuf.Release // what the publishers signed; zero if they withdrew it
	failure string      // the last reason why it cannot go on, logged once
}

const (
	leaseName   = "reconcile"
	aliveName   = "reconcile.alive"
	outagesName = "reconcile.outages"
	us          = "holdfast" // who decides when the procedure does
)

// New returns a service that has loaded nothing yet: Run or the first Step
// does.
func New(c Config) *Service {
	if c.Clock.Heartbeat == 0 {
		c.Clock.Heartbeat = time.Minute
	}
	if c.Clock.Lease == 0 {
		c.Clock.Lease = max(c.Clock.Heartbeat, 2*time.Second)
	}
	if c.Leader == 0 {
		c.Leader = min(max(3*c.Clock.Heartbeat, 3*time.Second), 10*time.Second)
	}
	if c.Random == nil {
		c.Random = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	if c.Node == "" {
		c.Node = randomName()
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Policy == nil {
		heartbeat := c.Clock.Heartbeat
		c.Policy = func(r holdfast.Release) rollout.Policy {
			return rollout.DefaultPolicy(r.Profile).WithClock(heartbeat)
		}
	}
	now := c.Now()
	return &Service{
		Config: c, stale: true, kick: make(chan struct{}, 1), rollouts: map[holdfast.ReleaseID]*driven{},
		fleet: fleet.New(c.Clock, c.Random, now, now),
	}
}

// Run steps until ctx ends: four times a heartbeat, at least once a second,
// and at once when a person decided something.
func (s *Service) Run(ctx context.Context) error {
	every := min(max(s.Clock.Heartbeat/4, 20*time.Millisecond), time.Second)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := s.Step(ctx); err != nil && ctx.Err() == nil {
			s.Log.Warn("rollouts did not move: will load again", "err", err)
		}
		select {
		case <-ctx.Done():
			// So that another node, or our next start, need not wait.
			release, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			if err := s.Store.ReleaseLease(release, leaseName, s.Node); err != nil {
				s.Log.Warn("leader's lease not given up", "err", err)
			}
			return nil
		case <-tick.C:
		case <-s.kick:
		}
	}
}

// Wake makes Run step soon.
func (s *Service) Wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

func (s *Service) hint(host holdfast.HostID, release holdfast.ReleaseID) {
	if s.Hints != nil {
		s.Hints.Changed(host, release)
	}
}
