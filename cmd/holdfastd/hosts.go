package main

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/rollout"
	"github.com/holdfast-security/holdfast/internal/edge/bus"
	"github.com/holdfast-security/holdfast/internal/edge/enrol"
	"github.com/holdfast-security/holdfast/internal/edge/opamp"
	"github.com/holdfast-security/holdfast/internal/edge/otlp"
	"github.com/holdfast-security/holdfast/internal/wire"
)

// hostsServer is what hosts connect to. Content, verdicts and trust metadata are
// static files: a CDN can serve them as well.
func (s *server) hostsServer() *http.Server {
	mux := http.NewServeMux()
	roots := func() map[string][]byte {
		r, _ := s.trust.Roots() // none before the first publication: the host pins by its token, or not at all
		return r
	}
	enrol.NewServer(s.ca, s.store, roots, 0, time.Now, s.log).Register(mux)
	mux.Handle(wire.OpAMPPath, s.opamp)
	mux.Handle("POST "+wire.LogsPath, otlp.New(findings{s}, s.identify, time.Now, s.log))
	mux.HandleFunc("GET "+wire.ConsentPath, s.consent)
	static := func(prefix, dir string) {
		mux.Handle("GET "+prefix, http.StripPrefix(prefix, files(dir)))
	}
	static("/tuf/", s.path("tuf"))
	static("/content/", s.files.ContentDir())
	static("/verdicts/", s.files.VerdictDir())
	return &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10}
}

// maxConnections is how many connections hosts may have open with this process:
// as many as it may have descriptors, but for those that its database, its files
// and the console need.
func maxConnections() int { return max(min(descriptors()-forFiles, 100_000), 2*opamp.Handshakes) }

const forFiles = 500

// files serves files, never lists of them.
func files(dir string) http.Handler {
	root := http.FS(os.DirFS(dir))
	server := http.FileServer(root)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, err := root.Open(r.URL.Path)
		if err == nil {
			info, serr := f.Stat()
			f.Close()
			if serr == nil && info.Mode().IsRegular() {
				server.ServeHTTP(w, r)
				return
			}
		}
		http.NotFound(w, r)
	})
}

// consent answers a host with what its organisation signed: the host verifies
// it, and asks for nothing older than what it has.
func (s *server) consent(w http.ResponseWriter, r *http.Request) {
	id, err := s.identify(r)
	var host holdfast.Host
	if err == nil {
		host, err = s.store.Host(r.Context(), id)
	}
	if err == nil && host.Revoked {
		err = holdfast.Errorf(holdfast.Denied, "host %s was revoked", id)
	}
	var c holdfast.Consent
	if err == nil {
		c, err = s.store.Consent(r.Context(), host.Org)
	}
	if err != nil {
		wire.WriteProblem(w, err, 0)
		return
	}
	tag := wire.ConsentTag(c.Version)
	w.Header().Set("ETag", tag)
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(c.Envelope)
}

func (s *server) identify(r *http.Request) (holdfast.HostID, error) {
	return s.ca.Host(r, time.Now())
}

// revoked ends what a host that was revoked still has: its part in rollouts first,
// so that nobody takes the end of its connection for silence.
func (s *server) revoked(ctx context.Context, host holdfast.HostID) error {
	if err := s.rollouts.Refresh(ctx, host); err != nil {
		return err
	}
	s.opamp.Drop(host)
	s.bus.Publish(bus.Hint{Host: host, Record: true})
	return nil
}

// hostNames are the names under which hosts may reach this server: those of its
// public URL, of the address it listens on, and loopback.
func (s *server) hostNames() ([]string, error) {
	names := []string{"localhost", "127.0.0.1", "::1"}
	u, err := url.Parse(s.publicURL())
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, &holdfast.Error{Kind: holdfast.Invalid, What: "not an https URL", Where: "--public " + s.public, Err: err}
	}
	names = append(names, u.Hostname())
	if host, err := os.Hostname(); err == nil {
		names = append(names, host)
	}
	if host, _, err := net.SplitHostPort(s.options.hosts); err == nil && host != "" && host != "0.0.0.0" && host != "::" {
		names = append(names, host)
	}
	return names, nil
}

func listenError(flag, addr string, err error) error {
	return &holdfast.Error{Kind: holdfast.Conflict, What: "cannot listen on " + addr, Where: flag, Err: err, Do: "stop what uses the address, or choose another"}
}

// smallSignals are what a small fleet watches. Evidence is divided among the
// signals, and a percentile of memory or CPU says little of a few hosts
// (docs/halting.md).
var smallSignals = []holdfast.HarmKind{holdfast.Crash, holdfast.Reboot, holdfast.Silence}

// policy is how a release is paced and judged, on this installation's clock and
// for its size.
func (s *server) policy(r holdfast.Release) rollout.Policy {
	p := rollout.DefaultPolicy(r.Profile).WithClock(s.heartbeat)
	if s.signals != nil {
		p.Signals = s.signals
		return p
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if n, err := s.store.CountHosts(ctx, ""); err != nil || n.Hosts < p.SmallFleet {
		p.Signals = smallSignals
	}
	return p
}

// findings stores what hosts deliver, and tells whoever looks.
type findings struct{ s *server }

// AddFindings implements otlp.Sink.
func (f findings) AddFindings(ctx context.Context, host holdfast.HostID, found []holdfast.Finding) (int, error) {
	added, err := f.s.store.AddFindings(ctx, host, found)
	if err == nil && added > 0 {
		f.s.bus.Publish(bus.Hint{Finding: 1})
	}
	return added, err
}

// hints puts what rollouts say on the bus.
type hints struct{ bus *bus.Local }

// Changed implements reconcile.Hints.
func (h hints) Changed(host holdfast.HostID, release holdfast.ReleaseID) {
	h.bus.Publish(bus.Hint{Host: host, Release: release})
}

// carryHints pushes offers to hosts whose desired state may have changed. A
// hint that is lost costs a heartbeat.
func (s *server) carryHints(ctx context.Context) {
	in, cancel := s.bus.Subscribe(256)
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return
		case h := <-in:
			switch {
			case h.Finding != 0 || h.Record:
			case h.Host != "":
				s.opamp.Push(h.Host)
			default:
				s.opamp.PushAll()
			}
		}
	}
}
