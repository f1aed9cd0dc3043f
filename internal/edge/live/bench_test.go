package live

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/reconcile"
	"github.com/holdfast-security/holdfast/internal/edge/store"
)

// BenchmarkFleet is one look at every host: what a page costs when nothing is
// cached. It is paid at most a tenth of the time.
func BenchmarkFleet(b *testing.B) {
	const hosts = 20_000
	s, err := store.Open(b.Context(), filepath.Join(b.TempDir(), "holdfast.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	if err := s.PutOrg(b.Context(), holdfast.Organisation{ID: holdfast.DefaultOrg, Name: "default", Created: now}); err != nil {
		b.Fatal(err)
	}
	running := holdfast.Generation{holdfast.Rules: holdfast.DigestOf([]byte("rules")), holdfast.Agent: holdfast.DigestOf([]byte("agent"))}
	err = s.Tx(b.Context(), func(tx *store.Store) error {
		for i := range hosts {
			if err := tx.CreateHost(b.Context(), holdfast.Host{
				ID: holdfast.HostID(fmt.Sprintf("host-%05d", i)), Org: holdfast.DefaultOrg, Enrolled: now, LastSeen: now, Connected: true,
				Attributes: holdfast.Attributes{Hostname: fmt.Sprintf("h%05d.example.net", i), OS: "linux", Arch: "amd64", Kernel: "6.1", Distro: "debian-12", Role: "server", Version: "0.1.0", Sensor: "ebpf"},
				Report:     holdfast.HostReport{Boot: "b", Running: running, Previous: running},
			}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	driver := reconcile.New(reconcile.Config{Store: s.Reconcile(), Director: director{}, Now: time.Now})
	if err := driver.Step(b.Context()); err != nil {
		b.Fatal(err)
	}
	src := New(Config{Store: s, Driver: driver})
	look := func(what string, forget func()) {
		b.Run(what, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				forget()
				if _, err := src.Overview(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/hosts, "µs/host")
		})
	}
	look("rows", func() { src.enrolled.forget(); src.fleet.forget() })
	look("states", src.fleet.forget)
	look("page", func() {})
}
