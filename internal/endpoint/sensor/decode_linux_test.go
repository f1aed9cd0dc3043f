package sensor

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
	"time"
	"unsafe"
)

// sample writes an exec event as the kernel does.
func sample(edit func(*processExecEvent), parts ...string) []byte {
	e := processExecEvent{Nlink: 1}
	e.Task.Kind, e.Task.Pid, e.Task.Start = uint32(exec), 42, uint64(7*time.Second)
	lengths := []*uint16{&e.FileLen, &e.GroupLen, &e.PathLen, &e.CwdLen, &e.ArgsLen}
	for i, p := range parts {
		*lengths[i] = uint16(len(p))
	}
	e.ArgsTotal = uint32(e.ArgsLen)
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&e.Comm[0])), len(e.Comm)), "a-name-of-15-by")
	if edit != nil {
		edit(&e)
	}
	b := unsafe.Slice((*byte)(unsafe.Pointer(&e)), unsafe.Sizeof(e))
	return append(bytes.Clone(b), strings.Join(parts, "")...)
}

func TestDecodeExec(t *testing.T) {
	var d decoder
	var r record
	b := sample(nil, "./true\x00", "user.slice\x00", "true\x00bin\x00usr\x00", "ana\x00home\x00", "true\x00-x\x00")
	if err := d.decode(b, &r); err != nil {
		t.Fatal(err)
	}
	if r.pid != 42 || r.start != 7*time.Second || string(r.file) != "./true" || string(r.group) != "user.slice" || string(r.path) != "/usr/bin/true" ||
		string(r.cwd) != "/home/ana" || string(r.args) != "true\x00-x\x00" || string(r.comm) != "a-name-of-15-by" || len(r.tty) != 0 || !r.enriched || r.argsCut != 0 {
		t.Errorf("%+v", r)
	}
}

func TestDecodeSaysWhatIsMissing(t *testing.T) {
	var d decoder
	var r record
	b := sample(func(e *processExecEvent) {
		e.Nlink, e.Flags, e.ArgsTotal = 0, flagPathCut|flagArgsFault, 9000
	}, "", "", "deep\x00down\x00", "", "")
	if err := d.decode(b, &r); err != nil {
		t.Fatal(err)
	}
	if string(r.path) != "…/down/deep (deleted)" || string(r.cwd) != "/" || r.enriched || r.argsCut != 9000 {
		t.Errorf("%+v", r)
	}
}

func TestDecodeRefusesWhatIsNoRecord(t *testing.T) {
	var d decoder
	var r record
	whole := sample(nil, "x\x00", "", "x\x00", "", "x\x00")
	unknown := bytes.Clone(whole)
	binary.NativeEndian.PutUint32(unknown, 99)
	for name, b := range map[string][]byte{"empty": nil, "short": whole[:taskBytes-1], "exec too short": whole[:execBytes-1], "unknown kind": unknown} {
		if d.decode(b, &r) == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(sample(nil, "./true\x00", "g\x00", "true\x00bin\x00", "home\x00", "true\x00-x\x00"))
	f.Add(sample(func(e *processExecEvent) { e.PathLen = 60000 }, "a", "b", "c", "d", "e"))
	f.Add(sample(func(e *processExecEvent) { e.Task.Kind = uint32(exit) }))
	f.Fuzz(func(t *testing.T, b []byte) {
		var d decoder
		var r record
		if err := d.decode(b, &r); err != nil {
			return
		}
		if n := len(r.file) + len(r.group) + len(r.args); n > len(b) {
			t.Errorf("%d bytes out of a sample of %d", n, len(b))
		}
		if r.kind == exec && !bytes.HasPrefix(r.path, []byte("/")) && !bytes.HasPrefix(r.path, []byte("…")) {
			t.Errorf("path %q", r.path)
		}
	})
}

func FuzzConnector(f *testing.F) {
	ne := binary.NativeEndian
	event := make([]byte, procEventBytes+24)
	ne.PutUint32(event, procEventFork)
	f.Add(event)
	f.Add(event[:procEventBytes+4])
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < procEventBytes+4 { // what event promises
			return
		}
		c := &connector{starts: map[uint32]time.Duration{}}
		var r record
		c.fill(b, &r)
	})
}

func TestParseStat(t *testing.T) {
	parent, start, ok := parseStat([]byte("12 (a) b) (c)) S 7 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4321 1000 2 3\n"))
	if !ok || parent != 7 || start != 43210*time.Millisecond {
		t.Errorf("%d %v %v", parent, start, ok)
	}
	for _, bad := range []string{"", "12", "12 (a", "12 (a) S", "12 (a) S x 1", "1 (a) S 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 99999999999999999999"} {
		if _, _, ok := parseStat([]byte(bad)); ok {
			t.Errorf("%q is taken", bad)
		}
	}
	if euid := parseStatus([]byte("Name:\tx\nUid:\t1000\t33\t0\t0\nGid:\t5\t5\t5\t5\n")); euid != 33 {
		t.Errorf("effective user %d", euid)
	}
	if g := group([]byte("12:cpu:/x\n0::/system.slice/docker-ab.scope\n")); string(g) != "docker-ab.scope" {
		t.Errorf("group %q", g)
	}
}
