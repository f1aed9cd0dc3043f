//go:build !holdfast_unhalted

package rollout

// halting is false only in the server that a drill builds to show that its
// content is lethal. It is a constant of the build: no policy, stored or sent,
// can switch the test off in a shipped program.
const halting = true
