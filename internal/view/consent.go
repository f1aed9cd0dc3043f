package view

import (
	"time"

	"github.com/holdfast-security/holdfast"
)

// Consent is what an organisation allows on its hosts.
type Consent struct {
	Org     holdfast.OrgID `json:"org"`
	Version int64          `json:"version"`
	Key     string         `json:"key"` // names the key that signed it
	By      string         `json:"by"`  // who brought it to the server
	At      time.Time      `json:"at"`
	Policy  string         `json:"policy"` // the text that was signed
	Hosts   int            `json:"hosts"`
	Keeping int            `json:"keeping"` // hosts that say they keep to this version
}

// Preview says who will get a release when, by what their organisations allow.
// The rollout's own pace comes on top.
type Preview struct {
	Have int          `json:"have"` // hosts that run it already
	Rows []PreviewRow `json:"rows"`
}

// PreviewRow is a number of hosts that get it, or do not, for the same reason.
type PreviewRow struct {
	Org   holdfast.OrgID `json:"org"`
	Group string         `json:"group,omitempty"` // empty: in no group, or nobody made any
	// State is free (its ring alone decides), last-ring, no-group, delayed,
	// window, n-1, pinned or paused.
	State string `json:"state"`
	Hosts int    `json:"hosts"`
	// Never: not this release, as things stand. Otherwise From is when the
	// first of the hosts may have it, To the last.
	Never bool      `json:"never,omitempty"`
	From  time.Time `json:"from,omitzero"`
	To    time.Time `json:"to,omitzero"`
	Why   string    `json:"why,omitempty"` // of one of them
}
