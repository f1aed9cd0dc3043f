package stage

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/view"
)

// open starts a stage on the built programs, which make test names in
// HOLDFAST_BIN.
func open(t *testing.T) *Stage {
	t.Helper()
	bin := os.Getenv("HOLDFAST_BIN")
	if bin == "" {
		t.Skip("HOLDFAST_BIN does not name the built programs: run make test, or make build and HOLDFAST_BIN=$PWD/bin")
	}
	c := Config{State: t.TempDir(), Bin: bin, Heartbeat: time.Second, Domain: "production", Say: t.Logf}
	for _, a := range []*string{&c.HostsAt, &c.ConsoleAt} {
		addr, err := anyAddress()
		if err != nil {
			t.Fatal(err)
		}
		*a = addr
	}
	s, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		if t.Failed() {
			logs, _ := filepath.Glob(s.path("logs/*.log"))
			for _, l := range logs {
				t.Logf("%s:\n%s", filepath.Base(l), tail(l, 4000))
			}
		}
	})
	return s
}

// The server is killed in the middle of a rollout, three times, as a crash
// would. Nobody is offered the release twice, and nobody is forgotten.
func TestAServerKilledInARolloutForgetsNothing(t *testing.T) {
	s := open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	const hosts = 12
	sim, err := s.Simulate(ctx, hosts)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.waitConnected(ctx, hosts, time.Minute, sim); err != nil {
		t.Fatal(err)
	}
	agent := s.program("holdfast-agent")
	if _, err := s.register(ctx, agent); err != nil {
		t.Fatal(err)
	}
	file, b, err := s.content(ctx, "base", quietRepo(), "")
	if err != nil {
		t.Fatal(err)
	}
	verdict, err := s.rehearse(ctx, file, string(holdfast.Rules), agent)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Release(ctx, file, verdict, string(holdfast.Rules), "", "end to end")
	if err != nil {
		t.Fatal(err)
	}
	for _, admitted := range []int{1, 4, 9} {
		err := until(ctx, 3*time.Minute, 50*time.Millisecond, "admissions", []*Process{s.Server, sim}, func() (bool, error) {
			d, err := s.rollout(ctx, r.ID)
			return d.Admitted >= admitted || d.Phase.Done(), err
		})
		if err != nil {
			t.Fatal(err)
		}
		s.Server.Kill()
		if err := s.startServer(ctx, "holdfastd"); err != nil {
			t.Fatal(err)
		}
	}
	end, err := s.follow(ctx, r.ID, 5*time.Minute, []*Process{sim}, func(view.RolloutDetail) {})
	if err != nil {
		t.Fatal(err)
	}
	if end.Phase != holdfast.Complete || end.Harmed != 0 {
		t.Errorf("the rollout ended %s with %d harmed: %s", end.Phase, end.Harmed, end.Why)
	}
	// Hosts that were out of reach when it was complete get it when they are
	// heard of again.
	err = until(ctx, 2*time.Minute, 500*time.Millisecond, "every host to run it", []*Process{s.Server, sim}, func() (bool, error) {
		d, err := s.rollout(ctx, r.ID)
		if err != nil {
			return false, err
		}
		var page view.HostPage
		if err := s.Admin.Get(ctx, "/api/v1/hosts?size=100", &page); err != nil {
			return false, err
		}
		running := 0
		for _, h := range page.Hosts {
			if h.Report.Running[holdfast.Rules] == b.Digest {
				running++
			}
		}
		return running == hosts && d.Admitted == hosts, fmt.Errorf("%d admitted, %d run it", d.Admitted, running)
	})
	if err != nil {
		t.Error(err)
	}
	if err := s.run(ctx, publisher, nil, "log", "verify", "--key", s.path("server/log.pub")); err != nil {
		t.Error(err)
	}
}

func TestATakenPortIsAClearError(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = Open(t.Context(), Config{State: t.TempDir(), HostsAt: l.Addr().String(), ConsoleAt: "127.0.0.1:0"})
	if holdfast.KindOf(err) != holdfast.Conflict || !strings.Contains(err.Error(), l.Addr().String()+" is taken") {
		t.Fatal(err)
	}
}
