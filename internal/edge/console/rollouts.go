package console

import (
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"

	"github.com/holdfast-security/holdfast"
)

type rolloutsPage struct {
	shell
	Rollouts []RolloutRow
}

type rolloutPage struct {
	shell
	RolloutDetail
	Offered []decision // what the visitor may decide now
}

func (s *Console) rollouts(w http.ResponseWriter, r *http.Request, v *visit) error {
	rows, err := s.Source.Rollouts(r.Context())
	if err != nil {
		return err
	}
	return s.render(w, http.StatusOK, rolloutsView(rolloutsPage{s.shell(v, "Rollouts", "rollouts", TopicRollouts), rows}))
}

func (s *Console) rollout(w http.ResponseWriter, r *http.Request, v *visit) error {
	d, err := s.Source.Rollout(r.Context(), holdfast.ReleaseID(r.PathValue("id")))
	if err != nil {
		return err
	}
	p := rolloutPage{shell: s.shell(v, d.name(), "rollouts", TopicRollouts), RolloutDetail: d}
	p.Done = r.URL.Query().Get("done")
	for _, dec := range decisions {
		if dec.offered(d.RolloutRow, v) {
			p.Offered = append(p.Offered, dec)
		}
	}
	return s.render(w, http.StatusOK, rolloutView(p))
}

func (r RolloutRow) name() string { return string(r.Bundle.Channel) + " " + r.Bundle.Version }

// pathOf writes an id as one segment of a path.
func pathOf(id string) string { return url.PathEscape(id) }

// status says in one sentence how a rollout stands.
func (r RolloutRow) status() string {
	harmed := "none harmed"
	if r.Harmed > 0 {
		harmed = plural(r.Harmed, "host", "hosts") + " harmed"
	}
	have := count(r.Admitted) + " of " + count(r.Eligible) + " hosts were given it, " + harmed
	switch r.Phase {
	case holdfast.Waiting:
		return title(r.name()) + " waits for a second person."
	case holdfast.Running:
		return title(r.name()) + " is on its way: " + have + "."
	case holdfast.Held:
		return title(r.name()) + " goes on slowly, held by evidence: " + have + "."
	case holdfast.Paused:
		return title(r.name()) + " is paused: " + have + "."
	case holdfast.Halted:
		return title(r.name()) + " was halted and recalled: " + have + "."
	case holdfast.Stopped:
		return title(r.name()) + " was stopped and recalled: " + have + "."
	case holdfast.Complete:
		return title(r.name()) + " has reached every ring: " + have + "."
	}
	return ""
}

func (r RingProgress) share(n int) string {
	if r.Eligible == 0 {
		return "0%"
	}
	return fmt.Sprintf("%.1f%%", 100*math.Min(1, float64(n)/float64(r.Eligible)))
}

func (r RingProgress) pending() int { return max(0, r.Admitted-r.Clean-r.Harmed) }

func (r RingProgress) words() string {
	return fmt.Sprintf("Ring %s: %s of %s admitted, %s clean, %s harmed", r.Name, count(r.Admitted), count(r.Eligible), count(r.Clean), count(r.Harmed))
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

// anytimeP is the p-value that may be read at any moment: the least 1/E so far.
func (d RolloutDetail) anytimeP() string {
	best := d.Evidence
	for _, s := range d.Proof {
		best = max(best, s.Value)
	}
	p := 1 / max(best, 1)
	if p >= 0.001 {
		return strconv.FormatFloat(math.Round(p*1000)/1000, 'f', -1, 64)
	}
	return number(p*math.Pow(10, 6)) + "×10" + superscript(-6)
}

// risk is pending × hU: how many hosts a fault that can still not be ruled out
// would harm among those that have the release and have not proved it.
func (b Bound) risk() float64 { return float64(b.Pending) * b.HU }

func (b Bound) riskShare() string {
	if b.Budget <= 0 {
		return "0%"
	}
	return fmt.Sprintf("%.1f%%", 100*min(1, b.risk()/b.Budget))
}

func (d RolloutDetail) second() string {
	if d.Approved == "" {
		return "nobody yet"
	}
	return d.Approved
}

// decided and admissions part the timeline: what was decided, and how it was
// carried out block by block.
func (d RolloutDetail) decided() []Entry    { return d.entries(false) }
func (d RolloutDetail) admissions() []Entry { return d.entries(true) }

func (d RolloutDetail) entries(admissions bool) []Entry {
	var list []Entry
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
	case "pause":
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
