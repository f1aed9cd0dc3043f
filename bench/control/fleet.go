//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/edge/enrol"
	"github.com/holdfast-security/holdfast/internal/endpoint/uplink"
	"github.com/holdfast-security/holdfast/internal/wire"
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

// enrolAll gives each host an identity: each asks the enrolment's own handler,
// but without a connection, which is not what is measured here.
func enrolAll(dir string, n int) ([]*uplink.Identity, error) {
	ca, err := enrol.OpenCA(filepath.Join(dir, "ca"), time.Now())
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	enrol.NewServer(ca, open{}, func() map[string][]byte { return nil }, 0, time.Now, slog.New(slog.DiscardHandler)).Register(mux)
	fleet := make([]*uplink.Identity, n)
	for i := range fleet {
		if fleet[i], err = enrolOne(filepath.Join(dir, "host"), mux, ca); err != nil {
			return nil, err
		}
	}
	say("enrolled %d hosts", n)
	return fleet, nil
}

// enrolOne leaves an identity in a folder as enrolment does, and takes it from
// there. The folder is used again for the next host: a Link needs it only to
// renew.
func enrolOne(dir string, server http.Handler, ca *enrol.CA) (*uplink.Identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(wire.EnrolRequest{Secret: rand.Text() + rand.Text(), CSR: csr, Simulated: true})
	if err != nil {
		return nil, err
	}
	w := httptest.NewRecorder()
	server.ServeHTTP(w, httptest.NewRequest(http.MethodPost, wire.EnrolPath, bytes.NewReader(body)))
	var answer wire.EnrolResponse
	if err := json.NewDecoder(w.Body).Decode(&answer); err != nil || w.Code != http.StatusOK {
		return nil, fmt.Errorf("enrolment answered %d: %w", w.Code, err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	identity, err := json.Marshal(map[string]any{"host": answer.Host, "org": answer.Org})
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	for name, b := range map[string][]byte{
		"host.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
		"host.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: answer.Certificate}),
		"ca.pem":   pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.DER()}), "identity.json": identity,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return nil, err
		}
	}
	return uplink.Open(dir)
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
