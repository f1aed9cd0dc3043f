//go:build holdfast_unhalted

package rollout

// halting, see halting.go.
const halting = false
