//go:build unix

package guard

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// onlyOurs refuses a file that somebody else could change between the check and
// the use.
func onlyOurs(info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	if uid := int(st.Uid); uid != 0 && uid != os.Geteuid() {
		return errors.New("it belongs to another user")
	}
	if info.Mode().Perm()&0o022 != 0 {
		return errors.New("others may write it")
	}
	return nil
}
