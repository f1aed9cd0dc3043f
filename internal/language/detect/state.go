package detect

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// What correlations have counted survives a restart and a change of content:
// Save writes it, Restore reads it into an evaluator of the same or of another
// engine. A correlation takes its state over if it still counts the same rules
// by the same fields over the same time; thresholds and texts may change.

type savedState struct {
	Version      int                `json:"version"`
	Key          [2]uint64          `json:"key"`
	Events       uint64             `json:"events"`
	Correlations []savedCorrelation `json:"correlations"`
}

type savedCorrelation struct {
	Counts  string       `json:"counts"` // what it counts; see identity
	Evicted uint64       `json:"evicted,omitempty"`
	Groups  []savedGroup `json:"groups"` // the least recently seen first
}

type savedGroup struct {
	Key     []byte       `json:"key"`
	Fired   bool         `json:"fired,omitempty"`
	FiredAt int64        `json:"fired_at,omitempty"`
	Entries []savedEntry `json:"entries"`
}

type savedEntry struct {
	At    int64   `json:"at"`
	ID    uint64  `json:"id"`
	Num   float64 `json:"num,omitempty"`
	Prior int64   `json:"prior,omitempty"`
	Event uint64  `json:"event,omitempty"`
}

const stateVersion = 1

// maxState bounds a saved state in bytes.
const maxState = 256 << 20

// identity is the same for correlations that can take each other's state.
func (co *correlation) identity(rules []*Rule) string {
	id := []string{rules[co.rule].ID, string(co.def.Type), co.def.Timespan.String()}
	for i, input := range co.inputs {
		id = append(id, "rule "+rules[input].ID)
		for _, f := range co.def.GroupBy {
			id = append(id, "by "+co.def.FieldOf(f, i))
		}
	}
	for _, f := range co.def.Fields {
		id = append(id, "of "+f)
	}
	return string(holdfast.DigestOf([]byte(strings.Join(id, "\n"))))
}

// Save writes what correlations have counted.
func (v *Evaluator) Save(w io.Writer) error {
	state := savedState{Version: stateVersion, Key: v.hash, Events: v.events}
	for _, c := range v.counters {
		sc := savedCorrelation{Counts: c.co.identity(v.engine.rules), Evicted: c.evicted}
		for i := c.oldest; i >= 0; i = c.groups[i].newer {
			g := &c.groups[i]
			sg := savedGroup{Key: g.key, Fired: g.fired, FiredAt: g.firedAt}
			for _, e := range g.entries {
				sg.Entries = append(sg.Entries, savedEntry{e.at, e.id, e.num, e.prior, e.event})
			}
			sc.Groups = append(sc.Groups, sg)
		}
		state.Correlations = append(state.Correlations, sc)
	}
	return json.NewEncoder(w).Encode(state)
}

// Restore reads what Save wrote, before the first event. What this engine does
// not count any more is left out. On an error nothing is restored.
func (v *Evaluator) Restore(r io.Reader) error {
	var state savedState
	limited := &io.LimitedReader{R: r, N: maxState}
	if err := json.NewDecoder(limited).Decode(&state); err != nil {
		return &holdfast.Error{Kind: holdfast.Invalid, What: "the saved state of correlations cannot be read", Do: "start without it", Err: err}
	}
	if state.Version != stateVersion {
		return &holdfast.Error{Kind: holdfast.Invalid, What: fmt.Sprintf("the saved state of correlations has version %d, not %d", state.Version, stateVersion), Do: "start without it"}
	}
	fresh := make([]*counter, len(v.counters))
	for i, c := range v.counters {
		fresh[i] = newCounter(c.co)
		id := c.co.identity(v.engine.rules)
		at := slices.IndexFunc(state.Correlations, func(s savedCorrelation) bool { return s.Counts == id })
		if at < 0 {
			continue
		}
		if err := fresh[i].restore(hasher(state.Key), state.Correlations[at]); err != nil {
			return &holdfast.Error{Kind: holdfast.Invalid, What: "the saved state of correlations is damaged", Do: "start without it", Err: err}
		}
	}
	v.counters, v.hash, v.events = fresh, state.Key, state.Events
	return nil
}

func (c *counter) restore(h hasher, saved savedCorrelation) error {
	c.evicted = saved.Evicted
	ordered := c.co.def.Type == sigma.TemporalOrdered
	for _, sg := range saved.Groups {
		if len(sg.Entries) > max(c.co.keep, mostPerGroup) || len(sg.Key) > len(c.co.def.GroupBy)*(mostKey+2) {
			return errors.New("a group is larger than any can be")
		}
		if ordered && len(sg.Entries) != len(c.co.inputs) {
			return errors.New("a chain has the wrong length")
		}
		c.key = append(c.key[:0], sg.Key...)
		g := c.group(h.sum(c.key))
		if len(g.entries) > 0 {
			return errors.New("a group is there twice")
		}
		g.fired, g.firedAt = sg.Fired, sg.FiredAt
		from := max(0, len(sg.Entries)-c.co.keep) // the threshold may be lower now
		for _, e := range sg.Entries[from:] {
			g.entries = append(g.entries, entry{e.At, e.ID, e.Num, e.Prior, e.Event})
			c.grown(g)
		}
	}
	return nil
}
