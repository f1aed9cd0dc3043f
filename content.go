package holdfast

import "time"

// Manifest is what one sensor build says it can do. Each build exports its own
// (holdfast-agent manifest); the static check reads the manifest of every build
// in the fleet, and rehearsal then runs the build to see whether it told the
// truth.
type Manifest struct {
	Schema   int          `json:"schema"` // 1
	Version  string       `json:"version"`
	Platform string       `json:"platform"` // GOOS/GOARCH
	Classes  []EventClass `json:"classes"`
	Limits   Limits       `json:"limits"`
}

// EventClass is one OCSF class as the build supplies it. The order of Inputs
// is the order of the values in an event.
type EventClass struct {
	Name   string  `json:"name"` // "process_activity"
	UID    int     `json:"uid"`  // OCSF class_uid, 1007
	Inputs []Input `json:"inputs"`
}

// Input is one field of an event class.
type Input struct {
	Path string `json:"path"` // OCSF path, "process.file.path"
	Type string `json:"type"` // "string", "int", "bool", "time"
}

// Limits bound what the build will load.
type Limits struct {
	BundleBytes int64 `json:"bundle_bytes"`
	Rules       int   `json:"rules"`
	RuleBytes   int   `json:"rule_bytes"`
	ValueBytes  int   `json:"value_bytes"` // longer event values are cut, and counted
}

// Build is a sensor build known to the control plane: a worker binary and the
// manifest it exported.
type Build struct {
	Digest   Digest   `json:"digest"` // of the worker binary
	Manifest Manifest `json:"manifest"`
	Hosts    int      `json:"hosts"` // how many hosts of the fleet run it
}

// Verdict is what rehearsal found when it ran one bundle on sensor builds. It
// is the predicate of an in-toto statement whose subject is the bundle.
type Verdict struct {
	Bundle   Digest         `json:"bundle"`
	Channel  Channel        `json:"channel"`
	Started  time.Time      `json:"started"`
	Finished time.Time      `json:"finished"`
	Seed     uint64         `json:"seed"`
	Builds   []BuildVerdict `json:"builds"`
}

// BuildVerdict is the part of a verdict about one sensor build.
type BuildVerdict struct {
	Build    Digest         `json:"build"`
	Version  string         `json:"version"`
	Passed   bool           `json:"passed"`
	Failures []RuleProblem  `json:"failures,omitempty"`
	Figures  VerdictFigures `json:"figures"`
}

// RuleProblem names what went wrong and where.
type RuleProblem struct {
	Rule   string `json:"rule,omitempty"` // rule id
	File   string `json:"file,omitempty"` // path in the bundle
	Line   int    `json:"line,omitempty"` // in the file, from 1; 0 if unknown
	Column int    `json:"column,omitempty"`
	Field  string `json:"field,omitempty"` // the event field being read
	Stage  string `json:"stage"`           // "static", "load", "exercise", "attack", "benign", "fuzz", "restart", "unload"
	Reason string `json:"reason"`
}

// VerdictFigures are measured, never estimated.
type VerdictFigures struct {
	Rules           int     `json:"rules"`
	Events          int     `json:"events"`           // evaluated in all stages
	FieldsExercised int     `json:"fields_exercised"` // rule × field pairs exercised with a matching and a non-matching value
	AttacksFound    int     `json:"attacks_found"`
	Attacks         int     `json:"attacks"`
	FalsePositives  int     `json:"false_positives"`
	Benign          int     `json:"benign"`
	NsPerEvent      float64 `json:"ns_per_event"`
	PeakRSS         uint64  `json:"peak_rss"` // bytes
	LoadMillis      float64 `json:"load_ms"`
}

// For returns the part of the verdict about build, and whether there is one.
func (v Verdict) For(build Digest) (BuildVerdict, bool) {
	for _, b := range v.Builds {
		if b.Build == build {
			return b, true
		}
	}
	return BuildVerdict{}, false
}

// Passed reports whether every build passed, and at least one was rehearsed.
func (v Verdict) Passed() bool {
	for _, b := range v.Builds {
		if !b.Passed {
			return false
		}
	}
	return len(v.Builds) > 0
}
