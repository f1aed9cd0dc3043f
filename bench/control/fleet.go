//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/edge/enrol"
	"github.com/holdfast-security/holdfast/internal/endpoint/uplink"
)

// open lets everybody enrol, and knows nobody.
type open struct{}

func (open) Host(context.Context, holdfast.HostID) (holdfast.Host, error) {
	return holdfast.Host{}, holdfast.Errorf(holdfast.NotFound, "nobody")
}

func (open) EnrolHost(_ context.Context, _ string, _ time.Time, as func(holdfast.Enrolment) holdfast.Host) (holdfast.Host, error) {
	return as(holdfast.Enrolment{Org: holdfast.DefaultOrg}), nil
}

func (open) SetSerial(context.Context, holdfast.HostID, string) error { return nil }

// enrolAll gives each host an identity, in memory, from a server of its own in
// this process.
func enrolAll(dir string, n int) ([]*uplink.Identity, error) {
	ca, err := enrol.OpenCA(filepath.Join(dir, "ca"), time.Now())
	if err != nil {
		return nil, err
	}
	cfg, err := ca.TLSConfig([]string{"127.0.0.1"}, time.Now)
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.DiscardHandler)
	mux := http.NewServeMux()
	enrol.NewServer(ca, open{}, func() map[string][]byte { return nil }, 0, time.Now, log).Register(mux)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &http.Server{Handler: mux, TLSConfig: cfg, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	defer s.Close()
	go func() {
		if err := s.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
			fmt.Println(err)
		}
	}()
	token := enrol.Token("https://"+l.Addr().String(), ca, nil, rand.Text()+rand.Text())
	fleet := make([]*uplink.Identity, n)
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && failed.Load() == nil; i = int(next.Add(1)) - 1 {
				id, err := uplink.Enrol(context.Background(), uplink.Enrolment{Token: token, Attributes: attributes(i)})
				if err != nil {
					failed.Store(&err)
				}
				fleet[i] = id
				if (i+1)%2000 == 0 {
					say("enrolled %d of %d hosts", i+1, n)
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return nil, *err
	}
	return fleet, nil
}

func attributes(i int) holdfast.Attributes {
	return holdfast.Attributes{
		Hostname: fmt.Sprintf("host-%05d", i), OS: "linux", Arch: "amd64", Kernel: "6.1", Distro: "debian-12", Role: "server",
		Build: holdfast.DigestOf([]byte("worker")), Version: "1.0", Sensor: "ebpf",
	}
}

// connections are those of a fleet, and what they said.
type connections struct {
	links []*uplink.Link
	said  atomic.Uint64
}

// connect connects the fleet, at most atOnce hosts at a time, and returns when
// all are connected or limit is over.
func connect(fleet []*uplink.Identity, address string, p plan) *connections {
	c, may := &connections{}, p.atOnce
	end := time.Now().Add(p.limit)
	for i, id := range fleet {
		for i >= may && time.Now().Before(end) {
			if may = c.since(time.Time{}) + p.atOnce; i >= may {
				time.Sleep(50 * time.Millisecond)
			}
		}
		if i > 0 && i%2000 == 0 {
			say("connecting: %d of %d", i, len(fleet))
		}
		id.Server = "https://" + address
		c.links = append(c.links, uplink.Start(uplink.Config{
			Identity: id, Attributes: attributes(i), Log: slog.New(slog.DiscardHandler), Heartbeat: p.heartbeat, Patience: patience, Dial: c.dial,
		}))
	}
	c.wait(p.limit, time.Time{})
	return c
}

// patience is the longest pause between two attempts to connect. In production
// it is several heartbeats, which spreads a storm over as many minutes; here
// every host is back within seconds of the server.
const patience = 5 * time.Second

// since counts the hosts that have been connected since a moment after t.
func (c *connections) since(t time.Time) int {
	n := 0
	for _, l := range c.links {
		if s := l.State(); s.Connected && s.Since.After(t) {
			n++
		}
	}
	return n
}

// wait waits until all hosts have been connected since t, or limit is over,
// and returns how many are.
func (c *connections) wait(limit time.Duration, t time.Time) int {
	told := time.Now()
	for end := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		n := c.since(t)
		if n == len(c.links) || time.Now().After(end) {
			return n
		}
		if time.Since(told) > 10*time.Second {
			told = time.Now()
			say("connected: %d of %d", n, len(c.links))
		}
	}
}

func (c *connections) stop() {
	var wg sync.WaitGroup
	for _, l := range c.links {
		wg.Go(l.Stop)
	}
	wg.Wait()
}

// dial opens a connection whose messages are counted.
func (c *connections) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &counted{Conn: conn, said: &c.said}, nil
}

// counted counts what is written to a connection: one TLS record a message. A
// ping is shorter than any message of ours.
type counted struct {
	net.Conn
	said *atomic.Uint64
}

// pingRecord is the length of a ping without payload, masked, as a TLS 1.3
// record: 6 bytes and 22 of overhead.
const pingRecord = 28

func (c *counted) Write(b []byte) (int, error) {
	if len(b) > pingRecord {
		c.said.Add(1)
	}
	return c.Conn.Write(b)
}
