package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/fleet"
	"github.com/holdfast-security/holdfast/internal/control/reconcile"
	"github.com/holdfast-security/holdfast/internal/control/rollout"
	"github.com/holdfast-security/holdfast/internal/edge/store"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

// world is a fleet of played hosts, a real service on a real store, and a
// clock that only the test moves.
type world struct {
	t      testing.TB
	now    time.Time
	db     *store.Store
	faults *faults
	svc    *reconcile.Service
	hosts  []*played
	dir    *director
	random *rand.Rand
	lethal holdfast.Digest // kills every host of the new arm that activates it
	starts int
}

const beat = time.Second

var clock = fleet.Clock{Heartbeat: beat, Lease: 2 * beat}

// faults makes transactions and approvals fail, in pairs: before anything was
// done, and after all of it was.
type faults struct {
	reconcile.Store
	count int // of transactions so far
	at    int // the one that fails; 0: none
	done  bool
	fired bool
}

var errCrash = errors.New("crash")

func (f *faults) Tx(ctx context.Context, do func(tx reconcile.Tx) error) error {
	f.count++
	if f.count != f.at {
		return f.Store.Tx(ctx, do)
	}
	f.fired = true
	if f.done {
		if err := f.Store.Tx(ctx, do); err != nil {
			return err
		}
	}
	return &holdfast.Error{Kind: holdfast.Unavailable, Err: errCrash}
}

type director struct {
	approvals map[string][]tuf.Approval
	fail      bool
	withdrawn holdfast.Digest // the publishers do not vouch for it any more
}

func (d *director) Released(g holdfast.Digest) (tuf.Release, error) {
	if g == d.withdrawn {
		return tuf.Release{}, holdfast.Errorf(holdfast.NotFound, "withdrawn")
	}
	return tuf.Release{Channel: holdfast.Rules, Digest: g, Rings: holdfast.DefaultRings}, nil
}

func (d *director) Approve(a map[string][]tuf.Approval, _ time.Time) error {
	if d.fail {
		return holdfast.Errorf(holdfast.Unavailable, "the director is away")
	}
	for _, list := range a {
		for _, x := range list {
			if x.Digest == d.withdrawn {
				return holdfast.Errorf(holdfast.Denied, "the publishers do not vouch for %s", x.Digest.Short())
			}
		}
	}
	d.approvals = a
	return nil
}

// played is a host as the server sees one.
type played struct {
	id       holdfast.HostID
	attr     holdfast.Attributes
	rep      holdfast.HostReport
	off      bool           // does not answer
	leases   map[string]int // how often each was carried out
	had      map[holdfast.Digest]bool
	proving  time.Time // probation until
	offered  []holdfast.Offer
	connects bool
}

func newWorld(t testing.TB, hosts int, seed uint64) *world {
	t.Helper()
	t.Logf("seed %d", seed)
	ctx := t.Context()
	db, err := store.Open(ctx, filepath.Join(scratch(t), "holdfast.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	w := &world{t: t, now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), db: db, dir: &director{}, random: rand.New(rand.NewPCG(seed, 1))}
	w.faults = &faults{Store: db.Reconcile()}
	w.play(hosts)
	w.start()
	return w
}

// play enrols played hosts.
func (w *world) play(hosts int) {
	w.t.Helper()
	for i := range hosts {
		p := &played{id: holdfast.HostID(fmt.Sprintf("host-%03d", i)), leases: map[string]int{}, had: map[holdfast.Digest]bool{}}
		p.attr = holdfast.Attributes{Hostname: string(p.id), OS: "linux", Arch: "amd64", Kernel: "6.1", Distro: "debian-12", Role: "server", Version: "1.0"}
		p.rep = holdfast.HostReport{Boot: "boot-1", Running: holdfast.Generation{holdfast.Rules: digest("old")}}
		w.hosts = append(w.hosts, p)
		if err := w.db.CreateHost(w.t.Context(), holdfast.Host{ID: p.id, Org: holdfast.DefaultOrg, Attributes: p.attr, Enrolled: w.now}); err != nil {
			w.t.Fatal(err)
		}
	}
}

// scratch is a directory in memory where there is one: many runs sync often,
// and what is tested is not the disk.
func scratch(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "holdfast-test-*")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func digest(s string) holdfast.Digest { return holdfast.DigestOf([]byte(s)) }

// start is what a new process does; the one before is simply forgotten.
func (w *world) start() {
	w.starts++
	w.svc = reconcile.New(reconcile.Config{
		Store: w.faults, Consents: w.db, Director: w.dir, Clock: clock, Node: fmt.Sprintf("node-%d", w.starts), Leader: time.Millisecond,
		Now: func() time.Time { return w.now }, Random: rand.New(rand.NewPCG(w.random.Uint64(), 2)),
		Policy: func(r holdfast.Release) rollout.Policy { return rollout.DefaultPolicy(r.Profile).WithClock(beat) },
	})
	for _, p := range w.hosts {
		p.connects = false
	}
}

// release creates a release of content that everybody may have at once, asked
// for by one person and approved by another.
func (w *world) release(id holdfast.ReleaseID, content string) holdfast.Release {
	w.t.Helper()
	ctx := w.t.Context()
	b := holdfast.Bundle{Channel: holdfast.Rules, Version: content, Digest: digest(content), Size: 1, Created: w.now}
	r := holdfast.Release{
		ID: id, Org: holdfast.DefaultOrg, Bundle: b, Profile: holdfast.Urgent, Signed: w.now, Created: w.now, By: "ann",
		Rings: holdfast.RingPlan{{Name: "internal", Through: 100_000}, {Name: "general", Through: 1_000_000}},
	}
	must(w.t, w.db.PutBundle(ctx, r.Org, b, "ann"))
	must(w.t, w.db.CreateRelease(ctx, r))
	must(w.t, w.db.CreateRollout(ctx, holdfast.Rollout{Release: id, Phase: holdfast.Waiting, Updated: w.now}))
	must(w.t, w.svc.Approve(ctx, id, "bob"))
	return r
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tick lets a quarter of a heartbeat pass: a quarter of the hosts beat, and
// the service steps. A crash of the service is followed by a new one.
func (w *world) tick() {
	w.now = w.now.Add(beat / 4)
	quarter := int(w.now.UnixNano()/int64(beat/4)) % 4
	for i, p := range w.hosts {
		if i%4 == quarter && !p.off {
			w.beat(p)
		}
	}
	if err := w.svc.Step(w.t.Context()); err != nil {
		if !errors.Is(err, errCrash) {
			w.t.Fatalf("at %s: %v", w.now.Format(time.TimeOnly), err)
		}
		w.start()
	}
}

func (w *world) beat(p *played) {
	ctx := w.t.Context()
	if !p.connects {
		if err := w.svc.Connected(ctx, p.id, w.now); err != nil {
			w.t.Fatal(err)
		}
		w.svc.Described(ctx, p.id, p.attr, w.now)
		w.svc.Reported(ctx, p.id, p.rep, w.now)
		p.connects = true
	}
	if !p.proving.IsZero() && !w.now.Before(p.proving) {
		p.proving, p.rep.Probation = time.Time{}, false
		w.svc.Reported(ctx, p.id, clone(p.rep), w.now)
	}
	w.svc.Beat(ctx, p.id, w.now)
	o, ok := w.svc.Desired(ctx, p.id, w.now)
	if !ok {
		return
	}
	p.offered = append(p.offered, o)
	if o.Recall != "" {
		w.giveBack(p, o)
		return
	}
	if _, err := w.svc.RenewLease(ctx, p.id, o.Lease, w.now); err != nil {
		return
	}
	w.activate(p, o)
}

func clone(r holdfast.HostReport) holdfast.HostReport {
	r.Running = r.Running.With("", "")
	r.Shunned = slices.Clone(r.Shunned)
	return r
}

func (w *world) giveBack(p *played, o holdfast.Offer) {
	if p.rep.Running[o.Channel] != o.Recall {
		return
	}
	p.rep.Running = p.rep.Running.With(o.Channel, o.Digest)
	p.rep.Probation, p.proving = false, time.Time{}
	w.svc.Reported(w.t.Context(), p.id, clone(p.rep), w.now)
}

func (w *world) activate(p *played, o holdfast.Offer) {
	p.leases[o.Lease]++
	p.rep.Activation = o.Lease
	before := p.rep.Running
	next := before.With(o.Channel, o.Digest)
	p.rep.Attempted = next
	p.had[o.Digest] = true
	if o.Digest == w.lethal {
		p.rep.Crashes++
		p.rep.Failed, p.rep.Reason = next, "exit status 2"
		p.rep.Shunned = append(p.rep.Shunned, o.Digest)
	} else {
		p.rep.Previous, p.rep.Running = before, next
		p.rep.Probation, p.proving = true, w.now.Add(2*beat)
	}
	w.svc.Reported(w.t.Context(), p.id, clone(p.rep), w.now)
}

// until ticks until cond holds, for at most a time.
func (w *world) until(what string, most time.Duration, cond func() bool) {
	w.t.Helper()
	for end := w.now.Add(most); w.now.Before(end); {
		if cond() {
			return
		}
		w.tick()
	}
	v, _ := w.svc.View("r1")
	w.t.Fatalf("not within %s: %s (phase %q %s, version %d; %d running new, %d harmed)", most, what, v.Phase, v.State.Why, v.Version, w.running(digest("new")), w.harmed())
}

func (w *world) phase(id holdfast.ReleaseID) holdfast.Phase {
	r, err := w.db.Rollout(w.t.Context(), id)
	must(w.t, err)
	return r.Phase
}

func (w *world) running(d holdfast.Digest) (n int) {
	for _, p := range w.hosts {
		if p.rep.Running[holdfast.Rules] == d {
			n++
		}
	}
	return n
}

func (w *world) harmed() (n int) {
	for _, p := range w.hosts {
		if p.rep.Crashes > 0 {
			n++
		}
	}
	return n
}

// check verifies what must hold of every run, disturbed or not.
func (w *world) check(id holdfast.ReleaseID) {
	w.t.Helper()
	for _, p := range w.hosts {
		for l, n := range p.leases {
			if n > 1 {
				w.t.Errorf("%s carried lease %s out %d times", p.id, l, n)
			}
		}
		treated := 0
		must(w.t, w.db.Admissions(w.t.Context(), store.AdmissionFilter{Release: id, Host: p.id}, func(a holdfast.Admission) error {
			if a.Arm == holdfast.New {
				treated++
			}
			delete(p.leases, a.Lease)
			return nil
		}))
		if treated > 1 {
			w.t.Errorf("%s was drawn for the release %d times", p.id, treated)
		}
		if len(p.leases) > 0 {
			w.t.Errorf("%s carried out an offer that is not a row", p.id)
		}
	}
}
