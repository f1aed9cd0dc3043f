//go:build !linux

package stage

import (
	"os"
	"os/exec"
)

func detach(*exec.Cmd) {}

func interrupt(p *os.Process) error { return p.Signal(os.Interrupt) }
