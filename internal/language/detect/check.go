package detect

import (
	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// Check is the static check of a set against what another sensor build says it
// can do: it names each rule that would not run there, with file, line, field
// and reason. It trusts the manifest; whether the build keeps its word is found
// out by rehearsal.
func Check(set sigma.Set, m holdfast.Manifest, placeholders map[string][]string) []holdfast.RuleProblem {
	_, problems := Compile(set, Options{Classes: ocsf.FromManifest(m), Placeholders: placeholders})
	var found []holdfast.RuleProblem
	for _, p := range problems {
		if !p.Warning {
			found = append(found, p.RuleProblem("static"))
		}
	}
	if n := len(set.Rules); m.Limits.Rules > 0 && n > m.Limits.Rules {
		p := sigma.Problem{Reason: "the set has more rules than the build loads", Do: "split it, or leave rules out"}
		found = append(found, p.RuleProblem("static"))
	}
	return found
}
