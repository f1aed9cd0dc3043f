package sim

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/rollout"
	"github.com/holdfast-security/holdfast/internal/language/consent"
)

// begin of virtual time.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Counts runs a rollout of a policy over a world of any size.
func Counts(p rollout.Policy, w World) (Outcome, error) {
	c, err := newCounts(p, w)
	if err != nil {
		return Outcome{}, err
	}
	return c.play(func() {})
}

// play plays to the end, and calls look after every step.
func (c *counts) play(look func()) (Outcome, error) {
	for c.now = 0; c.now <= c.world.Until; c.now += c.tick {
		c.step()
		if err := c.promises(); err != nil {
			return c.out, err
		}
		look()
		if c.over() {
			break
		}
	}
	c.out.State, c.out.Last = c.state, c.snapshot
	c.tellGroups()
	return c.out, nil
}

// counts is a run at the fidelity of groups.
type counts struct {
	policy rollout.Policy
	world  World
	random *rand.Rand
	tick   time.Duration
	now    time.Duration

	groups  []group
	within  map[place][]int // groups of a stratum of an organisation
	cells   []rollout.Cell
	cellAt  map[cellKey]int
	cohorts []cohort  // in their fast window
	follow  []*cohort // in their slow window
	grants  []grant
	due     map[int64][]breaking // by tick
	heals   map[int64]int        // mute hosts that go back by themselves, by tick
	state   rollout.State
	events  []rollout.Event
	held    []rollout.Event // that an outage keeps from being heard
	seq     int64
	normals map[hazardKey][]hazard
	begins  time.Time // when the release is approved
	allowed map[holdfast.OrgID]*consent.Policy
	opens   []time.Duration // when the soak of each ring has passed
	seen    []rollout.Group // room for what is observed
	pools   []int           // room for a draw

	snapshot  rollout.Snapshot
	actions   []rollout.Action
	reachable int
	out       Outcome
}

// A group is the hosts of one kind in one ring.
type group struct {
	kind    int
	ring    int
	stratum holdfast.Stratum // as merged
	cell    holdfast.Stratum // its own, if merged
	online  int
	say     *say // of its organisation; nil: nothing
	home    int  // the ring that it goes with

	plain    int       // untreated, in no window and no slow observation
	watched  []*cohort // untreated controls after their fast window
	proven   []*cohort // treated hosts after it
	inWindow int       // controls in their fast window
	away     []returning
	faulty   []int // by fault, untreated
	treated  int

	first, latest time.Duration // when one was treated
}

// untreated counts the hosts without the release.
func (g *group) untreated() int { return g.online - g.treated }

func (g *group) waiting() int {
	n := g.plain
	for _, c := range g.watched {
		n += c.n
	}
	return n
}

// returning controls were harmed, and wait again from a time on.
type returning struct {
	at   time.Duration
	cell int
	n    int
}

// A cohort is the hosts of one group drawn into one arm of a cell in one tick.
type cohort struct {
	cell    int
	group   int
	treated bool
	drawn   time.Duration
	n       int // unharmed and observed
	pending int // faulty, not yet noticed
	// steady counts those who have not crashed, in the slow window: a host
	// that fell silent and came back is still observed for crashes.
	steady int
}

type place struct {
	org     holdfast.OrgID
	stratum holdfast.Stratum
}

type cellKey struct {
	block, ring int
	org         holdfast.OrgID
	stratum     holdfast.Stratum
	cell        holdfast.Stratum
}

type grant struct {
	admit   rollout.Admit
	members []int // groups
	treat   int
	placebo int
	since   time.Duration
}

// breaking is a number of hosts whose fault will be noticed.
type breaking struct {
	cell    int
	control bool
	kind    holdfast.HarmKind
	drawn   time.Duration
	n       int
}

func newCounts(p rollout.Policy, w World) (*counts, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if what := w.needsHosts(); what != "" {
		return nil, holdfast.Errorf(holdfast.Invalid, "%s cannot be played in counts: play it host by host", what)
	}
	if w.Tick <= 0 {
		w.Tick = p.Heartbeat / 4
	}
	begins := w.Begins
	if begins.IsZero() {
		begins = epoch
	}
	p.Signed, w.Version = begins.Add(-w.Signed), cmp.Or(w.Version, NewVersion)
	c := &counts{policy: p, world: w, begins: begins, allowed: w.allowed(), random: newRandom(w.Seed, 2), tick: w.Tick, cellAt: map[cellKey]int{}, due: map[int64][]breaking{}, heals: map[int64]int{}, within: map[place][]int{}, normals: map[hazardKey][]hazard{}}
	for i := range p.Rings {
		c.opens = append(c.opens, p.Rings.Opens(i, p.Signed).Sub(begins))
	}
	c.out.Seed = w.Seed
	merged := Merged(w.Kinds)
	for i := range w.Kinds {
		k := &w.Kinds[i]
		if k.Hosts < 0 || k.Offline < 0 || k.Offline > k.Hosts {
			return nil, holdfast.Errorf(holdfast.Invalid, "stratum %s: %d hosts, %d of them offline", k.Stratum, k.Hosts, k.Offline)
		}
		c.addKind(i, merged[k.Stratum])
	}
	if c.reachable == 0 {
		return nil, holdfast.Errorf(holdfast.Invalid, "the fleet has no reachable host")
	}
	return c, nil
}

// addKind spreads a kind's hosts over the rings at random, as their ids would.
func (c *counts) addKind(i int, stratum holdfast.Stratum) {
	k := &c.world.Kinds[i]
	left, leftOnline, from := k.Hosts, k.Hosts-k.Offline, 0.0
	for ring, r := range c.policy.Rings {
		through := float64(r.Through) / 1e6
		n := left
		if ring < len(c.policy.Rings)-1 {
			n = binomial(c.random, left, (through-from)/(1-from))
		}
		on := hypergeometric(c.random, left, leftOnline, n)
		g := group{kind: i, ring: ring, home: ring, stratum: stratum, online: on, plain: on, faulty: make([]int, len(c.world.Faults))}
		if stratum != k.Stratum {
			g.cell = k.Stratum
		}
		for f := range c.world.Faults {
			fault := &c.world.Faults[f]
			if fault.Rate == 0 && (fault.Where == nil || fault.Where(k)) {
				g.faulty[f] = binomial(c.random, on, fault.Share)
			}
		}
		at := place{k.Org, stratum}
		c.within[at] = append(c.within[at], len(c.groups))
		c.groups = append(c.groups, g)
		c.reachable += on
		left, leftOnline, from = left-n, leftOnline-on, through
	}
}

// step lets one tick pass: hosts ask and are drawn, break, fall silent and
// prove clean; then the controller decides.
func (c *counts) step() {
	deaf := c.serverOut()
	c.consult()
	c.come()
	c.cutOffs()
	if !deaf {
		c.drawAll()
	}
	c.breakDue(deaf)
	c.background(deaf)
	if !deaf {
		c.ripen()
	}
	c.decide(deaf)
	c.out.Steps++
}

func (c *counts) serverOut() bool {
	for _, o := range c.world.Outage {
		if o.Server && c.now >= o.From && c.now < o.From+o.For {
			return true
		}
	}
	return false
}

// decide shows the controller what was observed and carries its actions out.
func (c *counts) decide(deaf bool) {
	if !deaf && len(c.held) > 0 {
		c.events = append(c.events, c.held...)
		c.held = nil
	}
	c.random.Shuffle(len(c.events), func(i, j int) { c.events[i], c.events[j] = c.events[j], c.events[i] })
	for i := range c.events {
		c.seq++
		c.events[i].Seq = c.seq
	}
	c.out.Events += len(c.events)
	c.snapshot = rollout.Snapshot{Groups: c.observeGroups(), Cells: c.cells, Events: c.events, Outage: deaf}
	if c.world.Restart > 0 && c.random.Float64() < c.world.Restart {
		c.restart()
	}
	began := time.Now()
	c.state, c.actions = rollout.Decide(&c.policy, c.state, c.snapshot, c.time())
	c.out.Slowest = max(c.out.Slowest, time.Since(began))
	if !deaf {
		c.events = c.events[:0]
	}
	for _, a := range c.actions {
		c.carryOut(a)
	}
	c.measure()
}

// restart keeps what is stored, and nothing else.
func (c *counts) restart() {
	b, err := json.Marshal(c.state)
	if err == nil && c.state.Schema != 0 {
		c.state, err = rollout.Load(b)
	}
	if err != nil {
		panic(fmt.Sprintf("seed %d, step %d: the stored state is not whole: %v", c.world.Seed, c.out.Steps, err))
	}
}

func (c *counts) carryOut(a rollout.Action) {
	switch a := a.(type) {
	case rollout.Admit:
		g := grant{admit: a, treat: a.Treat, placebo: a.Placebo, since: c.now}
		for _, i := range c.within[place{a.Org, a.Stratum}] {
			if c.matches(&c.groups[i], &a) {
				g.members = append(g.members, i)
			}
		}
		c.grants = append(c.grants, g)
	case rollout.Halt:
		c.decided(a.Org)
	case rollout.Stop:
		c.decided(a.Org)
	case rollout.Complete:
		c.out.Decided = c.now
	case rollout.Note:
		if len(c.out.Notes) < 50 {
			c.out.Notes = append(c.out.Notes, c.now.String()+" "+a.What)
		}
	}
}

func (c *counts) decided(org holdfast.OrgID) {
	c.out.Decided = c.now
	kept := c.grants[:0]
	for _, g := range c.grants {
		if org != "" && g.admit.Org != org {
			kept = append(kept, g)
		}
	}
	c.grants = kept
}

func (c *counts) measure() {
	o := &c.out
	o.Phase, o.Why = c.state.Phase, c.state.Why
	if len(c.state.Evidence) > 0 {
		o.Evidence, o.Peak = c.state.Evidence[0].E, c.state.Evidence[0].Peak
	}
	if o.Reached99 == 0 && o.Exposed*100 >= c.reachable*99 {
		o.Reached99 = c.now
	}
	pending := 0
	for i := range c.cells {
		t := &c.cells[i].Treated
		pending += t.Drawn - t.Clean - t.Left
	}
	if n := len(o.Curve); n == 0 || o.Curve[n-1].Exposed != o.Exposed || c.out.Steps%20 == 0 {
		o.Curve = append(o.Curve, Point{At: c.now, Exposed: o.Exposed, Broken: o.Broken, Pending: pending, E: o.Evidence})
	}
}

// time is the moment by the clock.
func (c *counts) time() time.Time { return c.begins.Add(c.now) }

func (c *counts) over() bool {
	p := c.state.Phase
	return p.Recalling() && c.world.StopAtRecall || p.Recalling() && len(c.due)+len(c.heals) == 0
}
