package holdfast

import "time"

// Offer tells one host when to change what one channel runs. It is only a
// hint of when: what may run is what the signed metadata says, and the host
// checks that for itself.
type Offer struct {
	// Lease names this offer for its host. A host carries a lease out at most
	// once, reports it as HostReport.Activation, and renews it just before
	// activation, so that a halt reaches the offers still under way.
	Lease   string    `json:"lease"`
	Expires time.Time `json:"expires"` // of the lease; an expired lease is asked for again, never carried out

	Channel Channel   `json:"channel"`
	Digest  Digest    `json:"digest"` // what to run; for a placebo, what the host has; empty on a recall to no content
	Version string    `json:"version,omitempty"`
	Release ReleaseID `json:"release,omitempty"`
	Arm     Arm       `json:"arm"`

	// Recall is the digest to give back, at once and without a lease; empty
	// unless this offer is a recall.
	Recall Digest `json:"recall,omitempty"`
}
