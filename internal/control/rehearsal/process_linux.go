package rehearsal

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// contain makes a process group of its own that is killed with its context, and
// that does not outlive us.
func contain(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
}

// interrupt asks a process to end.
func interrupt(p *os.Process) { _ = p.Signal(syscall.SIGTERM) }

// residentOf returns what a process holds in memory, in bytes, and held at most.
func residentOf(pid int) (now, peak uint64) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var kb uint64
		switch name, value, _ := strings.Cut(lines.Text(), ":"); name {
		case "VmRSS":
			fmt.Sscan(value, &kb)
			now = kb << 10
		case "VmHWM":
			fmt.Sscan(value, &kb)
			peak = kb << 10
		}
	}
	return now, max(now, peak)
}
