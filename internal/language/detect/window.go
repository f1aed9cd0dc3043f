package detect

import (
	"bytes"
	"math/bits"
	"slices"

	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// counter is what one correlation has seen: a window of recent entries for each
// tuple of its group-by fields. It is bounded in groups and in entries; what
// has to go is counted. Once it has seen its bounds, it allocates nothing.
type counter struct {
	co      *correlation
	groups  []group
	free    []int32
	heads   []int32 // of chains of groups, by hash of the key; -1 is empty
	newest  int32   // list of groups by last use; -1 is the end
	oldest  int32
	entries int
	evicted uint64
	counted uint64
	last    float64 // what the condition was last judged by
	key     []byte
	sorted  []float64
}

type group struct {
	key     []byte
	hash    uint64
	next    int32 // in the same chain; -1 is the end
	newer   int32
	older   int32
	entries []entry // by time
	firedAt int64
	fired   bool
}

// entry is one counted event: when, which input or value.
type entry struct {
	at    int64   // Unix nanoseconds; of ordered correlations, when the chain started
	id    uint64  // the input, or the hash of the value
	num   float64 // the value as a number
	prior int64   // ordered: at, before the current event
	event uint64  // ordered: number of the event that set at
}

func newCounter(co *correlation) *counter {
	c := &counter{co: co, newest: -1, oldest: -1, heads: make([]int32, 1<<bits.Len(uint(co.group)))}
	for i := range c.heads {
		c.heads[i] = -1
	}
	return c
}

// add counts an event that matched input number input, and reports whether the
// correlation fires.
func (c *counter) add(h hasher, ev *ocsf.Event, number uint64, input int) bool {
	c.counted++
	fields := c.co.fields[ev.Class][input]
	var ok bool
	if c.key, ok = appendTuple(c.key[:0], ev, fields.groupBy); !ok {
		return false // the event belongs to no group
	}
	e := entry{at: ev.Time.UnixNano(), id: uint64(input), event: number}
	if len(fields.values) > 0 && !c.value(&e, h, ev, fields.values) {
		return false
	}
	g := c.group(h.sum(c.key))
	now := e.at
	if n := len(g.entries); n > 0 && c.co.def.Type != sigma.TemporalOrdered {
		now = max(now, g.entries[n-1].at)
	}
	c.expire(g, now)
	c.record(g, e)
	return c.fires(g, e, now)
}

// value reads the fields that are counted.
func (c *counter) value(e *entry, h hasher, ev *ocsf.Event, fields []int) bool {
	v := ev.Values[max(fields[0], 0)]
	if fields[0] < 0 {
		return false
	}
	switch c.co.def.Type {
	case sigma.ValueSum, sigma.ValueAvg:
		var ok bool
		e.num, ok = number(v)
		return ok
	case sigma.ValuePercentile:
		if n, ok := number(v); ok {
			e.num = n
		}
	}
	start := len(c.key)
	key, ok := appendTuple(c.key, ev, fields)
	e.id = h.sum(key[start:])
	c.key = key[:start]
	return ok
}

// appendTuple appends the texts of fields, each with its length.
func appendTuple(b []byte, ev *ocsf.Event, fields []int) ([]byte, bool) {
	for _, f := range fields {
		if f < 0 {
			return b, false
		}
		v := ev.Values[f]
		if v.Kind == ocsf.List && len(ev.Lists[v.Num]) > 0 {
			v = ev.Lists[v.Num][0]
		}
		if v.Kind == ocsf.Absent || v.Kind == ocsf.Null || v.Kind == ocsf.List {
			return b, false
		}
		start := len(b)
		b = append(b, 0, 0)
		b = v.AppendText(b)
		if len(b)-start > mostKey {
			b = b[:start+mostKey]
		}
		b[start], b[start+1] = byte((len(b)-start-2)>>8), byte(len(b)-start-2)
	}
	return b, true
}

const mostKey = 1024 // bytes of one field of a group's key

// group returns the group of c.key, new if need be, as the newest.
func (c *counter) group(hash uint64) *group {
	head := &c.heads[hash&uint64(len(c.heads)-1)]
	for i := *head; i >= 0; i = c.groups[i].next {
		if c.groups[i].hash == hash && bytes.Equal(c.groups[i].key, c.key) {
			c.unlink(i)
			c.link(i)
			return &c.groups[i]
		}
	}
	if len(c.groups)-len(c.free) >= c.co.group {
		c.evict()
	}
	var i int32
	if n := len(c.free); n > 0 {
		i, c.free = c.free[n-1], c.free[:n-1]
	} else {
		i = int32(len(c.groups))
		c.groups = append(c.groups, group{})
	}
	g := &c.groups[i]
	g.key, g.hash, g.next, g.fired, g.firedAt = append(g.key[:0], c.key...), hash, *head, false, 0
	*head = i
	c.link(i)
	return g
}

func (c *counter) link(i int32) {
	g := &c.groups[i]
	g.newer, g.older = -1, c.newest
	if c.newest >= 0 {
		c.groups[c.newest].newer = i
	} else {
		c.oldest = i
	}
	c.newest = i
}

func (c *counter) unlink(i int32) {
	g := &c.groups[i]
	if g.newer >= 0 {
		c.groups[g.newer].older = g.older
	} else {
		c.newest = g.older
	}
	if g.older >= 0 {
		c.groups[g.older].newer = g.newer
	} else {
		c.oldest = g.newer
	}
}

// evict forgets the group that was not seen for longest.
func (c *counter) evict() {
	i := c.oldest
	if i < 0 {
		return
	}
	c.unlink(i)
	g := &c.groups[i]
	if len(g.entries) > 0 {
		c.evicted++
	}
	c.entries -= len(g.entries)
	if g.entries = g.entries[:0]; cap(g.entries) > 64 {
		g.entries = nil // what was large is not kept for what may be small
	}
	link := &c.heads[g.hash&uint64(len(c.heads)-1)]
	for *link != i {
		link = &c.groups[*link].next
	}
	*link = g.next
	c.free = append(c.free, i)
}

// expire drops entries that have left the window.
func (c *counter) expire(g *group, now int64) {
	from := now - int64(c.co.def.Timespan)
	if c.co.def.Type == sigma.TemporalOrdered || c.co.def.Type == sigma.Temporal {
		return // one entry per input, judged when it is read
	}
	n := 0
	for n < len(g.entries) && g.entries[n].at < from {
		n++
	}
	c.cut(g, n)
}

func (c *counter) cut(g *group, n int) {
	if n > 0 {
		g.entries = append(g.entries[:0], g.entries[n:]...)
		c.entries -= n
	}
}

// record puts an entry where its time belongs.
func (c *counter) record(g *group, e entry) {
	switch c.co.def.Type {
	case sigma.TemporalOrdered:
		c.advance(g, e)
		return
	case sigma.Temporal, sigma.ValueCount:
		if i := slices.IndexFunc(g.entries, func(o entry) bool { return o.id == e.id }); i >= 0 {
			e.at = max(e.at, g.entries[i].at)
			g.entries = append(g.entries[:i], g.entries[i+1:]...)
			c.entries--
		}
	}
	if len(g.entries) >= c.co.keep {
		if c.co.def.Type != sigma.EventCount && c.co.def.Type != sigma.ValueCount {
			c.evicted++ // what counts keep beyond their threshold changes nothing
		}
		c.cut(g, 1)
	}
	g.entries = append(g.entries, e)
	for i := len(g.entries) - 1; i > 0 && g.entries[i-1].at > e.at; i-- {
		g.entries[i], g.entries[i-1] = g.entries[i-1], g.entries[i]
	}
	c.grown(g)
}

// grown keeps the total of entries bounded at the cost of the oldest groups.
func (c *counter) grown(g *group) {
	c.entries++
	for c.entries > c.co.total && &c.groups[c.oldest] != g {
		c.evict()
	}
}

// advance moves the chains of an ordered correlation on: entry i says when the
// latest chain of the inputs 0 to i started. One event is one link of a chain.
func (c *counter) advance(g *group, e entry) {
	for len(g.entries) < len(c.co.inputs) {
		g.entries = append(g.entries, entry{at: never64, prior: never64})
		c.grown(g)
	}
	start := e.at
	if e.id > 0 {
		before := g.entries[e.id-1]
		start = before.at
		if before.event == e.event {
			start = before.prior
		}
		if start == never64 || e.at-start > int64(c.co.def.Timespan) || e.at < start {
			return
		}
	}
	own := &g.entries[e.id]
	if own.event != e.event {
		own.prior, own.event = own.at, e.event
	}
	own.at = max(own.at, start)
}

const never64 = -1 << 63

// fires judges the condition after an event, and whether to say so: once when
// it becomes true, and again each timespan that it stays true.
func (c *counter) fires(g *group, e entry, now int64) bool {
	x, ok := c.measure(g, e, now)
	c.last = x
	for _, b := range c.co.bounds {
		ok = ok && b.Holds(x)
	}
	if !ok {
		g.fired = false
		return false
	}
	again := c.co.def.Type == sigma.ValuePercentile || now-g.firedAt >= int64(c.co.def.Timespan)
	if g.fired && !again {
		return false
	}
	g.fired, g.firedAt = true, now
	return true
}

// measure returns the number that the condition is about.
func (c *counter) measure(g *group, e entry, now int64) (float64, bool) {
	switch c.co.def.Type {
	case sigma.Temporal:
		n := 0
		for _, o := range g.entries {
			if now-o.at <= int64(c.co.def.Timespan) {
				n++
			}
		}
		return float64(n), true
	case sigma.TemporalOrdered:
		n := 0
		for n < len(g.entries) && g.entries[n].at != never64 && e.at-g.entries[n].at <= int64(c.co.def.Timespan) {
			n++
		}
		return float64(n), g.entries[e.id].event == e.event
	case sigma.ValueSum, sigma.ValueAvg:
		sum := 0.0
		for _, o := range g.entries {
			sum += o.num
		}
		if c.co.def.Type == sigma.ValueAvg {
			sum /= float64(len(g.entries))
		}
		return sum, true
	case sigma.ValuePercentile:
		return c.percentile(g, e), true
	}
	return float64(len(g.entries)), true
}

// percentile is, if the condition names a percentile, that percentile of the
// numbers in the window (nearest rank). Else it is how many in a hundred of the
// window's events have the value that this one has: how rare it is.
func (c *counter) percentile(g *group, e entry) float64 {
	if p := c.co.def.Percentile; p > 0 {
		c.sorted = c.sorted[:0]
		for _, o := range g.entries {
			c.sorted = append(c.sorted, o.num)
		}
		slices.Sort(c.sorted)
		rank := int(p/100*float64(len(c.sorted))+0.999999) - 1
		return c.sorted[min(max(rank, 0), len(c.sorted)-1)]
	}
	same := 0
	for _, o := range g.entries {
		if o.id == e.id {
			same++
		}
	}
	return 100 * float64(same) / float64(len(g.entries))
}
