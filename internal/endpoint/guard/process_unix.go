//go:build unix

package guard

import (
	"os"
	"os/exec"
	"syscall"

	"github.com/holdfast-security/holdfast/internal/endpoint/lifeline"
)

// attach gives a worker its ends of the lifeline, as descriptors 3 and 4.
func attach(cmd *exec.Cmd, out, in *os.File) {
	cmd.ExtraFiles = []*os.File{out, in}
	cmd.Env = append(cmd.Env, lifeline.Env+"=3,4")
}

// killGroup ends a worker and what it has started. The caller has not reaped it.
func killGroup(p *os.Process) {
	_ = syscall.Kill(-p.Pid, syscall.SIGKILL)
	_ = p.Kill()
}
