package sensor

import (
	"bytes"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-security/holdfast"
)

// clockTick is USER_HZ: the unit of start times in /proc, fixed at 100 in the
// kernel's interface on every architecture we build for.
const clockTick = time.Second / 100

// procBytes bounds what is read of one file below /proc.
const procBytes = 16 << 10

// procReader reads what /proc says of a process. It is used once per process
// when the sensor starts, and for each event where there is no eBPF; it never
// polls.
type procReader struct {
	buf   [procBytes]byte
	path  []byte
	exe   []byte
	cwd   []byte
	args  []byte
	comm  []byte
	group []byte
}

// read fills r with what runs as pid now. It reports whether the process was
// still there.
func (p *procReader) read(pid uint32, r *record) bool {
	stat := p.file(pid, "stat")
	parent, start, ok := parseStat(stat)
	if !ok {
		return false
	}
	r.pid, r.parent, r.start = pid, parent, start
	r.euid = parseStatus(p.file(pid, "status"))
	p.args = append(p.args[:0], p.file(pid, "cmdline")...)
	if len(p.args) > argsBytes {
		r.argsCut = uint32(len(p.args) - argsBytes)
		p.args = p.args[:argsBytes]
	}
	p.comm = append(p.comm[:0], bytes.TrimSpace(p.file(pid, "comm"))...)
	p.group = append(p.group[:0], group(p.file(pid, "cgroup"))...)
	p.exe = p.link(pid, "exe", p.exe[:0])
	p.cwd = p.link(pid, "cwd", p.cwd[:0])
	r.args, r.path, r.cwd, r.comm, r.group = p.args, p.exe, p.cwd, p.comm, p.group
	if r.nlink = 1; bytes.HasSuffix(r.path, []byte(" (deleted)")) {
		r.nlink = 0
	}
	// A process that died in between leaves a zombie without these.
	return len(r.args) > 0 && len(r.path) > 0
}

// startOf returns when pid started, or 0.
func (p *procReader) startOf(pid uint32) time.Duration {
	_, start, _ := parseStat(p.file(pid, "stat"))
	return start
}

func (p *procReader) name(pid uint32, file string) string {
	p.path = strconv.AppendUint(append(p.path[:0], "/proc/"...), uint64(pid), 10)
	p.path = append(append(p.path, '/'), file...)
	return string(p.path)
}

func (p *procReader) file(pid uint32, name string) []byte {
	f, err := os.Open(p.name(pid, name))
	if err != nil {
		return nil
	}
	defer f.Close()
	n := 0
	for n < len(p.buf) {
		m, err := f.Read(p.buf[n:])
		n += m
		if err != nil || m == 0 {
			break
		}
	}
	return p.buf[:n]
}

func (p *procReader) link(pid uint32, name string, dst []byte) []byte {
	target, err := os.Readlink(p.name(pid, name))
	if err != nil {
		return dst
	}
	return append(dst, target...)
}

// parseStat reads the parent and the start time since boot from /proc/PID/stat.
// The name in it may hold anything, closing parentheses included.
func parseStat(b []byte) (parent uint32, start time.Duration, ok bool) {
	b = b[bytes.LastIndexByte(b, ')')+1:]
	const parentField, startField = 1, 19 // counted from the state, behind the name
	n := 0
	for f := range bytes.FieldsSeq(b) {
		switch n {
		case parentField:
			v, err := strconv.ParseUint(string(f), 10, 32)
			if err != nil {
				return 0, 0, false
			}
			parent = uint32(v)
		case startField:
			v, err := strconv.ParseInt(string(f), 10, 64)
			if err != nil || v < 0 || v > int64(1<<62)/int64(clockTick) {
				return 0, 0, false
			}
			return parent, time.Duration(v) * clockTick, true
		}
		n++
	}
	return 0, 0, false
}

// parseStatus reads the effective user from /proc/PID/status.
func parseStatus(b []byte) (euid uint32) {
	for line := range bytes.Lines(b) {
		ids, ok := bytes.CutPrefix(line, []byte("Uid:"))
		if !ok {
			continue
		}
		n := 0
		for f := range bytes.FieldsSeq(ids) { // real, effective, saved, of the file system
			if n++; n == 2 {
				v, _ := strconv.ParseUint(string(f), 10, 32)
				return uint32(v)
			}
		}
	}
	return 0
}

// group reads the last component of the control group's path in the unified
// hierarchy (the line of hierarchy 0) from /proc/PID/cgroup.
func group(b []byte) []byte {
	for line := range bytes.Lines(b) {
		if path, ok := bytes.CutPrefix(bytes.TrimRight(line, "\n"), []byte("0::")); ok {
			return path[bytes.LastIndexByte(path, '/')+1:]
		}
	}
	return nil
}

// sinceBoot is the clock of the kernel's records.
func sinceBoot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// snapshot calls f for every process there is, in the order of their ids. It is
// one walk of /proc when the sensor starts, after the source was attached, so
// that nothing falls in between; f may see a process that an event brings
// again.
func snapshot(f func(*record)) error {
	dir, err := os.Open("/proc")
	if err != nil {
		return holdfast.Errorf(holdfast.Unavailable, "look at the processes that run already: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return holdfast.Errorf(holdfast.Unavailable, "look at the processes that run already: %w", err)
	}
	var p procReader
	for _, name := range names {
		pid, err := strconv.ParseUint(name, 10, 32)
		if err != nil {
			continue
		}
		r := record{kind: exec}
		if p.read(uint32(pid), &r) {
			r.parentStart = p.startOf(r.parent)
			f(&r)
		}
	}
	return nil
}
