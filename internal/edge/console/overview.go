package console

import (
	"net/http"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/view"
)

type overviewPage struct {
	shell
	view.Overview
}

func (s *Console) overview(w http.ResponseWriter, r *http.Request, v *visit) error {
	o, err := v.source.Overview(r.Context())
	if err != nil {
		return err
	}
	if !v.may(Inspect) {
		o.Findings = nil
	}
	p := overviewPage{s.shell(v, "Overview", "overview", view.TopicFleet, view.TopicRollouts, view.TopicFindings), o}
	return s.render(w, http.StatusOK, overviewView(p))
}

// protectedOf is how many hosts are protected right now.
func protectedOf(o view.Overview) int {
	n := 0
	for s, hosts := range o.States {
		if s.IsProtected() {
			n += hosts
		}
	}
	return n
}

// headlineOf says how the fleet is, in words.
func headlineOf(o view.Overview) string {
	p := protectedOf(o)
	switch {
	case o.Hosts == 0:
		return "No host has enrolled yet."
	case p == o.Hosts && o.Hosts == 1:
		return "The one host is protected."
	case p == o.Hosts:
		return "All " + count(o.Hosts) + " hosts are protected."
	case p == 0:
		return "None of " + plural(o.Hosts, "host", "hosts") + " is protected from here."
	}
	return count(p) + " of " + count(o.Hosts) + " hosts are protected."
}

// restOf says what the headline leaves out: who is not protected, and who is only
// just.
func restOf(o view.Overview) string {
	var parts []string
	say := func(s view.HostState, one, many string) {
		if n := o.States[s]; n > 0 {
			parts = append(parts, count(n)+" "+map[bool]string{true: one, false: many}[n == 1])
		}
	}
	say(view.Silent, "is silent", "are silent")
	say(view.SafeMode, "is in safe mode", "are in safe mode")
	say(view.Bare, "has no content yet", "have no content yet")
	say(view.PutBack, "was put back to what it had", "were put back to what they had")
	say(view.Probation, "is in probation", "are in probation")
	if len(parts) == 0 {
		return ""
	}
	return title(sentence(parts)) + "."
}

// dotsOf is what the map draws for a ring: every host, or, of a large fleet,
// shares of about a hundred marks.
func dotsOf(r view.RingStates) []view.HostDot {
	if r.Of != nil || r.Hosts == 0 {
		return r.Of
	}
	const marks = 100
	var dots []view.HostDot
	for _, s := range view.HostStates {
		n := r.States[s] * marks / r.Hosts
		if n == 0 && r.States[s] > 0 {
			n = 1 // the rare ones are the ones that matter
		}
		for range n {
			dots = append(dots, view.HostDot{State: s})
		}
	}
	return dots
}

// trendBar is one step of the findings trend, stacked by severity.
type trendBar struct {
	X, Width float64
	From     time.Time
	Total    int
	Parts    []trendPart
}

type trendPart struct {
	Severity  holdfast.Severity
	Y, Height float64
	Count     int
}

const trendWidth, trendHeight = 640.0, 120.0

func trendSteps(t view.Trend) int {
	n := 0
	for _, v := range t.By {
		n = max(n, len(v))
	}
	return n
}

func trendTotal(t view.Trend) int {
	n := 0
	for _, v := range t.By {
		for _, c := range v {
			n += c
		}
	}
	return n
}

func trendBars(t view.Trend) []trendBar {
	n := trendSteps(t)
	bars, peak := make([]trendBar, n), 0
	for i := range bars {
		for _, v := range t.By {
			if i < len(v) {
				bars[i].Total += v[i]
			}
		}
		peak = max(peak, bars[i].Total)
	}
	for i := range bars {
		b := &bars[i]
		b.From = t.From.Add(time.Duration(i) * t.Step)
		slot := trendWidth / float64(n)
		b.X, b.Width = round(float64(i)*slot+slot*.14), round(slot*.72)
		y := trendHeight
		for _, s := range severities {
			if v := t.By[s]; i < len(v) && v[i] > 0 {
				h := max(1.5, float64(v[i])/float64(max(peak, 4))*(trendHeight-6))
				y -= h
				b.Parts = append(b.Parts, trendPart{s, round(y), round(h - .8), v[i]})
			}
		}
	}
	return bars
}

func (b trendBar) words() string {
	var parts []string
	for _, p := range b.Parts {
		parts = append(parts, count(p.Count)+" "+string(p.Severity))
	}
	if len(parts) == 0 {
		parts = []string{"none"}
	}
	return b.From.UTC().Format("15:04") + ": " + strings.Join(parts, ", ")
}
