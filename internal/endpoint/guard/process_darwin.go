package guard

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// executable names the program in f. There is no way to execute a descriptor
// here: the directory's permissions are what keeps others from replacing it.
func executable(f *os.File) (string, error) { return f.Name(), f.Chmod(0o500) }

func startIn(cmd *exec.Cmd, _ group) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd.Start()
}

func notAProgram(err error) bool {
	return errors.Is(err, syscall.ENOEXEC) || errors.Is(err, syscall.EBADARCH)
}

// confine and usageOf: limits of memory and CPU are kept on Linux only.
func confine(int, uint64, bool) error { return nil }

func usageOf(int) (usage, bool) { return usage{}, false }

// awaitDeath returns at once: the process is reaped before what it leaves behind
// is ended.
func awaitDeath(int) {}
