package sensor

import "github.com/holdfast-security/holdfast/internal/language/ocsf"

// Supplied says how many inputs this build's sensor supplies, by class: what
// rehearsal's events are cut to, so that they are as this sensor makes them.
func Supplied() map[int]int { return map[int]int{ocsf.ProcessActivityUID: supplied} }
