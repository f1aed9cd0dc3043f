package lineage

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var epoch = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func key(pid uint32) Key { return Key{PID: pid, Start: uint64(pid) * 10} }

func run(t *Table, pid, parent uint32, path string) {
	t.Fork(key(pid), key(parent), epoch)
	t.Exec(Process{Key: key(pid), Parent: key(parent), Path: path, CmdLine: path + " -x", User: "root", Started: epoch})
}

func TestTreeLeadsThroughExitedParents(t *testing.T) {
	table := New(16)
	run(table, 1, 0, "/sbin/init")
	run(table, 10, 1, "/usr/sbin/sshd")
	run(table, 20, 10, "/bin/bash")
	table.Fork(key(30), key(20), epoch)
	table.Exit(key(20))
	table.Exec(Process{Key: key(30), Parent: key(1), Path: "/usr/bin/curl"}) // adopted by init meanwhile

	var paths []string
	for _, p := range table.Tree(key(30), 8) {
		paths = append(paths, p.Path)
	}
	if got, want := strings.Join(paths, " < "), "/usr/bin/curl < /bin/bash < /usr/sbin/sshd < /sbin/init"; got != want {
		t.Errorf("tree %q, want %q", got, want)
	}
}

func TestForkedChildRunsWhatItsParentRuns(t *testing.T) {
	table := New(4)
	run(table, 10, 1, "/bin/bash")
	table.Fork(key(11), key(10), epoch)
	if p, ok := table.Get(key(11)); !ok || p.Path != "/bin/bash" || p.Parent != key(10) {
		t.Errorf("child is %+v", p)
	}
}

func TestAProcessIDUsedAgainIsAnotherProcess(t *testing.T) {
	table := New(4)
	run(table, 10, 1, "/bin/old")
	table.Exit(key(10))
	again := Key{PID: 10, Start: 999}
	table.Exec(Process{Key: again, Path: "/bin/new"})
	old, _ := table.Get(key(10))
	fresh, _ := table.Get(again)
	if old.Path != "/bin/old" || fresh.Path != "/bin/new" {
		t.Errorf("old %q, new %q", old.Path, fresh.Path)
	}
}

func TestKeyAgreesWithProcResolution(t *testing.T) {
	if a, b := KeyOf(7, 12_345_678_901*time.Nanosecond), KeyOf(7, 12_340_000_000*time.Nanosecond); a != b {
		t.Errorf("nanoseconds from the kernel give %v, ticks from /proc give %v", a, b)
	}
}

func TestTableProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		capacity := rapid.IntRange(1, 12).Draw(t, "capacity")
		table := New(capacity)
		live := map[Key]bool{}
		for range rapid.IntRange(0, 80).Draw(t, "steps") {
			pid := uint32(rapid.IntRange(1, 30).Draw(t, "pid"))
			parent := uint32(rapid.IntRange(0, 30).Draw(t, "parent"))
			switch rapid.SampledFrom([]string{"fork", "exec", "exit", "tree"}).Draw(t, "what") {
			case "fork":
				table.Fork(key(pid), key(parent), epoch)
				live[key(pid)] = true
			case "exec":
				table.Exec(Process{Key: key(pid), Parent: key(parent), CmdLine: strings.Repeat("é", rapid.IntRange(0, CmdLineBytes).Draw(t, "len"))})
				live[key(pid)] = true
			case "exit":
				table.Exit(key(pid))
				delete(live, key(pid))
			case "tree":
				if tree := table.Tree(key(pid), 5); len(tree) > 5 {
					t.Fatalf("a tree of %d where at most 5 were asked for", len(tree))
				}
			}
			if table.Len() > capacity || len(table.index) != table.Len() {
				t.Fatalf("bounded: %d processes, %d indexed, capacity %d", table.Len(), len(table.index), capacity)
			}
			for k, i := range table.index {
				if table.slots[i].Key != k {
					t.Fatalf("index: slot of %v holds %v", k, table.slots[i].Key)
				}
				if len(table.slots[i].CmdLine) > CmdLineBytes {
					t.Fatalf("bounded: a command line of %d bytes", len(table.slots[i].CmdLine))
				}
			}
		}
	})
}

func TestTheLivingAreForgottenLast(t *testing.T) {
	table := New(8)
	run(table, 1, 0, "/sbin/init")
	run(table, 2, 1, "/usr/sbin/sshd")
	for pid := uint32(100); pid < 200; pid++ {
		run(table, pid, 2, "/bin/true")
		table.Exit(key(pid))
	}
	for _, pid := range []uint32{1, 2, 199} {
		if _, ok := table.Get(key(pid)); !ok {
			t.Errorf("process %d is forgotten", pid)
		}
	}
}

func BenchmarkForkExecExit(b *testing.B) {
	table := New(16384)
	run(table, 1, 0, "/sbin/init")
	b.ReportAllocs()
	pid := uint32(2)
	for b.Loop() {
		run2(table, pid)
		pid++
	}
}

func run2(t *Table, pid uint32) {
	k := Key{PID: pid, Start: uint64(pid)}
	t.Fork(k, key(1), epoch)
	t.Exec(Process{Key: k, Parent: key(1), Path: "/bin/true", CmdLine: "true"})
	t.Exit(k)
}
