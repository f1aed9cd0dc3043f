package rollout

import (
	"strings"

	"github.com/holdfast-security/holdfast"
)

// MergeBelow is the size below which a stratum merges into its parent.
const MergeBelow = 200

// mergeOrder is the order in which factors are given up when strata merge:
// agent version first, role last, because roles differ most in what is normal.
var mergeOrder = [...]int{2, 1, 0, 3}

// Merge maps each stratum to the one it is compared in: itself if it has at
// least below hosts, else its first ancestor (with agent version, then
// distribution, then kernel, then role given up, written "*") that gathers
// enough. What still is too small ends in "*|*|*|*", unless it is alone there. A stratum stays as it is
// merged for the whole rollout; call this once, before the start.
func Merge(hosts map[holdfast.Stratum]int, below int) map[holdfast.Stratum]holdfast.Stratum {
	to := make(map[holdfast.Stratum]holdfast.Stratum, len(hosts))
	for s := range hosts {
		to[s] = s
	}
	for _, factor := range mergeOrder {
		size := map[holdfast.Stratum]int{}
		for s, t := range to {
			size[t] += hosts[s]
		}
		for s, t := range to {
			if size[t] < below {
				to[s] = without(t, factor)
			}
		}
	}
	// A parent with one child is that child.
	children := map[holdfast.Stratum]int{}
	for _, t := range to {
		children[t]++
	}
	for s, t := range to {
		if children[t] == 1 {
			to[s] = s
		}
	}
	return to
}

// without gives up one factor of a stratum.
func without(s holdfast.Stratum, factor int) holdfast.Stratum {
	parts := strings.SplitN(string(s), "|", 4)
	if factor < len(parts) {
		parts[factor] = "*"
	}
	return holdfast.Stratum(strings.Join(parts, "|"))
}
