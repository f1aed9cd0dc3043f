// Package otlp receives findings as OTLP/HTTP logs.
package otlp

import (
	"context"

	"github.com/holdfast-security/holdfast"
)

// Sink stores findings.
type Sink interface {
	// AddFindings stores what it has not stored yet, by id, and says how many
	// were new. Host, and Received, are filled in; Org is the store's to know.
	// When it returns nil all of them are durable, when it returns an error none
	// need be, and the host sends them again. A request that was stored although
	// it seemed to fail is therefore stored once.
	AddFindings(ctx context.Context, host holdfast.HostID, found []holdfast.Finding) (added int, err error)
}
