package opamp_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-security/holdfast/internal/edge/enrol"
	"github.com/holdfast-security/holdfast/internal/edge/opamp"
)

func TestGate(t *testing.T) {
	const atOnce = 26 // 21 of which are soon held by peers that say nothing
	ca, err := enrol.OpenCA(t.TempDir(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var now, most atomic.Int64
	cfg, err := ca.TLSConfig([]string{"127.0.0.1"}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	forClient := cfg.GetConfigForClient
	cfg.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		time.Sleep(2 * time.Millisecond)
		return forClient(h)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gate := opamp.NewGate(l, cfg, atOnce, 1000)
	served := make(chan error, 1)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil {
			t.Error("no TLS state")
		}
		_, _ = io.WriteString(w, "hello")
	})}
	go func() { served <- s.Serve(gate) }()

	// Peers that never say a word, and ones that are no TLS clients, hold up
	// nobody.
	for range 20 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}

	root, err := x509.ParseCertificate(ca.DER())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(root)
	var wg sync.WaitGroup
	for range 60 {
		wg.Go(func() {
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}, Timeout: 30 * time.Second}
			resp, err := client.Get("https://" + l.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "hello" {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
	wg.Wait()
	if m := most.Load(); m > atOnce || m < 2 {
		t.Errorf("%d handshakes at once; the gate is %d wide", m, atOnce)
	}
	s.Close()
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
	if _, err := gate.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// A handshake is not begun with a host that waited so long that it is about to
// give up, or has: it would be for nothing, and hold up those behind it.
func TestWhoWaitedTooLongIsTurnedAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listener := &pipes{accept: make(chan net.Conn), closed: make(chan struct{})}
		gate := opamp.NewGate(listener, &tls.Config{}, 1, 10)
		come := func() net.Conn {
			host, err := listener.dial(t.Context(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			return host
		}
		// A pipe takes what is written to it when the other side reads it.
		begun := func(c net.Conn) bool {
			n, err := c.Write([]byte("no handshake"))
			if err != nil && !errors.Is(err, io.ErrClosedPipe) {
				t.Fatal(err)
			}
			return n > 0
		}
		for range 5 {
			come() // says nothing, and has the only slot for five seconds
		}
		early := come()
		time.Sleep(15 * time.Second)
		late := come()
		if begun(early) {
			t.Error("a handshake was begun after 25 s")
		}
		if !begun(late) {
			t.Error("who waited 10 s was turned away")
		}
		come()
		left := come()
		_ = gate.Close()
		if begun(left) {
			t.Error("a handshake was begun after the end")
		}
		time.Sleep(10 * time.Second) // the one before it ends by itself
	})
}

// A full gate accepts nobody: each connection is a descriptor, and the process
// needs some for its files. One that ends makes room for one.
func TestAFullGateAcceptsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listener := &pipes{accept: make(chan net.Conn), closed: make(chan struct{})}
		gate := opamp.NewGate(listener, &tls.Config{}, 1, 3)
		var in atomic.Int64
		for range 5 {
			go func() {
				if _, err := listener.dial(t.Context(), "", ""); err == nil {
					in.Add(1)
				}
			}()
		}
		synctest.Wait()
		if n := in.Load(); n != 3 {
			t.Errorf("%d accepted; there is room for 3", n)
		}
		time.Sleep(6 * time.Second) // the first said nothing for five seconds
		synctest.Wait()
		if n := in.Load(); n != 4 {
			t.Errorf("%d accepted after the first was given up; want 4", n)
		}
		_ = gate.Close()
		time.Sleep(6 * time.Second)
	})
}
