//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/open-telemetry/opamp-go/server"
	"github.com/open-telemetry/opamp-go/server/types"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/edge/enrol"
	"github.com/holdfast-security/holdfast/internal/edge/opamp"
	"github.com/holdfast-security/holdfast/internal/wire"
)

// under is a server being measured.
type under interface {
	push(release string) // tells every host of an offer
}

// serve is a server process: it does what it is told, and says when it is done.
func serve(args []string) error {
	kind, caDir, address := args[0], args[1], args[2]
	heartbeat, err := time.ParseDuration(args[3])
	if err != nil {
		return err
	}
	log.SetOutput(io.Discard) // opamp-go's HTTP server logs each failed handshake there
	ca, err := enrol.OpenCA(caDir, time.Now())
	if err != nil {
		return err
	}
	cfg, err := ca.TLSConfig([]string{"127.0.0.1"}, time.Now)
	if err != nil {
		return err
	}
	var u under
	if kind == "opamp-go" {
		u, err = servePlain(ca, cfg, address)
	} else {
		u, err = serveOurs(ca, cfg, address, heartbeat)
	}
	if err != nil {
		return err
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		switch command, arg, _ := strings.Cut(in.Text(), " "); command {
		case "push":
			go u.push(arg)
		case "collect":
			debug.FreeOSMemory() // after a collection
		}
		fmt.Println("done")
	}
	return nil
}

func offerOf(release string) holdfast.Offer {
	return holdfast.Offer{
		Lease: release, Channel: holdfast.Rules, Digest: holdfast.DigestOf([]byte(release)), Version: release,
		Release: holdfast.ReleaseID(release), Arm: holdfast.New, Expires: time.Now().Add(time.Hour),
	}
}

// ours is edge/opamp with a counter behind it.
type ours struct {
	server *opamp.Server
	mu     sync.Mutex
	offer  *holdfast.Offer
}

func serveOurs(ca *enrol.CA, cfg *tls.Config, address string, heartbeat time.Duration) (under, error) {
	u := &ours{}
	quiet := slog.New(slog.DiscardHandler)
	var err error
	u.server, err = opamp.New(opamp.Config{
		Control: u, Now: time.Now, Log: quiet, Heartbeat: heartbeat,
		Identify: func(r *http.Request) (holdfast.HostID, error) { return ca.Host(r, time.Now()) },
	})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle(wire.OpAMPPath, u.server)
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	s := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(quiet.Handler(), slog.LevelDebug)}
	go func() {
		fmt.Fprintln(os.Stderr, "bench/control:", s.Serve(opamp.NewGate(l, cfg, opamp.Handshakes, 100_000)))
	}()
	return u, nil
}

func (u *ours) push(release string) {
	o := offerOf(release)
	u.mu.Lock()
	u.offer = &o
	u.mu.Unlock()
	u.server.PushAll()
}

func (u *ours) Connected(context.Context, holdfast.HostID, time.Time) error { return nil }
func (u *ours) Disconnected(context.Context, holdfast.HostID, time.Time)    {}
func (u *ours) Described(context.Context, holdfast.HostID, holdfast.Attributes, time.Time) {
}
func (u *ours) Reported(context.Context, holdfast.HostID, holdfast.HostReport, time.Time) {}
func (u *ours) Beat(context.Context, holdfast.HostID, time.Time)                          {}

func (u *ours) Desired(context.Context, holdfast.HostID, time.Time) (holdfast.Offer, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.offer == nil {
		return holdfast.Offer{}, false
	}
	return *u.offer, true
}

func (u *ours) RenewLease(_ context.Context, _ holdfast.HostID, _ string, at time.Time) (time.Time, error) {
	return at.Add(time.Minute), nil
}

// plain is opamp-go's server as its examples use it.
type plain struct {
	mu  sync.Mutex
	all map[types.Connection][]byte
}

func servePlain(ca *enrol.CA, ours *tls.Config, address string) (under, error) {
	u := &plain{all: map[types.Connection][]byte{}}
	cert, err := x509.ParseCertificate(ca.DER())
	if err != nil {
		return nil, err
	}
	own, err := ours.GetCertificate(nil)
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{
		Certificates: []tls.Certificate{*own}, ClientCAs: x509.NewCertPool(), ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
	}
	cfg.ClientCAs.AddCert(cert)
	s := server.New(nil)
	callbacks := types.ConnectionCallbacks{
		OnMessage: func(_ context.Context, c types.Connection, m *protobufs.AgentToServer) *protobufs.ServerToAgent {
			u.mu.Lock()
			_, known := u.all[c]
			u.all[c] = m.InstanceUid
			u.mu.Unlock()
			if known {
				return nil // as ours: heartbeats are not answered
			}
			return &protobufs.ServerToAgent{}
		},
		OnConnectionClose: func(c types.Connection) {
			u.mu.Lock()
			delete(u.all, c)
			u.mu.Unlock()
		},
	}
	err = s.Start(server.StartSettings{
		Settings: server.Settings{Callbacks: types.Callbacks{OnConnecting: func(*http.Request) types.ConnectionResponse {
			return types.ConnectionResponse{Accept: true, ConnectionCallbacks: callbacks}
		}}},
		ListenEndpoint: address, ListenPath: wire.OpAMPPath, TLSConfig: cfg,
	})
	if err != nil {
		return nil, err
	}
	return u, nil
}

func (u *plain) push(release string) {
	type peer struct {
		c   types.Connection
		uid []byte
	}
	u.mu.Lock()
	var all []peer
	for c, uid := range u.all {
		all = append(all, peer{c, uid})
	}
	u.mu.Unlock()
	for _, p := range all {
		_ = p.c.Send(context.Background(), &protobufs.ServerToAgent{InstanceUid: p.uid, PackagesAvailable: wire.Packages(offerOf(release))}) // a host that is gone gets none
	}
}
