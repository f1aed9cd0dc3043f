package detect

import (
	"cmp"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// What correlations have counted survives a restart and a change of content:
// AppendState writes it, Restore reads it into an evaluator of the same engine
// or of another. A correlation takes its counts over if it has the same id and
// still counts the same (see fingerprint); thresholds and texts may change.
//
// The encoding, integers as varints, is for the same host: it holds the key of
// the hashes, and is not meant to be read by anything else.

const stateVersion = 2

// mostID bounds what a saved correlation is called.
const mostID = 1024

// Correlates says whether there is anything to count.
func (e *Engine) Correlates() bool { return len(e.correlations) > 0 }

// Counted returns how many matches correlations have counted: if it is the same,
// so is the state.
func (v *Evaluator) Counted() (n uint64) {
	for _, c := range v.counters {
		n += c.counted
	}
	return n
}

// AppendState appends to b what correlations have counted, in at most limit
// bytes. Groups that find no room, the least recently seen, are left out and
// counted. It allocates only to grow b.
func (v *Evaluator) AppendState(b []byte, limit int) (_ []byte, left int) {
	end := len(b) + limit
	b = append(b, stateVersion)
	b = binary.LittleEndian.AppendUint64(b, v.hash[0])
	b = binary.LittleEndian.AppendUint64(b, v.hash[1])
	b = binary.AppendUvarint(b, v.events)
	for i, c := range v.counters {
		share := (end - len(b)) / (len(v.counters) - i)
		var n int
		b, n = c.appendState(b, v.engine.rules[c.co.rule].ID, len(b)+share)
		left += n
	}
	return b, left
}

// appendState appends the correlation's id, fingerprint, evictions, and its
// groups, the most recently seen first, each after a 1; a 0 ends them. The
// correlation is left out as a whole if not even its head fits before end.
func (c *counter) appendState(b []byte, id string, end int) (_ []byte, left int) {
	start := len(b)
	id = id[:min(len(id), mostID)]
	b = binary.AppendUvarint(b, uint64(len(id)))
	b = append(b, id...)
	b = append(b, c.co.meaning[:]...)
	b = binary.AppendUvarint(b, c.evicted)
	if len(b) >= end {
		return b[:start], len(c.groups) - len(c.free)
	}
	full := false
	for i := c.newest; i >= 0; i = c.groups[i].older {
		g := &c.groups[i]
		switch at := len(b); {
		case len(g.entries) == 0:
		case full:
			left++
		default:
			if b = g.appendState(append(b, 1)); len(b) >= end {
				b, full, left = b[:at], true, left+1
			}
		}
	}
	return append(b, 0), left
}

func (g *group) appendState(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(g.key)))
	b = append(b, g.key...)
	fired := int64(0)
	if g.fired {
		fired = max(g.firedAt, 1)
	}
	b = binary.AppendVarint(b, fired)
	b = binary.AppendUvarint(b, uint64(len(g.entries)))
	for _, e := range g.entries {
		b = binary.AppendVarint(b, e.at)
		b = binary.AppendUvarint(b, e.id)
		b = binary.AppendUvarint(b, math.Float64bits(e.num))
		b = binary.AppendVarint(b, e.prior)
		b = binary.AppendUvarint(b, e.event)
	}
	return b
}

// Restored says what became of a saved state.
type Restored struct {
	Taken   []string // ids of the correlations that count on
	Changed []string // that start anew, because they count something else now
	Gone    []string // that this content does not have any more
	Groups  int      // taken over; those whose time has passed are not
}

// Restore reads what AppendState wrote, before the first event. now tells what
// has left its window since, and what is from a future that cannot be. On an
// error nothing is restored.
func (v *Evaluator) Restore(b []byte, now time.Time) (Restored, error) {
	s := stored{b: b}
	var r Restored
	fresh := make([]*counter, len(v.counters))
	for i, c := range v.counters {
		fresh[i] = newCounter(c.co)
	}
	if s.byte() != stateVersion {
		return Restored{}, refuseState(errors.New("it is not of this version"))
	}
	key, events := hasher{s.fixed(), s.fixed()}, s.number()
	for len(s.b) > 0 && s.err == nil {
		id := string(s.bytes(mostID))
		var of fingerprint
		copy(of[:], s.next(len(of)))
		evicted := s.number()
		groups := s.groups(events)
		at := slices.IndexFunc(fresh, func(c *counter) bool { return v.engine.rules[c.co.rule].ID == id })
		switch {
		case s.err != nil:
		case at < 0:
			r.Gone = append(r.Gone, id)
		case fresh[at].co.meaning != of:
			r.Changed = append(r.Changed, id)
		case slices.Contains(r.Taken, id):
			s.fail("a correlation is there twice")
		default:
			r.Taken = append(r.Taken, id)
			fresh[at].evicted = evicted
			n, err := fresh[at].restore(key, groups, now.UnixNano())
			if err != nil {
				s.err = err
			}
			r.Groups += n
		}
	}
	if s.err != nil {
		return Restored{}, refuseState(s.err)
	}
	v.counters, v.hash, v.events = fresh, key, events
	return r, nil
}

func refuseState(err error) error {
	return &holdfast.Error{Kind: holdfast.Invalid, What: "the saved counts of correlations cannot be read", Do: "start without them", Err: err}
}

// ahead is how far a clock may have been set back before what was counted by
// the old time is dropped.
const ahead = int64(time.Minute)

// restore takes groups over, the most recently seen first, and returns how many.
func (c *counter) restore(h hasher, groups []storedGroup, now int64) (int, error) {
	ordered, span, n := c.co.def.Type == sigma.TemporalOrdered, int64(c.co.def.Timespan), 0
	for _, sg := range slices.Backward(groups) {
		if ordered && len(sg.entries) != len(c.co.inputs) {
			return 0, errors.New("a chain has the wrong length")
		}
		if !ordered && !slices.IsSortedFunc(sg.entries, func(a, b entry) int { return cmp.Compare(a.at, b.at) }) {
			return 0, errors.New("a window is out of order")
		}
		live := func(e entry) bool { return e.at != never64 && e.at >= now-span && e.at <= now+ahead }
		if !slices.ContainsFunc(sg.entries, live) {
			continue
		}
		if !ordered {
			sg.entries = slices.DeleteFunc(sg.entries, func(e entry) bool { return !live(e) })
		} else if slices.ContainsFunc(sg.entries, func(e entry) bool { return e.at > now+ahead }) {
			continue
		}
		c.key = append(c.key[:0], sg.key...)
		g := c.group(h.sum(c.key))
		if len(g.entries) > 0 {
			return 0, errors.New("a group is there twice")
		}
		if g.fired = sg.fired != 0; g.fired {
			g.firedAt = min(sg.fired, now)
		}
		n++
		from := max(0, len(sg.entries)-c.co.keep) // the threshold may be lower now
		for _, e := range sg.entries[from:] {
			g.entries = append(g.entries, e)
			c.grown(g)
		}
	}
	return n, nil
}

// stored reads an encoded state. After its first error it reads zeros.
type stored struct {
	b   []byte
	err error
}

type storedGroup struct {
	key     []byte
	fired   int64
	entries []entry
}

func (s *stored) fail(reason string) {
	if s.err == nil {
		s.err = errors.New(reason)
	}
	s.b = nil
}

func (s *stored) next(n int) []byte {
	if n > len(s.b) {
		s.fail("it is cut short")
		return nil
	}
	b := s.b[:n]
	s.b = s.b[n:]
	return b
}

func (s *stored) byte() byte {
	if b := s.next(1); b != nil {
		return b[0]
	}
	return 0
}

func (s *stored) fixed() uint64 {
	if b := s.next(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (s *stored) number() uint64 {
	x, n := binary.Uvarint(s.b)
	if n <= 0 {
		s.fail("a number is cut short")
		return 0
	}
	s.b = s.b[n:]
	return x
}

func (s *stored) signed() int64 {
	x := s.number()
	return int64(x>>1) ^ -int64(x&1)
}

func (s *stored) bytes(most uint64) []byte {
	n := s.number()
	if n > most {
		s.fail("a text is longer than any can be")
		return nil
	}
	return s.next(int(n))
}

// mostKeys bounds a group's key: no rule groups by more fields than this.
const mostKeys = 64 * (mostKey + 2)

// groups reads the groups of one correlation. Each takes at least three bytes
// of s, so that what is read bounds what is allocated.
func (s *stored) groups(events uint64) (all []storedGroup) {
	for s.byte() == 1 && s.err == nil {
		g := storedGroup{key: s.bytes(mostKeys), fired: s.signed()}
		n := s.number()
		if n == 0 || n > mostPerGroup || n > uint64(len(s.b)) {
			s.fail("a group has more entries than any can have, or none")
			return nil
		}
		g.entries = make([]entry, n)
		for i := range g.entries {
			e := entry{at: s.signed(), id: s.number(), num: math.Float64frombits(s.number()), prior: s.signed(), event: s.number()}
			if e.event > events || e.num != e.num {
				s.fail("an entry is of an event that was not, or holds no number")
			}
			g.entries[i] = e
		}
		all = append(all, g)
	}
	return all
}
