package exact

import (
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/guard"
	"github.com/holdfast-security/holdfast/internal/sim"
)

// wentBack plays a clean release to the end, and lets something happen once to
// each host of which is says so, while the release is on probation there.
func wentBack(t *testing.T, hosts int, seed uint64, is func(n int) bool, what func(*world, *host)) (*world, sim.Outcome) {
	t.Helper()
	p, config := drill(hosts, seed)
	config.Until = 20 * time.Minute
	hit := map[holdfast.HostID]bool{}
	var played *world
	o, err := run(t.Context(), p, config, func(w *world) {
		played = w
		for n, h := range w.hosts {
			g, _ := h.state.Running()
			if is(n) && !hit[h.id] && h.state.Trial != nil && g[holdfast.Rules] == w.bad {
				hit[h.id] = true
				what(w, h)
			}
		}
	})
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	if len(hit) == 0 {
		t.Fatalf("seed %d: it happened to nobody", seed)
	}
	return played, o
}

func restarts(w *world, h *host) { h.restart(w) }

func forgets(w *world, h *host) {
	boot := h.state.Boot
	h.state = guard.Lost("unreadable (played)", guard.State{}, h.clock(w))
	clear(h.workers)
	h.tell(w, guard.Event{Kind: guard.Started, Boot: boot})
}

func reboots(w *world, h *host) {
	h.died = true
	clear(h.workers)
	h.tell(w, guard.Event{Kind: guard.Started, Boot: "boot-anew-" + string(h.id)})
}

// counted is how the release's treated hosts were counted: admissions that are
// part of the comparison, by host.
func (w *world) counted() map[holdfast.HostID]int {
	all := map[holdfast.HostID]int{}
	for _, a := range w.store.admissions {
		if a.Arm == holdfast.New && a.Block >= 0 {
			all[a.Host]++
		}
	}
	return all
}

// TestWhoWentBackIsOfferedItAgain: a host that activated the release and returned
// to what it had, though nothing failed, is offered it once more, is counted
// once, and nobody waits for ever.
func TestWhoWentBackIsOfferedItAgain(t *testing.T) {
	for name, what := range map[string]func(*world, *host){"the guard restarted": restarts, "its state was lost": forgets} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(5) {
				w, o := wentBack(t, 30, seed, func(n int) bool { return n%4 == 0 }, what)
				if o.Phase != holdfast.Complete {
					t.Errorf("seed %d: %s: %s", seed, o.Phase, o.Why)
				}
				w.until(t, 200, func() bool { return w.behind() == 0 })
				for id, n := range w.counted() {
					if n != 1 {
						t.Errorf("seed %d: %s was counted %d times", seed, id, n)
					}
				}
				if len(w.store.harms) > 0 {
					t.Errorf("seed %d: %d harm events, and nothing failed", seed, len(w.store.harms))
				}
			}
		})
	}
}

// TestAllWhoWentBackStopThePace: if a release sends every host back, its guard's
// restarts are no harm event, but the harm budget lends nothing more: it does not
// creep through the fleet.
func TestAllWhoWentBackStopThePace(t *testing.T) {
	p, config := drill(60, 4)
	config.Until = 15 * time.Minute
	o, err := run(t.Context(), p, config, func(w *world) {
		for _, h := range w.hosts {
			if g, _ := h.state.Running(); h.state.Trial != nil && h.state.Trial.Kind == guard.Candidate && g[holdfast.Rules] == w.bad {
				h.restart(w)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if o.Phase.Done() || o.Exposed > p.C0 {
		t.Errorf("%s with %d exposed, none of whom has proved anything", o.Phase, o.Exposed)
	}
}

// TestWhoWasHarmedWaitsForTheVerdict: a host that rebooted on probation came to
// harm, and its guard does not shun the digest the first time. It gets the release
// once more when that is complete, and not before.
func TestWhoWasHarmedWaitsForTheVerdict(t *testing.T) {
	for seed := range uint64(5) {
		first := -1
		w, o := wentBack(t, 60, seed, func(n int) bool {
			if first < 0 {
				first = n
			}
			return n == 17
		}, reboots)
		if o.Phase != holdfast.Complete || len(w.store.harms) == 0 {
			t.Fatalf("seed %d: %s: %s, %d harm events", seed, o.Phase, o.Why, len(w.store.harms))
		}
		w.until(t, 200, func() bool { return w.behind() == 0 })
		for _, a := range w.store.admissions {
			if a.Again() && a.At.Before(w.begins.Add(o.Decided)) {
				t.Errorf("seed %d: %s was offered it again before the release was complete", seed, a.Host)
			}
		}
	}
}

// TestShunnedIsNotOfferedAgain, whatever becomes of the release.
func TestShunnedIsNotOfferedAgain(t *testing.T) {
	w, _ := wentBack(t, 60, 3, func(n int) bool { return n == 9 }, func(w *world, h *host) { h.exit(guard.InTrial, w) })
	for range 400 {
		w.more(t)
	}
	if w.behind() != 1 {
		t.Fatalf("%d are behind", w.behind())
	}
	for _, a := range w.store.admissions {
		if a.Again() {
			t.Errorf("%s shuns it, and was offered it again", a.Host)
		}
	}
}

// behind counts the hosts that do not run the release.
func (w *world) behind() (n int) {
	for _, h := range w.hosts {
		if g, _ := h.state.Running(); g[holdfast.Rules] != w.bad {
			n++
		}
	}
	return n
}

// more plays one step on.
func (w *world) more(t *testing.T) {
	t.Helper()
	if err := w.step(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w.watch.violation != nil {
		t.Fatal(w.watch.violation)
	}
}

// until plays on, at most for so many heartbeats.
func (w *world) until(t *testing.T, beats int, done func() bool) {
	t.Helper()
	for range 4 * beats {
		if done() {
			return
		}
		w.more(t)
	}
	t.Fatalf("seed %d: %d hosts are behind for ever", w.Seed, w.behind())
}
