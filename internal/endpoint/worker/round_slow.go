//go:build holdfast_slow

package worker

// The slow agent release of the drill: 64 was meant, and 64 times 32,768 is what it
// says. Everything such a worker does is right; it just never rests.
const selfTestRound = 64 << 15
