package hosts

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// cable is a host's network. When its machine loses power the other side is
// told nothing, as in life: what is sent vanishes, and nothing comes.
type cable struct {
	mu  sync.Mutex
	off bool
	all map[*plug]bool
}

// power switches the host's network off or on. Connections from before are
// gone when it comes back.
func (c *cable) power(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off = !on
	if on {
		for p := range c.all {
			_ = p.Conn.Close() // it is lost either way
		}
		c.all = nil
	}
}

func (c *cable) isOff() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.off
}

func (c *cable) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if c.isOff() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	p := &plug{Conn: conn, cable: c}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = map[*plug]bool{}
	}
	c.all[p] = true
	return p, nil
}

// plug is one connection on a cable.
type plug struct {
	net.Conn
	cable *cable
}

func (p *plug) Write(b []byte) (int, error) {
	if p.cable.isOff() {
		return len(b), nil
	}
	return p.Conn.Write(b)
}

// Read drops what arrives for a machine that is off.
func (p *plug) Read(b []byte) (int, error) {
	for {
		n, err := p.Conn.Read(b)
		if err != nil || !p.cable.isOff() {
			return n, err
		}
	}
}

// Close of a machine that is off closes nothing: the other side has to find
// out by itself. It only ends the reading here.
func (p *plug) Close() error {
	p.cable.mu.Lock()
	defer p.cable.mu.Unlock()
	if p.cable.off {
		return p.Conn.SetReadDeadline(time.Unix(1, 0))
	}
	delete(p.cable.all, p)
	return p.Conn.Close()
}

// outlet is how a host asks the server over HTTP: by the connections that the
// whole fleet shares, as hosts share a cache of static files, and not at all
// while its machine is off. A connection each would be a descriptor more for
// every host, here and at the server.
type outlet struct {
	cable  *cable
	shared http.RoundTripper
}

func (o outlet) RoundTrip(r *http.Request) (*http.Response, error) {
	if o.cable.isOff() {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	return o.shared.RoundTrip(r)
}
