package opamp

import (
	"context"
	"time"

	"github.com/holdfast-security/holdfast"
)

// Control is what the connections of hosts are there for. It is called from
// many goroutines at once; calls about one host come in order, but those of a
// connection that a newer one of the same host has replaced may still arrive
// after the newer one's first. It must answer from memory: Beat and Desired
// are called on every heartbeat of every host.
type Control interface {
	// Connected says that a host is connected, or is again. A Denied error
	// refuses it (it was removed, or its identity revoked); an Unavailable one
	// sends it away to try again later.
	Connected(ctx context.Context, host holdfast.HostID, at time.Time) error

	// Described and Reported give what the host says of itself. Both are called
	// after each (re)connection, and whenever it changes.
	Described(ctx context.Context, host holdfast.HostID, a holdfast.Attributes, at time.Time)
	Reported(ctx context.Context, host holdfast.HostID, r holdfast.HostReport, at time.Time)

	// Beat says that the host is alive. Every message is a beat.
	Beat(ctx context.Context, host holdfast.HostID, at time.Time)

	// Disconnected says that the host's connection is gone, and no newer one has
	// replaced it.
	Disconnected(ctx context.Context, host holdfast.HostID, at time.Time)

	// Desired is the host's poll: what it should do now, if anything. It draws
	// the host's arm when it is eligible. Called on each message and by Push.
	// An offer is sent when it differs from the one sent last on the connection;
	// only its Expires may change without that.
	Desired(ctx context.Context, host holdfast.HostID, at time.Time) (holdfast.Offer, bool)

	// RenewLease answers a host that is about to activate: until when it may, or
	// an error that says why not. Without an answer the host does not activate.
	RenewLease(ctx context.Context, host holdfast.HostID, lease string, at time.Time) (time.Time, error)
}
