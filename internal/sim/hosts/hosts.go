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
	"net/http"
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
	"github.com/holdfast-security/holdfast/internal/wire"
)

// Config is what a Fleet needs.
type Config struct {
	Hosts int
	// State is the directory for identities, guards' states, and what all hosts
	// share (trust metadata, content). A second run goes on where the first was.
	State string
	// Server is where hosts connect to, such as "https://127.0.0.1:8443"; empty
	// means where the token, or the identity, says. Whom they believe is pinned
	// either way.
	Server string
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
	http    *http.Client // shared by all hosts, for what is static
	content string
	build   holdfast.Build
	hosts   []*host
	test    testLoads

	connected atomic.Int64
}

// sharedFor is how long all hosts share what one of them has verified.
const sharedFor = 250 * time.Millisecond

// enrolling is how many hosts enrol at once.
const enrolling = 8

// Open enrols the hosts that are not enrolled yet. Progress is called now and
// then with how many have an identity; it may be nil.
func Open(ctx context.Context, cfg Config, progress func(enrolled int)) (*Fleet, error) {
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
	if err := checkDescriptors(cfg.Hosts); err != nil {
		return nil, err
	}
	if cfg.Server != "" && cfg.Token != "" {
		t, err := wire.ParseToken(cfg.Token)
		if err != nil {
			return nil, err
		}
		t.Server = cfg.Server
		cfg.Token = t.String()
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
	var enrolled atomic.Int64
	if err := each(ctx, cfg.Hosts, enrolling, func(ctx context.Context, i int) (err error) {
		f.hosts[i], err = f.openHost(ctx, i)
		if n := int(enrolled.Add(1)); progress != nil && n%500 == 0 {
			progress(n)
		}
		return err
	}); err != nil {
		return nil, err
	}
	first := f.hosts[0].id
	f.http = first.HTTP(nil)
	f.trust, err = tuf.NewClient(tuf.ClientConfig{
		Domain: tuf.Domain(cfg.Domain), Roots: tuf.Roots{Image: first.Roots["image"], Director: first.Roots["director"]},
		URL: first.Server + "/tuf", HTTP: f.http, Dir: filepath.Join(cfg.State, "trust"),
		MaxAge: sharedFor,
	})
	return f, err
}

// connecting is how many hosts connect at once while the fleet starts, and
// dialling how long one of them may take before another starts. They share one
// machine's processors, which real hosts do not.
const (
	connecting = 250
	dialling   = 10 * time.Second
)

// Run plays until ctx ends. Progress is called with the number of connected
// hosts when it has changed, every other second at most, and at once when it is
// all of them; it may be nil.
func (f *Fleet) Run(ctx context.Context, progress func(connected int)) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var at time.Time
	for told, started := -1, 0; ; {
		n, slow := f.look(started)
		for ; started < len(f.hosts) && started-n-slow < connecting; started++ {
			h := f.hosts[started]
			if err := h.start(f); err != nil {
				return err
			}
			wg.Go(func() { h.run(ctx) })
		}
		if n != told && progress != nil && (n == len(f.hosts) || time.Since(at) > 2*time.Second) {
			told, at = n, time.Now()
			progress(n)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// look counts which of the hosts started are connected, and which of the
// others are slow to.
func (f *Fleet) look(started int) (connected, slow int) {
	for _, h := range f.hosts[:started] {
		switch s := h.link.State(); {
		case s.Connected:
			connected++
		case time.Since(h.started) > dialling:
			slow++
		}
	}
	f.connected.Store(int64(connected))
	return connected, slow
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
			return nil, &holdfast.Error{Kind: holdfast.Invalid, What: fmt.Sprintf("host %d is not enrolled, and there is no enrolment token", i), Do: fmt.Sprintf(`make one with: holdfast enrol-token --simulated --role "" --uses %d > token; and add --token-file token`, f.cfg.Hosts)}
		}
		h.id, err = uplink.Enrol(ctx, uplink.Enrolment{Dir: dir, Token: f.cfg.Token, Attributes: h.attributes, Simulated: true})
	}
	if err == nil && f.cfg.Server != "" {
		h.id.Server = f.cfg.Server
	}
	return h, err
}
