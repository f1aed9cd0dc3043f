// Package lifeline is the conversation between the guard and its worker: JSON
// lines of at most MaxLine bytes, over two pipes. The worker writes reports on
// one, and reads orders on the other.
//
// The guard believes nothing it reads: every line is bounded, and every report
// is checked before anybody sees it. A field that is not known is ignored, so
// that an agent may be newer than its guard; a kind that is not known is an
// error for that line alone.
package lifeline

import (
	"strings"
	"time"

	"github.com/holdfast-security/holdfast"
)

// The bounds of the protocol.
const (
	MaxLine    = 4096 // bytes of a line, its newline included: what a pipe writes at once
	MaxID      = 128  // bytes of an offer's id
	MaxChannel = 64   // bytes of a channel's name
	MaxReason  = 256  // bytes of a reason; longer ones are cut
	MaxShunned = 24   // shunned digests in a status; Status.ShunnedMore counts the others
)

// ReportKind says what a report is about.
type ReportKind string

// What a worker says.
const (
	Ready      ReportKind = "ready"      // the content is loaded and events are being evaluated
	Beat       ReportKind = "beat"       // the evaluation loop turns; only that loop may cause it
	Propose    ReportKind = "propose"    // run this digest on this channel; it has been verified and test-loaded
	Reactivate ReportKind = "reactivate" // the placebo: swap and observe, with what runs now
	Recall     ReportKind = "recall"     // go back to what ran without this digest
	Retry      ReportKind = "retry"      // the publishers signed that this digest may be tried again
	Final      ReportKind = "final"      // the publishers marked the release of this digest final
)

// Contact is what a worker says of its contact with the server since it started.
type Contact string

// The contacts. A worker that says neither is of a version before it could.
const (
	NoContact  Contact = "none" // none yet
	HadContact Contact = "had"  // at least one authenticated exchange
)

// Report is one line from a worker.
type Report struct {
	Kind      ReportKind       `json:"kind"`
	Evaluated uint64           `json:"evaluated,omitempty"` // beat: events evaluated since the worker started, self-tests included
	Contact   Contact          `json:"contact,omitempty"`   // beat, propose, reactivate
	ID        string           `json:"id,omitempty"`        // propose, reactivate: names the offer (lease); echoed in the answer
	Channel   holdfast.Channel `json:"channel,omitempty"`   // propose
	Digest    holdfast.Digest  `json:"digest,omitempty"`    // propose, recall, retry, final
}

// Check reports what is wrong with a report. What passes is safe to log, to
// store and to use as a file name.
func (r Report) Check() error {
	needID, needChannel, needDigest := false, false, false
	switch r.Kind {
	case Ready, Beat:
	case Propose:
		needID, needChannel, needDigest = true, true, true
	case Reactivate:
		needID = true
	case Recall, Retry, Final:
		needDigest = true
	default:
		return invalid("kind", "no report is called that")
	}
	if r.Contact != "" && r.Contact != NoContact && r.Contact != HadContact {
		return invalid("contact", "there is none called that")
	}
	if needID && !isName(r.ID, MaxID, false) {
		return invalid("id", "an id is 1 to 128 printable ASCII characters without spaces")
	}
	if needChannel && !isName(string(r.Channel), MaxChannel, true) {
		return invalid("channel", "a channel's name is 1 to 64 of a-z, 0-9, '/', '-', '_' and '.'")
	}
	if needDigest {
		if _, err := holdfast.ParseDigest(string(r.Digest)); err != nil {
			return invalid("digest", `a digest is "sha256:" and 64 lower-case hexadecimal digits`)
		}
	}
	return nil
}

// OrderKind says what an order is about.
type OrderKind string

// What the guard says.
const (
	Tell   OrderKind = "status" // the state of the host's slots, whenever it changed
	Answer OrderKind = "answer" // to a propose or reactivate, by its id
	Drain  OrderKind = "drain"  // another worker has taken over: finish, flush, and exit with status 0
)

// Order is one line from the guard.
type Order struct {
	Kind     OrderKind `json:"kind"`
	Status   *Status   `json:"status,omitempty"`   // status
	ID       string    `json:"id,omitempty"`       // answer
	Accepted bool      `json:"accepted,omitempty"` // answer
	Reason   string    `json:"reason,omitempty"`   // answer: why not
}

// Check reports what is wrong with an order.
func (o Order) Check() error {
	switch o.Kind {
	case Tell:
		if o.Status == nil {
			return invalid("status", "a status order carries a status")
		}
	case Answer:
		if !isName(o.ID, MaxID, false) {
			return invalid("id", "an answer names what it answers")
		}
	case Drain:
	default:
		return invalid("kind", "no order is called that")
	}
	return nil
}

// Status is what the guard knows: with it and its own counters a worker fills a
// holdfast.HostReport.
type Status struct {
	Boot      string              `json:"boot"`               // the kernel's boot id
	Running   holdfast.Generation `json:"running,omitempty"`  // the generation whose worker evaluates events; on probation if Probation
	Previous  holdfast.Generation `json:"previous,omitempty"` // where a revert of Running would go; absent if that is safe mode
	Starting  holdfast.Generation `json:"starting,omitempty"` // a candidate whose worker is not ready yet
	Attempted holdfast.Generation `json:"attempted,omitempty"`
	Failed    holdfast.Generation `json:"failed,omitempty"`
	// Shunned lists the digests this host will not run, newest first, those
	// recalled included. It may be cut to fit a line: the guard's answer to a
	// proposal is what counts.
	Shunned     []holdfast.Digest `json:"shunned,omitempty"`
	ShunnedMore int               `json:"shunned_more,omitempty"`
	// Keep lists further digests that some way back needs. With those of the
	// generations above, it is what must not be deleted from the content store.
	Keep       []holdfast.Digest `json:"keep,omitempty"`
	Probation  bool              `json:"probation,omitempty"`
	SafeMode   bool              `json:"safe_mode,omitempty"`
	Crashes    uint64            `json:"crashes,omitempty"`
	Reason     string            `json:"reason,omitempty"`
	Activation string            `json:"activation,omitempty"` // id of the latest accepted propose or reactivate
	Owed       *Owed             `json:"owed,omitempty"`
}

// Owed is a candidate that was taken back because it had not reached the server
// by the end of its trial. A worker that does reach it proposes the candidate
// again under the same id, if it is still approved.
type Owed struct {
	ID      string           `json:"id"`
	Channel holdfast.Channel `json:"channel"`
	Digest  holdfast.Digest  `json:"digest"`
	After   time.Time        `json:"after"` // not before
}

// Report returns the part of a host report that the guard answers for.
func (s Status) Report() holdfast.HostReport {
	return holdfast.HostReport{
		Boot:       s.Boot,
		Running:    s.Running,
		Previous:   s.Previous,
		Attempted:  s.Attempted,
		Failed:     s.Failed,
		Shunned:    s.Shunned,
		Probation:  s.Probation,
		SafeMode:   s.SafeMode,
		Crashes:    s.Crashes,
		Reason:     s.Reason,
		Activation: s.Activation,
	}
}

func invalid(field, what string) error {
	return &holdfast.Error{Kind: holdfast.Invalid, What: what, Where: "lifeline " + field}
}

// isName takes what is safe in a log and in a file: no spaces, no control
// characters; if strict, only what a channel may be called.
func isName(s string, limit int, strict bool) bool {
	if s == "" || len(s) > limit || strict && (strings.Contains(s, "..") || s[0] == '/') {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c <= ' ' || c > '~':
			return false
		case strict && !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.IndexByte("/-_.", c) >= 0):
			return false
		}
	}
	return true
}
