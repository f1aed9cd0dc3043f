// Package hosts plays a fleet of hosts against a real control plane, in one
// process: each host enrols, keeps its own mutually authenticated OpAMP
// connection, verifies what it is offered with the real loader, and lets the
// real guard decide. Only the machine below the guard is played: its worker
// starts, evaluates, and dies when a script says so.
//
// The hosts call themselves simulated when they enrol, and the control plane
// shows them as such everywhere.
package hosts

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/loader"
	"github.com/holdfast-security/holdfast/internal/endpoint/uplink"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

// Config is what a Fleet needs.
type Config struct {
	Hosts int
	// State is the directory for identities, guards' states, and what all hosts
	// share (trust metadata, content). A second run goes on where the first was.
	State string
	// Token enrols the hosts that are not enrolled yet; empty if all are.
	Token string
	// Agent is the worker binary that the hosts pretend to run. Its digest is
	// their sensor build, and content is test-loaded with it.
	Agent  string
	Domain string // of trust: "production" or "drill"
	// Heartbeat is how often hosts speak until the server says how often.
	// Probation is the guards', three heartbeats if zero.
	Heartbeat, Probation time.Duration
	Seed                 uint64
	Script               Script
	Log                  *slog.Logger
}

// Fleet is the hosts of one process.
type Fleet struct {
	cfg     Config
	trust   *tuf.Client
	content string
	build   holdfast.Build
	hosts   []*host
	test    testLoads

	connected atomic.Int64
}

// enrolling is how many hosts enrol at once.
const enrolling = 8

// Open enrols the hosts that are not enrolled yet.
func Open(ctx context.Context, cfg Config) (*Fleet, error) {
	bad := func(where, what string) (*Fleet, error) {
		return nil, &holdfast.Error{Kind: holdfast.Invalid, What: what, Where: where}
	}
	switch {
	case cfg.Hosts < 1 || cfg.Hosts > 20_000:
		return bad("--hosts", "must be 1 to 20,000")
	case cfg.State == "":
		return bad("--state", "a directory is needed")
	case cfg.Agent == "":
		return bad("--agent", "the agent binary is needed: its build is what the hosts run")
	case cfg.Heartbeat < 100*time.Millisecond:
		return bad("--heartbeat", "must be at least 100ms")
	}
	if cfg.Probation == 0 {
		cfg.Probation = 3 * cfg.Heartbeat
	}
	if err := cfg.Script.Check(); err != nil {
		return nil, err
	}
	f := &Fleet{cfg: cfg, content: filepath.Join(cfg.State, "content")}
	f.test.agent = cfg.Agent
	var err error
	if f.build, err = buildOf(ctx, cfg.Agent); err != nil {
		return nil, err
	}
	for _, dir := range []string{cfg.State, f.content} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	f.hosts = make([]*host, cfg.Hosts)
	if err := each(ctx, cfg.Hosts, enrolling, func(ctx context.Context, i int) (err error) {
		f.hosts[i], err = f.openHost(ctx, i)
		return err
	}); err != nil {
		return nil, err
	}
	first := f.hosts[0].id
	f.trust, err = tuf.NewClient(tuf.ClientConfig{
		Domain: tuf.Domain(cfg.Domain), Roots: tuf.Roots{Image: first.Roots["image"], Director: first.Roots["director"]},
		URL: first.Server + "/tuf", HTTP: first.HTTP(nil), Dir: filepath.Join(cfg.State, "trust"),
		MaxAge: cfg.Heartbeat / 2, // all hosts share what one of them verified a moment ago
	})
	return f, err
}

// Run plays until ctx ends. Progress is called with the number of connected
// hosts whenever it has changed, at most a few times a second; it may be nil.
func (f *Fleet) Run(ctx context.Context, progress func(connected int)) error {
	var wg sync.WaitGroup
	for _, h := range f.hosts {
		if err := h.start(f); err != nil {
			return err
		}
	}
	for _, h := range f.hosts {
		wg.Go(func() { h.run(ctx) })
	}
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for last := -1; ; {
		select {
		case <-ctx.Done():
			wg.Wait()
			return nil
		case <-tick.C:
			n := 0
			for _, h := range f.hosts {
				if h.link.State().Connected {
					n++
				}
			}
			if f.connected.Store(int64(n)); n != last && progress != nil {
				progress(n)
			}
			last = n
		}
	}
}

// Connected says how many hosts were connected a moment ago.
func (f *Fleet) Connected() int { return int(f.connected.Load()) }

// each calls do for 0 … n-1, some at a time, and ends at the first error.
func each(ctx context.Context, n, atOnce int, do func(context.Context, int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, atOnce) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n || ctx.Err() != nil {
					return
				}
				if err := do(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// buildOf asks an agent binary what it is.
func buildOf(ctx context.Context, agent string) (holdfast.Build, error) {
	b, err := os.ReadFile(agent)
	if err != nil {
		return holdfast.Build{}, &holdfast.Error{Kind: holdfast.Invalid, What: "the agent binary cannot be read", Where: "--agent", Err: err}
	}
	build := holdfast.Build{Digest: holdfast.DigestOf(b)}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, agent, "manifest").Output()
	if err == nil {
		err = json.Unmarshal(out, &build.Manifest)
	}
	if err != nil {
		return build, &holdfast.Error{Kind: holdfast.Invalid, What: "the agent binary does not export its manifest", Where: agent, Err: err}
	}
	return build, nil
}

// testLoads runs one throw-away child per content and process: what loads in
// one of these hosts' builds loads in all, since they are the same build.
type testLoads struct {
	agent string
	mu    sync.Mutex
	done  map[string]*testLoad
}

type testLoad struct {
	once sync.Once
	err  error
}

func (t *testLoads) load(ctx context.Context, c holdfast.Channel, path string) error {
	t.mu.Lock()
	if t.done == nil {
		t.done = map[string]*testLoad{}
	}
	one := t.done[path]
	if one == nil {
		one = &testLoad{}
		t.done[path] = one
	}
	t.mu.Unlock()
	one.once.Do(func() {
		// Not bound to the host that happens to come first.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, t.agent, "testload", "--bundle", path)
		if c == holdfast.Agent {
			if one.err = os.Chmod(path, 0o500); one.err != nil {
				return
			}
			cmd = exec.CommandContext(ctx, path, "manifest")
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			one.err = fmt.Errorf("%w: %.200s", err, out)
		}
		if ctx.Err() != nil { // this machine is busy: no fault of the content's
			t.mu.Lock()
			delete(t.done, path)
			t.mu.Unlock()
		}
	})
	return one.err
}

var _ loader.Trust = (*tuf.Client)(nil)

func (f *Fleet) openHost(ctx context.Context, i int) (*host, error) {
	h := &host{number: i, dir: filepath.Join(f.cfg.State, "hosts", fmt.Sprintf("%05d", i)), attributes: f.attributes(i)}
	dir := filepath.Join(h.dir, "identity")
	var err error
	if h.id, err = uplink.Open(dir); holdfast.KindOf(err) == holdfast.NotFound {
		if f.cfg.Token == "" {
			return nil, &holdfast.Error{Kind: holdfast.Invalid, What: fmt.Sprintf("host %d is not enrolled, and there is no enrolment token", i), Do: "give one with --token-file"}
		}
		h.id, err = uplink.Enrol(ctx, uplink.Enrolment{Dir: dir, Token: f.cfg.Token, Attributes: h.attributes, Simulated: true})
	}
	return h, err
}
