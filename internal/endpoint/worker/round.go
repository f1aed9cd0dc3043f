//go:build !holdfast_slow

package worker

// selfTestRound is how many evaluations a turn of the loop makes at least. An
// idle host proves its content on self-test events, so that probation ends by
// work done and not by the clock alone.
const selfTestRound = 64
