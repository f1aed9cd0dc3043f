package holdfast

import "time"

// Role is what a person may do in an organisation. Which action needs which
// role is one table, in the API.
type Role string

// The roles.
const (
	Viewer        Role = "viewer"        // reads
	Analyst       Role = "analyst"       // handles findings and responds on hosts
	Publisher     Role = "publisher"     // registers content and asks for releases
	Operator      Role = "operator"      // approves, pauses, halts, overrides
	Administrator Role = "administrator" // people, tokens and settings
)

// Roles lists the roles in a fixed order.
var Roles = []Role{Viewer, Analyst, Publisher, Operator, Administrator}

// User is a person (or a program acting as one) who may sign in. Its password
// is never part of it.
type User struct {
	Name     string    `json:"name"` // unique in the installation; the name on the record
	Org      OrgID     `json:"org"`
	Role     Role      `json:"role"`
	Created  time.Time `json:"created"`
	Disabled bool      `json:"disabled,omitempty"`
}

// Organisation is a customer, or the single company of an installation.
type Organisation struct {
	ID      OrgID     `json:"id"`
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
}

// Enrolment is a permission to enrol hosts. Its secret is shown once, when it
// is made, and kept only as a hash.
type Enrolment struct {
	ID        string    `json:"id"`
	Org       OrgID     `json:"org"`
	Role      string    `json:"role"`      // the role of hosts that use it: "server", "laptop", …
	Simulated bool      `json:"simulated"` // hosts that use it are shown as simulated
	Uses      int       `json:"uses"`      // how many hosts may still use it
	Created   time.Time `json:"created"`
	Expires   time.Time `json:"expires"`
	By        string    `json:"by"`
}

// Consent is an organisation's policy as the control plane keeps it: a signed
// envelope, which nobody there can change (docs/consent.md).
type Consent struct {
	Org      OrgID     `json:"org"`
	Version  int64     `json:"version"` // only grows
	Key      []byte    `json:"key"`     // the organisation's public key, Ed25519
	Envelope []byte    `json:"envelope"`
	By       string    `json:"by"` // who brought it here; the key says who decided
	At       time.Time `json:"at"`
}
