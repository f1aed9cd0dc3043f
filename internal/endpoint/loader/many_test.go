package loader_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/loader"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

// many makes simulated hosts of every ring that share one trust and one content
// directory.
func (w *world) many(n int) []*loader.Loader {
	w.Helper()
	roots, err := w.desk.Roots()
	w.must(err)
	cfg := w.client(roots)
	cfg.Host, cfg.Dir, cfg.MaxAge = "", "", time.Minute
	shared, err := tuf.NewClient(cfg)
	w.must(err)
	var all []*loader.Loader
	for i := range n {
		l, err := loader.New(loader.Config{
			Host: holdfast.HostID(fmt.Sprintf("simulated-%d", i)), Domain: w.domain, Build: w.build, Trust: shared, Content: w.at("shared"), URL: w.server.URL,
			TestLoad: nothing, Renew: always,
		})
		w.must(err)
		all = append(all, l)
	}
	return all
}

func TestManyHostsShareOneTrust(t *testing.T) {
	w := newWorld(t, tuf.Production, inInternal)
	var metadata atomic.Int64
	w.tamper = func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, "/tuf/") {
			metadata.Add(1)
		}
		return false
	}
	d := w.release(bundle)
	for _, r := range holdfast.DefaultRings {
		w.approve(r.Name, d)
	}
	w.now = w.now.Add(2 * time.Hour) // early is open, general is not
	var proposed, waiting atomic.Int64
	hosts := w.many(200)
	var all sync.WaitGroup
	for _, l := range hosts {
		all.Go(func() {
			switch got, err := l.Consider(t.Context(), loader.State{}, offer(d), w.now); {
			case err != nil:
				t.Error(err)
			case got.Action == loader.Propose:
				proposed.Add(1)
			case got.Action == loader.Wait && got.Cause == loader.Soaking:
				waiting.Add(1)
			default:
				t.Errorf("decided %+v", got)
			}
		})
	}
	all.Wait()
	want := int64(0)
	for i := range 200 {
		if holdfast.DefaultRings.Of(holdfast.HostID(fmt.Sprintf("simulated-%d", i))) < 2 {
			want++
		}
	}
	if proposed.Load() != want || waiting.Load() != 200-want || want == 0 {
		t.Errorf("%d proposed, %d wait; want %d of 200", proposed.Load(), waiting.Load(), want)
	}
	if n := metadata.Load(); n > 14 {
		t.Errorf("200 hosts asked for metadata %d times", n)
	}
}

// BenchmarkConsider is one simulated host's decision with everything shared: the
// check, the verdict by HTTP, and hashing what is on disk.
func BenchmarkConsider(b *testing.B) {
	w := newWorld(b, tuf.Production, inInternal)
	d := w.release(bundle)
	w.approve("general", d)
	w.approve("internal", d)
	w.approve("early", d)
	w.now = w.now.Add(5 * time.Hour)
	l := w.many(1)[0]
	b.ReportAllocs()
	for b.Loop() {
		if got, err := l.Consider(b.Context(), loader.State{}, offer(d), w.now); err != nil || got.Action != loader.Propose {
			b.Fatalf("%+v, %v", got, err)
		}
	}
}
