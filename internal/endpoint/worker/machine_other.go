//go:build !linux

package worker

import (
	"os"
	"runtime"
	"time"
)

// Here the agent knows nothing of its machine yet.

func kernelRelease() string { return runtime.GOOS }

func bootID() string { return "" }

// resident returns what the runtime has asked for: more than is resident.
func resident() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Sys
}

func busy() time.Duration { return 0 }

// private trusts the state directory, which the installer keeps to the agent.
func private(os.FileInfo) bool { return true }
