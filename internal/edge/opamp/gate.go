package opamp

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"
)

// Gate lets hosts through TLS a few at a time. A handshake with a client
// certificate costs the server about two milliseconds of a core, so when a
// whole fleet comes back at once, doing all handshakes at once finishes none in
// the time a host waits, and everything is done again. Behind a gate they are
// done in the order they came; who waits, waits in the kernel's queue and costs
// nothing.
type Gate struct {
	net.Listener
	cfg   *tls.Config
	slots chan struct{}
	ready chan net.Conn
	done  chan struct{}
	once  sync.Once
}

// Handshakes is how many a Gate should do at once: enough to keep the cores
// busy while peers that stall hold a slot each, for at most handshakeTime.
const Handshakes = 256

const handshakeTime = 5 * time.Second

// NewGate returns a listener whose connections have shaken hands, atOnce of
// them at a time. Serve it with http.Server.Serve, not ServeTLS.
func NewGate(l net.Listener, cfg *tls.Config, atOnce int) *Gate {
	g := &Gate{Listener: l, cfg: cfg, slots: make(chan struct{}, atOnce), ready: make(chan net.Conn), done: make(chan struct{})}
	go g.run()
	return g
}

func (g *Gate) run() {
	for {
		select {
		case g.slots <- struct{}{}:
		case <-g.done:
			return
		}
		c, err := g.Listener.Accept()
		switch {
		case err == nil:
			go g.shake(c)
		case errors.Is(err, net.ErrClosed):
			_ = g.Close() // so that Accept says so too
			return
		default: // out of descriptors, say; it passes
			<-g.slots
			select {
			case <-time.After(50 * time.Millisecond):
			case <-g.done:
				return
			}
		}
	}
}

func (g *Gate) shake(c net.Conn) {
	t := tls.Server(c, g.cfg)
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTime)
	err := t.HandshakeContext(ctx)
	cancel()
	<-g.slots
	if err != nil {
		_ = c.Close() // whoever it was has gone, or is no host
		return
	}
	select {
	case g.ready <- t:
	case <-g.done:
		_ = t.Close()
	}
}

// Accept returns the next connection that has shaken hands.
func (g *Gate) Accept() (net.Conn, error) {
	select {
	case c := <-g.ready:
		return c, nil
	case <-g.done:
		return nil, net.ErrClosed
	}
}

// Close stops listening. Connections that were not accepted yet are closed.
func (g *Gate) Close() error {
	g.once.Do(func() { close(g.done) })
	return g.Listener.Close()
}
