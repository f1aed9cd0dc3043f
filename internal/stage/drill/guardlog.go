package drill

import (
	"bufio"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast"
)

// guardLog reads what a guard tells of itself: what happened on a host by its
// own word, whatever the server heard of it.
type guardLog struct{ file string }

// step is one line in which a guard tells of an event, and how it stands after
// it.
type step struct {
	at                          time.Time
	event, slot, running, trial string
}

// ended reports whether the event is the end of a worker.
func (s step) ended() bool {
	return s.event == "exited" || s.event == "stalled" || s.event == "overran"
}

var guardLine = regexp.MustCompile(`^time=(\S+) level=INFO msg=guard event=(\w+)(?: slot=(\w+))?.*? running="([^"]*)"(?:.*? trial="([^"]*)")?`)

func (l guardLog) steps() []step {
	f, err := os.Open(l.file)
	if err != nil {
		return nil
	}
	defer f.Close()
	var all []step
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		m := guardLine.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		if at, err := time.Parse(time.RFC3339Nano, m[1]); err == nil {
			all = append(all, step{at, m[2], m[3], m[4], m[5]})
		}
	}
	return all
}

func (l guardLog) count(event, slot string) int {
	n := 0
	for _, s := range l.steps() {
		if s.event == event && s.slot == slot {
			n++
		}
	}
	return n
}

// tried counts how often a digest was put on trial, and ran.
func (l guardLog) tried(d holdfast.Digest) int {
	n := 0
	for _, s := range l.steps() {
		if s.event == "ready" && s.slot == "trial" && strings.Contains(s.running, d.Short()) {
			n++
		}
	}
	return n
}

// ran returns when a digest first ran, or zero.
func (l guardLog) ran(d holdfast.Digest) time.Time {
	for _, s := range l.steps() {
		if s.event == "ready" && s.slot == "trial" && strings.Contains(s.running, d.Short()) {
			return s.at
		}
	}
	return time.Time{}
}

// left returns when a digest that ran ran no more, or zero.
func (l guardLog) left(d holdfast.Digest) (at time.Time) {
	for _, s := range l.steps() {
		switch runs := strings.Contains(s.running, d.Short()); {
		case runs:
			at = time.Time{}
		case at.IsZero():
			at = s.at
		}
	}
	return at
}

// struck returns when workers died, hung or overran with a digest, on trial or
// after it: the harm it did here.
func (l guardLog) struck(d holdfast.Digest) []time.Time {
	var all []time.Time
	var before step
	for _, s := range l.steps() {
		if s.ended() {
			had := before.running
			if s.slot == "trial" {
				had = before.trial
			}
			if strings.Contains(had, d.Short()) {
				all = append(all, s.at)
			}
		}
		before = s
	}
	return all
}

// recoveries returns, for each worker on trial that died while it was the only
// one, how long it took until the previous generation ran again.
func (l guardLog) recoveries() []time.Duration {
	var all []time.Duration
	var before step
	var died time.Time
	for _, s := range l.steps() {
		switch {
		case s.ended() && s.slot == "trial" && before.trial != "" && before.trial == before.running:
			died = s.at
		case s.slot == "current" && s.event == "ready" && !died.IsZero():
			all, died = append(all, s.at.Sub(died)), time.Time{}
		case s.event == "started":
			died = time.Time{}
		}
		before = s
	}
	return all
}
