package sensor

import "time"

// kind says what a record is about. The values are those of bpf/process.bpf.c.
type kind uint32

const (
	exec kind = 1 + iota
	fork
	exit
)

// The bounds of what is kept of one event.
const (
	argsBytes = 8191    // of arguments; longer ones are cut, and counted
	tableSize = 1 << 14 // processes remembered
)

// record is what a source saw, before it is put into the terms of OCSF. Times
// are since boot. The byte slices are valid until the source is asked again.
type record struct {
	kind        kind
	pid         uint32
	parent      uint32
	time        time.Duration
	start       time.Duration
	parentStart time.Duration
	status      uint32 // wait status, exit only
	silent      bool   // for the table of processes only: it ran before we looked

	// What follows is for exec only.
	inode    uint64
	dev      uint32
	nlink    uint32
	euid     uint32
	user     []byte // name of the user, where the source knows it rather than the id
	comm     []byte
	tty      []byte
	group    []byte // last component of the control group's path
	file     []byte // as given to execve
	path     []byte // resolved, absolute
	cwd      []byte
	args     []byte // separated by NUL
	argsCut  uint32 // bytes of arguments that were cut off
	enriched bool   // everything above was read in the kernel at the moment of the event
}

// exitCode returns the code of an exit as a shell shows it: the process's own,
// or 128 and the signal.
func (r *record) exitCode() int64 {
	if signal := r.status & 0x7f; signal != 0 {
		return 128 + int64(signal)
	}
	return int64(r.status >> 8 & 0xff)
}

// container returns the id of the container whose control group this is, or
// nothing: 64 hexadecimal digits, bare (Kubernetes with cgroupfs) or between a
// runtime's name and ".scope" (systemd).
func container(group []byte) []byte {
	const digits = 64
	run := 0
	for i, c := range group {
		if c >= '0' && c <= '9' || c >= 'a' && c <= 'f' {
			run++
		} else {
			run = 0
		}
		if run == digits && (i+1 == len(group) || group[i+1] == '.') && (i+1 == digits || group[i-digits] == '-') {
			return group[i+1-digits : i+1]
		}
	}
	return nil
}
