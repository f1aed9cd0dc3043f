package stage

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
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
		addr, err := AnyAddress()
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
			logs, _ := filepath.Glob(s.Path("logs/*.log"))
			for _, l := range logs {
				t.Logf("%s:\n%s", filepath.Base(l), tail(l, 4000))
			}
		}
	})
	return s
}

// quiet is content that finds nothing.
var quiet = fstest.MapFS{
	"pack.yml":        {Data: []byte("name: quiet\nchannel: rules\nversion: \"1\"\n")},
	"rules/rule.yml":  {Data: []byte("title: Quiet\nid: 0f6f4d5a-7e0c-4e57-9c3e-2b7b5f3a1c11\nlevel: low\nlogsource: {product: linux, category: process_creation}\ndetection:\n  marker: {Image|endswith: /quiet-marker}\n  condition: marker\n")},
	"tests/rule.yml":  {Data: []byte("match:\n  - Image: /opt/quiet-marker\nno_match:\n  - Image: /bin/true\n")},
	"benign/on.jsonl": {Data: []byte("{\"Image\":\"/usr/bin/true\",\"CommandLine\":\"true\"}\n")},
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
	if err := s.WaitConnected(ctx, hosts, time.Minute, sim); err != nil {
		t.Fatal(err)
	}
	agent := s.Program("holdfast-agent")
	if _, err := s.Register(ctx, agent); err != nil {
		t.Fatal(err)
	}
	file, b, err := s.Content(ctx, "base", quiet, "")
	if err != nil {
		t.Fatal(err)
	}
	verdict, err := s.Rehearse(ctx, file, string(holdfast.Rules), agent)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Release(ctx, file, verdict, string(holdfast.Rules), "", "end to end")
	if err != nil {
		t.Fatal(err)
	}
	for _, admitted := range []int{1, 4, 9} {
		err := Until(ctx, 3*time.Minute, 50*time.Millisecond, "admissions", []*Process{s.Server, sim}, func() (bool, error) {
			d, err := s.Rollout(ctx, r.ID)
			return d.Admitted >= admitted || d.Phase.Done(), err
		})
		if err != nil {
			t.Fatal(err)
		}
		s.Server.Kill()
		if err := s.StartServer(ctx, "holdfastd"); err != nil {
			t.Fatal(err)
		}
	}
	end, err := s.Follow(ctx, r.ID, 5*time.Minute, []*Process{sim}, func(view.RolloutDetail) {})
	if err != nil {
		t.Fatal(err)
	}
	if end.Phase != holdfast.Complete || end.Harmed != 0 {
		t.Errorf("the rollout ended %s with %d harmed: %s", end.Phase, end.Harmed, end.Why)
	}
	// Hosts that were out of reach when it was complete get it when they are
	// heard of again.
	err = Until(ctx, 2*time.Minute, 500*time.Millisecond, "every host to run it", []*Process{s.Server, sim}, func() (bool, error) {
		d, err := s.Rollout(ctx, r.ID)
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
	if err := s.Run(ctx, Publisher, nil, "log", "verify", "--key", s.Path("server/log.pub")); err != nil {
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
