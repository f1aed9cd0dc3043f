package sensor

import (
	"bytes"
	"encoding/binary"
	"time"
	"unsafe"

	"github.com/holdfast-security/holdfast"
)

// The flags of an exec event, as bpf/process.bpf.c sets them.
const (
	flagPathCut = 1 << iota
	flagCwdCut
	flagArgsFault
)

const (
	taskBytes = int(unsafe.Sizeof(processTaskEvent{}))
	execBytes = int(unsafe.Sizeof(processExecEvent{}))
)

// decoder turns the bytes of the ring into records. It keeps the space in which
// paths are put together.
type decoder struct {
	path, cwd []byte
}

// decode fills r from one sample of the ring. The sample comes from our own
// program in the kernel; it is still not believed further than its length.
func (d *decoder) decode(sample []byte, r *record) error {
	if len(sample) < taskBytes {
		return holdfast.Errorf(holdfast.Internal, "a record of %d bytes from the kernel is too short", len(sample))
	}
	u16 := func(at uintptr) int { return int(binary.NativeEndian.Uint16(sample[at:])) }
	u32 := func(at uintptr) uint32 { return binary.NativeEndian.Uint32(sample[at:]) }
	u64 := func(at uintptr) uint64 { return binary.NativeEndian.Uint64(sample[at:]) }
	text := func(at, size uintptr) []byte {
		b, _, _ := bytes.Cut(sample[at:at+size], []byte{0})
		return b
	}

	var t processTaskEvent
	*r = record{
		kind:        kind(u32(unsafe.Offsetof(t.Kind))),
		pid:         u32(unsafe.Offsetof(t.Pid)),
		parent:      u32(unsafe.Offsetof(t.Parent)),
		time:        time.Duration(u64(unsafe.Offsetof(t.Time))),
		start:       time.Duration(u64(unsafe.Offsetof(t.Start))),
		parentStart: time.Duration(u64(unsafe.Offsetof(t.ParentStart))),
		status:      u32(unsafe.Offsetof(t.ExitCode)),
		enriched:    true,
	}
	switch r.kind {
	case fork, exit:
		return nil
	case exec:
	default:
		return holdfast.Errorf(holdfast.Internal, "a record of unknown kind %d from the kernel", r.kind)
	}
	if len(sample) < execBytes {
		return holdfast.Errorf(holdfast.Internal, "an exec record of %d bytes from the kernel is too short", len(sample))
	}

	var e processExecEvent
	flags := u32(unsafe.Offsetof(e.Flags))
	r.inode = u64(unsafe.Offsetof(e.Inode))
	r.dev = u32(unsafe.Offsetof(e.Dev))
	r.nlink = u32(unsafe.Offsetof(e.Nlink))
	r.euid = u32(unsafe.Offsetof(e.Euid))
	r.comm = text(unsafe.Offsetof(e.Comm), unsafe.Sizeof(e.Comm))
	r.tty = text(unsafe.Offsetof(e.Tty), unsafe.Sizeof(e.Tty))

	data := sample[execBytes:]
	take := func(n int) []byte {
		n = min(n, len(data))
		b := data[:n:n]
		data = data[n:]
		return b
	}
	r.file = trimNUL(take(u16(unsafe.Offsetof(e.FileLen))))
	r.group = trimNUL(take(u16(unsafe.Offsetof(e.GroupLen))))
	d.path = appendPath(d.path[:0], take(u16(unsafe.Offsetof(e.PathLen))), flags&flagPathCut != 0)
	if r.nlink == 0 {
		d.path = append(d.path, " (deleted)"...) // as /proc/PID/exe shows it
	}
	d.cwd = appendPath(d.cwd[:0], take(u16(unsafe.Offsetof(e.CwdLen))), flags&flagCwdCut != 0)
	r.path, r.cwd = d.path, d.cwd
	r.args = take(u16(unsafe.Offsetof(e.ArgsLen)))
	if total := u32(unsafe.Offsetof(e.ArgsTotal)); total > uint32(len(r.args)) {
		r.argsCut = total - uint32(len(r.args))
	}
	r.enriched = flags&flagArgsFault == 0
	return nil
}

// appendPath writes components, which come innermost first and each with a NUL
// behind it, as an absolute path. A path that was cut starts with an ellipsis,
// so that it matches no rule about its beginning.
func appendPath(dst, components []byte, cut bool) []byte {
	if cut {
		dst = append(dst, "…"...)
	}
	for components = trimNUL(components); len(components) > 0; components = trimNUL(components) {
		at := bytes.LastIndexByte(components, 0) + 1
		dst = append(append(dst, '/'), components[at:]...)
		components = components[:at]
	}
	if len(dst) == 0 {
		dst = append(dst, '/')
	}
	return dst
}

func trimNUL(b []byte) []byte { return bytes.TrimRight(b, "\x00") }
