package apiv1

import "github.com/holdfast-security/holdfast"

// Drill is the result of a drill, as it is put on the record. Times are in
// seconds, and null where a drill has no such thing.
type Drill struct {
	Name  string `json:"drill"`
	Fault string `json:"fault"` // what went wrong, on purpose
	Seed  uint64 `json:"seed"`
	Hosts int    `json:"hosts"`
	Held  bool   `json:"held"` // everything that it was to show was so

	Detect  *float64 `json:"time_to_detect_s"`  // since the release began
	Halt    *float64 `json:"time_to_halt_s"`    // since the release began
	Recover *float64 `json:"time_to_recover_s"` // since the halt

	Exposed           int `json:"exposed"` // hosts that had the fault
	Harmed            int `json:"harmed"`  // of those, hosts it harmed
	HostsNeedingHands int `json:"hosts_needing_hands"`
}

// Validate reports what makes it no result.
func (d Drill) Validate() error {
	if d.Name == "" || len(d.Name) > 40 || len(d.Fault) > 400 || d.Hosts < 1 || d.Exposed < 0 || d.Harmed < 0 || d.HostsNeedingHands < 0 {
		return &holdfast.Error{Kind: holdfast.Invalid, What: "not the result of a drill", Do: "send what holdfast drill prints with --json"}
	}
	return nil
}
