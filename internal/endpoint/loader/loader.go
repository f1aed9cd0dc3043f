// Package loader decides, on the host, whether content may be activated, and
// fetches it.
//
// An offer from the server says only when. What may run is what the signed
// metadata of both repositories says, together with the rehearsal verdict on the
// host's own sensor build, the publishers' soak for the host's own ring, and the
// guard's list of shunned digests. The loader derives the ring itself. A host that
// is offered something in an earlier ring than its own refuses; the server can
// delay it simply by not offering. The host's organisation can delay it too, or
// forbid it, in a policy that it signs itself: the strictest of everything wins,
// except that a way back needs nobody's consent.
//
// Check is the pure decision. Loader is the driver around it: it refreshes trust,
// downloads, lets a throw-away child test-load, and renews the lease as the last
// thing before it proposes. The guard decides.
//
// A Loader keeps no global state and costs little, so that thousands of simulated
// hosts can each have one in one process, sharing a Trust and a content directory.
package loader

import (
	"context"
	"net/http"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

// Action is what a decision asks for.
type Action string

// The actions.
const (
	Propose    Action = "propose"    // the content is on disk and proven: propose it to the guard
	Reactivate Action = "reactivate" // placebo: activate what runs, once more
	Recall     Action = "recall"     // give the running content back
	Wait       Action = "wait"       // nothing is wrong, but it is too early, or something is away
	Refuse     Action = "refuse"     // this must not run here
	Nothing    Action = "nothing"    // it is so already
)

// Cause names the check that decided, for reports, counters and tests.
type Cause string

// The causes.
const (
	OK          Cause = ""
	Unsigned    Cause = "unsigned"    // the image repository has no such release
	NotApproved Cause = "wrong-ring"  // the director does not approve it for this host's ring
	Soaking     Cause = "soak"        // too early for this host's ring
	Shunned     Cause = "shunned"     // the guard shuns it
	TooOld      Cause = "minimum"     // below the publishers' signed minimum
	WrongDomain Cause = "domain"      // signed for another trust domain
	WrongTarget Cause = "channel"     // signed for another channel, or an unknown one
	NoVerdict   Cause = "verdict"     // no valid verdict for this build, or a failing one
	TooLarge    Cause = "size"        // larger than this host will load
	BadMetadata Cause = "metadata"    // the repositories cannot be verified
	BadContent  Cause = "content"     // the bytes are not the signed ones
	TestLoad    Cause = "test-load"   // a throw-away child could not load it
	NoLease     Cause = "lease"       // the lease is over or was revoked
	Forbidden   Cause = "consent"     // the host's organisation does not allow it, or not now
	Unreachable Cause = "unreachable" // something could not be fetched
	Unapproved  Cause = "unapproved"  // of a recall: the director approves what runs no longer
	NoWayBack   Cause = "no-way-back" // of a recall: nothing that is approved could run instead
)

// Decision is what a host should do about one channel.
type Decision struct {
	Action  Action           `json:"action"`
	Cause   Cause            `json:"cause,omitempty"`
	Channel holdfast.Channel `json:"channel"`
	// Digest is what to run: the proposed content, or what a recall returns to
	// (empty if it returns to no content). From is what a recall gives back.
	Digest holdfast.Digest `json:"digest,omitempty"`
	From   holdfast.Digest `json:"from,omitempty"`
	// Lease names the decision to the guard: the offer's lease, or for a return
	// that nobody offered a name made from what is given back.
	Lease  string    `json:"lease,omitempty"`
	Until  time.Time `json:"until,omitzero"` // when waiting may end, if it is known
	Reason string    `json:"reason,omitempty"`
}

// State is what the guard says of this host (lifeline status).
type State struct {
	Current  holdfast.Generation
	Previous holdfast.Generation
	Shunned  []holdfast.Digest
	Owed     Owed
}

// Owed is a candidate that was proposed once and taken back through nobody's
// fault. It is proposed again, under its old lease, while it is still approved.
type Owed struct {
	Lease   string
	Channel holdfast.Channel
	Digest  holdfast.Digest // empty if nothing is owed
	After   time.Time       // not before
}

// Orders are what the signed metadata asks of a host without any offer.
type Orders struct {
	// Returns holds at most one decision per channel. Its action is Recall if the
	// guard's own way back is approved, and Propose if other content is, which is
	// then on disk and proven.
	Returns []Decision
	// Owed is what to propose again; without an action if there is nothing.
	Owed  Decision
	Retry []holdfast.Digest // shunned digests that the publishers allow again, once
	Final []holdfast.Digest // running digests whose predecessor is no longer needed
}

// Trust gives the verified view of both repositories. *tuf.Client is one; it may
// be shared by many loaders.
type Trust interface {
	// Refresh returns the newest verified view. An error of kind Unavailable
	// means that a repository could not be reached, of kind Denied that what it
	// gave is not to be believed.
	Refresh(ctx context.Context, now time.Time) (*tuf.View, error)
}

// Config is what a Loader needs.
type Config struct {
	Host   holdfast.HostID
	Domain tuf.Domain
	// Build is the digest of the worker binary that runs.
	Build holdfast.Digest
	Trust Trust
	// Consent is whose decisions this host keeps to.
	Consent Consent
	// Content is the directory of content files, by hexadecimal digest. Loaders
	// may share one.
	Content string
	// State is the directory of the loader's own small memory (loader.json,
	// consent.json); empty keeps it in memory, which is for simulated hosts only.
	State string
	// URL is the base of /content/ and /verdicts/, fetched with HTTP.
	URL  string
	HTTP *http.Client // nil means a client of its own
	// Patience bounds one download (10 minutes if zero).
	Patience time.Duration
	// MaxBytes bounds one channel's content, whatever was signed. Zero means
	// 256 MiB.
	MaxBytes int64
	// TestLoad lets a throw-away child load the content at path, and returns why
	// it could not.
	TestLoad func(ctx context.Context, channel holdfast.Channel, path string) error
	// Renew asks the server whether the lease still stands.
	Renew func(ctx context.Context, lease string) error
}
