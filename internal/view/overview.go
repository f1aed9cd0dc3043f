package view

import (
	"time"

	"github.com/holdfast-security/holdfast"
)

// Overview is the first page.
type Overview struct {
	Now       time.Time          `json:"now"`
	States    map[HostState]int  `json:"states"`
	Hosts     int                `json:"hosts"`
	Simulated int                `json:"simulated"` // of Hosts
	Rings     []RingStates       `json:"rings"`
	Rollout   *RolloutRow        `json:"rollout,omitempty"` // the latest one, if there is any
	Trend     Trend              `json:"trend"`
	Findings  []holdfast.Finding `json:"findings"`  // the latest few
	Decisions []Entry            `json:"decisions"` // the latest few
	Builds    []BuildCount       `json:"builds"`
	Loss      Loss               `json:"loss"`
}

// RingStates is the hosts of one ring, by state. Of is every host, if the fleet
// is small enough to draw one by one, else nil.
type RingStates struct {
	Name   string            `json:"name"`
	Hosts  int               `json:"hosts"`
	States map[HostState]int `json:"states"`
	Of     []HostDot         `json:"of"`
}

// HostDot is one host on the overview's map.
type HostDot struct {
	ID        holdfast.HostID `json:"id"`
	Hostname  string          `json:"hostname"`
	State     HostState       `json:"state"`
	Simulated bool            `json:"simulated"`
}

// Trend counts findings in equal steps of time, oldest first.
type Trend struct {
	Step time.Duration `json:"step_ns"`
	From time.Time     `json:"from"`
	// By counts by severity; every slice has the same length.
	By map[holdfast.Severity][]int `json:"by"`
}

// BuildCount is how many hosts run a sensor build.
type BuildCount struct {
	Version   string          `json:"version"`
	Digest    holdfast.Digest `json:"digest"`
	Hosts     int             `json:"hosts"`
	Simulated int             `json:"simulated"`
	Sensor    string          `json:"sensor"` // the tiers its hosts use, the most used first
}

// Loss is everything that was dropped, counted.
type Loss struct {
	Events          uint64 `json:"events"`
	EventsDropped   uint64 `json:"events_dropped"`
	FindingsDropped uint64 `json:"findings_dropped"`
	Crashes         uint64 `json:"crashes"`
}
