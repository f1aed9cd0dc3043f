package opamp_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/edge/enrol"
	"github.com/holdfast-security/holdfast/internal/edge/opamp"
	"github.com/holdfast-security/holdfast/internal/endpoint/uplink"
	"github.com/holdfast-security/holdfast/internal/wire"
)

// memory is a store for enrolment.
type memory struct {
	mu    sync.Mutex
	uses  map[string]int
	hosts map[holdfast.HostID]holdfast.Host
}

func (m *memory) Host(_ context.Context, id holdfast.HostID) (holdfast.Host, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h, ok := m.hosts[id]
	if !ok {
		return h, holdfast.Errorf(holdfast.NotFound, "no host %s", id)
	}
	return h, nil
}

func (m *memory) EnrolHost(_ context.Context, secret string, _ time.Time, as func(holdfast.Enrolment) holdfast.Host) (holdfast.Host, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.uses[secret] == 0 {
		return holdfast.Host{}, holdfast.Errorf(holdfast.Denied, "no")
	}
	m.uses[secret]--
	h := as(holdfast.Enrolment{Org: holdfast.DefaultOrg})
	m.hosts[h.ID] = h
	return h, nil
}

func (m *memory) SetSerial(context.Context, holdfast.HostID, string) error { return nil }

// told is one call of Control.
type told struct {
	what   string
	host   holdfast.HostID
	attrs  holdfast.Attributes
	report holdfast.HostReport
}

// control records what it is told and wants what it is given.
type control struct {
	told chan told

	mu     sync.Mutex
	offer  map[holdfast.HostID]holdfast.Offer
	leases map[string]time.Time
	refuse error
}

func (c *control) Connected(_ context.Context, h holdfast.HostID, _ time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refuse == nil {
		c.told <- told{what: "connected", host: h}
	}
	return c.refuse
}

func (c *control) Described(_ context.Context, h holdfast.HostID, a holdfast.Attributes, _ time.Time) {
	c.told <- told{what: "described", host: h, attrs: a}
}

func (c *control) Reported(_ context.Context, h holdfast.HostID, r holdfast.HostReport, _ time.Time) {
	c.told <- told{what: "reported", host: h, report: r}
}

func (c *control) Beat(_ context.Context, h holdfast.HostID, _ time.Time) {
	c.told <- told{what: "beat", host: h}
}

func (c *control) Disconnected(_ context.Context, h holdfast.HostID, _ time.Time) {
	c.told <- told{what: "disconnected", host: h}
}

func (c *control) Desired(_ context.Context, h holdfast.HostID, _ time.Time) (holdfast.Offer, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o, ok := c.offer[h]
	return o, ok
}

func (c *control) RenewLease(_ context.Context, _ holdfast.HostID, lease string, _ time.Time) (time.Time, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	until, ok := c.leases[lease]
	if !ok {
		return time.Time{}, holdfast.Errorf(holdfast.Denied, "the rollout was halted")
	}
	return until, nil
}

func (c *control) want(h holdfast.HostID, o holdfast.Offer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offer[h] = o
}

// next waits for a call and passes over beats, unless it waits for one.
func (c *control) next(t *testing.T, what string) told {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		select {
		case got := <-c.told:
			if got.what == what {
				return got
			}
			if got.what != "beat" {
				t.Fatalf("waited for %q, got %+v", what, got)
			}
		case <-timeout:
			t.Fatalf("waited for %q in vain", what)
		}
	}
}

// plane is a control plane on the loopback: TLS, enrolment, OpAMP.
type plane struct {
	t       *testing.T
	ca      *enrol.CA
	store   *memory
	control *control
	opamp   *opamp.Server
	http    *http.Server
	url     string
	ahead   atomic.Int64 // how far the server's clock for certificates is ahead
	life    atomic.Int64 // of client certificates
}

func (p *plane) clock() time.Time { return time.Now().Add(time.Duration(p.ahead.Load())) }

func newPlane(t *testing.T, change func(*opamp.Config)) *plane {
	t.Helper()
	p := &plane{
		t:       t,
		store:   &memory{uses: map[string]int{}, hosts: map[holdfast.HostID]holdfast.Host{}},
		control: &control{told: make(chan told, 1000), offer: map[holdfast.HostID]holdfast.Offer{}, leases: map[string]time.Time{}},
	}
	var err error
	if p.ca, err = enrol.OpenCA(t.TempDir(), time.Now()); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.url = "https://" + l.Addr().String()
	p.serve(l, change)
	t.Cleanup(func() { p.stop() })
	return p
}

// serve starts a server on l, with the same authority and hosts as before.
func (p *plane) serve(l net.Listener, change func(*opamp.Config)) {
	p.t.Helper()
	log := slog.New(slog.DiscardHandler)
	cfg := opamp.Config{
		Control: p.control, Identify: func(r *http.Request) (holdfast.HostID, error) { return p.ca.Host(r, p.clock()) },
		Now: time.Now, Log: log, Heartbeat: time.Second,
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if p.opamp, err = opamp.New(cfg); err != nil {
		p.t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(wire.OpAMPPath, p.opamp)
	roots := func() map[string][]byte { return map[string][]byte{"image": []byte("root")} }
	enrol.NewServer(p.ca, p.store, roots, time.Duration(p.life.Load()), p.clock, log).Register(mux)
	tls, err := p.ca.TLSConfig([]string{"127.0.0.1"}, time.Now)
	if err != nil {
		p.t.Fatal(err)
	}
	p.http = &http.Server{Handler: mux, TLSConfig: tls, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	go func(s *http.Server) {
		if err := s.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
			p.t.Errorf("serve: %v", err)
		}
	}(p.http)
}

// restart stops the server and starts another one at its address.
func (p *plane) restart() {
	p.t.Helper()
	p.stop()
	for range 100 {
		l, err := net.Listen("tcp", p.url[len("https://"):])
		if err == nil {
			p.serve(l, nil)
			return
		}
		time.Sleep(20 * time.Millisecond) // until the old listener is gone
	}
	p.t.Fatal("the address stays taken")
}

func (p *plane) stop() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := p.opamp.Stop(ctx); err != nil {
		p.t.Error(err)
	}
	p.http.Close()
}

func (p *plane) token() string {
	secret := "secret-of-forty-characters-or-more-" + time.Now().Format("150405.000000000")
	p.store.mu.Lock()
	p.store.uses[secret] = 1
	p.store.mu.Unlock()
	return enrol.Token(p.url, p.ca, nil, secret)
}

func (p *plane) enrol(a holdfast.Attributes) *uplink.Identity {
	p.t.Helper()
	id, err := uplink.Enrol(p.t.Context(), uplink.Enrolment{Dir: p.t.TempDir(), Token: p.token(), Attributes: a})
	if err != nil {
		p.t.Fatal(err)
	}
	return id
}

func (p *plane) link(id *uplink.Identity, a holdfast.Attributes, r holdfast.HostReport) *uplink.Link {
	l := uplink.Start(uplink.Config{Identity: id, Attributes: a, Report: r, Log: slog.New(slog.DiscardHandler), Heartbeat: time.Second})
	p.t.Cleanup(l.Stop)
	return l
}

// The whole story of a host: enrol, connect, report, be offered something,
// renew the lease, carry it out, lose the server, come back to one that knows
// nothing of it, and see that one stop.
func TestSession(t *testing.T) {
	p := newPlane(t, nil)
	attrs := holdfast.Attributes{Hostname: "web-1", Kernel: "6.1", Distro: "debian-12", Role: "server", Version: "1.0"}
	id := p.enrol(attrs)
	old := holdfast.Generation{holdfast.Rules: holdfast.DigestOf([]byte("old"))}
	link := p.link(id, attrs, holdfast.HostReport{Boot: "boot-1", Running: old})

	p.control.next(t, "connected")
	if got := p.control.next(t, "described"); got.host != id.Host || got.attrs != attrs {
		t.Errorf("described as %+v", got)
	}
	if got := p.control.next(t, "reported"); got.report.Boot != "boot-1" || !got.report.Running.Equal(old) {
		t.Errorf("reported %+v", got.report)
	}
	p.control.next(t, "beat")
	p.control.next(t, "beat")

	// An offer comes at once when hinted.
	digest := holdfast.DigestOf([]byte("new"))
	offer := holdfast.Offer{Lease: "lease-1", Channel: holdfast.Rules, Digest: digest, Release: "r1", Arm: holdfast.New, Expires: time.Now().Add(time.Minute).UTC().Truncate(time.Second)}
	p.control.want(id.Host, offer)
	if !p.opamp.Push(id.Host) {
		t.Fatal("the host is connected, but Push does not know it")
	}
	select {
	case got := <-link.Offers():
		if got != offer {
			t.Errorf("offered %+v, want %+v", got, offer)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("no offer")
	}

	// The lease is renewed before activation, and not when it was revoked.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	until := time.Now().Add(time.Hour).UTC()
	p.control.mu.Lock()
	p.control.leases["lease-1"] = until
	p.control.mu.Unlock()
	if got, err := link.Renew(ctx, "lease-1"); err != nil || !got.Equal(until) {
		t.Errorf("renewed until %v, %v; want %v", got, err, until)
	}
	if _, err := link.Renew(ctx, "lease-2"); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("a revoked lease: %v; want Denied", err)
	}

	// What became of it.
	link.Report(holdfast.HostReport{Boot: "boot-1", Running: old, Attempted: old.With(holdfast.Rules, digest), Failed: old.With(holdfast.Rules, digest), Crashes: 1, Activation: "lease-1"})
	if got := p.control.next(t, "reported"); got.report.Crashes != 1 || got.report.Failed[holdfast.Rules] != digest {
		t.Errorf("reported %+v", got.report)
	}

	// The server goes away, which closes the host's connection.
	p.restart()
	p.control.next(t, "disconnected")

	// Another one, that never heard of the host, has all of it without asking.
	p.control.next(t, "connected")
	if got := p.control.next(t, "described"); got.attrs != attrs {
		t.Errorf("after reconnecting described as %+v", got.attrs)
	}
	if got := p.control.next(t, "reported"); got.report.Activation != "lease-1" {
		t.Errorf("after reconnecting reported %+v", got.report)
	}
	// The offer that still stands is made again on the new connection.
	select {
	case got := <-link.Offers():
		if got.Lease != "lease-1" {
			t.Errorf("offered %+v", got)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("no offer after reconnecting")
	}

	link.Stop()
	p.control.next(t, "disconnected")
	if n := p.opamp.Connections(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

// The server's clock says that the certificate expired long ago; the host's
// clock does not. The host renews with its key and is back.
// buffered is a pipe that takes what is written to it at once, as a network
// does. Both sides of a TLS handshake may write at the same time.
type buffered struct {
	net.Conn
	out  chan []byte
	once sync.Once
	done chan struct{}
}

func newBuffered(c net.Conn) *buffered {
	b := &buffered{Conn: c, out: make(chan []byte, 100), done: make(chan struct{})}
	go func() {
		for {
			select {
			case p := <-b.out:
				if _, err := c.Write(p); err != nil {
					return
				}
			case <-b.done:
				return
			}
		}
	}()
	return b
}

func (b *buffered) Write(p []byte) (int, error) {
	select {
	case b.out <- bytes.Clone(p):
		return len(p), nil
	case <-b.done:
		return 0, net.ErrClosed
	}
}

func (b *buffered) Close() error {
	b.once.Do(func() { close(b.done) })
	return b.Conn.Close()
}

// A host that was configured to speak every second, and is told to speak every
// minute, does not take the server's silence in between for its end.
func TestAServerMayAskForASlowerHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plane{
			t: t, url: "https://127.0.0.1", store: &memory{uses: map[string]int{}, hosts: map[holdfast.HostID]holdfast.Host{}},
			control: &control{told: make(chan told, 1000)},
		}
		var err error
		if p.ca, err = enrol.OpenCA(t.TempDir(), time.Now()); err != nil {
			t.Fatal(err)
		}
		wires := &pipes{accept: make(chan net.Conn), closed: make(chan struct{})}
		p.serve(wires, func(c *opamp.Config) { c.Heartbeat = time.Minute })
		dial := func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := wires.dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return newBuffered(c), nil
		}
		id, err := uplink.Enrol(t.Context(), uplink.Enrolment{Token: p.token(), Dial: dial})
		if err != nil {
			t.Fatal(err)
		}
		link := uplink.Start(uplink.Config{Identity: id, Log: slog.New(slog.DiscardHandler), Heartbeat: time.Second, Dial: dial})
		time.Sleep(5 * time.Second)
		since := time.Now()
		time.Sleep(time.Hour)
		if s := link.State(); !s.Connected || s.Since.After(since) || s.Heartbeat != time.Minute {
			t.Errorf("%+v; want one connection all along", s)
		}
		link.Stop()
		p.stop()
		time.Sleep(time.Minute) // idle connections are given up
	})
}

func TestExpiredCertificateIsRenewed(t *testing.T) {
	p := newPlane(t, nil)
	id := p.enrol(holdfast.Attributes{})
	p.ahead.Store(int64(365 * 24 * time.Hour))
	p.link(id, holdfast.Attributes{}, holdfast.HostReport{})
	p.control.next(t, "connected")
	p.control.next(t, "described")
}

// A certificate that passes half of its life is replaced on a connection that
// stands, and what is on disk is the one that the server took.
func TestCertificateIsRotatedWhileConnected(t *testing.T) {
	p := newPlane(t, func(*opamp.Config) {})
	p.life.Store(int64(time.Hour + 4*time.Second)) // it begins an hour back, so half of it is over in two seconds
	p.restart()
	dir := t.TempDir()
	id, err := uplink.Enrol(t.Context(), uplink.Enrolment{Dir: dir, Token: p.token()})
	if err != nil {
		t.Fatal(err)
	}
	read := func() string {
		b, err := os.ReadFile(filepath.Join(dir, "host.pem"))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	before := read()
	p.link(id, holdfast.Attributes{}, holdfast.HostReport{})
	p.control.next(t, "connected")
	p.control.next(t, "described")
	p.control.next(t, "reported")
	p.control.next(t, "disconnected")
	p.control.next(t, "connected")
	p.control.next(t, "described")
	p.control.next(t, "reported")
	for range 100 {
		if read() != before {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Error("the renewed certificate is not on disk")
}

// A host that is revoked while it is connected loses its connection, is refused
// from then on, may not renew its certificate, does not hammer the server, and is
// not forgotten by its own state.
func TestRevokedHostIsRefused(t *testing.T) {
	p := newPlane(t, nil)
	id, other := p.enrol(holdfast.Attributes{}), p.enrol(holdfast.Attributes{})
	links := map[*uplink.Identity]*uplink.Link{}
	for _, i := range []*uplink.Identity{other, id} {
		links[i] = p.link(i, holdfast.Attributes{}, holdfast.HostReport{})
		for _, what := range []string{"connected", "described", "reported"} {
			p.control.next(t, what)
		}
	}
	p.store.mu.Lock()
	h := p.store.hosts[id.Host]
	h.Revoked = true
	p.store.hosts[id.Host] = h
	p.store.mu.Unlock()
	p.control.mu.Lock()
	p.control.refuse = holdfast.Errorf(holdfast.Denied, "revoked")
	p.control.mu.Unlock()
	p.opamp.Drop("nobody")
	p.opamp.Drop(id.Host)
	if got := p.control.next(t, "disconnected"); got.host != id.Host {
		t.Errorf("%s lost its connection", got.host)
	}
	if !p.opamp.Push(other.Host) {
		t.Error("another host lost its connection as well")
	}
	for range 200 {
		if s := links[id].State(); s.Err != nil && holdfast.KindOf(s.Err) == holdfast.Denied {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("state %+v", links[id].State())
}
