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
	gate := opamp.NewGate(l, cfg, atOnce)
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
