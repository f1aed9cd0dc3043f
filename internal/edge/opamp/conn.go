package opamp

import (
	"net"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/wire"
)

// conn bounds what a peer can make the WebSocket library do: it may send only
// so many bytes, and take only so long, until a message of it is complete, and
// must accept what is written to it. opamp-go sets neither a read limit nor a
// deadline, and its Send ignores the context.
type conn struct {
	net.Conn
	silence time.Duration // longest time between complete messages
	stall   time.Duration // longest time of one write
	left    int           // bytes that may still arrive before extend is called; only the reading goroutine uses it

	// upgraded is set by the first write, the answer to the handshake, and never
	// changes after that.
	upgraded bool
}

// overhead is what framing and control frames (pings, say) may add to a
// message.
const overhead = 4 << 10

var errTooLong = &holdfast.Error{Kind: holdfast.Invalid, What: "the host sent more than one message may hold"}

// extend grants the peer its next message. Called by the reading goroutine
// when a message is complete, and once before the first.
func (c *conn) extend() {
	c.left = wire.MaxMessage + overhead
	_ = c.Conn.SetReadDeadline(time.Now().Add(c.silence)) // on a closed connection reading fails anyway
}

func (c *conn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errTooLong
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	if err := c.Conn.SetWriteDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(p)
	if !c.upgraded && err == nil {
		c.upgraded = true
	}
	return n, err
}

// SetDeadline, SetReadDeadline and SetWriteDeadline do nothing: the WebSocket
// library calls them to clear the deadlines that conn keeps.
func (c *conn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing; see SetDeadline.
func (c *conn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing; see SetDeadline.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }
