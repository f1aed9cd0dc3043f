package console

import (
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/view"
)

type rolloutsPage struct {
	shell
	Rollouts []view.RolloutRow
}

type rolloutPage struct {
	shell
	view.RolloutDetail
	Offered []decision // what the visitor may decide now
}

func (s *Console) rollouts(w http.ResponseWriter, r *http.Request, v *visit) error {
	rows, err := v.source.Rollouts(r.Context())
	if err != nil {
		return err
	}
	return s.render(w, http.StatusOK, rolloutsView(rolloutsPage{s.shell(v, "Rollouts", "rollouts", view.TopicRollouts), rows}))
}

func (s *Console) rollout(w http.ResponseWriter, r *http.Request, v *visit) error {
	d, err := v.source.Rollout(r.Context(), holdfast.ReleaseID(r.PathValue("id")))
	if err != nil {
		return err
	}
	p := rolloutPage{shell: s.shell(v, rolloutName(d.RolloutRow), "rollouts", view.TopicRollouts), RolloutDetail: d}
	p.Done = r.URL.Query().Get("done")
	for _, dec := range decisions {
		if dec.offered(d.RolloutRow, v) {
			p.Offered = append(p.Offered, dec)
		}
	}
	return s.render(w, http.StatusOK, rolloutView(p))
}

func rolloutName(r view.RolloutRow) string { return string(r.Bundle.Channel) + " " + r.Bundle.Version }

// pathOf writes an id as one segment of a path.
func pathOf(id string) string { return url.PathEscape(id) }

// rolloutStatus says in one sentence how a rollout stands.
func rolloutStatus(r view.RolloutRow) string {
	harmed := "none harmed"
	if r.Harmed > 0 {
		harmed = plural(r.Harmed, "host", "hosts") + " harmed"
	}
	have := count(r.Admitted) + " of " + count(r.Eligible) + " hosts were given it, " + harmed
	if r.Held > 0 {
		have += "; " + heldBack(r.Held)
	}
	switch r.Phase {
	case holdfast.Waiting:
		return title(rolloutName(r)) + " waits for a second person."
	case holdfast.Running:
		return title(rolloutName(r)) + " is on its way: " + have + "."
	case holdfast.Held:
		return title(rolloutName(r)) + " goes on slowly, held by evidence: " + have + "."
	case holdfast.Paused:
		return title(rolloutName(r)) + " is paused: " + have + "."
	case holdfast.Halted:
		return title(rolloutName(r)) + " was halted and recalled: " + have + "."
	case holdfast.Stopped:
		return title(rolloutName(r)) + " was stopped and recalled: " + have + "."
	case holdfast.Complete:
		return title(rolloutName(r)) + " has reached every ring: " + have + "." + lateWords(r)
	}
	return ""
}

// lateWords says what became of hosts that came when a rollout was complete, if
// somebody should look.
func lateWords(r view.RolloutRow) (words string) {
	if r.LateFailed > 0 {
		words = " Of those that came later, " + plural(r.LateFailed, "host", "hosts") + " came to harm."
	}
	if r.LateWaiting > 0 {
		words += " " + title(plural(r.LateWaiting, "host waits", "hosts wait")) + " until some of their kind have proved it."
	}
	return words
}

func ringShare(r view.RingProgress, n int) string {
	if r.Eligible == 0 {
		return "0%"
	}
	return fmt.Sprintf("%.1f%%", 100*math.Min(1, float64(n)/float64(r.Eligible)))
}

func ringPending(r view.RingProgress) int { return max(0, r.Admitted-r.Clean-r.Harmed) }

func ringWords(r view.RingProgress) string {
	words := fmt.Sprintf("Ring %s: %s of %s admitted, %s clean, %s harmed", r.Name, count(r.Admitted), count(r.Eligible), count(r.Clean), count(r.Harmed))
	if r.Held > 0 {
		words += "; " + heldBack(r.Held)
	}
	return words
}

// heldBack counts hosts that cannot be given a release, and that nothing waits for.
func heldBack(n int) string {
	if n == 1 {
		return "1 more is held back by its organisation's policy"
	}
	return count(n) + " more are held back by their organisations' policies"
}

// rulerLow is where the evidence ruler starts; its end is the threshold.
const rulerLow = 0.1

func rulerAt(v, alpha float64) float64 {
	lo, hi := math.Log10(rulerLow), math.Log10(1/alpha)
	return min(1, max(0, (math.Log10(max(v, rulerLow))-lo)/(hi-lo)))
}

func ruler(e, alpha float64) string { return fmt.Sprintf("%.1f%%", 100*rulerAt(e, alpha)) }

type rulerMark struct{ At string }

func rulerMarks(alpha float64) []rulerMark {
	return []rulerMark{{ruler(1, alpha)}, {ruler(10, alpha)}}
}

// anytimeP writes the p-value that may be read at any moment.
func anytimeP(p float64) string {
	if p >= 0.001 {
		return strconv.FormatFloat(math.Round(p*1000)/1000, 'f', -1, 64)
	}
	return number(p*math.Pow(10, 6)) + "×10" + superscript(-6)
}

// rangeOf writes an interval of which zero bounds are open.
func rangeOf(r view.Range) string {
	switch {
	case r.Low == 0 && r.High == 0:
		return "not known yet"
	case r.Low == 0:
		return "at most " + number(r.High)
	case r.High == 0:
		return "at least " + number(r.Low)
	}
	return number(r.Low) + " to " + number(r.High)
}

// worstOf writes the bound that holds for this fleet.
func worstOf(d view.RolloutDetail) string {
	by := "then a person decides"
	if d.Bound.Tested {
		by = "then the test halts it"
	}
	return fmt.Sprintf("%d of %s harmed, %s", d.Bound.Worst, plural(d.Eligible, "host", "hosts"), by)
}

// riskOf is pending × hU: how many hosts a fault that can still not be ruled out
// would harm among those that have the release and have not proved it.
func riskOf(b view.Bound) float64 { return float64(b.Pending) * b.HU }

func riskShare(b view.Bound) string {
	if b.Budget <= 0 {
		return "0%"
	}
	return fmt.Sprintf("%.1f%%", 100*min(1, riskOf(b)/b.Budget))
}

func secondOf(d view.RolloutDetail) string {
	if d.Approved == "" {
		return "nobody yet"
	}
	return d.Approved
}

// decided and admissions part the timeline: what was decided, and how it was
// carried out block by block.
func decided(d view.RolloutDetail) []view.Entry      { return entriesOf(d, false) }
func admissionsOf(d view.RolloutDetail) []view.Entry { return entriesOf(d, true) }

func entriesOf(d view.RolloutDetail, admissions bool) []view.Entry {
	var list []view.Entry
	for _, e := range d.Timeline {
		if (e.Kind == "admit") == admissions {
			list = append(list, e)
		}
	}
	return list
}

var harmWords = map[holdfast.HarmKind]string{
	holdfast.Crash: "crash", holdfast.Reboot: "reboot", holdfast.Silence: "silence",
	holdfast.CPU: "processor", holdfast.Memory: "memory",
}

// entryIcon gives the decisions that matter most their own shape.
func entryIcon(kind string) string {
	switch kind {
	case "halt", "stop":
		return "halt"
	case "recall", "recalled":
		return "putback"
	case "hold":
		return "hold"
	case "pause", "storm":
		return "pause"
	case "begin", "resume":
		return "run"
	case "promote", "admit":
		return "rollouts"
	case "verdict":
		return "verdict"
	case "publish", "release", "build":
		return "content"
	case "approve", "complete":
		return "check"
	case "order":
		return "person"
	case "metadata":
		return "key"
	case "override", "override-asked":
		return "warn"
	}
	return "record"
}
