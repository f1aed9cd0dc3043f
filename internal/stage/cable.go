package stage

import (
	"io"
	"net"
	"sync"
)

// Cable carries TCP between one host and the server, and can be cut: the host
// then has no network, as far as Holdfast can tell.
type Cable struct {
	l  net.Listener
	to string

	mu   sync.Mutex
	cut  bool
	open map[net.Conn]bool
}

func NewCable(to string) (*Cable, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &Cable{l: l, to: to, open: map[net.Conn]bool{}}
	go c.serve()
	return c, nil
}

func (c *Cable) Addr() string { return c.l.Addr().String() }

func (c *Cable) serve() {
	for {
		in, err := c.l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", c.to)
		if err != nil || !c.keep(in, out) {
			in.Close()
			if out != nil {
				out.Close()
			}
			continue
		}
		go c.carry(in, out)
		go c.carry(out, in)
	}
}

// keep remembers a connection, unless the cable is cut.
func (c *Cable) keep(in, out net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		return false
	}
	c.open[in], c.open[out] = true, true
	return true
}

func (c *Cable) carry(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	to.Close()
	from.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, to)
	delete(c.open, from)
}

// Sever cuts the cable, or mends it.
func (c *Cable) Sever(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = cut
	if cut {
		for conn := range c.open {
			conn.Close()
		}
	}
}

func (c *Cable) Close() {
	c.Sever(true)
	c.l.Close()
}
