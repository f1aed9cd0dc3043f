package uplink

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/websocket"
	"github.com/open-telemetry/opamp-go/protobufs"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/wire"
)

const (
	stall       = 10 * time.Second // longest time of one write
	dialTimeout = 30 * time.Second
	denied      = 10 * time.Minute // pause after the server refused this host for good
	bufferSize  = 1024
)

// run connects, talks, and connects again.
func (l *Link) run(ctx context.Context) {
	defer close(l.done)
	dialer := &websocket.Dialer{
		Proxy: http.ProxyFromEnvironment, NetDialContext: l.dial, TLSClientConfig: l.id.TLS(),
		ReadBufferSize: bufferSize, WriteBufferSize: bufferSize,
	}
	var renewAt time.Time // not before
	refused := false      // by the server, which may know better than our clock whether the certificate has expired
	for failures := 0; ctx.Err() == nil; {
		if now := time.Now(); (refused || l.id.due(now)) && now.After(renewAt) {
			renewAt = now.Add(l.heartbeat() + rand.N(l.heartbeat()*10))
			if err := l.id.renew(ctx, l.http); err != nil {
				l.cfg.Log.Warn("certificate not renewed", "until", l.id.certificate().Leaf.NotAfter, "why", err)
			} else {
				l.http.CloseIdleConnections()
				dialer.TLSClientConfig = l.id.TLS() // a resumed session would present the old one
			}
		}
		conn, retryAfter, err := l.connect(ctx, dialer)
		refused = err != nil && holdfast.KindOf(err) == holdfast.Denied
		if err == nil {
			failures = 0
			err = l.talk(ctx, conn, func(now time.Time) bool { return l.id.due(now) && now.After(renewAt) })
			if err == nil && ctx.Err() == nil {
				continue // a new certificate is due
			}
		} else if refused {
			if l.id.fallBack() {
				l.cfg.Log.Warn("the server refused the renewed certificate; trying the one before", "why", err)
				dialer.TLSClientConfig = l.id.TLS()
				continue
			}
			if time.Now().Before(renewAt) { // renewed, or refused that too
				retryAfter = max(retryAfter, min(denied, 20*l.heartbeat()))
			}
		}
		if ctx.Err() != nil {
			break
		}
		l.set(State{Since: time.Now(), Err: err})
		wait := l.pause(failures, retryAfter)
		failures++
		l.cfg.Log.Debug("not connected", "host", l.id.Host, "next", wait, "why", err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
	l.set(State{Since: time.Now(), Err: &holdfast.Error{Kind: holdfast.Unavailable, What: "stopped"}})
}

func (l *Link) dial(ctx context.Context, network, address string) (net.Conn, error) {
	dial := l.cfg.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	c, err := dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &bounded{Conn: c, left: 64 << 10}, nil
}

// bounded is the connection below TLS. It lets the server say only so much
// before the WebSocket stands, because from then on the WebSocket has a limit
// of its own; and no write lasts longer than stall.
type bounded struct {
	net.Conn
	left int // bytes; negative: no limit
}

func (b *bounded) Read(p []byte) (int, error) {
	switch {
	case b.left < 0:
		return b.Conn.Read(p)
	case b.left == 0:
		return 0, &holdfast.Error{Kind: holdfast.Invalid, What: "the server's greeting is too long"}
	}
	n, err := b.Conn.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

func (b *bounded) Write(p []byte) (int, error) {
	if err := b.Conn.SetWriteDeadline(time.Now().Add(stall)); err != nil {
		return 0, err
	}
	return b.Conn.Write(p)
}

func (l *Link) connect(ctx context.Context, dialer *websocket.Dialer) (*websocket.Conn, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	to := "wss" + strings.TrimPrefix(l.id.Server, "https") + wire.OpAMPPath
	conn, resp, err := dialer.DialContext(ctx, to, nil)
	switch {
	case err == nil:
		if b, ok := unwrap(conn); ok {
			b.left = -1
		}
		conn.SetReadLimit(wire.MaxMessage + 16)
		return conn, 0, nil
	case resp != nil:
		return nil, wire.RetryAfter(resp.Header, time.Now()), wire.ReadProblem(resp)
	}
	return nil, 0, &holdfast.Error{Kind: holdfast.Unavailable, What: "the server cannot be reached", Err: err}
}

func unwrap(conn *websocket.Conn) (*bounded, bool) {
	under := conn.NetConn()
	if t, ok := under.(interface{ NetConn() net.Conn }); ok {
		under = t.NetConn()
	}
	b, ok := under.(*bounded)
	return b, ok
}

// talk says what there is to say until the connection breaks (an error), the
// link is stopped, or rotate asks for a new connection (nil).
func (l *Link) talk(ctx context.Context, conn *websocket.Conn, rotate func(now time.Time) bool) error {
	broken := make(chan error, 1)
	accepted := make(chan struct{})
	go l.listen(conn, accepted, broken)
	defer func() {
		conn.Close()
		<-broken
	}()

	var sequence uint64
	say := func(m *protobufs.AgentToServer) error {
		m.SequenceNum = sequence
		sequence++
		b, err := wire.Marshal(m)
		if err != nil {
			return err
		}
		return conn.WriteMessage(websocket.BinaryMessage, b)
	}
	if err := say(l.next(true)); err != nil {
		return unavailable(err)
	}
	beat := time.NewTimer(rand.N(l.heartbeat())) // a fleet that connects at once does not beat as one
	defer beat.Stop()
	for every, unheard := l.heartbeat(), 0; ; {
		select {
		case <-accepted:
			accepted = nil
			if err := l.id.proven(); err != nil {
				l.cfg.Log.Error("renewed certificate not stored", "why", err)
			}
			l.set(State{Connected: true, Since: time.Now()})
			if l.cfg.Contact != nil {
				l.cfg.Contact()
			}
		case <-l.wake:
			if now := l.heartbeat(); now != every {
				every = now
				beat.Reset(rand.N(every))
			}
			if m := l.next(false); m.AgentDescription != nil || m.CustomMessage != nil {
				if err := say(m); err != nil {
					return unavailable(err)
				}
			}
		case now := <-beat.C:
			beat.Reset(every)
			if rotate(now) {
				return nil
			}
			if err := say(l.next(false)); err != nil {
				return unavailable(err)
			}
			// The server need not answer heartbeats, so ask now and then whether it
			// is still there.
			if unheard++; unheard%pingEvery == 0 {
				if err := conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(stall)); err != nil {
					return unavailable(err)
				}
			}
		case err := <-broken:
			broken <- err // for the deferred wait
			return unavailable(err)
		case <-ctx.Done():
			goodbye := &protobufs.AgentToServer{InstanceUid: l.uid, Capabilities: capabilities, AgentDisconnect: &protobufs.AgentDisconnect{}}
			if err := say(goodbye); err == nil {
				_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(time.Second))
			}
			return nil
		}
	}
}

// pingEvery is how many heartbeats pass between questions whether the server
// is there. It is given up when nothing was heard for three such times.
const pingEvery = 3

// listen reads until the connection breaks. The first message closes accepted.
func (l *Link) listen(conn *websocket.Conn, accepted chan<- struct{}, broken chan<- error) {
	quiet := func() time.Duration { return max(3*pingEvery*l.heartbeat(), 15*time.Second) }
	heard := func() { _ = conn.SetReadDeadline(time.Now().Add(quiet())) } // on a closed connection reading fails anyway
	heard()
	conn.SetPongHandler(func(string) error { heard(); return nil })
	for {
		kind, b, err := conn.ReadMessage()
		if err != nil {
			broken <- err
			return
		}
		heard()
		var m protobufs.ServerToAgent
		if kind != websocket.BinaryMessage {
			err = errors.New("the server sent text")
		} else {
			err = wire.Unmarshal(b, &m)
		}
		if err == nil {
			if e := m.ErrorResponse; e != nil {
				l.cfg.Log.Warn("the server refused a message", "host", l.id.Host, "why", e.ErrorMessage)
			}
			err = l.received(&m)
		}
		if err != nil {
			// What we cannot read now we could not read the next time either; the
			// rest of the connection is worth keeping.
			l.cfg.Log.Warn("a message of the server was ignored", "host", l.id.Host, "why", err)
		}
		heard() // again: it may have asked for a slower heartbeat
		if accepted != nil {
			close(accepted)
			accepted = nil
		}
	}
}

func unavailable(err error) error {
	return &holdfast.Error{Kind: holdfast.Unavailable, What: "the connection broke", Err: err}
}
