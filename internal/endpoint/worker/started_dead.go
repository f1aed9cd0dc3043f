//go:build holdfast_deadstart

package worker

import "time"

// The bad agent release of the drill: a program that answers everything it is
// asked before it runs, and dies when it runs. Nothing in it panics on purpose;
// somebody forgot to make the map, and the first entry is the end of it.
var started map[string]time.Time
