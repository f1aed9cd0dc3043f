package exact

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/fleet"
	"github.com/holdfast-security/holdfast/internal/control/reconcile"
	"github.com/holdfast-security/holdfast/internal/control/rollout"
	"github.com/holdfast-security/holdfast/internal/endpoint/guard"
	"github.com/holdfast-security/holdfast/internal/endpoint/loader"
	"github.com/holdfast-security/holdfast/internal/sim"
	"github.com/holdfast-security/holdfast/internal/trust/attest"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

// MostHosts is the largest fleet that is played host by host.
const MostHosts = 20_000

// Config is a fleet, a release, and what goes wrong.
type Config struct {
	Seed   uint64
	Kinds  []sim.Kind
	Policy rollout.Policy // of the release; its clock is the fleet's
	Fault  Fault
	Until  time.Duration

	// Chances: a report is sent twice; an offer is lost; after a step the
	// control plane is killed and started anew; a transaction is lost, before
	// it was made or after.
	Duplicate, Lose, Restart, StoreFails float64
	// Deaf spans make the control plane hear nobody, without knowing it
	// beforehand.
	Deaf []sim.Outage
	// CutOff hosts lose their network, from the moment the release breaks them.
	CutOff bool
}

// Fault is what the release does to a share of the hosts: Crash (the worker
// exits), Reboot, or Silence (the machine stops for good).
type Fault struct {
	Share         float64
	Kind          holdfast.HarmKind
	After, Spread time.Duration // after the worker was ready
}

// Outcome is how a run ended.
type Outcome struct {
	Phase    holdfast.Phase `json:"phase"`
	Why      string         `json:"why,omitempty"`
	Exposed  int            `json:"exposed"` // hosts that ran the release
	Broken   int            `json:"broken"`
	Decided  time.Duration  `json:"decided_ns"`
	Returned int            `json:"returned"` // broken hosts on proven content again
	Hands    int            `json:"hands"`    // hosts that need hands: nothing runs, or the release still does after its recall
	Steps    int            `json:"steps"`
	Refused  map[loader.Cause]int
	Evidence float64
}

type world struct {
	Config
	now         time.Time
	tick        time.Duration
	random      *rand.Rand
	store       *memory
	service     *reconcile.Service
	guardPolicy guard.Policy
	hosts       []*host
	view        *tuf.View
	verdicts    map[holdfast.Digest][]byte
	good, bad   holdfast.Digest
	fault       Fault
	duplicate   float64
	lose        float64
	deaf        bool
	steps       int
	starts      int
	broken      int
	refused     map[loader.Cause]int
	out         Outcome
	violation   *sim.Violation
}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

const release = holdfast.ReleaseID("exact")

// Run plays a configuration to its end, or to the first broken promise, which
// is the error.
func Run(ctx context.Context, c Config) (Outcome, error) {
	w, err := newWorld(ctx, c)
	if err != nil {
		return Outcome{}, err
	}
	for end := epoch.Add(c.Until); w.now.Before(end); {
		if err := w.step(ctx); err != nil {
			return w.out, err
		}
		if w.violation != nil {
			return w.out, w.violation
		}
		if w.settled() {
			break
		}
	}
	w.finish()
	return w.out, nil
}

func newWorld(ctx context.Context, c Config) (*world, error) {
	if err := c.Policy.Validate(); err != nil {
		return nil, err
	}
	w := &world{
		Config: c, now: epoch, tick: c.Policy.Heartbeat / 4, random: rand.New(rand.NewPCG(c.Seed, 11)), store: newMemory(),
		fault: c.Fault, duplicate: c.Duplicate, lose: c.Lose, refused: map[loader.Cause]int{},
		good: holdfast.DigestOf([]byte("good")), bad: holdfast.DigestOf([]byte("bad")),
		guardPolicy: guard.Policy{Probation: 5 * c.Policy.Heartbeat, ProbationEvents: 10, Loop: 3, LoopWindow: 15 * time.Minute},
	}
	if err := w.publish(); err != nil {
		return nil, err
	}
	w.start()
	if err := w.enrol(ctx); err != nil {
		return nil, err
	}
	if c.StoreFails > 0 {
		w.store.fail = func(bool) bool { return w.random.Float64() < c.StoreFails/2 }
	}
	return w, nil
}

// publish signs the verdict that lets the bad content out: the drill's own lie.
func (w *world) publish() error {
	seed := make([]byte, ed25519.SeedSize)
	for i := range seed {
		seed[i] = byte(w.Seed >> (i % 8 * 8))
	}
	key := ed25519.NewKeyFromSeed(seed)
	build := holdfast.DigestOf([]byte("worker"))
	env, err := attest.Sign(holdfast.Verdict{
		Bundle: w.bad, Channel: holdfast.Rules, Started: epoch, Finished: epoch,
		Builds: []holdfast.BuildVerdict{{Build: build, Version: "1.0", Passed: true}},
	}, key)
	if err != nil {
		return err
	}
	w.verdicts = map[holdfast.Digest][]byte{w.bad: env}
	w.view = &tuf.View{
		Policy: tuf.Policy{Domain: tuf.Drill, Rehearsal: []ed25519.PublicKey{key.Public().(ed25519.PublicKey)}, RehearsalThreshold: 1},
		Releases: map[holdfast.Digest]tuf.Release{
			w.good: {Channel: holdfast.Rules, Digest: w.good, Version: "1", Sequence: 1, Rings: w.Config.Policy.Rings, Signed: epoch.Add(-24 * time.Hour), Domain: tuf.Drill},
			w.bad:  {Channel: holdfast.Rules, Digest: w.bad, Version: "2", Sequence: 2, Rings: w.Config.Policy.Rings, Signed: epoch, Domain: tuf.Drill},
		},
		Approvals: map[string][]tuf.Approval{}, Expires: epoch.AddDate(1, 0, 0),
	}
	b := holdfast.Bundle{Channel: holdfast.Rules, Version: "2", Digest: w.bad, Size: 1, Created: epoch}
	w.store.releases[release] = holdfast.Release{
		ID: release, Org: holdfast.DefaultOrg, Bundle: b, Profile: w.Config.Policy.Profile, Rings: w.Config.Policy.Rings,
		Signed: epoch, Created: epoch, By: "ada",
	}
	w.store.rollouts[release] = stored{Rollout: holdfast.Rollout{Release: release, Phase: holdfast.Waiting, Updated: epoch}}
	return nil
}

// Approve and Released are the director: its word reaches every host.
func (w *world) Approve(a map[string][]tuf.Approval, _ time.Time) error {
	for ring, list := range a {
		w.view.Approvals[ring] = list
	}
	return nil
}

func (w *world) Released(d holdfast.Digest) (tuf.Release, error) {
	r, ok := w.view.Releases[d]
	if !ok {
		return r, holdfast.Errorf(holdfast.NotFound, "nobody signed %s", d.Short())
	}
	return r, nil
}

// start is a new process of the control plane; the one before is forgotten.
func (w *world) start() {
	w.starts++
	p := w.Config.Policy
	w.service = reconcile.New(reconcile.Config{
		Store: w.store, Director: w, Clock: fleet.Clock{Heartbeat: p.Heartbeat, Lease: p.Heartbeat}, Node: fmt.Sprintf("node-%d", w.starts),
		Leader: time.Millisecond, Now: func() time.Time { return w.now }, Random: rand.New(rand.NewPCG(w.random.Uint64(), 1)),
		Policy: func(r holdfast.Release) rollout.Policy {
			p := p
			p.Release, p.Signed, p.By, p.Approved = r.ID, r.Signed, r.By, r.Approved
			return p
		},
	})
	for _, h := range w.hosts {
		h.known = false
	}
}

func (w *world) enrol(ctx context.Context) error {
	n := 0
	for _, k := range w.Kinds {
		f := k.Stratum.Factors()
		for range k.Hosts {
			h := &host{id: holdfast.HostID(fmt.Sprintf("host-%05d", n)), workers: map[guard.Slot]*worker{}, leases: map[string]bool{}}
			n++
			h.attr = holdfast.Attributes{Hostname: string(h.id), OS: "linux", Arch: "amd64", Build: holdfast.DigestOf([]byte("worker")), Kernel: level(f[0]), Distro: level(f[1]), Version: level(f[2]), Role: level(f[3])}
			h.faulty = w.random.Float64() < w.fault.Share
			h.state = guard.Fresh()
			h.state.Current = holdfast.Generation{holdfast.Rules: w.good}
			h.tell(w, guard.Event{Kind: guard.Started, Boot: "boot-" + string(h.id)})
			w.hosts = append(w.hosts, h)
			w.store.hosts[h.id] = holdfast.Host{ID: h.id, Org: k.Org, Attributes: h.attr, Enrolled: epoch, Report: h.state.Status().Report()}
		}
	}
	if n == 0 || n > MostHosts {
		return holdfast.Errorf(holdfast.Invalid, "%d hosts: the exact simulator plays 1 to %d", n, MostHosts)
	}
	return w.service.Approve(ctx, release, "bob")
}

func level(s string) string {
	for i := range s {
		if s[i] == '=' {
			return s[i+1:]
		}
	}
	return s
}

func (w *world) facts(h *host, o holdfast.Offer) loader.Facts {
	s := h.state.Status().Report()
	return loader.Facts{
		Host: h.id, Domain: tuf.Drill, Build: h.attr.Build, View: w.view, Channel: o.Channel, Digest: o.Digest, MaxBytes: 1 << 20, Verdicts: w.verdicts,
		State: loader.State{Current: s.Running, Previous: s.Previous, Shunned: s.Shunned},
	}
}

// step is a quarter of a heartbeat: every host lives, a quarter of them
// reports, the control plane decides.
func (w *world) step(ctx context.Context) error {
	w.now = w.now.Add(w.tick)
	w.deaf = false
	for _, o := range w.Deaf {
		since := w.now.Sub(epoch)
		w.deaf = w.deaf || since >= o.From && since < o.From+o.For
	}
	for i, h := range w.hosts {
		wasBroken := !h.broken.IsZero()
		h.live(w)
		if w.CutOff && !wasBroken && !h.broken.IsZero() {
			h.cut = w.now.Add(10 * w.Config.Policy.Heartbeat)
		}
		if i%4 == w.steps%4 {
			if err := h.poll(ctx, w); err != nil {
				return err
			}
		}
	}
	if err := w.service.Step(ctx); err != nil && holdfast.KindOf(err) != holdfast.Unavailable {
		return err
	}
	w.check()
	if w.random.Float64() < w.Restart {
		w.start()
	}
	w.steps++
	return nil
}

func (w *world) phase() holdfast.Phase { return w.store.rollouts[release].Phase }

func (w *world) settled() bool {
	p := w.phase()
	if p.Done() && w.out.Decided == 0 {
		w.out.Decided = w.now.Sub(epoch)
	}
	return p.Done() && w.now.Sub(epoch) > w.out.Decided+20*w.Config.Policy.Heartbeat
}

func (w *world) finish() {
	o := &w.out
	o.Phase, o.Steps, o.Broken, o.Refused = w.phase(), w.steps, w.broken, w.refused
	if s, err := rollout.Load(w.store.rollouts[release].State); err == nil && len(s.Evidence) > 0 {
		o.Why, o.Evidence = s.Why, s.Evidence[0].Peak
	}
	for _, h := range w.hosts {
		if h.had {
			o.Exposed++
		}
		if !h.back.IsZero() {
			o.Returned++
		}
		g, _ := h.state.Running()
		if h.down || !h.running() || o.Phase.Recalling() && g[holdfast.Rules] == w.bad {
			o.Hands++
		}
	}
}
