// Package drill plays faults on purpose, on real processes: guards with their
// agents, and a server, all in a trust domain of their own that production
// hosts refuse.
//
// A drill is a cast of hosts, a fault, and what is watched. The fault is never
// a switch in a shipped program: it is content that is bad, a build that is, a
// wire that is cut, or a process that is killed.
package drill

// Moment is one line of what happened when.
type Moment struct {
	At   float64 `json:"at_s"` // seconds since the drill began
	What string  `json:"what"`
}
