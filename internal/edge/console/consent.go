package console

import (
	"net/http"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast/internal/view"
)

type consentPage struct {
	shell
	view.ConsentPage
}

// consent shows what organisations allow.
func (s *Console) consent(w http.ResponseWriter, r *http.Request, v *visit) error {
	c, err := v.source.Consents(r.Context())
	if err != nil {
		return err
	}
	p := consentPage{s.shell(v, "Consent", "consent", view.TopicFleet), c}
	return s.render(w, http.StatusOK, consentView(p))
}

// ruleWords say what a group's rule means for its hosts.
func ruleWords(r view.ConsentRule) string {
	switch r.Track {
	case "early":
		return "as soon as their rings open"
	case "general":
		return "with the last ring"
	case "delay":
		return hours(r.Delay) + " after it was signed"
	case "n-1":
		return "one version behind"
	case "pin":
		return "pinned to " + r.Pin
	case "pause":
		return "paused"
	}
	return r.Track
}

// hours writes a delay as its policy does: 24h, 1h30m.
func hours(d time.Duration) string {
	s := strings.TrimSuffix(d.String(), "m0s")
	if s == d.String() {
		return s
	}
	if h, whole := strings.CutSuffix(s, "h0"); whole {
		return h + "h"
	}
	return s + "m"
}

// holds reports whether a rule keeps releases away for good, as things stand.
func holds(r view.ConsentRule) bool {
	return r.Track == "pin" || r.Track == "pause" || r.Track == "n-1"
}

func channelOf(r view.ConsentRule) string {
	if r.Critical {
		return "critical " + string(r.Channel)
	}
	return string(r.Channel)
}

func whereWords(g view.ConsentGroup) string {
	if len(g.Where) == 0 {
		return "every host"
	}
	return strings.Join(g.Where, ", ")
}
