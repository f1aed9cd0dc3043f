package sensor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/lineage"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
)

// recorded is a source that brings given records.
type recorded struct{ records []record }

func (p *recorded) next(r *record, _ time.Time) (bool, error) {
	if len(p.records) == 0 {
		return false, nil
	}
	*r, p.records = p.records[0], p.records[1:]
	return true, nil
}
func (*recorded) tier() string { return TierNone }
func (*recorded) lost() uint64 { return 5 }
func (*recorded) Close() error { return nil }

func over(t testing.TB, records ...record) *Sensor {
	passwd := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(passwd, []byte("root:x:0:0::/root:/bin/sh\nana:x:1000:1000::/home/ana:/bin/sh\ntoor:x:0:0::/:/bin/sh\nbad line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return &Sensor{
		src: &recorded{records}, boot: "b", table: lineage.New(64), users: users{file: passwd},
		event: ocsf.Event{Class: ocsf.ProcessActivityUID},
	}
}

func (s *Sensor) texts20(t *testing.T, e *ocsf.Event) map[int]string {
	t.Helper()
	if len(e.Values) != supplied {
		t.Fatalf("%d inputs supplied, and the sensor's own number is %d", len(e.Values), supplied)
	}
	out := map[int]string{}
	for i, v := range e.Values {
		if v.Present() {
			out[i] = v.Text()
		}
	}
	return out
}

const second = time.Second

func TestLaunchAndExitAreTold(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	s := over(t,
		record{kind: exec, silent: true, pid: 10, start: 1 * second, path: []byte("/usr/sbin/sshd"), args: []byte("sshd\x00-D\x00")},
		record{kind: fork, pid: 11, start: 2 * second, parent: 10, parentStart: 1 * second},
		record{
			kind: exec, pid: 11, start: 2 * second, parent: 10, parentStart: 1 * second, time: 3 * second, euid: 1000, nlink: 1, enriched: true,
			path: []byte("/usr/bin/bash"), args: []byte("-bash\x00a b\x00"), cwd: []byte("/home/ana"), comm: []byte("bash"), tty: []byte("pts0"), group: []byte("docker-" + id + ".scope"),
		},
		record{kind: exit, pid: 11, start: 2 * second, parent: 1, parentStart: 0, time: 4 * second, status: 9},
	)
	e, err := s.Next(time.Time{})
	if err != nil || e == nil {
		t.Fatal(e, err)
	}
	got := s.texts20(t, e)
	for i, want := range map[int]string{
		ocsf.ActivityID: "1", ocsf.ProcessPID: "11", ocsf.ProcessUID: "b-11-200", ocsf.ProcessName: "bash", ocsf.ProcessPath: "/usr/bin/bash",
		ocsf.ProcessFileName: "bash", ocsf.ProcessCmdLine: "-bash a b", ocsf.ProcessDirectory: "/home/ana", ocsf.ProcessUserName: "ana",
		ocsf.ProcessUserUID: "1000", ocsf.ProcessSession: "pts0", ocsf.ProcessContainer: id, ocsf.ProcessLinks: "1", ocsf.ParentPID: "10",
		ocsf.ParentUID: "b-10-100", ocsf.ParentPath: "/usr/sbin/sshd", ocsf.ParentCmdLine: "sshd -D", ocsf.ParentUserName: "root",
	} {
		if got[i] != want {
			t.Errorf("%s is %q, want %q", ocsf.ProcessActivity().Fields[i].Path, got[i], want)
		}
	}
	if _, ok := got[ocsf.ProcessExitCode]; ok {
		t.Error("a launch has an exit code")
	}
	if tree := s.Tree(5); len(tree) != 2 || tree[0].PID != 11 || tree[1].Path != "/usr/sbin/sshd" {
		t.Errorf("tree %v", tree)
	}

	if e, err = s.Next(time.Time{}); err != nil || e == nil {
		t.Fatal(e, err)
	}
	got = s.texts20(t, e)
	for i, want := range map[int]string{
		ocsf.ActivityID: "2", ocsf.ProcessUID: "b-11-200", ocsf.ProcessExitCode: "137", ocsf.ProcessPath: "/usr/bin/bash",
		ocsf.ParentPID: "10", // who started it, not init, which adopted it
	} {
		if got[i] != want {
			t.Errorf("exit: %s is %q, want %q", ocsf.ProcessActivity().Fields[i].Path, got[i], want)
		}
	}
	if e, err := s.Next(time.Time{}); e != nil || err != nil {
		t.Errorf("%v %v after the last record", e, err)
	}
	if c := s.Counters(); c.Events != 2 || c.Dropped != 5 || c.Unenriched != 0 || c.Orphans != 0 {
		t.Errorf("counters %+v", c)
	}
}

func TestWhatIsMissingIsAbsentAndCounted(t *testing.T) {
	s := over(t, record{kind: exec, pid: 5, start: second, parent: 4, argsCut: 7, euid: 4242})
	e, err := s.Next(time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	got := s.texts20(t, e)
	for _, i := range []int{ocsf.ProcessPath, ocsf.ProcessCmdLine, ocsf.ProcessSession, ocsf.ProcessContainer, ocsf.ProcessLinks, ocsf.ParentPath} {
		if v, ok := got[i]; ok {
			t.Errorf("%s is %q, and nobody knows", ocsf.ProcessActivity().Fields[i].Path, v)
		}
	}
	if got[ocsf.ProcessUserName] != "4242" {
		t.Errorf("an account without a name is %q", got[ocsf.ProcessUserName])
	}
	if c := s.Counters(); c.Unenriched != 1 || c.Orphans != 1 || c.Cut != 1 {
		t.Errorf("counters %+v", c)
	}
}

func TestContainerID(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	for group, want := range map[string]string{
		id: id, "docker-" + id + ".scope": id, "cri-containerd-" + id + ".scope": id, "crio-" + id + ".scope": id,
		"": "", "user@1000.service": "", "session-3.scope": "", id + "0": "", "x" + id: "", id[1:]: "",
	} {
		if got := string(container([]byte(group))); got != want {
			t.Errorf("%q: %q, want %q", group, got, want)
		}
	}
}

func TestExitCodeIsWhatAShellShows(t *testing.T) {
	for status, want := range map[uint32]int64{0: 0, 7 << 8: 7, 255 << 8: 255, 9: 137, 11 | 0x80: 139} {
		if got := (&record{status: status}).exitCode(); got != want {
			t.Errorf("status %#x: %d, want %d", status, got, want)
		}
	}
}

func TestTextsAreBounded(t *testing.T) {
	var x texts
	a := x.of([]byte("/usr/bin/true"))
	if b := x.of([]byte("/usr/bin/true")); a != b {
		t.Error("texts differ")
	}
	for i := range 3 * maxTexts {
		x.of([]byte{byte(i), byte(i >> 8), byte(i >> 16), 'x'})
		if len(x.seen) > maxTexts || x.bytes > maxTextBytes {
			t.Fatalf("%d texts, %d bytes", len(x.seen), x.bytes)
		}
	}
}

func TestReplayTellsParentsLaunchesAndExits(t *testing.T) {
	file := filepath.Join(t.TempDir(), "events.jsonl")
	lines := `{"Image":"/usr/bin/curl","CommandLine":"curl x","ParentImage":"/usr/bin/bash","ParentCommandLine":"bash -c","User":"ana","CurrentDirectory":"/srv"}

{"process.file.path":"/bin/true","ProcessId":77}
`
	if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(Options{Tier: TierReplay, Replay: file, Loop: true, Boot: "b"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	uids := map[string]bool{}
	for n := range 12 {
		e, err := s.Next(time.Now().Add(time.Second))
		if err != nil || e == nil {
			t.Fatal(e, err)
		}
		got := s.texts20(t, e)
		first := n%4 < 2
		if want := map[bool]string{true: "1", false: "2"}[n%2 == 0]; got[ocsf.ActivityID] != want {
			t.Errorf("event %d: activity %s, want %s", n, got[ocsf.ActivityID], want)
		}
		if first && (got[ocsf.ParentPath] != "/usr/bin/bash" || got[ocsf.ProcessUserName] != "ana" || got[ocsf.ProcessPath] != "/usr/bin/curl") {
			t.Errorf("event %d: %v", n, got)
		}
		if n%2 == 0 {
			if uids[got[ocsf.ProcessUID]] {
				t.Errorf("event %d: process %s again", n, got[ocsf.ProcessUID])
			}
			uids[got[ocsf.ProcessUID]] = true
		} else if !uids[got[ocsf.ProcessUID]] {
			t.Errorf("event %d: an exit of nothing that was launched", n)
		}
	}
	if s.Tier() != TierReplay {
		t.Errorf("tier %s", s.Tier())
	}
}

func TestReplayEndsWithoutLoop(t *testing.T) {
	file := filepath.Join(t.TempDir(), "events.jsonl")
	if err := os.WriteFile(file, []byte(`{"Image":"/bin/true"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(Options{Replay: file, Tier: TierReplay})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for range 5 {
		e, err := s.Next(time.Now().Add(time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		if e != nil {
			n++
		}
	}
	if n != 2 {
		t.Errorf("%d events of one line", n)
	}
}

func TestBadReplayIsRefusedWithFileAndLine(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct{ text, want string }{
		"empty":    {"\n\n", "no events"},
		"not JSON": {`{"Image":"/a"}` + "\n{", "bad:2"},
		"no image": {`{"CommandLine":"x"}`, "bad:1: an event needs an Image"},
		"unknown":  {`{"Image":"/a","Imgae":"x"}`, `"Imgae" is not a field`},
		"nested":   {`{"Image":{"path":"/a"}}`, "needs a string or a number"},
		"long":     {`{"Image":"` + strings.Repeat("a", maxReplayLine) + `"}`, "too long"},
	} {
		file := filepath.Join(dir, "bad")
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(Options{Tier: TierReplay, Replay: file})
		if err == nil || holdfast.KindOf(err) != holdfast.Invalid || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(Options{Tier: "dtrace"}); holdfast.KindOf(err) != holdfast.Invalid {
		t.Errorf("unknown tier: %v", err)
	}
}

func FuzzReplay(f *testing.F) {
	f.Add([]byte(`{"Image":"/usr/bin/curl","CommandLine":"curl x","ProcessId":7}`))
	f.Add([]byte(`{"Image":null}`))
	f.Add([]byte(`[1,2`))
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := decodeReplayed(line)
		if err == nil && len(e.image) == 0 {
			t.Error("an event without a program")
		}
	})
}

// BenchmarkNext is what one process's life (fork, exec, exit) costs user space,
// the reading of the ring aside.
func BenchmarkNext(b *testing.B) {
	s := over(b)
	src := s.src.(*recorded)
	fork := record{kind: fork, parent: 10, parentStart: second}
	launch := record{kind: exec, parent: 10, parentStart: second, nlink: 1, enriched: true, path: []byte("/usr/bin/true"), args: []byte("/bin/true\x00x\x00"), comm: []byte("true"), cwd: []byte("/")}
	gone := record{kind: exit, parent: 10, parentStart: second}
	life := make([]record, 3)
	pid := uint32(100)
	b.ReportAllocs()
	for b.Loop() {
		pid++
		fork.pid, launch.pid, gone.pid = pid, pid, pid
		life[0], life[1], life[2] = fork, launch, gone
		src.records = life
		for len(src.records) > 0 {
			if _, err := s.Next(time.Time{}); err != nil {
				b.Fatal(err)
			}
		}
	}
}
