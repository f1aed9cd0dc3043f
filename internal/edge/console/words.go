package console

import (
	"fmt"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/view"
)

// count writes n with a comma at every thousand.
func count[N int | int64 | uint64](n N) string {
	s := strconv.FormatInt(int64(n), 10)
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}

// plural writes "1 host", "3 hosts", "no hosts".
func plural(n int, one, many string) string {
	switch n {
	case 0:
		return "no " + many
	case 1:
		return "1 " + one
	}
	return count(n) + " " + many
}

// number writes a statistic with three significant digits, without exponents
// up to a million.
func number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v):
		return "–"
	case math.IsInf(v, 0):
		return "∞"
	case a >= 1e6:
		e := math.Floor(math.Log10(a))
		return fmt.Sprintf("%.1f×10%s", v/math.Pow(10, e), superscript(int(e)))
	case a >= 1000:
		return count(int(math.Round(v)))
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

var superscripts = strings.NewReplacer("0", "⁰", "1", "¹", "2", "²", "3", "³", "4", "⁴", "5", "⁵", "6", "⁶", "7", "⁷", "8", "⁸", "9", "⁹", "-", "⁻")

func superscript(n int) string { return superscripts.Replace(strconv.Itoa(n)) }

// percent writes a share.
func percent(share float64) string {
	switch p := share * 100; {
	case p == 0:
		return "0 %"
	case p < 0.1:
		return fmt.Sprintf("%.2g %%", p)
	case p < 10:
		return fmt.Sprintf("%.1f %%", p)
	default:
		return fmt.Sprintf("%.0f %%", p)
	}
}

// size writes bytes in binary units.
func size(n uint64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}

// nanoseconds writes a short time in the unit that suits it.
func nanoseconds(ns float64) string {
	switch {
	case ns >= 1e6:
		return fmt.Sprintf("%.1f ms", ns/1e6)
	case ns >= 1e3:
		return fmt.Sprintf("%.1f µs", ns/1e3)
	case ns >= 10:
		return fmt.Sprintf("%.0f ns", ns)
	}
	return fmt.Sprintf("%.2g ns", ns)
}

// span writes a duration in its largest one or two units.
func span(d time.Duration) string {
	d = d.Abs()
	pair := func(big, small time.Duration, b, s string) string {
		whole := d / big
		if rest := (d % big) / small; rest > 0 && whole < 10 {
			return fmt.Sprintf("%d %s %d %s", whole, b, rest, s)
		}
		return fmt.Sprintf("%d %s", whole, b)
	}
	switch {
	case d >= 24*time.Hour:
		return pair(24*time.Hour, time.Hour, "d", "h")
	case d >= time.Hour:
		return pair(time.Hour, time.Minute, "h", "min")
	case d >= time.Minute:
		return pair(time.Minute, time.Second, "min", "s")
	case d >= time.Second:
		return fmt.Sprintf("%d s", d/time.Second)
	case d == 0:
		return "0 s"
	}
	return fmt.Sprintf("%d ms", d/time.Millisecond)
}

// ago writes how long before now t was, or how long it will be.
func ago(t, now time.Time) string {
	switch d := now.Sub(t); {
	case t.IsZero():
		return "never"
	case d < -time.Second:
		return "in " + span(d)
	case d < 2*time.Second:
		return "now"
	default:
		return strings.Join(strings.Fields(span(d))[:2], " ") + " ago"
	}
}

// exact writes a moment unambiguously.
func exact(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

func rfc3339(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// sentence joins parts as English does.
func sentence(parts []string) string {
	switch len(parts) {
	case 0:
		return ""
	case 1:
		return parts[0]
	}
	return strings.Join(parts[:len(parts)-1], ", ") + " and " + parts[len(parts)-1]
}

// stateWords say a host state to a person.
var stateWords = map[view.HostState]string{
	view.Protected: "protected", view.Probation: "in probation", view.PutBack: "put back",
	view.SafeMode: "safe mode", view.Bare: "no content", view.Silent: "silent",
	view.Revoked: "revoked",
}

var stateMeanings = map[view.HostState]string{
	view.Protected: "Runs content that has proved itself on this host.",
	view.Probation: "Runs content that is still proving itself; the guard puts the previous back if it fails.",
	view.PutBack:   "Its latest candidate failed. The guard put the previous content back, and that runs.",
	view.SafeMode:  "Runs no content, but is reachable, and needs no hands.",
	view.Bare:      "Is enrolled and has not been given content yet.",
	view.Silent:    "Has no connection to the control plane. Its guard protects it by itself.",
	view.Revoked:   "Is not of the fleet any more: its key opens nothing, and it is counted nowhere.",
}

// phaseIcons and phaseTones give each phase a shape as well as a colour.
var phaseIcons = map[holdfast.Phase]string{
	holdfast.Waiting: "wait", holdfast.Running: "run", holdfast.Held: "hold", holdfast.Paused: "pause",
	holdfast.Halted: "halt", holdfast.Stopped: "halt", holdfast.Complete: "check",
}

var phaseTones = map[holdfast.Phase]string{
	holdfast.Waiting: "wait", holdfast.Running: "run", holdfast.Held: "warn", holdfast.Paused: "wait",
	holdfast.Halted: "bad", holdfast.Stopped: "bad", holdfast.Complete: "ok",
}

// severities are Sigma's levels, gravest first.
var severities = []holdfast.Severity{"critical", "high", "medium", "low", "informational"}

func grade(s holdfast.Severity) int {
	for i, v := range severities {
		if v == s {
			return len(severities) - i
		}
	}
	return 0
}

// techniqueURL is where MITRE describes an ATT&CK technique.
func techniqueURL(id string) string {
	return "https://attack.mitre.org/techniques/" + strings.ReplaceAll(url.PathEscape(id), ".", "/")
}

// label names a generation's digest for people.
func label(versions map[holdfast.Digest]string, d holdfast.Digest) string {
	if v := versions[d]; v != "" {
		return v
	}
	return d.Short()
}

func title(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// with returns q with one parameter changed, as a link of the same page.
func with(path string, q url.Values, name, value string) string {
	n := url.Values{}
	for k, v := range q {
		if k != name && k != "done" && len(v) > 0 && v[0] != "" && (k != "page" || name == "page") {
			n[k] = v[:1]
		}
	}
	if value != "" {
		n.Set(name, value)
	}
	if len(n) == 0 {
		return path
	}
	return path + "?" + n.Encode()
}

// previewWords say why hosts do not get a release, by view.PreviewRow.State.
var previewWords = map[string]string{
	"paused": "paused", "pinned": "pinned", "n-1": "one behind", "window": "no window",
}
