// Package tuf is why content may be believed: The Update Framework 1.0 with the
// split of Uptane, over go-tuf, which only this package imports.
//
// Two repositories must agree before a host runs anything. The image repository
// says what content exists: it is signed offline, k of n, and holds one delegated
// role per channel. The director repository says which of it a ring may run now:
// it has one online role per ring. A server that is stolen can therefore name
// only content that the publishers signed, in no ring earlier than they allowed.
//
// The package has three faces. Desk is the offline one: ceremonies, signatures,
// thresholds. Online is the server's: it approves, stamps and publishes static
// files. Client is the host's: it verifies, and returns plain data (View). What
// to do with a View is decided elsewhere, in package loader.
//
// Both repositories carry a trust domain in their signed metadata. Metadata of a
// drill is refused by a production client whatever root it was given, and the
// other way round.
//
// Sources: The Update Framework Specification 1.0.31, detailed client workflow
// (§5); Uptane Standard 2.1.0, full verification (§5.4.4).
package tuf

import (
	"crypto/ed25519"
	"time"

	"github.com/holdfast-security/holdfast"
)

// Domain separates what is real from what is practised. It is signed into both
// roots, into the policy and into every release.
type Domain string

// The domains.
const (
	Production Domain = "production"
	Drill      Domain = "drill"
)

// State is what the director says of a digest in one ring.
type State string

// The states. All three may run; they differ in what a host does of itself.
const (
	Current  State = "current"  // what the ring is meant to run, or is being brought to
	Previous State = "previous" // what it ran before, and returns to
	Pinnable State = "pinnable" // neither, but a host that is pinned to it may keep it
)

// Release is what a threshold of publishers signed about one digest.
type Release struct {
	Channel holdfast.Channel `json:"channel"`
	Digest  holdfast.Digest  `json:"digest"`
	Size    int64            `json:"size"`    // bytes
	Version string           `json:"version"` // for people; Sequence decides
	// Sequence numbers the releases of a channel in the order of signing, from
	// 1. A signed minimum (View.Minimum) makes older ones unfit to run.
	Sequence int64             `json:"sequence"`
	Rings    holdfast.RingPlan `json:"rings"`
	Signed   time.Time         `json:"signed"` // soaks count from here
	Domain   Domain            `json:"domain"`
	// Critical content may be delayed by customers, and not held back.
	Critical bool `json:"critical,omitempty"`
	// Retry counts the publishers' permissions to try the digest again where it
	// is shunned; each counts once per host.
	Retry int `json:"retry,omitempty"`
	// Final says that hosts need not keep the release before this one any
	// longer.
	Final bool `json:"final,omitempty"`
}

// Approval is the director's word on one digest in one ring.
type Approval struct {
	Channel holdfast.Channel `json:"channel"`
	Digest  holdfast.Digest  `json:"digest"`
	State   State            `json:"state"`
}

// Approved is a release that both repositories vouch for, in one ring.
type Approved struct {
	Release
	Ring  string `json:"ring"`
	State State  `json:"state"`
}

// Policy is what the officers signed, at the top of the image repository, about
// everything the channels' publishers do not decide themselves.
type Policy struct {
	Domain Domain `json:"domain"`
	// Rehearsal holds the keys that may sign rehearsal verdicts, of which
	// RehearsalThreshold must.
	Rehearsal          []ed25519.PublicKey `json:"rehearsal_keys"`
	RehearsalThreshold int                 `json:"rehearsal_threshold"`
	// Rings names the director's ring roles. A release's plan may use only these.
	Rings []string `json:"rings"`
}

// View is what both repositories say at one moment, verified. It is plain data
// and must not be changed: clients share it.
type View struct {
	Policy Policy
	// Releases is everything the publishers vouch for, approved or not.
	Releases map[holdfast.Digest]Release
	// Approvals is the director's word, by ring name. A ring that the client did
	// not ask for is absent.
	Approvals map[string][]Approval
	// Minimum is the lowest sequence that may run, by channel.
	Minimum map[holdfast.Channel]int64
	// Expires is when the first piece of the metadata does. After it the view
	// is stale: nothing new may be activated on its word.
	Expires time.Time
	// Versions of the two timestamps, for people and logs.
	Image, Director int64
}

// Approved lists what both repositories vouch for in ring, in the director's
// order. What only the director names is not listed: nobody signed it.
func (v *View) Approved(ring string) []Approved {
	var all []Approved
	for _, a := range v.Approvals[ring] {
		if r, ok := v.Releases[a.Digest]; ok && r.Channel == a.Channel {
			all = append(all, Approved{Release: r, Ring: ring, State: a.State})
		}
	}
	return all
}
