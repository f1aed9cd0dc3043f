//go:build holdfast_slow

package worker

import "time"

// The slow agent release of the drill: a unit too small. The loop turns hundreds
// of times as often, and proves itself each time; everything it does is right.
const tick = 300 * time.Microsecond
