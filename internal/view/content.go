package view

import (
	"time"

	"github.com/holdfast-security/holdfast"
)

// BundleRow is a bundle in a list.
type BundleRow struct {
	holdfast.Bundle
	Rules     int                `json:"rules"`
	Rehearsed bool               `json:"rehearsed"`
	Passed    bool               `json:"passed"`
	Builds    int                `json:"builds"`  // rehearsed on
	Release   holdfast.ReleaseID `json:"release"` // the latest release of it, or empty
	Phase     holdfast.Phase     `json:"phase"`   // of that release
	Hosts     int                `json:"hosts"`   // that run it
}

// BundleDetail is the bundle page.
type BundleDetail struct {
	BundleRow
	Contents []RuleRow         `json:"contents"`
	Verdict  *holdfast.Verdict `json:"verdict,omitempty"` // nil if it was never rehearsed
	Signed   time.Time         `json:"signed,omitzero"`   // when a threshold of publishers signed; zero: they did not
	Preview  *Preview          `json:"preview,omitempty"` // nil unless it is signed
}

// RuleRow is a rule in a bundle.
type RuleRow struct {
	ID         string            `json:"id"`
	Title      string            `json:"title"`
	Level      holdfast.Severity `json:"level"`
	Techniques []string          `json:"techniques"`
	LogSource  string            `json:"log_source"`
	File       string            `json:"file"`
}
