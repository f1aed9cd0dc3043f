package view

import "github.com/holdfast-security/holdfast"

// FindingQuery selects findings. The zero value selects all.
type FindingQuery struct {
	Text      string // in title, host name, command lines
	Severity  holdfast.Severity
	Technique string
	Host      holdfast.HostID
	Page      int // from 1
	Size      int
}

// FindingPage is one page of findings, latest first.
type FindingPage struct {
	Findings []holdfast.Finding `json:"findings"`
	Total    int                `json:"total"`    // that match
	Searched int                `json:"searched"` // only this many of the newest were looked through; 0: all
}

// FindingDetail is the finding page.
type FindingDetail struct {
	holdfast.Finding
	Version   string   `json:"version"`                  // of the rules bundle, for people
	Rule      *RuleRow `json:"rule_in_bundle,omitempty"` // if the bundle is still known
	Simulated bool     `json:"simulated"`                // the host is
	Others    int      `json:"others"`                   // findings of the same rule, this one not counted
}
