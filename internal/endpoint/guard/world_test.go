package guard

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/lifeline"
	"pgregory.net/rapid"
)

// world is a host without processes: it carries out actions as the driver does,
// and knows what runs. Property tests drive it, and look at it after each event.
type world struct {
	p    Policy
	now  time.Time
	boot int
	s    State
	disk []byte // what a restart would find
	full bool   // writes fail
	up   bool   // the guard runs

	slots map[Slot]*worker
	left  []*worker

	proven   map[string]bool   // generations that have passed probation, came with the package, or are what a recall left of those
	started  []worker          // by the latest event
	answers  map[string]bool   // by id
	fetched  []holdfast.Digest // that were started, and need not have been on the host
	violated error
}

type worker struct {
	generation holdfast.Generation
	safe       bool
	ready      bool
	waiting    bool // to be started
}

var testPolicy = Policy{Probation: time.Minute, ProbationEvents: 100, Loop: 3, LoopWindow: 15 * time.Minute}

func newWorld() *world {
	w := &world{
		p:       testPolicy,
		now:     time.Date(2026, 11, 21, 4, 9, 0, 0, time.UTC),
		slots:   map[Slot]*worker{},
		proven:  map[string]bool{key(holdfast.Generation{}): true},
		answers: map[string]bool{},
	}
	w.reboot()
	return w
}

func key(g holdfast.Generation) string { return fmt.Sprint(slices.Sorted(maps.Values(g))) }

func (w *world) violate(format string, args ...any) {
	if w.violated == nil {
		w.violated = fmt.Errorf(format, args...)
	}
}

// reboot ends everything, and starts the guard on a new boot.
func (w *world) reboot() {
	w.boot++
	w.restart()
}

// restart ends the guard and its workers, and starts it again.
func (w *world) restart() {
	clear(w.slots)
	w.left = nil
	var err error
	w.s, err = store{&oneFile{w.disk}}.load(w.now)
	if err != nil && w.disk != nil {
		w.violate("the guard cannot read its own state: %v", err)
	}
	w.up = true
	w.event(Event{Kind: Started, Boot: fmt.Sprintf("boot-%d", w.boot)})
}

// event decides, and carries out the actions.
func (w *world) event(e Event) {
	if e.Kind == Exited {
		delete(w.slots, e.Slot)
	}
	before := w.s
	beforeJSON, _ := encode(before)
	st := w.s.Status()
	kept := append(st.Keep, e.Digest) // the loader puts content in place before it proposes it
	for _, g := range []holdfast.Generation{st.Running, st.Previous, st.Starting} {
		kept = slices.AppendSeq(kept, maps.Values(g))
	}
	if w.full {
		onDisk, _ := decode(w.disk)
		kept = append(kept, onDisk.needs()...)
	}
	next, acts := Decide(w.p, w.s, e, w.now)
	if again, _ := encode(before); string(again) != string(beforeJSON) {
		w.violate("Decide changed the state it was given")
	}
	w.s = next
	if rest := without(before.Current, e.Digest); e.Kind == Recalled && w.proven[key(before.Current)] && next.Current.Equal(rest) {
		w.proven[key(rest)] = true
	}
	if e.Kind != WriteFailed {
		w.started = nil
	}
	persisted, informed := false, false
	for i, a := range acts {
		switch a.Kind {
		case Persist:
			if a.Must && i != 0 {
				w.violate("%v: the state is written after something was done", e.Kind)
			}
			if informed {
				w.violate("%v: workers are told before the state is written", e.Kind)
			}
			if !w.full {
				w.disk, _ = encode(next)
				persisted = true
			} else if a.Must {
				w.s = before
				w.event(Event{Kind: WriteFailed, ID: e.ID, Detail: "no space left on device"})
				return
			}
		case Start:
			n := &worker{generation: a.Generation, safe: a.Safe, waiting: a.After > 0}
			if a.Slot == InTrial && !persisted {
				w.violate("%v: a candidate is started, and its mark is not on disk", e.Kind)
			}
			for _, d := range a.Generation {
				if !slices.Contains(kept, d) {
					w.fetched = append(w.fetched, d)
				}
			}
			w.leave(a.Slot)
			w.slots[a.Slot] = n
			w.started = append(w.started, *n)
		case Kill:
			delete(w.slots, a.Slot)
		case Leave:
			w.leave(a.Slot)
		case Drain:
			w.left = nil
		case Adopt:
			w.leave(InCurrent)
			n := w.slots[InTrial]
			if n == nil {
				w.violate("%v: nothing to adopt", e.Kind)
				continue
			}
			delete(w.slots, InTrial)
			w.slots[InCurrent] = n
			w.proven[key(n.generation)] = true
		case Inform:
			informed = true
		case Reply:
			w.answers[a.ID] = a.Accepted
		}
	}
}

func without(g holdfast.Generation, x holdfast.Digest) holdfast.Generation {
	g = maps.Clone(g)
	maps.DeleteFunc(g, func(_ holdfast.Channel, d holdfast.Digest) bool { return d == x })
	return g
}

func (w *world) leave(slot Slot) {
	if n := w.slots[slot]; n != nil && !n.waiting {
		w.left = append(w.left, n)
	}
	delete(w.slots, slot)
}

// contents are the digests of the tests: few, so that they meet again.
var contents = func() (ds []holdfast.Digest) {
	for i := range 6 {
		ds = append(ds, holdfast.DigestOf([]byte{byte(i)}))
	}
	return ds
}()

var contacts = []lifeline.Contact{"", lifeline.NoContact, lifeline.HadContact}

// step lets one thing happen that can happen.
func (w *world) step(t *rapid.T, n int) {
	any := func(label string) holdfast.Digest { return rapid.SampledFrom(contents).Draw(t, label) }
	slot := rapid.SampledFrom([]Slot{InCurrent, InTrial}).Draw(t, "slot")
	id := fmt.Sprintf("id-%d", n)
	w.now = w.now.Add(time.Duration(rapid.Int64Range(0, int64(2*w.p.Probation)).Draw(t, "pause")))
	for _, x := range w.slots {
		x.waiting = false
	}
	switch rapid.SampledFrom([]string{
		"release", "release", "release", "release", "propose", "propose", "reactivate", "ready", "ready", "work", "work", "die", "die", "crash loop", "corrupt",
		"recall", "retry", "final", "reboot", "restart", "full", "echo", "stop", "time",
	}).Draw(t, "step") {
	case "propose":
		c := rapid.SampledFrom([]holdfast.Channel{holdfast.Rules, holdfast.Agent}).Draw(t, "channel")
		w.event(Event{Kind: Proposed, Slot: InCurrent, ID: id, Channel: c, Digest: any("digest")})
	case "release": // as it goes when all is well
		c := rapid.SampledFrom([]holdfast.Channel{holdfast.Rules, holdfast.Agent}).Draw(t, "channel")
		w.event(Event{Kind: Proposed, Slot: InCurrent, ID: id, Channel: c, Digest: any("digest")})
		if x := w.slots[InTrial]; x != nil && !x.ready {
			x.ready = true
			w.event(Event{Kind: IsReady, Slot: InTrial})
			w.now = w.now.Add(w.p.Probation)
			w.event(Event{Kind: Beaten, Slot: InTrial, Evaluated: w.p.ProbationEvents})
		}
	case "crash loop":
		for range w.p.Loop {
			if w.slots[InCurrent] != nil {
				w.event(Event{Kind: Exited, Slot: InCurrent, Detail: "test"})
			}
		}
	case "reactivate":
		w.event(Event{Kind: Reactivated, Slot: InCurrent, ID: id})
	case "ready":
		for _, s := range []Slot{InCurrent, InTrial} {
			if x := w.slots[s]; x != nil && !x.ready {
				x.ready = true
				w.event(Event{Kind: IsReady, Slot: s})
			}
		}
	case "work":
		w.now = w.now.Add(w.p.Probation)
		for _, s := range []Slot{InCurrent, InTrial} {
			if x := w.slots[s]; x != nil && x.ready {
				w.event(Event{Kind: Beaten, Slot: s, Evaluated: rapid.Uint64Range(0, 300).Draw(t, "evaluated"), Contact: rapid.SampledFrom(contacts).Draw(t, "contact")})
			}
		}
	case "die":
		if w.slots[slot] != nil {
			w.event(Event{Kind: rapid.SampledFrom([]EventKind{Exited, Stalled, Overran}).Draw(t, "death"), Slot: slot, Detail: "test"})
		}
	case "corrupt":
		if x := w.slots[slot]; x != nil && !x.ready {
			delete(w.slots, slot)
			w.event(Event{Kind: rapid.SampledFrom([]EventKind{CorruptSlot, Unstartable}).Draw(t, "why"), Slot: slot, Detail: "test"})
		}
	case "recall":
		w.event(Event{Kind: Recalled, Digest: any("digest")})
	case "retry":
		w.event(Event{Kind: RetryAllowed, Digest: any("digest")})
	case "final":
		w.event(Event{Kind: Finalised, Digest: any("digest")})
	case "reboot":
		w.reboot()
	case "restart":
		w.restart()
	case "full":
		w.full = !w.full
	case "echo": // of a worker that no longer stands anywhere
		kind := rapid.SampledFrom(EventKinds).Draw(t, "kind")
		if kind != Started && kind != Stopping && kind != WriteFailed && w.slots[slot] == nil {
			w.event(Event{Kind: kind, Slot: slot, ID: id, Digest: any("digest"), Channel: holdfast.Rules})
		}
	case "stop":
		w.event(Event{Kind: Stopping})
		w.reboot()
	case "time":
		w.now = w.now.Add(time.Duration(rapid.Int64Range(0, int64(24*time.Hour)).Draw(t, "time")))
		w.event(Event{Kind: Ticked})
	}
}

// oneFile is a disk that holds a state file and nothing else.
type oneFile struct{ data []byte }

func (d *oneFile) Read(name string, _ int64) ([]byte, error) {
	if name != stateFile || d.data == nil {
		return nil, errNone
	}
	return d.data, nil
}
func (*oneFile) Write(string, []byte) error  { return errors.ErrUnsupported }
func (*oneFile) Rename(string, string) error { return errors.ErrUnsupported }
func (*oneFile) Link(string, string) error   { return errors.ErrUnsupported }
func (*oneFile) Remove(string) error         { return errors.ErrUnsupported }
func (*oneFile) Sync() error                 { return errors.ErrUnsupported }
