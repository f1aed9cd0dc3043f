// Package view is what people are shown, as plain data: what the pages of the
// console render, what the API sends as JSON and what the command line prints.
// Its field names are the API's.
package view

import (
	"context"
	"time"

	"github.com/holdfast-security/holdfast"
)

// Source is everything people read. Its methods are safe for concurrent use
// and return holdfast.NotFound for an id that does not exist. What they return
// may be some seconds old, and is the caller's.
type Source interface {
	// For returns what people of an organisation may see: of what is an
	// organisation's own, theirs alone. Who reads for a person reads through it.
	For(org holdfast.OrgID) Source
	OverviewSource
	FleetSource
	ContentSource
	RolloutSource
	ConsentSource
	FindingSource
	RecordSource
}

// OverviewSource feeds the overview page.
type OverviewSource interface {
	Overview(ctx context.Context) (Overview, error)
}

// FleetSource feeds the fleet list and the host page.
type FleetSource interface {
	Hosts(ctx context.Context, q HostQuery) (HostPage, error)
	Host(ctx context.Context, id holdfast.HostID) (HostDetail, error)
	// Builds returns the sensor builds that are known, with how many hosts run
	// each.
	Builds(ctx context.Context) ([]holdfast.Build, error)
}

// ContentSource feeds the list of bundles and the bundle page.
type ContentSource interface {
	Bundles(ctx context.Context) ([]BundleRow, error)
	Bundle(ctx context.Context, d holdfast.Digest) (BundleDetail, error)
}

// RolloutSource feeds the rollout list and page.
type RolloutSource interface {
	Rollouts(ctx context.Context) ([]RolloutRow, error)
	Rollout(ctx context.Context, id holdfast.ReleaseID) (RolloutDetail, error)
}

// ConsentSource feeds the page of what organisations allow.
type ConsentSource interface {
	Consents(ctx context.Context) (ConsentPage, error)
	// Consent returns what an organisation allows; NotFound if it never said.
	Consent(ctx context.Context, org holdfast.OrgID) (Consent, error)
}

// FindingSource feeds the findings list and page.
type FindingSource interface {
	Findings(ctx context.Context, q FindingQuery) (FindingPage, error)
	Finding(ctx context.Context, id string) (FindingDetail, error)
}

// RecordSource feeds the record page.
type RecordSource interface {
	Record(ctx context.Context, q RecordQuery) (RecordPage, error)
	// ExportRecord returns what `holdfast log verify` checks offline: a ZIP
	// archive of the checkpoint and the tiles up to it.
	ExportRecord(ctx context.Context) ([]byte, error)
}

// Actions are the decisions a person may take about a rollout. Each is
// idempotent, is on the record under the name by when it returns nil, and
// returns holdfast.Conflict if the rollout's phase forbids it and
// holdfast.Denied if by may not take it (a second person is needed and by is
// the first).
type Actions interface {
	Halt(ctx context.Context, id holdfast.ReleaseID, by, reason string) error
	Pause(ctx context.Context, id holdfast.ReleaseID, by, reason string) error
	Resume(ctx context.Context, id holdfast.ReleaseID, by string) error
	Approve(ctx context.Context, id holdfast.ReleaseID, by string) error
	// Finish completes a rollout that waits only for hosts whose organisations
	// allow it later.
	Finish(ctx context.Context, id holdfast.ReleaseID, by string) error
	// Override lets a halted rollout go on. It takes effect only when a second
	// person has called it too; acknowledged is what by says was seen.
	Override(ctx context.Context, id holdfast.ReleaseID, by, acknowledged string) error
}

// HostActions are the decisions a person may take about a host.
type HostActions interface {
	// Revoke ends the host's identity, for good and at once, and puts who and why
	// on the record. It returns what stands: revoking again changes nothing.
	// Invalid without a reason, NotFound if there is no such host, Denied if it is
	// another organisation's and by is not of the one that runs the installation.
	Revoke(ctx context.Context, host holdfast.HostID, by, reason string) (holdfast.Revocation, error)
}

// Topic is what a hint is about. Pages that show it load themselves again.
type Topic string

// The topics.
const (
	TopicFleet    Topic = "fleet"
	TopicRollouts Topic = "rollouts"
	TopicFindings Topic = "findings"
	TopicRecord   Topic = "record"
)

// Topics lists the topics.
var Topics = []Topic{TopicFleet, TopicRollouts, TopicFindings, TopicRecord}

// Hints says that something may have changed. A lost hint only delays a page:
// every live page also asks by itself now and then.
type Hints interface {
	// Listen calls f, from one goroutine, for each hint until ctx ends. f does
	// not block.
	Listen(ctx context.Context, f func(Topic))
}

// Clock is the clock profile in force. The procedure that halts is the same
// under each; only its windows differ.
type Clock struct {
	Name      string        // "production", "local"
	Heartbeat time.Duration // between two heartbeats of a host
	Window    time.Duration // the fast window W
}
