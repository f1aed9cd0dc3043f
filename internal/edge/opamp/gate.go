package opamp

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"
)

// Gate lets hosts through TLS a few at a time, in the order they came. A
// handshake costs each side a millisecond or two of a core, so when a whole
// fleet comes back at once, doing all handshakes at once finishes none in the
// time a host waits, and everything is done again.
//
// Who waits has been accepted already: it costs a descriptor and no goroutine.
// It does not wait in the kernel's queue, which is short and, when full, drops
// what comes without a word; hosts would then try again after seconds, and more
// seconds each time. Who waited so long that it has given up, or is about to,
// is turned away before anything is spent on it.
type Gate struct {
	net.Listener
	cfg     *tls.Config
	room    chan struct{} // holds one for each connection that is open
	waiting chan arrival
	slots   chan struct{}
	ready   chan net.Conn
	done    chan struct{}
	once    sync.Once
}

// arrival is a connection that nothing was spent on yet.
type arrival struct {
	*entrant
	at time.Time
}

// entrant is a connection that gives its room back when it is closed.
type entrant struct {
	net.Conn
	gate *Gate
	left sync.Once
}

func (e *entrant) Close() error {
	e.left.Do(func() { <-e.gate.room })
	return e.Conn.Close()
}

// Handshakes is how many a Gate should do at once: enough to keep the cores
// busy while peers that stall hold a slot each, for at most handshakeTime.
const Handshakes = 256

const (
	handshakeTime = 5 * time.Second
	// waitTime leaves a host that is patient for half a minute, as ours are, time
	// for the handshake itself.
	waitTime = 20 * time.Second
)

// NewGate returns a listener whose connections have shaken hands, atOnce of
// them at a time, and of which at most so many are open, those that wait
// included: each is a descriptor, and the process needs some for its files. The
// kernel keeps those that come then. Serve it with http.Server.Serve, not
// ServeTLS.
func NewGate(l net.Listener, cfg *tls.Config, atOnce, most int) *Gate {
	g := &Gate{
		Listener: l, cfg: cfg, room: make(chan struct{}, most), waiting: make(chan arrival, most),
		slots: make(chan struct{}, atOnce), ready: make(chan net.Conn), done: make(chan struct{}),
	}
	go g.gather()
	go g.run()
	return g
}

// gather accepts everybody who comes while there is room.
func (g *Gate) gather() {
	defer g.turnAway()
	for {
		select {
		case g.room <- struct{}{}:
		case <-g.done:
			return
		}
		c, err := g.Listener.Accept()
		if err == nil {
			g.waiting <- arrival{&entrant{Conn: c, gate: g}, time.Now()} // it holds as many as there is room for
			continue
		}
		<-g.room
		if errors.Is(err, net.ErrClosed) {
			_ = g.Close() // so that Accept says so too
			return
		}
		select {
		case <-time.After(50 * time.Millisecond): // out of descriptors, say; it passes
		case <-g.done:
		}
	}
}

// turnAway closes whoever still waits, when nobody comes any more.
func (g *Gate) turnAway() {
	for {
		select {
		case a := <-g.waiting:
			_ = a.Close()
		default:
			return
		}
	}
}

func (g *Gate) run() {
	for {
		select {
		case g.slots <- struct{}{}:
		case <-g.done:
			return
		}
		select {
		case a := <-g.waiting:
			if time.Since(a.at) > waitTime {
				<-g.slots
				_ = a.Close()
				continue
			}
			go g.shake(a.entrant)
		case <-g.done:
			return
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
