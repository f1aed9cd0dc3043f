//go:build !linux

package sensor

import (
	"runtime"
	"time"

	"github.com/holdfast-security/holdfast"
)

func openKernel() (source, error) { return nil, noSensor() }

func openConnector() (source, error) { return nil, noSensor() }

func noSensor() error {
	return &holdfast.Error{Kind: holdfast.Unavailable, What: "no sensor on this platform yet", Where: runtime.GOOS, Do: "content can be loaded and events replayed; nothing is watched"}
}

func snapshot(func(*record)) error { return nil }

var started = time.Now()

// sinceBoot counts from the start of the program: nothing here has a kernel's
// time to agree with.
func sinceBoot() time.Duration { return time.Since(started) }
