package exact

import (
	"cmp"
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
	"github.com/holdfast-security/holdfast/internal/sim"
	"github.com/holdfast-security/holdfast/internal/trust/attest"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

// world is one run.
type world struct {
	sim.World
	policy      rollout.Policy
	now         time.Time
	tick        time.Duration
	random      *rand.Rand
	store       *memory
	service     *reconcile.Service
	former      *reconcile.Service // a leader that does not know yet that it was replaced
	formerUntil time.Time
	guardPolicy guard.Policy
	hosts       []*host
	mail        []letter
	view        *tuf.View
	verdicts    map[holdfast.Digest][]byte
	good, bad   holdfast.Digest
	begins      time.Time // when the release is approved; time counts from there
	away        []bool    // by outage: it has begun
	halted      bool      // by a person
	decided     holdfast.Phase
	deaf        bool
	steps       int
	starts      int
	out         sim.Outcome
	customers   customers
	watch       watch
	// inject, if set, is called after every step: a test breaks something.
	inject func(*world)
}

// epoch is just before midnight, so that maintenance windows open and close
// while a world is played.
var epoch = time.Date(2025, 12, 31, 23, 59, 40, 0, time.UTC)

const release = holdfast.ReleaseID("exact")

// Run plays a rollout of a policy over a world to its end, or to the first
// broken promise, which is the error.
func Run(ctx context.Context, p rollout.Policy, w sim.World) (sim.Outcome, error) {
	return run(ctx, p, w, nil)
}

func run(ctx context.Context, p rollout.Policy, config sim.World, inject func(*world)) (sim.Outcome, error) {
	w, err := newWorld(ctx, p, config)
	if err != nil {
		return sim.Outcome{}, err
	}
	w.inject = inject
	for end := w.begins.Add(w.Until); w.now.Before(end); {
		if err := ctx.Err(); err != nil {
			return w.out, err
		}
		if err := w.step(ctx); err != nil {
			return w.out, err
		}
		if w.watch.violation != nil {
			return w.out, w.watch.violation
		}
		if w.settled() {
			break
		}
	}
	w.finish()
	return w.out, nil
}

func newWorld(ctx context.Context, p rollout.Policy, config sim.World) (*world, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if config.Begins.IsZero() {
		config.Begins = epoch
	}
	config.Version, config.Before = cmp.Or(config.Version, sim.NewVersion), cmp.Or(config.Before, sim.OldVersion)
	w := &world{
		World: config, policy: p, now: config.Begins, begins: config.Begins, tick: p.Heartbeat / 4, random: rand.New(rand.NewPCG(config.Seed, 11)), store: newMemory(),
		good: holdfast.DigestOf([]byte("good")), bad: holdfast.DigestOf([]byte("bad")), away: make([]bool, len(config.Outage)),
		guardPolicy: guard.Policy{Probation: 5 * p.Heartbeat, ProbationEvents: 10, Loop: 3, LoopWindow: 15 * p.Heartbeat},
	}
	w.out.Seed, w.out.Refused, w.out.Control = config.Seed, map[string]int{}, map[string]int{}
	if w.regresses() {
		// What is normal must be known first: a window of undisturbed hosts.
		w.now = w.begins.Add(-25 * p.Heartbeat)
	}
	if err := w.publish(); err != nil {
		return nil, err
	}
	if err := w.draftPolicies(); err != nil {
		return nil, err
	}
	w.start()
	if err := w.enrol(); err != nil {
		return nil, err
	}
	for w.now.Before(w.begins) {
		if err := w.step(ctx); err != nil {
			return nil, err
		}
	}
	if err := w.service.Approve(ctx, release, "bob"); err != nil {
		return nil, err
	}
	if w.StoreFails > 0 {
		w.store.fail = func(bool) bool { return w.random.Float64() < w.StoreFails/2 }
	}
	return w, nil
}

// regresses reports whether a fault shows only against what is normal.
func (w *world) regresses() bool {
	for i := range w.Faults {
		if k := w.Faults[i].Kind; k == holdfast.CPU || k == holdfast.Memory {
			return true
		}
	}
	return false
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
		Bundle: w.bad, Channel: holdfast.Rules, Started: w.now, Finished: w.now,
		Builds: []holdfast.BuildVerdict{{Build: build, Version: "1.0", Passed: true}},
	}, key)
	if err != nil {
		return err
	}
	w.verdicts = map[holdfast.Digest][]byte{w.bad: env}
	w.view = &tuf.View{
		Policy: tuf.Policy{Domain: tuf.Drill, Rehearsal: []ed25519.PublicKey{key.Public().(ed25519.PublicKey)}, RehearsalThreshold: 1},
		Releases: map[holdfast.Digest]tuf.Release{
			w.good: {Channel: holdfast.Rules, Digest: w.good, Version: w.Before, Sequence: 1, Rings: w.policy.Rings, Signed: w.begins.AddDate(0, -1, 0), Domain: tuf.Drill},
			w.bad:  {Channel: holdfast.Rules, Digest: w.bad, Version: w.World.Version, Sequence: 2, Rings: w.policy.Rings, Signed: w.signed(), Critical: w.Critical, Domain: tuf.Drill},
		},
		Approvals: map[string][]tuf.Approval{}, Expires: w.begins.Add(w.Until).AddDate(1, 0, 0),
	}
	b := holdfast.Bundle{Channel: holdfast.Rules, Version: w.World.Version, Digest: w.bad, Size: 1, Created: w.now}
	w.store.releases[release] = holdfast.Release{
		ID: release, Org: holdfast.DefaultOrg, Bundle: b, Profile: w.policy.Profile, Rings: w.policy.Rings,
		Signed: w.signed(), Created: w.now, By: "ada",
	}
	w.store.rollouts[release] = stored{Rollout: holdfast.Rollout{Release: release, Phase: holdfast.Waiting, Updated: w.now}}
	return nil
}

// signed is when the publishers signed the release.
func (w *world) signed() time.Time { return w.begins.Add(-w.World.Signed) }

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

// start is a new process of the control plane; the hosts connect to it anew.
func (w *world) start() {
	w.starts++
	p := w.policy
	w.service = reconcile.New(reconcile.Config{
		Store: w.store, Director: w, Consents: w.store, Clock: fleet.Clock{Heartbeat: p.Heartbeat, Lease: p.Heartbeat}, Node: fmt.Sprintf("node-%d", w.starts),
		Leader: 3 * p.Heartbeat, Now: func() time.Time { return w.now }, Random: rand.New(rand.NewPCG(w.random.Uint64(), 1)),
		Policy: func(r holdfast.Release) rollout.Policy {
			p := p
			p.Release, p.Signed, p.By, p.Approved = r.ID, r.Signed, r.By, r.Approved
			return p
		},
	})
	for _, h := range w.hosts {
		h.line = nil
	}
}

// crash kills the control plane. Its lease of the lead lasts on, or a
// supervisor gave it up.
func (w *world) crash() {
	w.note("", "the control plane dies and starts anew")
	if w.random.IntN(2) == 0 {
		w.store.giveUp()
	}
	w.start()
}

// takeover lets another node lead, while the one before still works for a few
// heartbeats: it was starved, its lease ran out, and it does not know.
func (w *world) takeover() {
	w.note("", "another node takes the lead")
	w.former, w.formerUntil = w.service, w.now.Add(5*w.policy.Heartbeat)
	w.store.giveUp()
	w.start()
}

// step is a quarter of a heartbeat: every host lives, a quarter of them
// reports, the control plane decides.
func (w *world) step(ctx context.Context) error {
	w.now = w.now.Add(w.tick)
	w.outages()
	w.bringPolicies()
	w.halt(ctx)
	w.deliver(ctx)
	for i, h := range w.hosts {
		if back := h.kind.Back; h.offline && back > 0 && w.since() >= back {
			h.offline = false
			h.note(w, "wakes up")
		}
		if h.offline {
			continue
		}
		h.live(w)
		if i%4 == w.steps%4 {
			if err := h.poll(ctx, w); err != nil {
				return err
			}
		}
	}
	if err := w.lead(ctx, w.service); err != nil {
		return err
	}
	if w.former != nil {
		if err := w.lead(ctx, w.former); err != nil {
			return err
		}
		if !w.now.Before(w.formerUntil) {
			w.former = nil
		}
	}
	if w.inject != nil {
		w.inject(w)
	}
	if p := w.phase(); p.Done() && p != w.decided { // also what was complete and is then halted
		w.decided, w.out.Decided = p, w.since()
	}
	w.check()
	switch {
	case w.random.Float64() < w.Restart:
		w.crash()
	case w.random.Float64() < w.Takeover:
		w.takeover()
	}
	w.measure()
	w.steps++
	return nil
}

// halt is what a person does, who tries again if the store is away.
func (w *world) halt(ctx context.Context) {
	if w.Halt > 0 && w.since() >= w.Halt && !w.halted && w.service.Halt(ctx, release, "olga", "she has seen enough") == nil {
		w.note("", "a person halts the release")
		w.halted = true
	}
}

// lead lets one node step. That the store was away, or that another leads, is
// no failure of the run: the node loads again.
func (w *world) lead(ctx context.Context, s *reconcile.Service) error {
	err := s.Step(ctx)
	if k := holdfast.KindOf(err); err != nil && k != holdfast.Unavailable && (k != holdfast.Conflict || w.former == nil) {
		return err
	}
	return nil
}

// outages makes the control plane deaf, or cuts hosts off, for as long as the
// world says.
func (w *world) outages() {
	w.deaf = false
	since := w.since()
	for i, o := range w.Outage {
		open := since >= o.From && since < o.From+o.For
		if open && !w.away[i] {
			w.note("", "an outage begins")
		}
		began := open && !w.away[i]
		w.away[i] = open
		if o.Server {
			w.deaf = w.deaf || open
			continue
		}
		if !began {
			continue
		}
		for _, h := range w.hosts {
			if (o.Where == nil || o.Where(h.kind)) && w.chance(o.Share) {
				h.cutOff(w.begins.Add(o.From + o.For))
			}
		}
	}
}

// since is how long ago the release was approved.
func (w *world) since() time.Duration { return w.now.Sub(w.begins) }

func (w *world) chance(p float64) bool { return p > 0 && w.random.Float64() < p }

func (w *world) phase() holdfast.Phase { return w.store.rollouts[release].Phase }

func (w *world) settled() bool {
	wait := 20 * w.policy.Heartbeat
	for _, f := range w.Faults {
		if f.Mute { // until the last host has found out by itself, and is heard again
			wait += (guard.MuteAfter + 1) * w.guardPolicy.Probation
		}
	}
	if w.Guard > 0 {
		wait += 80 * w.policy.Heartbeat // those that went back are offered it again
	}
	for i := range w.Kinds {
		if k := &w.Kinds[i]; k.Offline > 0 && k.Back > 0 && w.since() <= k.Back+80*w.policy.Heartbeat && !w.phase().Recalling() {
			return false // they come in steps
		}
	}
	return w.phase().Done() && (w.Halt == 0 || w.halted) && w.since() > w.out.Decided+wait
}

// measure adds a point to the curve, once a heartbeat.
func (w *world) measure() {
	if w.steps%4 != 0 || w.since() < 0 {
		return
	}
	v, ok := w.service.View(release)
	if !ok || len(v.State.Evidence) == 0 {
		return
	}
	p := sim.Point{At: w.since(), Broken: w.out.Broken, E: v.State.Evidence[0].E}
	for i := range v.Seen.Cells {
		t := &v.Seen.Cells[i].Treated
		p.Exposed += t.Drawn
		p.Pending += t.Drawn - t.Clean - t.Left
	}
	if n := len(w.out.Curve); n == 0 || w.out.Curve[n-1] != p {
		w.out.Curve = append(w.out.Curve, p)
	}
}

func (w *world) finish() {
	o := &w.out
	o.Late = w.watch.late
	o.Phase, o.Steps, o.Events = w.phase(), w.steps, len(w.store.harms)
	if s, err := rollout.Load(w.store.rollouts[release].State); err == nil && len(s.Evidence) > 0 {
		o.State, o.Why, o.Evidence, o.Peak = s, s.Why, s.Evidence[0].E, s.Evidence[0].Peak
	}
	for _, a := range w.store.admissions {
		if a.Again() {
			o.OfferedAgain++
			if !a.Activated.IsZero() {
				o.TakenAgain++
			}
		}
	}
	for _, h := range w.hosts {
		if h.had {
			o.Exposed++
		}
		if !h.back.IsZero() {
			o.Returned++
		}
		if h.lie == "" && !h.offline && h.needsHands(w) {
			o.Hands++
		}
		if len(w.Consents) > 0 && !h.offline {
			h.tellGroup(w)
		}
	}
}
