//go:build unix

package hosts

import (
	"fmt"
	"syscall"

	"github.com/holdfast-security/holdfast"
)

// besides is how many descriptors a process needs beside its hosts'.
const besides = 100

// checkDescriptors says before the start whether this process may hold so many
// connections. Go has raised the soft limit to the hard one by now.
func checkDescriptors(hosts int) error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil || uint64(hosts)+besides <= uint64(l.Cur) {
		return nil // unknown, or enough
	}
	return &holdfast.Error{
		Kind: holdfast.Invalid, Where: "--hosts", What: fmt.Sprintf("%d hosts need as many file descriptors and %d more; this process may have %d", hosts, besides, l.Cur),
		Do: "raise the limit (ulimit -n), or play fewer hosts in each of several processes, with a --state of its own each",
	}
}
