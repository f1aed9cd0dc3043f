//go:build !holdfast_twin

package sensor

import "github.com/holdfast-security/holdfast/internal/language/ocsf"

// What the definition promises is what the sensor supplies, or this does not
// compile. Only the drill's faulty twin is built without this line.
var _ [supplied]struct{} = [ocsf.ProcessInputs]struct{}{}
