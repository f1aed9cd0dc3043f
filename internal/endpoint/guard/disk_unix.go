//go:build unix

package guard

import (
	"os"
	"syscall"
)

func (d directory) Sync() error {
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// lock makes sure that one guard alone writes this state. The lock ends with
// the process that holds it.
func (d directory) lock() (*os.File, error) {
	f, err := os.OpenFile(d.at("lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
