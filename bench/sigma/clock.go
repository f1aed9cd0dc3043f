package main

import (
	"syscall"
	"time"
)

// clock measures wall time and the processor time of this process. On a quiet
// machine they agree; where others compute too, processor time is the one to
// compare.
type clock struct {
	wall time.Time
	cpu  time.Duration
}

func startClock() clock {
	cpu := processorTime() // asked outside of the wall time: it takes a while
	return clock{time.Now(), cpu}
}

func (c clock) stop() (wall, cpu time.Duration) {
	wall = time.Since(c.wall)
	return wall, processorTime() - c.cpu
}

func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
