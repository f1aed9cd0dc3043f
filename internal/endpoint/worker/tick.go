//go:build !holdfast_slow

package worker

import "time"

// tick is how often the loop turns without events. The guard expects four beats
// a second.
const tick = 100 * time.Millisecond
