package uplink_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/open-telemetry/opamp-go/protobufs"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/edge/enrol"
	"github.com/holdfast-security/holdfast/internal/endpoint/uplink"
	"github.com/holdfast-security/holdfast/internal/wire"
)

// hostile is a server that the host trusts and that does as the test says.
type hostile struct {
	*testing.T
	url   string
	ca    *enrol.CA
	opamp atomic.Pointer[http.HandlerFunc]
	dials atomic.Int64
	met   atomic.Int64 // how often the host says that it had contact
}

func newHostile(t *testing.T, opamp http.HandlerFunc) *hostile {
	t.Helper()
	h := &hostile{T: t}
	h.opamp.Store(&opamp)
	var err error
	if h.ca, err = enrol.OpenCA(t.TempDir(), time.Now()); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc(wire.OpAMPPath, func(w http.ResponseWriter, r *http.Request) {
		h.dials.Add(1)
		(*h.opamp.Load())(w, r)
	})
	log := slog.New(slog.DiscardHandler)
	enrol.NewServer(h.ca, open{}, func() map[string][]byte { return nil }, 0, time.Now, log).Register(mux)
	cfg, err := h.ca.TLSConfig([]string{"127.0.0.1"}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.url = "https://" + l.Addr().String()
	s := &http.Server{Handler: mux, TLSConfig: cfg, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	go func() {
		if err := s.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	}()
	t.Cleanup(func() { s.Close() })
	return h
}

// open is a store that lets everybody in.
type open struct{}

func (open) Host(context.Context, holdfast.HostID) (holdfast.Host, error) {
	return holdfast.Host{}, holdfast.Errorf(holdfast.NotFound, "nobody")
}

func (open) EnrolHost(_ context.Context, _ string, _ time.Time, as func(holdfast.Enrolment) holdfast.Host) (holdfast.Host, error) {
	return as(holdfast.Enrolment{Org: holdfast.DefaultOrg}), nil
}

func (open) SetSerial(context.Context, holdfast.HostID, string) error { return nil }

func (h *hostile) link() *uplink.Link {
	h.Helper()
	id, err := uplink.Enrol(h.Context(), uplink.Enrolment{Token: enrol.Token(h.url, h.ca, nil, "forty-characters-or-more-of-a-shared-secret")})
	if err != nil {
		h.Fatal(err)
	}
	l := uplink.Start(uplink.Config{Identity: id, Log: slog.New(slog.DiscardHandler), Heartbeat: 100 * time.Millisecond, Contact: func() { h.met.Add(1) }})
	h.Cleanup(l.Stop)
	return l
}

// eventually waits until ok, for at most twenty seconds.
func (h *hostile) eventually(what string, ok func() bool) {
	h.Helper()
	for range 400 {
		if ok() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	h.Fatalf("waited in vain until %s", what)
}

func upgrade(f func(*websocket.Conn)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		f(c)
	}
}

// Whoever stole the server must not be able to end agents by memory.
func TestServerThatSaysTooMuch(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"a message of 64 MiB": upgrade(func(c *websocket.Conn) {
			chunk := make([]byte, 1<<20)
			w, err := c.NextWriter(websocket.BinaryMessage)
			for range 64 {
				if err == nil {
					_, err = w.Write(chunk)
				}
			}
		}),
		"an endless greeting": func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer c.Close()
			if _, err = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\n"); err != nil {
				return
			}
			for range 1 << 20 {
				if _, err = io.WriteString(c, "X-Filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n"); err != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHostile(t, handler)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			l := h.link()
			h.eventually("the host tried three times", func() bool { return h.dials.Load() >= 3 })
			runtime.ReadMemStats(&after)
			if l.State().Connected || h.met.Load() > 0 {
				t.Error("it counts as connected")
			}
			// Client and server share this process; a client that read 64 MiB each
			// time would have allocated several times as much.
			if grown := (after.TotalAlloc - before.TotalAlloc) >> 20; grown > 100 {
				t.Errorf("%d MiB were allocated", grown)
			}
		})
	}
}

// Nonsense is ignored, and the connection kept.
func TestServerThatTalksNonsense(t *testing.T) {
	said := make(chan struct{})
	h := newHostile(t, upgrade(func(c *websocket.Conn) {
		bad, _ := wire.Custom(wire.LeaseType, 7)
		for _, m := range []*protobufs.ServerToAgent{
			{PackagesAvailable: &protobufs.PackagesAvailable{Packages: map[string]*protobufs.PackageAvailable{"rules": nil}}},
			{CustomMessage: bad},
			{ErrorResponse: &protobufs.ServerErrorResponse{ErrorMessage: "no"}},
			{PackagesAvailable: wire.Packages(holdfast.Offer{Lease: "l", Channel: "rules", Digest: holdfast.DigestOf(nil), Arm: holdfast.New})},
		} {
			b, err := wire.Marshal(m)
			if err != nil || c.WriteMessage(websocket.BinaryMessage, b) != nil {
				return
			}
			if c.WriteMessage(websocket.BinaryMessage, []byte{0xff, 0xff}) != nil || c.WriteMessage(websocket.TextMessage, []byte("hello")) != nil {
				return
			}
		}
		close(said)
		for {
			if _, _, err := c.ReadMessage(); err != nil {
				return
			}
		}
	}))
	l := h.link()
	<-said
	select {
	case o := <-l.Offers():
		if o.Lease != "l" {
			t.Errorf("offered %+v", o)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the good offer among the nonsense did not arrive")
	}
	if h.dials.Load() != 1 {
		t.Errorf("%d connections", h.dials.Load())
	}
	h.eventually("it had contact", func() bool { return h.met.Load() == 1 })
}

// Only the latest offer waits to be taken.
func TestLatestOfferWins(t *testing.T) {
	h := newHostile(t, upgrade(func(c *websocket.Conn) {
		for _, lease := range []string{"1", "2", "3"} {
			b, err := wire.Marshal(&protobufs.ServerToAgent{PackagesAvailable: wire.Packages(holdfast.Offer{Lease: lease, Channel: "rules", Digest: holdfast.DigestOf(nil), Arm: holdfast.New})})
			if err != nil || c.WriteMessage(websocket.BinaryMessage, b) != nil {
				return
			}
		}
		b, _ := wire.Marshal(&protobufs.ServerToAgent{ConnectionSettings: &protobufs.ConnectionSettingsOffers{Opamp: &protobufs.OpAMPConnectionSettings{HeartbeatIntervalSeconds: 7}}})
		_ = c.WriteMessage(websocket.BinaryMessage, b)
		_, _, _ = c.ReadMessage()
		_, _, _ = c.ReadMessage()
	}))
	l := h.link()
	h.eventually("all was read", func() bool { return l.State().Heartbeat == 7*time.Second })
	if o := <-l.Offers(); o.Lease != "3" {
		t.Errorf("lease %s", o.Lease)
	}
}

// The server asks to come back later, and the host does.
func TestRetryAfterIsHonoured(t *testing.T) {
	h := newHostile(t, func(w http.ResponseWriter, _ *http.Request) {
		wire.WriteProblem(w, holdfast.Errorf(holdfast.Unavailable, "full"), time.Hour)
	})
	l := h.link()
	h.eventually("the host was sent away", func() bool { return holdfast.KindOf(l.State().Err) == holdfast.Unavailable && h.dials.Load() > 0 })
	time.Sleep(2 * time.Second) // twenty heartbeats
	if n := h.dials.Load(); n != 1 {
		t.Errorf("%d attempts", n)
	}
	if h.met.Load() > 0 {
		t.Error("to be sent away counts as contact")
	}
}

// A question that gets no answer ends with its context, and does not stop Stop.
func TestNoAnswerToALease(t *testing.T) {
	h := newHostile(t, upgrade(func(c *websocket.Conn) {
		for {
			if _, _, err := c.ReadMessage(); err != nil {
				return
			}
		}
	}))
	l := h.link()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := l.Renew(ctx, "lease"); holdfast.KindOf(err) != holdfast.Unavailable {
		t.Errorf("%v; want Unavailable", err)
	}
	asked := make(chan error, 1)
	go func() {
		_, err := l.Renew(context.Background(), "lease")
		asked <- err
	}()
	time.Sleep(100 * time.Millisecond)
	l.Stop()
	if err := <-asked; holdfast.KindOf(err) != holdfast.Unavailable {
		t.Errorf("%v; want Unavailable", err)
	}
}
