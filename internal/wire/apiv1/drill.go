package apiv1

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/holdfast-security/holdfast"
)

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
	if d.Name == "" || len(d.Name) > 40 || len(d.Fault) > 400 || strings.ContainsFunc(d.Name+d.Fault, unicode.IsControl) ||
		d.Hosts < 1 || d.Exposed < 0 || d.Harmed < 0 || d.HostsNeedingHands < 0 {
		return &holdfast.Error{Kind: holdfast.Invalid, What: "not the result of a drill", Do: "send what holdfast drill prints with --json"}
	}
	return nil
}

// Sentence tells the result to people.
func (d Drill) Sentence() string {
	held := "what it was to show was so"
	if !d.Held {
		held = "NOT everything it was to show was so"
	}
	s := fmt.Sprintf("drill %s on %d hosts (%s): %s; %d had the fault, %d were harmed, %d need hands", d.Name, d.Hosts, d.Fault, held, d.Exposed, d.Harmed, d.HostsNeedingHands)
	for _, t := range []struct {
		what    string
		seconds *float64
	}{{"known after", d.Detect}, {"halted after", d.Halt}, {"back after another", d.Recover}} {
		if t.seconds != nil {
			s += fmt.Sprintf(", %s %.1f s", t.what, *t.seconds)
		}
	}
	return s
}
