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
	// Unreadable is why the policy that is stored cannot be read. Then Groups is
	// what counts meanwhile: nothing is released to its hosts.
	Unreadable string `json:"unreadable,omitempty"`
	// Groups is what the policy says, group by group; Outside counts hosts in
	// none of them.
	Groups  []ConsentGroup `json:"groups,omitempty"`
	Outside int            `json:"outside,omitempty"`
}

// ConsentGroup is a group of a policy.
type ConsentGroup struct {
	Name    string        `json:"name"`
	Where   []string      `json:"where,omitempty"` // what selects hosts; none: every host
	Hosts   int           `json:"hosts"`           // that are in it now, also in others perhaps
	Rules   []ConsentRule `json:"rules"`
	Windows []string      `json:"windows,omitempty"` // none: at any time
}

// ConsentRule is what a group says about a channel.
type ConsentRule struct {
	Channel  holdfast.Channel `json:"channel"`
	Critical bool             `json:"critical,omitempty"`
	Track    string           `json:"track"`
	Delay    time.Duration    `json:"delay_ns,omitempty"`
	Pin      string           `json:"pin,omitempty"`
}

// ConsentPage is what organisations allow, and what that means for content that
// was signed and is not released yet.
type ConsentPage struct {
	// Orgs lists every organisation with hosts or a policy. Version 0: it never
	// signed one.
	Orgs   []Consent `json:"organisations"`
	Coming []Coming  `json:"coming"` // newest first
}

// Coming is content that may be released: publishers signed it, and nothing
// newer of its channel was released before.
type Coming struct {
	holdfast.Bundle
	Release holdfast.ReleaseID `json:"release,omitempty"` // one that nobody approved yet
	Preview Preview            `json:"preview"`
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
