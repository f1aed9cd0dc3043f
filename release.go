package holdfast

import "time"

// ReleaseID identifies a release: one bundle on its way to the fleet.
type ReleaseID string

// Profile sets the pace of a release. No profile skips a ring.
type Profile string

// The profiles.
const (
	Standard  Profile = "standard"  // fast gate, then days of the slow one
	Urgent    Profile = "urgent"    // fast gate only
	Emergency Profile = "emergency" // urgent, with a second person
)

// Release is the decision to bring a bundle to the fleet.
type Release struct {
	ID       ReleaseID `json:"id"`
	Org      OrgID     `json:"org"`
	Bundle   Bundle    `json:"bundle"`
	Profile  Profile   `json:"profile"`
	Rings    RingPlan  `json:"rings"`
	Signed   time.Time `json:"signed"` // when the publishers signed; soaks count from here
	Created  time.Time `json:"created"`
	By       string    `json:"by"`
	Approved string    `json:"approved_by"` // the second person; empty until approved
	Note     string    `json:"note,omitempty"`
}

// Phase is where a rollout stands.
type Phase string

// The phases of a rollout.
const (
	Waiting  Phase = "waiting" // for the second person
	Running  Phase = "running"
	Held     Phase = "held" // slowed down by evidence; resumes by itself
	Paused   Phase = "paused"
	Halted   Phase = "halted"  // E ≥ 1/α: recalled
	Stopped  Phase = "stopped" // three harmed and no control left to compare with: recalled
	Complete Phase = "complete"
)

// Recalling reports whether hosts that have the release must give it back.
func (p Phase) Recalling() bool { return p == Halted || p == Stopped }

// Done reports whether nothing more is admitted.
func (p Phase) Done() bool { return p.Recalling() || p == Complete }

// Arm is the side of the comparison a host was drawn for when it asked.
type Arm string

// The arms.
const (
	New     Arm = "new"     // gets the release
	Placebo Arm = "placebo" // re-activates what it has: same load, same swap, same probation
)

// HarmKind is a kind of harm, the first of its kind per host and block.
type HarmKind string

// The kinds of harm.
const (
	Crash   HarmKind = "crash"   // the worker died, or the guard reverted it
	Reboot  HarmKind = "reboot"  // the host restarted
	Silence HarmKind = "silence" // three missed heartbeats
	CPU     HarmKind = "cpu"     // regression beyond the stratum's frozen 99th percentile
	Memory  HarmKind = "memory"
)

// HarmKinds lists the kinds in a fixed order.
var HarmKinds = []HarmKind{Crash, Reboot, Silence, CPU, Memory}

// Harm is one harm event. It is a row before it counts.
type Harm struct {
	Seq     int64     `json:"seq"` // order of acceptance, assigned by the store
	Release ReleaseID `json:"release"`
	Host    HostID    `json:"host"`
	Org     OrgID     `json:"org"`
	Stratum Stratum   `json:"stratum"` // frozen at admission
	Block   int       `json:"block"`   // the randomised block of the admission
	Arm     Arm       `json:"arm"`
	Kind    HarmKind  `json:"kind"`
	At      time.Time `json:"at"`
	Detail  string    `json:"detail,omitempty"`

	Ring int     `json:"ring"`           // of the admission
	Cell Stratum `json:"cell,omitempty"` // of the admission
	// After is how long the host had been observed since it was drawn;
	// outages of the control plane do not count.
	After time.Duration `json:"after_ns"`
	// First says that it is the host's first harm of any kind in the block.
	First bool `json:"first"`
}

// Severity grades a finding, as Sigma's level does.
type Severity string

// Finding is one rule's match on one host.
type Finding struct {
	ID         string    `json:"id"` // deterministic: the same match delivered twice has the same id
	Org        OrgID     `json:"org"`
	Host       HostID    `json:"host"`
	Hostname   string    `json:"hostname"`
	Rule       string    `json:"rule"` // Sigma rule id
	Title      string    `json:"title"`
	Severity   Severity  `json:"severity"`
	Techniques []string  `json:"techniques"`    // ATT&CK, "T1059.004"
	At         time.Time `json:"at"`            // when the event happened, by the host's clock
	Received   time.Time `json:"received"`      // when the server stored it
	Bundle     Digest    `json:"bundle"`        // the rules bundle that found it
	Event      []Fact    `json:"event"`         // the event's fields
	Matched    []Fact    `json:"matched"`       // which fields matched, with their values
	Why        []Reason  `json:"why,omitempty"` // by which lines of the rule; older agents do not say
	Tree       []Process `json:"tree"`          // the process and its ancestors, nearest first
}

// Fact is one named value of an event, by OCSF path.
type Fact struct {
	Field string `json:"field"`
	Value string `json:"value"`
}

// Reason is one line of a rule that held. Of a correlation, one says what was
// counted, and others which lines of its rules held for the event that
// completed it.
type Reason struct {
	// Search is the name of the selection; of a rule that a correlation counts,
	// after its title and a colon; or a correlation's type, or "group-by".
	Search  string   `json:"search"`
	Field   string   `json:"field,omitempty"`   // by OCSF path, as in Finding.Matched
	Test    string   `json:"test,omitempty"`    // Sigma's modifiers ("contains|all"), or a correlation's condition
	Fits    []string `json:"fits,omitempty"`    // the rule's values that the event's fit; at most 5
	Counted string   `json:"counted,omitempty"` // by a correlation: the number its condition was about
}

// Process is one node of a process tree.
type Process struct {
	PID     int       `json:"pid"`
	Path    string    `json:"path"`
	CmdLine string    `json:"cmd_line"`
	User    string    `json:"user"`
	Started time.Time `json:"started"`
}
