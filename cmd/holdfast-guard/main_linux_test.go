package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
)

// This program is also the guard and the worker of its own tests.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "run" {
		work(os.Args)
	}
	if os.Getenv("HOLDFAST_TEST_GUARD") != "" {
		os.Unsetenv("HOLDFAST_TEST_GUARD")
		main()
		return
	}
	os.Exit(m.Run())
}

// work says where it runs, and beats until it is asked to drain.
func work(args []string) {
	dir := filepath.Dir(args[3])
	guard := os.NewFile(3, "lifeline")
	fmt.Fprintln(guard, `{"kind":"ready"}`)
	log, _ := os.OpenFile(filepath.Join(dir, "pids"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	fmt.Fprintln(log, os.Getpid())
	go func() {
		buf := make([]byte, 4096)
		orders := os.NewFile(4, "lifeline")
		for {
			n, err := orders.Read(buf)
			if bytes.Contains(buf[:n], []byte(`"drain"`)) {
				fmt.Fprintln(log, "drained")
				os.Exit(0)
			}
			if err != nil {
				time.Sleep(time.Hour) // the guard is gone; a worker that does not notice must be ended all the same
			}
		}
	}()
	for n := 0; ; n++ {
		fmt.Fprintf(guard, "{\"kind\":\"beat\",\"evaluated\":%d}\n", n)
		time.Sleep(50 * time.Millisecond)
	}
}

func guardIn(t *testing.T, dir string, flags ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, append([]string{"--state", dir, "--worker", self, "--config", filepath.Join(dir, "agent.json"), "--stall", "5s", "--cgroup", ""}, flags...)...)
	cmd.Env = append(os.Environ(), "HOLDFAST_TEST_GUARD=1")
	return cmd
}

// worker waits for the nth worker, and returns its pid.
func worker(t *testing.T, dir string, n int) int {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		data, _ := os.ReadFile(filepath.Join(dir, "pids"))
		lines := strings.Split(strings.ReplaceAll(string(data), "drained\n", ""), "\n")
		if len(lines) > n {
			pid, _ := strconv.Atoi(lines[n-1])
			return pid
		}
	}
	t.Fatalf("no worker number %d", n)
	return 0
}

func gone(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err != nil || bytes.Contains(stat, []byte(") Z ")) {
			return
		}
	}
	t.Fatalf("process %d lives", pid)
}

func TestTheWorkerDiesWithItsGuard(t *testing.T) {
	dir := t.TempDir()
	first := guardIn(t, dir)
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	pid := worker(t, dir, 1)
	_ = first.Process.Kill()
	_ = first.Wait()
	gone(t, pid)
	// The next guard takes over what the first left: its lock ended with it.
	second := guardIn(t, dir)
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	pid = worker(t, dir, 2)
	_ = second.Process.Signal(syscall.SIGTERM)
	if err := second.Wait(); err != nil {
		t.Errorf("asked to stop, the guard ended with %v", err)
	}
	gone(t, pid)
	if data, _ := os.ReadFile(filepath.Join(dir, "pids")); !strings.HasSuffix(string(data), "drained\n") {
		t.Errorf("the worker was not drained: %q", data)
	}
}

func TestFlagsThatCannotBe(t *testing.T) {
	dir := t.TempDir()
	for _, flags := range [][]string{
		{"--no-such-flag"}, {"--stall", "1ms"}, {"--probation", "0s"}, {"--memory-max", "1"}, {"--cpu-max", "1"}, {"--config", ""}, {"--log", "loud"}, {"more"},
	} {
		cmd := guardIn(t, dir, flags...)
		var out bytes.Buffer
		cmd.Stderr = &out
		err := cmd.Run()
		if code := cmd.ProcessState.ExitCode(); code != holdfast.Invalid.ExitCode() || !strings.Contains(out.String(), "holdfast-guard: ") {
			t.Errorf("%v: %v\n%s", flags, err, out.String())
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "guard")); err == nil {
		t.Error("a guard that refused to start made a state directory")
	}
}
