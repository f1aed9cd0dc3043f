package consent

import (
	"fmt"
	"strings"
	"time"
)

// Window is a weekly time of maintenance, by the wall clock of a place. One
// that ends before it begins ends on the next day.
type Window struct {
	Days     [7]bool // by time.Weekday
	From, To time.Duration
	Zone     *time.Location
}

// String writes the window for people: sat, sun 22:00–02:00 Europe/Berlin.
func (w *Window) String() string {
	var days []string
	for i := range w.Days { // a week begins on Monday
		if day := (i + 1) % 7; w.Days[day] {
			days = append(days, strings.ToLower(time.Weekday(day).String()[:3]))
		}
	}
	on := strings.Join(days, ", ")
	if len(days) == 7 {
		on = "every day"
	}
	clock := func(d time.Duration) string {
		return fmt.Sprintf("%02d:%02d", int(d/time.Hour), int(d%time.Hour/time.Minute))
	}
	return fmt.Sprintf("%s %s–%s %s", on, clock(w.From), clock(w.To), w.Zone)
}

// on returns the window's span that begins on the day of t, moved by days.
func (w *Window) on(t time.Time, days int) (from, to time.Time, ok bool) {
	y, m, d := t.In(w.Zone).Date()
	d += days
	// A day has no midnight where the clock jumps then; noon it has everywhere.
	if !w.Days[time.Date(y, m, d, 12, 0, 0, 0, w.Zone).Weekday()] {
		return from, to, false
	}
	next := 0
	if w.To <= w.From {
		next = 1
	}
	from, to = shows(y, m, d, w.From, w.Zone), shows(y, m, d+next, w.To, w.Zone)
	return from, to, from.Before(to) // a clock that jumps ahead can swallow it
}

// shows is the first moment of a day at which a clock on the wall shows a time,
// or, if it jumps over that, a later one.
func shows(y int, m time.Month, d int, of time.Duration, zone *time.Location) time.Time {
	hour, minute := int(of/time.Hour), int(of%time.Hour/time.Minute)
	t := time.Date(y, m, d, hour, minute, 0, 0, zone)
	asked := time.Date(y, m, d, hour, minute, 0, 0, time.UTC)
	_, offset := t.Zone()
	start, end := t.ZoneBounds()
	switch shown := t.Add(time.Duration(offset) * time.Second).UTC(); {
	case shown.Before(asked): // and then it jumps
		return end
	case shown.After(asked):
		return start
	case start.IsZero():
		return t
	}
	// Where the clock was put back, it may have shown the same before.
	_, before := start.Add(-1).Zone()
	if first := t.Add(time.Duration(offset-before) * time.Second); first.Before(start) {
		return first
	}
	return t
}

// open returns the first moment from t on at which one of the windows is open,
// and until when it then is.
func open(ws []Window, t time.Time) (from, until time.Time, ok bool) {
	for i := range ws {
		for day := -1; day <= 14; day++ {
			a, b, is := ws[i].on(t, day)
			if !is || !t.Before(b) {
				continue
			}
			if a.Before(t) {
				a = t
			}
			if !ok || a.Before(from) || a.Equal(from) && b.After(until) {
				from, until, ok = a, b, true
			}
			break
		}
	}
	return from, until, ok
}

// nextOpen returns the first moment from t on at which every group has a window
// open, and until when all of them then are; with no group at all that is t. It
// looks some three months ahead.
func nextOpen(groups [][]Window, t time.Time) (at, until time.Time, ok bool) {
	end := t.AddDate(0, 3, 0)
	for range 1000 {
		latest := t
		until = time.Time{}
		for _, ws := range groups {
			from, to, ok := open(ws, t)
			if !ok {
				return t, until, false
			}
			latest = later(latest, from)
			if until.IsZero() || to.Before(until) {
				until = to
			}
		}
		if latest.Equal(t) {
			return t, until, true
		}
		if t = latest; t.After(end) {
			return t, until, false
		}
	}
	return t, until, false
}
