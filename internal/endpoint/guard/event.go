package guard

import (
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/lifeline"
)

// Slot is what a worker was started for. A worker that another has replaced
// stands in no slot: it is draining, and nothing it does is an event.
type Slot string

// The slots.
const (
	InCurrent Slot = "current" // the current generation, or safe mode
	InTrial   Slot = "trial"   // the candidate
)

// EventKind says what happened.
type EventKind string

// What can happen to a host.
const (
	Started      EventKind = "started"       // the guard has started; Boot. Nothing runs. Always the first event
	Proposed     EventKind = "proposed"      // the loader proposes Digest for Channel; ID, Contact
	Reactivated  EventKind = "reactivated"   // the loader asks for the placebo; ID, Contact
	Recalled     EventKind = "recalled"      // signed metadata took Digest back
	RetryAllowed EventKind = "retry allowed" // the publishers signed that Digest may be tried again
	Finalised    EventKind = "finalised"     // the publishers marked the release of Digest final
	IsReady      EventKind = "ready"         // the worker in Slot evaluates events
	Beaten       EventKind = "beaten"        // its evaluation loop turns; Evaluated, Contact
	Exited       EventKind = "exited"        // it is gone; Detail
	Stalled      EventKind = "stalled"       // it lives, and its evaluation loop (or its start) stands still; Detail
	Overran      EventKind = "overran"       // it lives, and takes too much memory or CPU; Detail
	CorruptSlot  EventKind = "corrupt slot"  // it was not started: a file of its generation is missing, or is not what its name says; Detail
	Unstartable  EventKind = "unstartable"   // it was not started, for want of something that is no content's fault; Detail
	Ticked       EventKind = "ticked"        // time has passed
	WriteFailed  EventKind = "write failed"  // a Persist that must succeed did not, and nothing after it was done; ID, Detail. The state is the one before
	Stopping     EventKind = "stopping"      // the guard has been asked to stop
)

// EventKinds lists the kinds.
var EventKinds = []EventKind{
	Started, Proposed, Reactivated, Recalled, RetryAllowed, Finalised, IsReady, Beaten,
	Exited, Stalled, Overran, CorruptSlot, Unstartable, Ticked, WriteFailed, Stopping,
}

// Event is one thing that happened.
type Event struct {
	Kind      EventKind
	Slot      Slot
	Boot      string
	ID        string
	Channel   holdfast.Channel
	Digest    holdfast.Digest
	Evaluated uint64
	Contact   lifeline.Contact
	Detail    string // for people
}

// ActionKind says what is to be done.
type ActionKind string

// What the driver does, in the order of the list.
const (
	// Persist puts the state that Decide returned on disk. If Must is set it comes
	// first; and if it fails, the rest of the list is not done, the state before
	// is kept, and WriteFailed is the next event. If Must is not set it comes
	// after what leads back to proven content, which waits for no disk, and
	// before anybody is told; if it fails it is tried again until it succeeds.
	Persist ActionKind = "persist"
	// Start starts a worker for Slot after After: Generation's, or the package's
	// own in safe mode if Safe. A start that is still waiting is replaced by it.
	Start ActionKind = "start"
	// Kill ends the worker in Slot at once, and cancels its start.
	Kill ActionKind = "kill"
	// Leave takes the worker in Slot out of it, and cancels its start. It goes on
	// evaluating until it is drained.
	Leave ActionKind = "leave"
	// Drain asks every worker that stands in no slot to finish, and kills it if
	// it does not.
	Drain ActionKind = "drain"
	// Adopt makes the worker in the trial slot the one in the current slot.
	Adopt ActionKind = "adopt"
	// Reply answers the proposal named ID, to the worker in the event's slot.
	Reply ActionKind = "reply"
	// Inform tells every worker the new status.
	Inform ActionKind = "inform"
)

// Action is one thing to do.
type Action struct {
	Kind       ActionKind
	Must       bool                // Persist
	Slot       Slot                // Start, Kill, Leave
	Generation holdfast.Generation // Start
	Safe       bool                // Start
	After      time.Duration       // Start
	ID         string              // Reply
	Accepted   bool                // Reply
	Reason     string              // Reply
}

// Policy is what an operator may choose.
type Policy struct {
	// Probation ends after this time and this many evaluated events, both.
	Probation       time.Duration
	ProbationEvents uint64
	// A current generation whose worker dies Loop times within LoopWindow is
	// left for the one before.
	Loop       int
	LoopWindow time.Duration
}

// DefaultPolicy is what hosts run in production.
var DefaultPolicy = Policy{
	Probation:       5 * time.Minute,
	ProbationEvents: 1000,
	Loop:            3,
	LoopWindow:      15 * time.Minute,
}

// idleAfter is how many times Probation a trial may last. Idle hosts are given
// self-test events, so one that takes longer evaluates nothing.
const idleAfter = 10

// The way out of safe mode is tried after the first of these, and each time it
// fails twice as long is waited, up to the second.
const (
	safeRetryMin = 10 * time.Minute
	safeRetryMax = 6 * time.Hour
)

// The wait before a worker that died is started again in place: none at first.
const (
	backoffMin = 250 * time.Millisecond
	backoffMax = 30 * time.Second
)
