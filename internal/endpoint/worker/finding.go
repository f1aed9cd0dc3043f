package worker

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
)

// The bounds of a finding's parts.
const (
	treeDepth = 12
	factBytes = 8 << 10
)

// findingID names one match for ever: the same rule on the same event of the
// same host, whichever worker saw it and whenever it was delivered. Times are
// left out, because two workers read the clock at two moments.
func findingID(host holdfast.HostID, rule string, e *ocsf.Event) string {
	h := sha256.New()
	write := func(s string) {
		h.Write([]byte(s))
		h.Write([]byte{0})
	}
	write("holdfast finding v1")
	write(string(host))
	write(rule)
	for _, i := range [...]int{ocsf.ActivityID, ocsf.ProcessUID, ocsf.ProcessPath, ocsf.ProcessCmdLine} {
		write(e.Values[i].Text())
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// facts copies an event's values, in the order of its class.
func facts(e *ocsf.Event) []holdfast.Fact {
	fields := ocsf.ProcessActivity().Fields
	out := make([]holdfast.Fact, 0, len(e.Values))
	for i, v := range e.Values {
		if i < len(fields) && v.Present() {
			out = append(out, holdfast.Fact{Field: fields[i].Path, Value: printable(v.Text())})
		}
	}
	return out
}

// printable makes any bytes valid text of bounded length. What a process says
// of itself need not be text.
func printable(s string) string {
	if len(s) > factBytes {
		s = s[:factBytes] + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
