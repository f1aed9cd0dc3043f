package lifeline

import (
	"os"
	"syscall"

	"github.com/holdfast-security/holdfast"
)

// inherit takes over a handle the guard passed, and keeps it from the worker's
// own children.
func inherit(handle uintptr, name string) (*os.File, error) {
	if err := syscall.SetHandleInformation(syscall.Handle(handle), syscall.HANDLE_FLAG_INHERIT, 0); err != nil {
		return nil, holdfast.Errorf(holdfast.Invalid, "%s: handle %d: %w", Env, handle, err)
	}
	return os.NewFile(handle, name), nil
}
