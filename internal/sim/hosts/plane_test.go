package hosts_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/edge/enrol"
	"github.com/holdfast-security/holdfast/internal/edge/opamp"
	"github.com/holdfast-security/holdfast/internal/trust/attest"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
	"github.com/holdfast-security/holdfast/internal/wire"
)

// plane is a small control plane on the loopback, all of it real but for the
// deciding and the store: it offers what the test says.
type plane struct {
	*testing.T
	dir    string
	desk   *tuf.Desk
	online *tuf.Online
	ca     *enrol.CA
	opamp  *opamp.Server
	token  string
	build  holdfast.Digest
	agent  string

	mu      sync.Mutex
	uses    int
	hosts   map[holdfast.HostID]holdfast.Host
	desired func(holdfast.Host) (holdfast.Offer, bool)
	revoked map[string]bool // leases
	beats   map[holdfast.HostID]int
}

func newPlane(t *testing.T) *plane {
	t.Helper()
	p := &plane{
		T: t, dir: t.TempDir(), uses: 1000, hosts: map[holdfast.HostID]holdfast.Host{}, revoked: map[string]bool{}, beats: map[holdfast.HostID]int{},
		desired: func(holdfast.Host) (holdfast.Offer, bool) { return holdfast.Offer{}, false },
	}
	now := time.Now()
	var err error
	p.desk, err = tuf.Init(p.at("desk"), tuf.Ceremony{Domain: tuf.Production, Keys: p.at("keys")}, now)
	p.must(err)
	p.online, err = tuf.OpenOnline(p.at("public/tuf"), p.at("keys/online"), tuf.Validity{})
	p.must(err)
	p.publish()
	p.must(p.online.Approve(nil, now))
	roots, err := p.desk.Roots()
	p.must(err)

	p.agent = p.at("agent")
	script := "#!/bin/sh\n[ \"$1\" = manifest ] && echo '{\"schema\":1,\"version\":\"1.0\",\"platform\":\"linux/amd64\"}'\nexit 0\n"
	p.must(os.WriteFile(p.agent, []byte(script), 0o755))
	p.build = holdfast.DigestOf([]byte(script))

	p.ca, err = enrol.OpenCA(p.at("ca"), now)
	p.must(err)
	log := slog.New(slog.DiscardHandler)
	p.opamp, err = opamp.New(opamp.Config{
		Control: (*control)(p), Now: time.Now, Log: log, Heartbeat: 500 * time.Millisecond,
		Identify: func(r *http.Request) (holdfast.HostID, error) { return p.ca.Host(r, time.Now()) },
	})
	p.must(err)
	mux := http.NewServeMux()
	mux.Handle(wire.OpAMPPath, p.opamp)
	enrol.NewServer(p.ca, (*store)(p), func() map[string][]byte {
		return map[string][]byte{"image": roots.Image, "director": roots.Director}
	}, 0, time.Now, log).Register(mux)
	mux.Handle("/", http.FileServer(http.Dir(p.at("public"))))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	p.must(err)
	p.token = enrol.Token("https://"+l.Addr().String(), p.ca, nil, "a-secret-that-is-long-enough-to-be-a-secret")
	cfg, err := p.ca.TLSConfig([]string{"127.0.0.1"}, time.Now)
	p.must(err)
	server := &http.Server{Handler: mux, TLSConfig: cfg, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	go func() {
		if err := server.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	}()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		p.must(p.opamp.Stop(ctx))
		server.Close()
	})
	return p
}

func (p *plane) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

func (p *plane) at(path string) string { return filepath.Join(p.dir, filepath.FromSlash(path)) }

func (p *plane) publish() {
	p.Helper()
	files, err := p.desk.Files()
	p.must(err)
	p.must(p.online.Accept(files, time.Now()))
}

func (p *plane) key(name string) tuf.Key {
	p.Helper()
	k, err := tuf.LoadKey(p.at("keys/" + name + ".key"))
	p.must(err)
	return k
}

// release signs, rehearses and uploads content, and approves it and the ones
// before it for every ring.
func (p *plane) release(content string, before ...holdfast.Digest) holdfast.Digest {
	p.Helper()
	now := time.Now()
	d := holdfast.DigestOf([]byte(content))
	p.must(os.MkdirAll(p.at("public/content"), 0o755))
	p.must(os.MkdirAll(p.at("public/verdicts"), 0o755))
	p.must(os.WriteFile(p.at("public/content/"+d.Hex()), []byte(content), 0o644))
	p.must(p.desk.Stage(now, tuf.AddRelease(tuf.NewRelease{
		Channel: holdfast.Rules, Digest: d, Size: int64(len(content)), Version: content,
		Rings: holdfast.RingPlan{{Name: "general", Through: 1_000_000}},
	})))
	for _, k := range []string{"publisher-1", "publisher-2"} {
		_, err := p.desk.Sign(p.key(k))
		p.must(err)
	}
	_, err := p.desk.Complete()
	p.must(err)
	p.publish()
	env, err := attest.Sign(holdfast.Verdict{
		Bundle: d, Channel: holdfast.Rules, Started: now, Finished: now, Builds: []holdfast.BuildVerdict{{Build: p.build, Version: "1.0", Passed: true}},
	}, p.key("rehearsal-1").Private)
	p.must(err)
	p.must(os.WriteFile(p.at("public/verdicts/"+d.Hex()+".json"), env, 0o644))
	p.approve(append([]holdfast.Digest{d}, before...)...)
	return d
}

// approve says what hosts may run: the first is current, the others previous.
func (p *plane) approve(digests ...holdfast.Digest) {
	p.Helper()
	var list []tuf.Approval
	for i, d := range digests {
		state := tuf.Current
		if i > 0 {
			state = tuf.Previous
		}
		list = append(list, tuf.Approval{Channel: holdfast.Rules, Digest: d, State: state})
	}
	p.must(p.online.Approve(map[string][]tuf.Approval{"general": list}, time.Now()))
}

// offer makes the control plane want d of every host that can run it.
func (p *plane) offer(release string, d holdfast.Digest) {
	p.mu.Lock()
	p.desired = func(h holdfast.Host) (holdfast.Offer, bool) {
		if h.Report.Running[holdfast.Rules] == d || h.Report.Failed[holdfast.Rules] == d {
			return holdfast.Offer{}, false
		}
		return holdfast.Offer{
			Lease: release + "-" + string(h.ID), Channel: holdfast.Rules, Digest: d, Release: holdfast.ReleaseID(release), Arm: holdfast.New,
			Expires: time.Now().Add(time.Minute),
		}, true
	}
	p.mu.Unlock()
	p.opamp.PushAll()
}

// until waits until the hosts are as ok says.
func (p *plane) until(what string, ok func(map[holdfast.HostID]holdfast.Host) bool) {
	p.Helper()
	for range 600 {
		p.mu.Lock()
		all := maps.Clone(p.hosts)
		p.mu.Unlock()
		if ok(all) {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.hosts {
		p.Logf("%s connected %v runs %v probation %v failed %v crashes %d reason %q", h.Attributes.Hostname, h.Connected, h.Report.Running, h.Report.Probation, h.Report.Failed, h.Report.Crashes, h.Report.Reason)
	}
	p.Fatalf("waited in vain until %s", what)
}

// store and control are the plane as enrolment and OpAMP see it.
type (
	store   plane
	control plane
)

func (s *store) Host(_ context.Context, id holdfast.HostID) (holdfast.Host, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h, ok := s.hosts[id]; ok {
		return h, nil
	}
	return holdfast.Host{}, holdfast.Errorf(holdfast.NotFound, "no host %s", id)
}

func (s *store) EnrolHost(_ context.Context, _ string, _ time.Time, as func(holdfast.Enrolment) holdfast.Host) (holdfast.Host, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.uses == 0 {
		return holdfast.Host{}, holdfast.Errorf(holdfast.Denied, "used up")
	}
	s.uses--
	h := as(holdfast.Enrolment{Org: holdfast.DefaultOrg})
	s.hosts[h.ID] = h
	return h, nil
}

func (s *store) SetSerial(context.Context, holdfast.HostID, string) error { return nil }

func (c *control) change(id holdfast.HostID, f func(*holdfast.Host)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.hosts[id]
	f(&h)
	c.hosts[id] = h
}

func (c *control) Connected(_ context.Context, id holdfast.HostID, _ time.Time) error {
	c.change(id, func(h *holdfast.Host) { h.Connected = true })
	return nil
}

func (c *control) Disconnected(_ context.Context, id holdfast.HostID, _ time.Time) {
	c.change(id, func(h *holdfast.Host) { h.Connected = false })
}

func (c *control) Described(_ context.Context, id holdfast.HostID, a holdfast.Attributes, _ time.Time) {
	c.change(id, func(h *holdfast.Host) { h.Attributes = a })
}

func (c *control) Reported(_ context.Context, id holdfast.HostID, r holdfast.HostReport, at time.Time) {
	c.change(id, func(h *holdfast.Host) { h.Report, h.LastSeen = r, at })
}

func (c *control) Beat(_ context.Context, id holdfast.HostID, at time.Time) {
	c.change(id, func(h *holdfast.Host) { h.LastSeen = at })
}

func (c *control) Desired(_ context.Context, id holdfast.HostID, _ time.Time) (holdfast.Offer, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.desired(c.hosts[id])
}

func (c *control) RenewLease(_ context.Context, _ holdfast.HostID, lease string, at time.Time) (time.Time, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.revoked[lease] {
		return time.Time{}, fmt.Errorf("lease %s is revoked", lease)
	}
	return at.Add(time.Minute), nil
}
