package guard

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"github.com/holdfast-security/holdfast/internal/endpoint/lifeline"
)

// executable names the program in f. There is no way to execute a handle here:
// the directory's access list is what keeps others from replacing it.
func executable(f *os.File) (string, error) { return f.Name(), nil }

func startIn(cmd *exec.Cmd, _ group) error { return cmd.Start() }

func notAProgram(err error) bool {
	const badExeFormat = syscall.Errno(193)
	return errors.Is(err, badExeFormat)
}

// attach lets a worker inherit its ends of the lifeline.
func attach(cmd *exec.Cmd, out, in *os.File) {
	hs := []syscall.Handle{syscall.Handle(out.Fd()), syscall.Handle(in.Fd())}
	for _, h := range hs {
		_ = syscall.SetHandleInformation(h, syscall.HANDLE_FLAG_INHERIT, syscall.HANDLE_FLAG_INHERIT)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{AdditionalInheritedHandles: hs}
	cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d,%d", lifeline.Env, hs[0], hs[1]))
}

func killGroup(p *os.Process) { _ = p.Kill() }

// confine and usageOf: limits of memory and CPU are kept on Linux only.
func confine(int, uint64, bool) error { return nil }

func usageOf(int) (usage, bool) { return usage{}, false }

// awaitDeath returns at once: a handle keeps its process, reaped or not.
func awaitDeath(int) {}
