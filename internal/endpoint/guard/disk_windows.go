package guard

import (
	"os"
	"syscall"
)

// Sync does nothing: NTFS journals names, and has no call to flush a directory.
func (d directory) Sync() error { return nil }

// lock makes sure that one guard alone writes this state: no other can open the
// file while this one has it open.
func (d directory) lock() (*os.File, error) {
	name, err := syscall.UTF16PtrFromString(d.at("lock"))
	if err != nil {
		return nil, err
	}
	h, err := syscall.CreateFile(name, syscall.GENERIC_READ|syscall.GENERIC_WRITE, 0, nil, syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(h), d.at("lock")), nil
}
