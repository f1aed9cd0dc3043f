package guard

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

// executable names the program in f by the descriptor that was checked, so that
// no other file can be put in its place. The guard alone has this descriptor;
// only it and root can change the file.
func executable(f *os.File) (string, error) {
	if err := f.Chmod(0o500); err != nil {
		return "", err
	}
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()), nil
}

// startIn starts cmd as a process group of its own that dies with the guard.
func startIn(cmd *exec.Cmd, g group) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	g.enter(cmd.Process.Pid)
	return nil
}

// notAProgram reports whether it is the file that cannot be executed.
func notAProgram(err error) bool {
	return errors.Is(err, syscall.ENOEXEC) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOENT)
}

// slack is how far beyond its limit a worker's private memory may grow, where it
// has no control group, before the kernel refuses it more: the Go runtime asks
// for 64 MiB at a time.
const slack = 256 << 20

// confine sets what holds even if the guard is not run: that the kernel ends
// this process before the guard, and a bound on private memory if no control
// group sets one.
func confine(pid int, memory uint64, grouped bool) error {
	if !grouped {
		limit := syscall.Rlimit{Cur: memory + slack, Max: memory + slack}
		_, _, e := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(pid), syscall.RLIMIT_DATA, uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
		if e != 0 {
			return fmt.Errorf("prlimit: %w", e)
		}
	}
	return os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("500"), 0)
}

// waitid's constants, which package syscall lacks.
const (
	pPID    = 1
	wExited = 4
	wNoWait = 0x01000000
)

// awaitDeath returns when the process is dead and not yet reaped: its pid is
// still its own.
func awaitDeath(pid int) {
	var info [128]byte // siginfo_t
	for {
		_, _, e := syscall.Syscall6(syscall.SYS_WAITID, pPID, uintptr(pid), uintptr(unsafe.Pointer(&info)), wExited|wNoWait, 0, 0)
		if e != syscall.EINTR {
			return
		}
	}
}

// clockTicks is USER_HZ, 100 on every Linux.
const clockTicks = 100

// usageOf reads what a process takes from /proc (see proc_pid_stat(5)).
func usageOf(pid int) (usage, bool) {
	var buf [1024]byte
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return usage{}, false
	}
	n, _ := f.Read(buf[:])
	f.Close()
	// The second field is the program's name in parentheses, and may hold both.
	_, rest := buf[:n], buf[:n]
	if i := bytes.LastIndexByte(buf[:n], ')'); i >= 0 {
		rest = buf[i+1 : n]
	}
	fields := bytes.Fields(rest) // from the third on
	if len(fields) < 22 {
		return usage{}, false
	}
	number := func(field int) uint64 {
		n, _ := strconv.ParseUint(string(fields[field-3]), 10, 64)
		return n
	}
	return usage{
		resident: number(24) * uint64(os.Getpagesize()),
		cpu:      time.Duration(number(14)+number(15)) * (time.Second / clockTicks),
	}, true
}
