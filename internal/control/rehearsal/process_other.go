//go:build !linux

package rehearsal

import (
	"os"
	"os/exec"
)

// Run refuses to rehearse on these platforms.

func contain(*exec.Cmd) {}

func interrupt(p *os.Process) { _ = p.Kill() }

func residentOf(int) (now, peak uint64) { return 0, 0 }
