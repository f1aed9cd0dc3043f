package stage

import (
	"os"
	"os/exec"
	"syscall"
)

// detach gives the child a process group of its own, so that a Ctrl-C in the
// terminal reaches the stage alone, and lets the kernel end the child if the
// stage is killed.
func detach(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

func interrupt(p *os.Process) error { return p.Signal(syscall.SIGTERM) }
