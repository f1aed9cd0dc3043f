//go:build unix

package lifeline

import (
	"os"
	"syscall"

	"github.com/holdfast-security/holdfast"
)

// inherit takes over a descriptor the guard passed, and keeps it from the
// worker's own children.
func inherit(fd uintptr, name string) (*os.File, error) {
	if err := syscall.SetNonblock(int(fd), true); err != nil {
		return nil, holdfast.Errorf(holdfast.Invalid, "%s: descriptor %d: %w", Env, fd, err)
	}
	syscall.CloseOnExec(int(fd))
	return os.NewFile(fd, name), nil
}
