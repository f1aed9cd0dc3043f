// Package opamp is the control plane's side of OpAMP over WebSocket: it holds
// the hosts' connections, tells Control what they say, and brings them what
// Control wants of them.
//
// Who a host is comes from its client certificate alone. A connection costs a
// goroutine that reads and two buffers of half a kilobyte; a peer that stops
// reading, stops writing, writes too much or too often, or connects twice
// costs no more than that, and loses it.
package opamp

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/open-telemetry/opamp-go/server"
	"github.com/open-telemetry/opamp-go/server/types"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/wire"
)

// Config is what a Server needs. Zero fields from Heartbeat on have defaults.
type Config struct {
	Control  Control
	Identify func(*http.Request) (holdfast.HostID, error) // from the client certificate
	Now      func() time.Time
	Log      *slog.Logger

	// Heartbeat is how often hosts are told to speak, in whole seconds: 60 s.
	// Below one second hosts are told nothing and keep to their configuration.
	Heartbeat time.Duration
	// Silence is after how long without a message a connection is given up:
	// three heartbeats and a half, at least 10 s.
	Silence time.Duration
	// Stall is how long a peer may take to accept what is written to it: 10 s.
	Stall time.Duration
	// MaxConnections is how many hosts may be connected: 100,000. Others are
	// sent away with a time to come back.
	MaxConnections int
}

// Server holds connections. It is an http.Handler for wire.OpAMPPath.
type Server struct {
	cfg     Config
	handler server.HTTPHandlerFunc
	push    pusher

	mu       sync.Mutex
	agents   map[holdfast.HostID]*agent // the newest connection of each host
	open     int                        // connections, replaced ones included
	stopping bool
	drained  chan struct{} // closed when stopping and open == 0
}

// New makes a server.
func New(cfg Config) (*Server, error) {
	if cfg.Heartbeat == 0 {
		cfg.Heartbeat = time.Minute
	}
	if cfg.Silence == 0 {
		cfg.Silence = max(cfg.Heartbeat*7/2, 10*time.Second)
	}
	if cfg.Stall == 0 {
		cfg.Stall = 10 * time.Second
	}
	if cfg.MaxConnections == 0 {
		cfg.MaxConnections = 100_000
	}
	s := &Server{cfg: cfg, agents: map[holdfast.HostID]*agent{}, drained: make(chan struct{})}
	handler, _, err := server.New(logger{cfg.Log}).Attach(server.Settings{
		Callbacks:          types.Callbacks{OnConnecting: s.connecting},
		CustomCapabilities: []string{wire.Capability},
	})
	s.handler = handler
	return s, err
}

// ServeHTTP accepts a host's connection, or says why not.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Header.Get("Content-Type") == "application/x-protobuf":
		// Polling costs a TLS handshake or an idle connection each time, and its
		// bodies would have no bound.
		wire.WriteProblem(w, &holdfast.Error{Kind: holdfast.Invalid, What: "OpAMP is spoken over WebSocket here", Do: "use a wss:// URL"}, 0)
		return
	case !strings.EqualFold(r.Header.Get("Upgrade"), "websocket"):
		wire.WriteProblem(w, &holdfast.Error{Kind: holdfast.Invalid, What: "this is no WebSocket"}, 0)
		return
	}
	host, err := s.cfg.Identify(r)
	if err != nil {
		wire.WriteProblem(w, err, 0)
		return
	}
	a, err := s.admit(host)
	if err != nil {
		wire.WriteProblem(w, err, 5*time.Second+rand.N(25*time.Second))
		return
	}
	if err := s.cfg.Control.Connected(r.Context(), host, s.cfg.Now()); err != nil {
		s.leave(a)
		retry := time.Duration(0)
		if holdfast.KindOf(err) == holdfast.Unavailable {
			retry = 5*time.Second + rand.N(25*time.Second)
		}
		wire.WriteProblem(w, err, retry)
		return
	}
	hw := &hijacker{ResponseWriter: w, agent: a}
	s.handler(hw, r.WithContext(context.WithValue(r.Context(), agentKey{}, a)))
	if a.conn == nil || !a.conn.upgraded { // it never became a WebSocket, and nobody will tell us that it closed
		s.closed(a)
	}
}

type agentKey struct{}

// admit makes room for a connection and lets it replace an older one of the
// same host.
func (s *Server) admit(host holdfast.HostID) (*agent, error) {
	a := &agent{server: s, host: host}
	s.mu.Lock()
	if s.stopping || s.open >= s.cfg.MaxConnections {
		s.mu.Unlock()
		return nil, &holdfast.Error{Kind: holdfast.Unavailable, What: "this server takes no more hosts now", Do: "try again later"}
	}
	s.open++
	old := s.agents[host]
	s.agents[host] = a
	s.mu.Unlock()
	if old != nil {
		old.disconnect()
	}
	return a, nil
}

// leave gives a connection's room back, and reports whether it was still the
// host's newest.
func (s *Server) leave(a *agent) (newest bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if newest = s.agents[a.host] == a; newest {
		delete(s.agents, a.host)
	}
	if s.open--; s.open == 0 && s.stopping {
		close(s.drained)
	}
	return newest
}

func (s *Server) closed(a *agent) {
	if s.leave(a) {
		s.cfg.Control.Disconnected(context.Background(), a.host, s.cfg.Now())
	}
}

func (s *Server) connecting(r *http.Request) types.ConnectionResponse {
	a, ok := r.Context().Value(agentKey{}).(*agent)
	if !ok { // only ServeHTTP leads here
		return types.ConnectionResponse{HTTPStatusCode: http.StatusInternalServerError}
	}
	return types.ConnectionResponse{Accept: true, ConnectionCallbacks: types.ConnectionCallbacks{
		OnConnected:       a.connected,
		OnMessage:         a.message,
		OnConnectionClose: func(types.Connection) { s.closed(a) },
	}}
}

// Push asks Control again what a connected host should do, and tells the host
// soon if that is something new. It never blocks. It reports whether the host
// is connected here.
func (s *Server) Push(host holdfast.HostID) bool {
	s.mu.Lock()
	a := s.agents[host]
	s.mu.Unlock()
	if a == nil {
		return false
	}
	s.push.add(a)
	return true
}

// Drop closes a host's connection, if it has one here. Whether the host may come
// back is Control's to say: tell Control first.
func (s *Server) Drop(host holdfast.HostID) {
	s.mu.Lock()
	a := s.agents[host]
	s.mu.Unlock()
	if a != nil {
		a.disconnect()
	}
}

// PushAll is Push for every connected host.
func (s *Server) PushAll() {
	s.mu.Lock()
	all := make([]*agent, 0, len(s.agents))
	for _, a := range s.agents {
		all = append(all, a)
	}
	s.mu.Unlock()
	for _, a := range all {
		s.push.add(a)
	}
}

// Connections says how many hosts are connected.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.agents)
}

// Stop sends new hosts away, closes every connection, and waits until Control
// has been told of each, or ctx ends.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	all := make([]*agent, 0, len(s.agents))
	for _, a := range s.agents {
		all = append(all, a)
	}
	if !s.stopping {
		if s.stopping = true; s.open == 0 {
			close(s.drained)
		}
	}
	s.mu.Unlock()
	for _, a := range all {
		a.disconnect()
	}
	select {
	case <-s.drained:
		return nil
	case <-ctx.Done():
		return holdfast.Errorf(holdfast.Unavailable, "connections of hosts are still open: %w", ctx.Err())
	}
}

// hijacker hands the WebSocket a connection with bounds and small buffers in
// place of the HTTP server's.
type hijacker struct {
	http.ResponseWriter
	agent *agent
}

// bufferSize holds any message but a first or a rare one; a longer one is read
// and written in pieces.
const bufferSize = 512

func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	raw, brw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	cfg := &h.agent.server.cfg
	c := &conn{Conn: raw, silence: cfg.Silence, stall: cfg.Stall}
	h.agent.conn = c
	small := bufio.NewReadWriter(bufio.NewReaderSize(c, bufferSize), bufio.NewWriterSize(c, bufferSize))
	if n := brw.Reader.Buffered(); n > 0 { // these bytes would be lost with the buffer they are in
		raw.Close()
		return nil, nil, holdfast.Errorf(holdfast.Invalid, "the host sent %d bytes before the handshake was complete", n)
	}
	c.extend()
	return c, small, nil
}

// logger passes what opamp-go logs on as debugging output: a peer's failure is
// not ours.
type logger struct{ log *slog.Logger }

func (l logger) Debugf(ctx context.Context, format string, v ...any) { l.logf(ctx, format, v) }
func (l logger) Errorf(ctx context.Context, format string, v ...any) { l.logf(ctx, format, v) }

func (l logger) logf(ctx context.Context, format string, v []any) {
	if l.log.Enabled(ctx, slog.LevelDebug) {
		l.log.DebugContext(ctx, fmt.Sprintf(format, v...))
	}
}
