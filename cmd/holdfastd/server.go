package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast/internal/control/fleet"
	"github.com/holdfast-security/holdfast/internal/control/reconcile"
	"github.com/holdfast-security/holdfast/internal/control/registry"
	"github.com/holdfast-security/holdfast/internal/edge/bus"
	"github.com/holdfast-security/holdfast/internal/edge/enrol"
	"github.com/holdfast-security/holdfast/internal/edge/live"
	"github.com/holdfast-security/holdfast/internal/edge/opamp"
	"github.com/holdfast-security/holdfast/internal/edge/store"
	"github.com/holdfast-security/holdfast/internal/trust/tlog"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

// logOrigin names the record in its checkpoints.
const logOrigin = "holdfast"

// server is everything that runs in this process, in the order it starts.
type server struct {
	options
	log    *slog.Logger
	store  *store.Store
	ca     *enrol.CA
	trust  *tuf.Online
	record string // secret key of the record
	// recordPublic is the other half: what outsiders verify with.
	recordPublic string
	files        registry.Files
	registry     *registry.Registry
	bus          *bus.Local
	rollouts     *reconcile.Service
	opamp        *opamp.Server
	people       *people
	views        *live.Source
	hosts        *http.Server
	console      *http.Server
}

// open makes a server from what its state folder holds. It listens to nobody
// yet.
func open(ctx context.Context, o options, log *slog.Logger) (s *server, err error) {
	if err := os.MkdirAll(o.state, 0o700); err != nil {
		return nil, err
	}
	s = &server{options: o, log: log, bus: &bus.Local{}}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	source := o.store
	if source == "" {
		source = s.path("holdfast.db")
	}
	if s.store, err = store.Open(ctx, source); err != nil {
		return nil, err
	}
	now := time.Now
	if s.ca, err = enrol.OpenCA(o.state, now()); err != nil {
		return nil, err
	}
	if s.trust, err = tuf.OpenOnline(s.path("tuf"), o.keys, tuf.Validity{}); err != nil {
		return nil, err
	}
	if s.record, s.recordPublic, err = recordKeys(o.state); err != nil {
		return nil, err
	}
	s.files = registry.Files{Dir: s.path("files")}
	s.registry = &registry.Registry{Store: s.store.Registry(), Files: s.files, Trust: s.trust, Check: staticCheck, Now: now}
	s.rollouts = reconcile.New(reconcile.Config{
		Store: s.store.Reconcile(), Consents: s.store, Director: s.trust, Hints: hints{s.bus}, Clock: fleet.Clock{Heartbeat: o.heartbeat},
		Now: now, Log: log, Policy: s.policy, Admissible: s.registry.Admissible,
	})
	s.opamp, err = opamp.New(opamp.Config{
		Control: s.rollouts, Identify: s.identify, Now: now, Log: log, Heartbeat: o.heartbeat,
		MaxConnections: maxConnections() - opamp.Handshakes, // what is left tells the others when to come back
	})
	if err != nil {
		return nil, err
	}
	s.people = &people{store: s.store, ca: s.ca, url: s.publicURL(), root: s.imageRoot, now: now, changed: s.rollouts.Refresh, revoked: s.revoked}
	if err := s.people.firstStart(ctx, o.state); err != nil {
		return nil, err
	}
	s.hosts = s.hostsServer()
	s.console = s.consoleServer()
	return s, nil
}

func (s *server) path(name string) string { return filepath.Join(s.state, name) }

func (s *server) publicURL() string {
	if s.public != "" {
		return strings.TrimSuffix(s.public, "/")
	}
	return "https://" + s.options.hosts
}

// imageRoot is the root that new hosts pin, or nil before there is one.
func (s *server) imageRoot() []byte {
	roots, err := s.trust.Roots()
	if err != nil {
		return nil
	}
	return roots["image"]
}

// recordKeys reads the keys of the record, and makes them at the first start:
// the secret one signs checkpoints, the public one is what outsiders verify
// with.
func recordKeys(state string) (secret, public string, err error) {
	secretFile, publicFile := filepath.Join(state, "log.key"), filepath.Join(state, "log.pub")
	if _, err := os.Stat(secretFile); errors.Is(err, fs.ErrNotExist) {
		if secret, public, err = tlog.GenerateKey(logOrigin); err != nil {
			return "", "", err
		}
		// The secret last: where it stands, both do.
		if err := os.WriteFile(publicFile, []byte(public+"\n"), 0o644); err != nil {
			return "", "", err
		}
		return secret, public, os.WriteFile(secretFile, []byte(secret+"\n"), 0o600)
	}
	s, err := os.ReadFile(secretFile)
	if err != nil {
		return "", "", err
	}
	p, err := os.ReadFile(publicFile)
	return strings.TrimSpace(string(s)), strings.TrimSpace(string(p)), err
}

// serve listens until ctx ends, then stops in the order that loses nothing:
// hosts first, decisions last.
func (s *server) serve(ctx context.Context, stdout io.Writer) error {
	names, err := s.hostNames()
	if err != nil {
		return err
	}
	config, err := s.ca.TLSConfig(names, time.Now)
	if err != nil {
		return err
	}
	hosts, err := net.Listen("tcp", s.options.hosts)
	if err != nil {
		return listenError("--hosts", s.options.hosts, err)
	}
	console, err := net.Listen("tcp", s.options.console)
	if err != nil {
		hosts.Close()
		return listenError("--console", s.options.console, err)
	}
	running, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 5)
	go func() { ended <- s.hosts.Serve(opamp.NewGate(hosts, config, opamp.Handshakes, maxConnections())) }()
	go func() { ended <- s.console.Serve(console) }()
	decided := make(chan struct{})
	go func() {
		defer close(decided)
		ended <- s.rollouts.Run(running)
	}()
	go s.carryHints(running)
	go s.keepFresh(running)
	go s.views.Run(running, s.heartbeat)
	fmt.Fprintf(stdout, "holdfastd %s: console http://%s, hosts %s\n", version, console.Addr(), s.publicURL())
	select {
	case <-ctx.Done():
	case err = <-ended:
	}
	stopping, done := context.WithTimeout(context.Background(), 5*time.Second)
	defer done()
	_ = s.console.Close() // live pages would hold Shutdown up; they come back by themselves
	err = errors.Join(err, s.opamp.Stop(stopping), s.hosts.Shutdown(stopping))
	cancel()
	<-decided
	return ignoreClosed(err)
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// keepFresh signs again what runs out: the online roles, and the record's
// checkpoint when entries were added.
func (s *server) keepFresh(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var refreshed time.Time
	for {
		if time.Since(refreshed) > time.Minute {
			refreshed = time.Now()
			if err := s.trust.Refresh(refreshed); err != nil {
				s.log.Error("online metadata was not signed again", "err", err)
			}
		}
		if _, err := s.store.SignRecord(ctx, s.record, time.Now().UTC()); err != nil && ctx.Err() == nil {
			s.log.Error("the record's checkpoint was not signed", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (s *server) close() {
	if s.store != nil {
		if err := s.store.Close(); err != nil {
			s.log.Error("closing the store", "err", err)
		}
	}
}
