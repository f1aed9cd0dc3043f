// Package enrol gives hosts their identity: it keeps the hosts' certificate
// authority, exchanges a one-time token for a client certificate, and renews
// certificates of hosts it knows.
package enrol

import (
	"context"

	"github.com/holdfast-security/holdfast"
)

// Store is what enrolment keeps.
type Store interface {
	// EnrolToken returns the token of that id, or NotFound.
	EnrolToken(ctx context.Context, id string) (holdfast.EnrolToken, error)
	// EnrolHost takes one use of the token and stores the new host, in one
	// transaction. Denied if no use is left or the token is gone.
	EnrolHost(ctx context.Context, tokenID string, h holdfast.Host) error
	// Host returns an enrolled host, or NotFound.
	Host(ctx context.Context, id holdfast.HostID) (holdfast.Host, error)
}
