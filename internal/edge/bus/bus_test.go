package bus_test

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/edge/bus"
)

func TestPublishNeverWaits(t *testing.T) {
	var b bus.Local
	hints, cancel := b.Subscribe(2)
	for range 5 {
		b.Publish(bus.Hint{Host: "h"})
	}
	if got := b.Lost(); got != 3 {
		t.Errorf("lost %d hints, want 3: the subscriber had room for 2 of 5", got)
	}
	cancel()
	cancel() // twice is fine
	n := 0
	for range hints {
		n++
	}
	if n != 2 {
		t.Errorf("received %d hints, want 2", n)
	}
	b.Publish(bus.Hint{}) // to nobody
}

func TestConcurrentUse(t *testing.T) {
	var b bus.Local
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				hints, cancel := b.Subscribe(1)
				b.Publish(bus.Hint{Release: "r"})
				<-hints
				cancel()
			}
		})
	}
	wg.Wait()
}

// A hint only saves time. Hosts that compare what they have with the truth at
// every heartbeat reach it with half of the hints dropped, as they do with all
// of them, at most one heartbeat later.
func TestHalfOfTheHintsDropped(t *testing.T) {
	const hosts, beat, changes = 40, time.Minute, 20
	for _, drop := range []float64{0, .5, 1} {
		synctest.Test(t, func(t *testing.T) {
			seed := uint64(7)
			t.Logf("seed %d, dropping %.0f %%", seed, 100*drop)
			random := rand.New(rand.NewPCG(seed, 0))
			var b bus.Local
			var truth atomic.Int64
			have := make([]atomic.Int64, hosts)
			stop := make(chan struct{})
			var wg sync.WaitGroup
			for i := range hosts {
				hints, cancel := b.Subscribe(1)
				wg.Go(func() {
					defer cancel()
					tick := time.NewTicker(beat)
					defer tick.Stop()
					for {
						select {
						case <-hints:
						case <-tick.C:
						case <-stop:
							return
						}
						have[i].Store(truth.Load())
					}
				})
			}
			for range changes {
				truth.Add(1)
				if random.Float64() >= drop {
					b.Publish(bus.Hint{Release: holdfast.ReleaseID("r")})
				}
				time.Sleep(time.Second)
			}
			time.Sleep(beat)
			synctest.Wait()
			for i := range have {
				if have[i].Load() != changes {
					t.Errorf("host %d stands at %d, want %d", i, have[i].Load(), changes)
				}
			}
			close(stop)
			wg.Wait()
		})
	}
}
