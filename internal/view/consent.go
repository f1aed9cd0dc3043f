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
