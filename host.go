package holdfast

import (
	"strings"
	"time"
)

// Attributes are what a host says of itself that matters to a rollout. They
// are the factors of its stratum.
type Attributes struct {
	Hostname string `json:"hostname"`
	OS       string `json:"os"`     // GOOS
	Arch     string `json:"arch"`   // GOARCH
	Kernel   string `json:"kernel"` // "6.1", major.minor
	Distro   string `json:"distro"` // "debian-12"
	Role     string `json:"role"`   // "server", "laptop", …; chosen at enrolment
	Build    Digest `json:"build"`  // the sensor build: digest of the worker binary that runs
	Version  string `json:"agent_version"`
	Sensor   string `json:"sensor"` // tier in use: "ebpf", "proc", "replay", "none"
}

// Stratum is the cell of like hosts within which treated and control hosts are
// compared: kernel × distribution × agent version × role.
type Stratum string

// Stratum returns the cell of a host.
func (a Attributes) Stratum() Stratum {
	return Stratum(strings.Join([]string{a.Kernel, a.Distro, a.Version, a.Role}, "|"))
}

// Factors splits a stratum into its levels, written "kernel=6.1" and so on.
func (s Stratum) Factors() []string {
	names := [...]string{"kernel", "distro", "agent", "role"}
	var levels []string
	for i, v := range strings.SplitN(string(s), "|", len(names)) {
		levels = append(levels, names[i]+"="+v)
	}
	return levels
}

// Host is an enrolled machine as the control plane knows it.
type Host struct {
	ID         HostID     `json:"id"`
	Org        OrgID      `json:"org"`
	Attributes Attributes `json:"attributes"`
	Simulated  bool       `json:"simulated"` // plays the protocol without a machine behind it; always shown as such
	Enrolled   time.Time  `json:"enrolled"`
	LastSeen   time.Time  `json:"last_seen"`
	Connected  bool       `json:"connected"`
	Report     HostReport `json:"report"`
	Serial     string     `json:"serial"`                  // of its current client certificate, hexadecimal
	Revoked    bool       `json:"revoked,omitempty"`       // its key is no longer accepted, see Revocation
	NoCanary   bool       `json:"do_not_canary,omitempty"` // never among the first of a release
}

// Revocation ends a host's identity: its machine was stolen, say, or retired. It
// is final, as nobody can know in whose hands the key has been; a machine that
// comes back enrols with a new one, and is another host.
type Revocation struct {
	Host   HostID    `json:"host"`
	At     time.Time `json:"at"`
	By     string    `json:"by"`
	Reason string    `json:"reason"`
}

// HostReport is the state a host reports of itself. Running, attempted and
// failed digests are kept apart, so that "rolled back from B" and "never had
// B" can be told apart.
type HostReport struct {
	Boot      string     `json:"boot"`    // the kernel's boot id
	Running   Generation `json:"running"` // what evaluates events now
	Previous  Generation `json:"previous,omitempty"`
	Attempted Generation `json:"attempted,omitempty"` // the latest candidate, whatever became of it
	Failed    Generation `json:"failed,omitempty"`    // the latest candidate that was reverted
	Shunned   []Digest   `json:"shunned,omitempty"`
	Probation bool       `json:"probation"` // Running has not yet proved itself
	SafeMode  bool       `json:"safe_mode"`
	// Crashes counts worker deaths since enrolment; it only grows.
	Crashes uint64 `json:"crashes"`
	// Reason says why the latest candidate was reverted, for people.
	Reason string `json:"reason,omitempty"`
	// Activation names the offer (lease) that was last carried out.
	Activation string `json:"activation,omitempty"`
	// Declined names the latest offer (lease) that the host's own checks
	// refused for good; Reason says why. That is no harm.
	Declined string `json:"declined,omitempty"`
	// Consent is the version of the organisation's policy that the host keeps
	// to; 0 if it keeps to none.
	Consent int64 `json:"consent,omitempty"`
	// Cumulative counters since the worker started.
	Events          uint64 `json:"events"`
	EventsDropped   uint64 `json:"events_dropped"`
	FindingsDropped uint64 `json:"findings_dropped"`
	// RSS is the worker's resident memory in bytes, CPU its use in thousandths
	// of a core over the last report interval.
	RSS uint64 `json:"rss"`
	CPU uint64 `json:"cpu_milli"`
	// Suspended lists rules of Running that the host has stopped because each
	// took more than its budget; at most 32.
	Suspended []Suspension `json:"suspended,omitempty"`
	// EventNs is how long evaluating one event takes, in nanoseconds: the median
	// of the last events that were sampled; 0 before the first.
	EventNs uint64 `json:"event_ns,omitempty"`
	// Costs are the rules of Running that take the most of it, the dearest
	// first; at most 8.
	Costs []RuleCost `json:"costs,omitempty"`
	// Forgotten lists the correlations of Running that had to forget something
	// to stay within their bounds; at most 32.
	Forgotten []Forgotten `json:"forgotten,omitempty"`
}

// Suspension is one rule that a host stopped by itself.
type Suspension struct {
	Rule   string `json:"rule"`   // id
	Reason string `json:"reason"` // for people
}

// RuleCost is what one rule takes of a host, as a sample of its events shows.
type RuleCost struct {
	Rule       string  `json:"rule"`         // id
	NsPerEvent float64 `json:"ns_per_event"` // nanoseconds, over all events sampled
	Share      float64 `json:"share"`        // of the events, on how many it had to be evaluated
}

// Forgotten is a correlation whose counts outgrew their bounds.
type Forgotten struct {
	Rule  string `json:"rule"`  // id of the correlation
	Count uint64 `json:"count"` // groups or entries forgotten; it only grows
}
