package fleet

import "time"

// Span is a time in which the control plane could not hear the fleet. It does
// not count as time of observation, for either arm.
type Span struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// outages knows when the control plane could not hear the fleet: because it
// did not run, because it was starved, or because most hosts that have nothing
// to do with a release vanished at once.
type outages struct {
	past  []Span
	open  bool
	from  time.Time
	until time.Time // it does not end before

	// How many untreated hosts were present at the last few looks, a heartbeat
	// apart. Treated hosts are left out: a release that silences its hosts must
	// never pass for an outage.
	untreated int // present now
	seen      [silentAfter + 1]int
	looked    time.Time
	level     int // present before the outage, if it is one of this kind
}

const (
	leastForOutage = 10 // untreated hosts; fewer may vanish by chance
	longestOutage  = 10 // heartbeats; hosts that stay away longer are away
)

func (o *outages) begin(from time.Time) {
	if !o.open {
		o.open, o.from, o.level = true, from, 0
	}
}

func (o *outages) advance(f *Fleet, now time.Time) {
	beat := f.clock.Heartbeat
	most := 0
	for _, n := range o.seen {
		most = max(most, n)
	}
	if !o.open && most >= leastForOutage && 2*o.untreated < most {
		o.begin(now.Add(-absentAfter * beat))
		o.level = most
		o.until = now
	}
	if o.open && !now.Before(o.until) {
		back := 2*o.untreated >= o.level || now.Sub(o.from) > longestOutage*beat
		if back {
			o.end(now, beat)
		}
	}
	if now.Sub(o.looked) >= beat {
		o.looked = now
		copy(o.seen[1:], o.seen[:silentAfter])
		o.seen[0] = o.untreated
		if o.open {
			clear(o.seen[:])
		}
	}
}

// treat takes a host out of those that are looked at, also in hindsight: that
// it was drawn is not that it vanished.
func (o *outages) treat(present bool) {
	if !present {
		return
	}
	o.untreated--
	o.level = max(0, o.level-1)
	for i, n := range o.seen {
		o.seen[i] = max(0, n-1)
	}
}

func (o *outages) end(now time.Time, beat time.Duration) {
	o.open = false
	o.past = append(o.past, Span{o.from, now})
	clear(o.seen[:])
	if extra := len(o.past) - 1000; extra > 0 {
		o.past = o.past[extra:]
	}
}

// lost is how much of the time from a moment until now was outage.
func (o *outages) lost(from, now time.Time) time.Duration {
	var d time.Duration
	overlap := func(a, b time.Time) {
		if a.Before(from) {
			a = from
		}
		if b.After(now) {
			b = now
		}
		if b.After(a) {
			d += b.Sub(a)
		}
	}
	for i := len(o.past) - 1; i >= 0 && o.past[i].To.After(from); i-- {
		overlap(o.past[i].From, o.past[i].To)
	}
	if o.open {
		overlap(o.from, now)
	}
	return d
}

// heard is the moment from which a host's silence counts: when it was last
// heard, but not before the control plane could hear again.
func (o *outages) heard(last time.Time) time.Time {
	if n := len(o.past); n > 0 && o.past[n-1].To.After(last) {
		return o.past[n-1].To
	}
	return last
}

// Observed is how long a host was under observation between its draw and a
// later moment: outages do not count.
func (f *Fleet) Observed(drawn, at time.Time) time.Duration {
	return at.Sub(drawn) - f.outages.lost(drawn, at)
}
