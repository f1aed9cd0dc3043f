package reconcile_test

import (
	"context"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/reconcile"
	"github.com/holdfast-security/holdfast/internal/edge/store"
)

// lossy tells hosts to look again, and forgets to tell half of the time.
type lossy struct {
	mu     sync.Mutex
	random *rand.Rand
	host   map[holdfast.HostID]chan struct{}
	lost   int
}

func (l *lossy) Changed(host holdfast.HostID, _ holdfast.ReleaseID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, wake := range l.host {
		if host != "" && host != id {
			continue
		}
		if l.random.IntN(2) == 0 {
			l.lost++
			continue
		}
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// TestRunConvergesWithHalfOfTheHintsLost runs the loop itself, with every host
// a goroutine of its own: a hint that is lost only delays, to the next
// heartbeat.
func TestRunConvergesWithHalfOfTheHintsLost(t *testing.T) {
	const hosts = 16
	dir := scratch(t)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		db, err := store.Open(ctx, filepath.Join(dir, "holdfast.db"))
		must(t, err)
		hints := &lossy{random: rand.New(rand.NewPCG(3, 3)), host: map[holdfast.HostID]chan struct{}{}}
		w := &world{t: t, db: db, dir: &director{}, now: time.Now()}
		w.faults = &faults{Store: db.Reconcile()}
		w.play(hosts)
		for _, p := range w.hosts {
			hints.host[p.id] = make(chan struct{}, 1)
		}
		w.svc = reconcile.New(reconcile.Config{Store: w.faults, Director: w.dir, Hints: hints, Clock: clock, Now: time.Now, Random: rand.New(rand.NewPCG(4, 4))})

		var wg sync.WaitGroup
		wg.Go(func() { _ = w.svc.Run(ctx) })
		var done sync.WaitGroup
		done.Add(hosts)
		for i, p := range w.hosts {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * beat / hosts)
				tick := time.NewTicker(beat)
				defer tick.Stop()
				has := sync.OnceFunc(done.Done)
				for {
					own := &world{t: t, svc: w.svc, now: time.Now()}
					own.beat(p)
					if p.rep.Running[holdfast.Rules] == digest("new") {
						has()
					}
					select {
					case <-ctx.Done():
						return
					case <-tick.C:
					case <-hints.host[p.id]:
					}
				}
			})
		}
		time.Sleep(beat)
		w.now = time.Now()
		w.release("r1", "new")
		done.Wait()
		took := time.Since(w.now)
		cancel()
		wg.Wait()
		must(t, db.Close())
		t.Logf("%d hosts after %s of virtual time; %d hints lost", hosts, took, hints.lost)
		if hints.lost == 0 {
			t.Error("no hint was lost")
		}
	})
}

// Two nodes: one leads, the other takes over when the first is gone.
func TestOneNodeLeads(t *testing.T) {
	w := newWorld(t, 4, 1)
	w.release("r1", "new")
	now := w.now
	node := func(name string) *reconcile.Service {
		return reconcile.New(reconcile.Config{Store: w.db.Reconcile(), Director: &director{}, Clock: clock, Node: name, Now: func() time.Time { return now }})
	}
	a, b := node("a"), node("b")
	must(t, a.Step(t.Context()))
	must(t, b.Step(t.Context()))
	_, aLeads := a.View("r1")
	_, bLeads := b.View("r1")
	if !aLeads || bLeads {
		t.Fatalf("a drives the rollout: %v, b: %v", aLeads, bLeads)
	}
	now = now.Add(11 * time.Second) // a is gone
	must(t, b.Step(t.Context()))
	if _, leads := b.View("r1"); !leads {
		t.Error("nobody took over")
	}
	must(t, a.Step(t.Context())) // it is back, and does not disturb
}
