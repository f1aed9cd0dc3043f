//go:build unix

package main

import "syscall"

// descriptors is how many files and connections this process may have open. Go
// has raised the soft limit to the hard one by now.
func descriptors() int {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 1024 // the usual least
	}
	return int(min(uint64(l.Cur), 1<<30))
}
