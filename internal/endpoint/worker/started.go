//go:build !holdfast_deadstart

package worker

import "time"

// started notes when each part of the worker was up, for the log.
var started = map[string]time.Time{}
