package sensor

import (
	"fmt"
	"os"
	osexec "os/exec"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/holdfast-security/holdfast/internal/language/ocsf"
)

// live opens a source that watches this machine, or skips with the kernel's own
// words.
func live(t *testing.T, tier string) *Sensor {
	t.Helper()
	s, err := Open(Options{Tier: tier, Boot: "boot"})
	if err != nil {
		if os.Geteuid() == 0 && os.Getenv("HOLDFAST_SENSOR_REQUIRED") != "" {
			t.Fatalf("this machine must have the sensor %s: %v", tier, err)
		}
		t.Skipf("no sensor %s here: %v", tier, err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// seen is a copy of an event's values as text.
type seen map[int]string

// drain collects what the sensor tells until nothing came for a while, and
// gives it to f.
func drain(t *testing.T, s *Sensor, quiet time.Duration, f func(seen)) {
	t.Helper()
	for n := 0; n < 1_000_000; n++ {
		e, err := s.Next(time.Now().Add(quiet))
		if err != nil {
			t.Fatal(err)
		}
		if e == nil {
			return
		}
		v := seen{}
		for i, value := range e.Values {
			if value.Present() {
				v[i] = value.Text()
			}
		}
		f(v)
	}
	t.Fatal("the machine does not come to rest")
}

func TestLaunchIsToldWhole(t *testing.T) {
	for _, tier := range []string{TierEBPF, TierProc} {
		t.Run(tier, func(t *testing.T) {
			s := live(t, tier)
			dir := t.TempDir()
			// They live for a moment, so that the proc connector can read them too.
			script := `cd "$1" && /bin/sleep 0.1; exit 7`
			cmd := osexec.Command("/bin/sh", "-c", script, "x", dir)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Process.Kill()
			go cmd.Wait()

			var launches, exits []seen
			drain(t, s, 300*time.Millisecond, func(v seen) {
				switch {
				case v[ocsf.ProcessPID] == fmt.Sprint(cmd.Process.Pid) && v[ocsf.ActivityID] == "2":
					exits = append(exits, v)
				case v[ocsf.ActivityID] == "1" && (v[ocsf.ProcessPID] == fmt.Sprint(cmd.Process.Pid) || v[ocsf.ProcessCmdLine] == "/bin/sleep 0.1"):
					launches = append(launches, v)
				}
			})
			if len(launches) != 2 || len(exits) != 1 {
				t.Fatalf("%d launches and %d exits: %v %v", len(launches), len(exits), launches, exits)
			}
			shell, sleep := launches[0], launches[1]
			if got, want := shell[ocsf.ProcessCmdLine], "/bin/sh -c "+script+" x "+dir; got != want {
				t.Errorf("command line %q, want %q", got, want)
			}
			if p := shell[ocsf.ProcessPath]; !strings.HasPrefix(p, "/") || strings.HasSuffix(p, "/sh") {
				if target, err := os.Readlink("/bin/sh"); err == nil {
					t.Errorf("path %q is not resolved: /bin/sh is a link to %s", p, target)
				}
			}
			if got, want := shell[ocsf.ParentPID], fmt.Sprint(os.Getpid()); got != want {
				t.Errorf("parent pid %s, want %s", got, want)
			}
			if self, _ := os.Executable(); shell[ocsf.ParentPath] != self {
				t.Errorf("parent path %q, want %q", shell[ocsf.ParentPath], self)
			}
			if sleep[ocsf.ProcessDirectory] != dir {
				t.Errorf("working directory %q, want %q", sleep[ocsf.ProcessDirectory], dir)
			}
			if sleep[ocsf.ProcessName] != "sleep" || sleep[ocsf.ProcessFileName] != "sleep" {
				t.Errorf("name %q, file name %q", sleep[ocsf.ProcessName], sleep[ocsf.ProcessFileName])
			}
			if shell[ocsf.ProcessUserName] != "root" && os.Geteuid() == 0 {
				t.Errorf("user %q", shell[ocsf.ProcessUserName])
			}
			if exits[0][ocsf.ProcessExitCode] != "7" || exits[0][ocsf.ProcessUID] != shell[ocsf.ProcessUID] {
				t.Errorf("exit %v of launch %v", exits[0], shell)
			}
			if sleep[ocsf.ProcessLinks] != "1" {
				t.Errorf("links %q", sleep[ocsf.ProcessLinks])
			}
		})
	}
}

// TestNoSpawnIsLost starts twenty thousand processes; each is told, or counted
// as lost.
func TestNoSpawnIsLost(t *testing.T) {
	s := live(t, TierEBPF)
	if stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME); err == nil {
		defer stats.Close()
	}
	spawns := 20_000
	if testing.Short() {
		spawns = 2_000
	}
	marker := fmt.Sprintf("holdfast-spawn-%d", os.Getpid())
	shell := osexec.Command("/bin/sh", "-c", fmt.Sprintf(`i=0; while [ $i -lt %d ]; do /bin/true %s $i; i=$((i+1)); done`, spawns, marker))
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- shell.Wait() }()

	found := map[string]int{}
	wrongParent, exits := 0, map[string]bool{}
	for ended := false; ; {
		e, err := s.Next(time.Now().Add(200 * time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		if e == nil {
			if ended {
				break
			}
			select {
			case err := <-done:
				if ended = true; err != nil {
					t.Fatal(err)
				}
			default:
			}
			continue
		}
		line := e.Values[ocsf.ProcessCmdLine].Str
		if n, ok := strings.CutPrefix(line, "/bin/true "+marker+" "); ok {
			if e.Values[ocsf.ActivityID].Num == ocsf.ActivityTerminate {
				exits[n] = true
				continue
			}
			found[n]++
			if int(e.Values[ocsf.ParentPID].Num) != shell.Process.Pid || !strings.Contains(e.Values[ocsf.ParentCmdLine].Str, marker) {
				wrongParent++
			}
		}
	}
	c := s.Counters()
	if wrongParent > 0 {
		t.Errorf("%d launches with another parent than the shell", wrongParent)
	}
	if missing := spawns - len(found); uint64(missing) > c.Dropped {
		t.Errorf("%d launches not told, but only %d events counted as lost", missing, c.Dropped)
	}
	for n, times := range found {
		if times != 1 {
			t.Errorf("launch %s told %d times", n, times)
		}
	}
	for name, p := range map[string]*ebpf.Program{"fork": s.src.(*kernel).objects.OnFork, "exec": s.src.(*kernel).objects.OnExec, "exit": s.src.(*kernel).objects.OnExit} {
		if stats, err := p.Stats(); err == nil && stats.RunCount > 0 {
			t.Logf("%s: %d ns a run, %d runs", name, stats.Runtime.Nanoseconds()/int64(stats.RunCount), stats.RunCount)
		}
	}
	t.Logf("%d of %d launches, %d exits, %d lost, %d events in all, %d unenriched, %d orphans", len(found), spawns, len(exits), c.Dropped, c.Events, c.Unenriched, c.Orphans)
}

func TestProgramWithoutAFileIsTold(t *testing.T) {
	s := live(t, TierEBPF)
	path := t.TempDir() + "/gone"
	program, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, program, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	cmd := osexec.Command("/proc/self/fd/3", "gone-marker")
	cmd.ExtraFiles = []*os.File{f}
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	var told []seen
	drain(t, s, 200*time.Millisecond, func(v seen) {
		if strings.HasSuffix(v[ocsf.ProcessCmdLine], " gone-marker") && v[ocsf.ActivityID] == "1" {
			told = append(told, v)
		}
	})
	if len(told) != 1 || told[0][ocsf.ProcessPath] != path+" (deleted)" || told[0][ocsf.ProcessLinks] != "0" {
		t.Errorf("told %v, want a launch of %q with no links", told, path+" (deleted)")
	}
}

func TestLongArgumentsAreCutAndCounted(t *testing.T) {
	s := live(t, TierEBPF)
	if err := osexec.Command("/bin/true", "cut-marker", strings.Repeat("a", 3*argsBytes)).Run(); err != nil {
		t.Fatal(err)
	}
	n := 0
	drain(t, s, 200*time.Millisecond, func(v seen) {
		if v[ocsf.ActivityID] == "1" && strings.HasPrefix(v[ocsf.ProcessCmdLine], "/bin/true cut-marker a") {
			n++
			if len(v[ocsf.ProcessCmdLine]) != argsBytes {
				t.Errorf("%d bytes of command line, want %d", len(v[ocsf.ProcessCmdLine]), argsBytes)
			}
		}
	})
	if n != 1 || s.Counters().Cut == 0 {
		t.Errorf("told %d times, %d counted as cut", n, s.Counters().Cut)
	}
}
