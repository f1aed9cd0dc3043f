package sensor

import (
	"encoding/binary"
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-security/holdfast"
)

// The proc connector's messages, from linux/connector.h and linux/cn_proc.h.
const (
	cnIdxProc     = 1
	cnValProc     = 1
	procListen    = 1
	procEventNone = 0x00000000
	procEventFork = 0x00000001
	procEventExec = 0x00000002
	procEventExit = 0x80000000

	cnMsgBytes     = 20 // struct cn_msg without its data
	procEventBytes = 16 // what, cpu, timestamp
)

// connector is the source where eBPF is not permitted: the kernel's process
// events by netlink. They carry process ids only; the rest is read from /proc
// once per event, too late for processes that live for a moment. So its events
// are never marked enriched.
type connector struct {
	fd      int
	buf     [64 << 10]byte
	pending []byte
	proc    procReader
	dropped uint64
	starts  map[uint32]time.Duration // start times, for exits, when /proc is gone already
}

func openConnector() (_ source, err error) {
	defer func() {
		if err != nil {
			err = &holdfast.Error{
				Kind: holdfast.Unavailable, What: "the kernel gives this process no process events by netlink", Err: err,
				Do: "run as root, or with CAP_NET_ADMIN, on a kernel with CONFIG_PROC_EVENTS",
			}
		}
	}()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_CONNECTOR)
	if err != nil {
		return nil, err
	}
	c := &connector{fd: fd, starts: map[uint32]time.Duration{}}
	if err := c.listen(); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// listen subscribes, and waits for the kernel's word that it did: without the
// capability the subscription is refused in an answer, not by an error.
func (c *connector) listen() error {
	if err := unix.Bind(c.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: cnIdxProc}); err != nil {
		return err
	}
	// Room for a burst; the kernel may grant less to us than to root.
	_ = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)

	msg := make([]byte, unix.NLMSG_HDRLEN+cnMsgBytes+4)
	ne := binary.NativeEndian
	ne.PutUint32(msg[0:], uint32(len(msg)))
	ne.PutUint16(msg[4:], unix.NLMSG_DONE)
	ne.PutUint32(msg[12:], uint32(os.Getpid()))
	cn := msg[unix.NLMSG_HDRLEN:]
	ne.PutUint32(cn[0:], cnIdxProc)
	ne.PutUint32(cn[4:], cnValProc)
	ne.PutUint16(cn[16:], 4) // length of the data
	ne.PutUint32(cn[cnMsgBytes:], procListen)
	if err := unix.Sendto(c.fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	for until := time.Now().Add(time.Second); time.Now().Before(until); {
		event, ok, err := c.event(until)
		if err != nil {
			return err
		}
		if ok && ne.Uint32(event) == procEventNone {
			if errno := ne.Uint32(event[procEventBytes:]); errno != 0 {
				return syscall.Errno(errno)
			}
			return nil
		}
	}
	return errors.New("no answer to the subscription within a second")
}

// event returns the next process event: at least its header and four bytes.
func (c *connector) event(until time.Time) ([]byte, bool, error) {
	ne := binary.NativeEndian
	for {
		for len(c.pending) >= unix.NLMSG_HDRLEN {
			length := int(ne.Uint32(c.pending))
			if length < unix.NLMSG_HDRLEN || length > len(c.pending) {
				c.pending = nil
				break
			}
			msg := c.pending[unix.NLMSG_HDRLEN:length]
			c.pending = c.pending[min((length+3)&^3, len(c.pending)):]
			if len(msg) >= cnMsgBytes+procEventBytes+4 && ne.Uint32(msg) == cnIdxProc {
				return msg[cnMsgBytes:], true, nil
			}
		}
		wait := time.Until(until)
		if wait <= 0 {
			return nil, false, nil
		}
		tv := unix.NsecToTimeval(max(int64(wait), int64(time.Millisecond)))
		if err := unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
			return nil, false, err
		}
		n, from, err := unix.Recvfrom(c.fd, c.buf[:], 0)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil, false, nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ENOBUFS): // the kernel threw away at least one event
			c.dropped++
		case err != nil:
			return nil, false, err
		default:
			if sender, ok := from.(*unix.SockaddrNetlink); ok && sender.Pid == 0 { // the kernel itself
				c.pending = c.buf[:n]
			}
		}
	}
}

func (c *connector) next(r *record, until time.Time) (bool, error) {
	for {
		event, ok, err := c.event(until)
		if err != nil {
			return false, holdfast.Errorf(holdfast.Internal, "read process events from the kernel: %w", err)
		}
		if !ok {
			return false, nil
		}
		if c.fill(event, r) {
			return true, nil
		}
	}
}

// fill reports whether the event is about a process (not a thread) and of a
// kind we use.
func (c *connector) fill(event []byte, r *record) bool {
	ne := binary.NativeEndian
	word := func(i int) uint32 {
		if at := procEventBytes + 4*i; at+4 <= len(event) {
			return ne.Uint32(event[at:])
		}
		return 0
	}
	*r = record{time: sinceBoot()}
	switch ne.Uint32(event) {
	case procEventFork: // parent pid, parent tgid, child pid, child tgid
		if word(2) != word(3) {
			return false
		}
		r.kind, r.pid, r.parent = fork, word(3), word(1)
		delete(c.starts, r.pid) // of an earlier process with this id
		r.start, r.parentStart = c.start(r.pid), c.start(r.parent)
	case procEventExec: // pid, tgid
		r.kind = exec
		if !c.proc.read(word(1), r) {
			r.pid = word(1)
			r.start = c.start(r.pid)
			return true // gone already: that it ran is all we know
		}
		c.remember(r.pid, r.start)
		r.parentStart = c.start(r.parent)
	case procEventExit: // pid, tgid, code, signal, parent pid, parent tgid
		if word(0) != word(1) {
			return false
		}
		r.kind, r.pid, r.status, r.parent = exit, word(1), word(2), word(5)
		r.start = c.starts[r.pid]
		delete(c.starts, r.pid)
	default:
		return false
	}
	return true
}

func (c *connector) start(pid uint32) time.Duration {
	if s, ok := c.starts[pid]; ok {
		return s
	}
	s := c.proc.startOf(pid)
	c.remember(pid, s)
	return s
}

func (c *connector) remember(pid uint32, start time.Duration) {
	if len(c.starts) >= tableSize {
		clear(c.starts)
	}
	c.starts[pid] = start
}

func (c *connector) tier() string { return TierProc }
func (c *connector) lost() uint64 { return c.dropped }
func (c *connector) Close() error { return unix.Close(c.fd) }
