package view

import (
	"time"

	"github.com/holdfast-security/holdfast"
)

// RecordQuery selects entries. Before is exclusive; 0 means the newest.
type RecordQuery struct {
	Before int64
	Kind   string
	Size   int
}

// RecordPage is one page of the record, newest first.
type RecordPage struct {
	Entries    []Entry  `json:"entries"`
	Kinds      []string `json:"kinds"`
	Size       int64    `json:"size"`       // of the whole log
	Checkpoint string   `json:"checkpoint"` // the signed note
}

// Entry is one decision on the record.
type Entry struct {
	Index   int64              `json:"index"`
	At      time.Time          `json:"at"`
	Kind    string             `json:"kind"` // "publish", "verdict", "promote", "hold", "halt", …
	By      string             `json:"by"`
	Release holdfast.ReleaseID `json:"release"` // or empty
	Summary string             `json:"summary"` // for people
	Hash    string             `json:"hash"`    // leaf hash, hexadecimal
	Body    string             `json:"body"`    // the entry as logged
}
