package opamp_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
	"github.com/open-telemetry/opamp-go/client"
	"github.com/open-telemetry/opamp-go/client/types"
	"github.com/open-telemetry/opamp-go/protobufs"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/edge/opamp"
	"github.com/holdfast-security/holdfast/internal/wire"
)

// pipes is a listener whose connections have no buffer at all: whoever does
// not read blocks the other side at once. Under synctest its time is virtual.
type pipes struct {
	accept chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.accept:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	a, b := net.Pipe()
	select {
	case p.accept <- b:
		return a, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// bare is an OpAMP server on pipes, without TLS; the host's name is in the
// query.
type bare struct {
	t       *testing.T
	pipes   *pipes
	server  *opamp.Server
	control *control
	http    *http.Server
}

func newBare(t *testing.T, change func(*opamp.Config)) *bare {
	t.Helper()
	b := &bare{
		t: t, pipes: &pipes{accept: make(chan net.Conn), closed: make(chan struct{})},
		control: &control{told: make(chan told, 10_000), offer: map[holdfast.HostID]holdfast.Offer{}, leases: map[string]time.Time{}},
	}
	cfg := opamp.Config{
		Control: b.control, Now: time.Now, Log: slog.New(slog.DiscardHandler), Heartbeat: time.Minute,
		Identify: func(r *http.Request) (holdfast.HostID, error) {
			host := r.URL.Query().Get("host")
			if host == "" {
				return "", holdfast.Errorf(holdfast.Denied, "who are you")
			}
			return holdfast.HostID(host), nil
		},
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if b.server, err = opamp.New(cfg); err != nil {
		t.Fatal(err)
	}
	b.http = &http.Server{Handler: b.server}
	go func() { _ = b.http.Serve(b.pipes) }() // ends with ErrServerClosed
	return b
}

func (b *bare) stop() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	if err := b.server.Stop(ctx); err != nil {
		b.t.Error(err)
	}
	b.http.Close()
}

func (b *bare) dial(host string) (*websocket.Conn, *http.Response, error) {
	d := websocket.Dialer{NetDialContext: b.pipes.dial}
	return d.Dial("ws://server"+wire.OpAMPPath+"?host="+host, nil)
}

func (b *bare) connect(host string) *websocket.Conn {
	b.t.Helper()
	c, _, err := b.dial(host)
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

func (b *bare) say(c *websocket.Conn, m *protobufs.AgentToServer) error {
	b.t.Helper()
	m.InstanceUid = []byte("sixteen bytes!!!")
	raw, err := wire.Marshal(m)
	if err != nil {
		b.t.Fatal(err)
	}
	return c.WriteMessage(websocket.BinaryMessage, raw)
}

func (b *bare) hear(c *websocket.Conn) *protobufs.ServerToAgent {
	b.t.Helper()
	_, raw, err := c.ReadMessage()
	if err != nil {
		b.t.Fatal(err)
	}
	var m protobufs.ServerToAgent
	if err := wire.Unmarshal(raw, &m); err != nil {
		b.t.Fatal(err)
	}
	return &m
}

// count says how often Control was told something about a host.
func (b *bare) count(what string, host holdfast.HostID) int {
	n := 0
	for range len(b.control.told) {
		c := <-b.control.told
		if c.what == what && c.host == host {
			n++
		}
		b.control.told <- c
	}
	return n
}

var hello = &protobufs.AgentToServer{AgentDescription: wire.Description("h", holdfast.Attributes{Hostname: "h"})}

func TestASilentPeerIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBare(t, nil)
		defer b.stop()
		c := b.connect("h")
		defer c.Close()
		if err := b.say(c, hello); err != nil {
			t.Fatal(err)
		}
		b.hear(c)
		time.Sleep(3 * time.Minute)
		if b.server.Connections() != 1 {
			t.Error("given up within three heartbeats")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if b.server.Connections() != 0 || b.count("disconnected", "h") != 1 {
			t.Error("still held after four minutes of silence")
		}
	})
}

// Pings keep nothing alive: only messages do.
func TestPingsAreNoHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBare(t, nil)
		defer b.stop()
		c := b.connect("h")
		defer c.Close()
		go func() { // reads pongs
			for {
				if _, _, err := c.ReadMessage(); err != nil {
					return
				}
			}
		}()
		for range 10 {
			if c.WriteControl(websocket.PingMessage, nil, time.Now().Add(time.Second)) != nil {
				break
			}
			time.Sleep(30 * time.Second)
		}
		synctest.Wait()
		if b.server.Connections() != 0 {
			t.Error("pings kept the connection")
		}
	})
}

func TestAPeerThatDoesNotReadLosesItsConnectionAndHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBare(t, nil)
		defer b.stop()
		deaf, well := b.connect("deaf"), b.connect("well")
		defer deaf.Close()
		defer well.Close()
		for _, c := range []*websocket.Conn{deaf, well} {
			if err := b.say(c, hello); err != nil {
				t.Fatal(err)
			}
			b.hear(c)
		}
		offer := holdfast.Offer{Lease: "1", Channel: "rules", Digest: holdfast.DigestOf(nil), Arm: holdfast.New}
		b.control.want("deaf", offer)
		b.control.want("well", offer)
		b.server.PushAll()
		for range 100 {
			b.server.Push("deaf") // hints pile up to no effect
		}
		if m := b.hear(well); m.PackagesAvailable == nil {
			t.Error("the other host was not told")
		}
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if n := b.server.Connections(); n != 1 {
			t.Errorf("%d connections after the stall; want the one that reads", n)
		}
	})
}

func TestTooLongAMessageEndsTheConnection(t *testing.T) {
	for name, send := range map[string]func(*websocket.Conn) error{
		"one frame": func(c *websocket.Conn) error {
			return c.WriteMessage(websocket.BinaryMessage, make([]byte, 2*wire.MaxMessage))
		},
		"many frames": func(c *websocket.Conn) error {
			w, err := c.NextWriter(websocket.BinaryMessage)
			for range 200 {
				if err == nil {
					_, err = w.Write(make([]byte, 1024))
				}
			}
			return err
		},
		"endless pings": func(c *websocket.Conn) (err error) {
			for range 2000 {
				if err = c.WriteControl(websocket.PingMessage, make([]byte, 100), time.Now().Add(time.Second)); err != nil {
					return err
				}
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBare(t, nil)
				defer b.stop()
				c := b.connect("h")
				defer c.Close()
				go func() { _, _ = io.Copy(io.Discard, c.UnderlyingConn()) }() // answers to pings
				err := send(c)
				synctest.Wait()
				if err == nil || b.server.Connections() != 0 {
					t.Errorf("sent all of it (%v), %d connections", err, b.server.Connections())
				}
				if b.count("beat", "h") != 0 {
					t.Error("it counted as a heartbeat")
				}
			})
		})
	}
}

func TestNewestConnectionOfAHostWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBare(t, nil)
		defer b.stop()
		first := b.connect("h")
		defer first.Close()
		synctest.Wait()
		second := b.connect("h")
		defer second.Close()
		synctest.Wait()
		if _, _, err := first.ReadMessage(); err == nil {
			t.Error("the first connection is still open")
		}
		if b.server.Connections() != 1 || b.count("disconnected", "h") != 0 {
			t.Error("the host counts as disconnected, or twice")
		}
		if err := b.say(second, hello); err != nil {
			t.Fatal(err)
		}
		b.hear(second)
		second.Close()
		synctest.Wait()
		if b.server.Connections() != 0 || b.count("disconnected", "h") != 1 {
			t.Error("the end of the newest connection was not told once")
		}
	})
}

func TestRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBare(t, func(c *opamp.Config) { c.MaxConnections = 1 })
		defer b.stop()
		refused := func(host string, status int, retry bool) {
			t.Helper()
			c, resp, err := b.dial(host)
			if err == nil {
				c.Close()
				t.Fatal("accepted")
			}
			if resp == nil || resp.StatusCode != status || (resp.Header.Get("Retry-After") != "") != retry {
				t.Errorf("%+v; want status %d, Retry-After %v", resp, status, retry)
			}
		}
		refused("", 403, false)
		b.control.refuse = holdfast.Errorf(holdfast.Denied, "revoked")
		refused("h", 403, false)
		b.control.refuse = holdfast.Errorf(holdfast.Unavailable, "starting")
		refused("h", 503, true)
		b.control.refuse = nil
		c := b.connect("h")
		defer c.Close()
		refused("another", 503, true)

		for _, r := range []struct{ kind, body string }{{"application/x-protobuf", "x"}, {"text/plain", "x"}} {
			hc := http.Client{Transport: &http.Transport{DialContext: b.pipes.dial, DisableKeepAlives: true}}
			resp, err := hc.Post("http://server"+wire.OpAMPPath+"?host=h", r.kind, strings.NewReader(r.body))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != 400 {
				t.Errorf("%s: status %d", r.kind, resp.StatusCode)
			}
		}
	})
}

func TestBadMessagesAreRefusedAndTheConnectionGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBare(t, nil)
		defer b.stop()
		c := b.connect("h")
		defer c.Close()
		bad, err := wire.Custom(wire.ReportType, map[string]any{"running": map[string]string{"rules": "latest"}})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range []*protobufs.AgentToServer{
			{CustomMessage: bad},
			{AgentDescription: wire.Description("h", holdfast.Attributes{Hostname: "\x1b[2J"})},
		} {
			if err := b.say(c, m); err != nil {
				t.Fatal(err)
			}
			if answer := b.hear(c); answer.GetErrorResponse() == nil {
				t.Errorf("not refused: %v", answer)
			}
		}
		if err := b.say(c, hello); err != nil {
			t.Fatal(err)
		}
		if answer := b.hear(c); answer.ErrorResponse != nil {
			t.Errorf("refused: %v", answer)
		}
		if b.count("reported", "h") != 0 || b.count("described", "h") != 1 {
			t.Error("a bad message was passed on")
		}
	})
}

// A flood of messages is slowed down, not stored up.
func TestAFloodSlowsItselfDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBare(t, nil)
		defer b.stop()
		c := b.connect("h")
		defer c.Close()
		go func() {
			for {
				if _, _, err := c.ReadMessage(); err != nil {
					return
				}
			}
		}()
		began := time.Now()
		for i := range 1000 {
			if err := b.say(c, &protobufs.AgentToServer{SequenceNum: uint64(i), Capabilities: 1}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if took := time.Since(began); took < 25*time.Second {
			t.Errorf("a thousand messages were taken in %v", took)
		}
	})
}

// opamp-go's own client, as any other OpAMP agent would use it: it is asked for
// its full state by a server that does not know it, and its heartbeats go on at
// the interval the server sets.
func TestOpampGoClient(t *testing.T) {
	p := newPlane(t, nil)
	id := p.enrol(holdfast.Attributes{Hostname: "third-party"})
	c := client.NewWebSocket(nil)
	if err := c.SetAgentDescription(wire.Description("x", holdfast.Attributes{Hostname: "third-party", Version: "9"})); err != nil {
		t.Fatal(err)
	}
	caps := protobufs.AgentCapabilities_AgentCapabilities_ReportsStatus | protobufs.AgentCapabilities_AgentCapabilities_ReportsHeartbeat |
		protobufs.AgentCapabilities_AgentCapabilities_AcceptsOpAMPConnectionSettings
	if err := c.SetCapabilities(&caps); err != nil {
		t.Fatal(err)
	}
	err := c.Start(t.Context(), types.StartSettings{
		OpAMPServerURL: "wss" + p.url[len("https"):] + wire.OpAMPPath, TLSConfig: id.TLS(), InstanceUid: types.InstanceUid([]byte("sixteen bytes...")),
		Callbacks: types.Callbacks{OnOpampConnectionSettings: func(context.Context, *protobufs.OpAMPConnectionSettings) error { return nil }},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := c.Stop(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	}()
	p.control.next(t, "connected")
	p.control.next(t, "described")
	for range 3 { // its own default is 30 s
		p.control.next(t, "beat")
	}

	p.restart()
	p.control.next(t, "disconnected")
	p.control.next(t, "connected")
	if got := p.control.next(t, "described"); got.attrs.Version != "9" {
		t.Errorf("the new server knows %+v", got.attrs)
	}
}
