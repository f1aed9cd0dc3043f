package guard

import (
	"maps"
	"slices"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/lifeline"
)

// Schema is the version of State. Version 1 knew nothing of contact, and is read
// as a state in which there was none; a newer one is not read.
const Schema = 2

// The bounds of a state. They keep the file a page long, and what reads it safe.
const (
	maxChannels = 8   // of a generation
	maxBack     = 4   // ways back
	maxShuns    = 256 // more, and no candidate is accepted until the publishers allow a retry: forgetting a shun is no way out
	maxSuspects = 32
	maxDeaths   = 8
	maxDetail   = 256 // bytes of a reason
)

// State is all the guard knows, and all it keeps across restarts. It is plain
// data: Decide alone says what follows from it.
type State struct {
	Schema int    `json:"schema"`
	Boot   string `json:"boot"`            // boot id of the latest start
	Clean  bool   `json:"clean,omitempty"` // the guard was asked to stop, and nothing has started since

	// Current is the last generation that passed its probation.
	Current holdfast.Generation `json:"current"`
	// Back is the way back, newest first: each passed its own probation, and
	// each is what the one before it was built on. It ends with the first
	// generation that the publishers marked final, so that a latent fault does
	// not find itself as its own way back.
	Back []holdfast.Generation `json:"back,omitempty"`
	// Final lists the digests, among those above, whose release is final.
	Final []holdfast.Digest `json:"final,omitempty"`

	Trial *Trial `json:"trial,omitempty"` // the candidate; on disk before it is started
	Safe  *Safe  `json:"safe,omitempty"`  // safe mode, if the host is in it

	// Reached says that a worker of Current (or of safe mode, in it) has reached
	// the server. What is to take its place must reach it as well.
	Reached bool   `json:"reached,omitempty"`
	Doubt   *Doubt `json:"doubt,omitempty"` // the latest candidate that did not

	Shuns    []Shun    `json:"shuns,omitempty"` // newest first
	Suspects []Suspect `json:"suspects,omitempty"`
	Blame    *Blame    `json:"blame,omitempty"`

	Deaths  []time.Time `json:"deaths,omitempty"` // of what runs as current, within Policy.LoopWindow
	Crashes uint64      `json:"crashes"`          // worker deaths since enrolment

	// What the host reports of its latest candidate.
	Attempted  holdfast.Generation `json:"attempted,omitempty"`
	Failed     holdfast.Generation `json:"failed,omitempty"`
	Reason     string              `json:"reason,omitempty"`
	Activation string              `json:"activation,omitempty"`
}

// Trial is a generation that has not proved itself: a candidate until its worker
// is ready, then on probation.
type Trial struct {
	Generation holdfast.Generation `json:"generation"`
	Kind       TrialKind           `json:"kind"`
	ID         string              `json:"id,omitempty"` // of the offer
	Active     bool                `json:"active,omitempty"`
	Since      time.Time           `json:"since"`               // of the proposal; once Active, of probation
	Evaluated  uint64              `json:"evaluated,omitempty"` // events, on probation
	Contact    lifeline.Contact    `json:"contact,omitempty"`
}

// TrialKind says why a generation is on trial.
type TrialKind string

// The kinds of trial.
const (
	Candidate TrialKind = "candidate" // new content
	Placebo   TrialKind = "placebo"   // what runs already, swapped and observed as new content would be
	Again     TrialKind = "again"     // the way out of safe mode: what ran before it
)

// Safe is safe mode: no content, the worker that came with the package.
type Safe struct {
	Since  time.Time `json:"since"`
	Reason string    `json:"reason"`
	Next   time.Time `json:"next"`            // when Current is tried again
	Tries  int       `json:"tries,omitempty"` // how often it was
}

// Cause is how content failed. Two workers that die of the same cause die the
// same way.
type Cause string

// The causes.
const (
	ByCrash   Cause = "crash"   // it exited, whatever the status, without being asked to
	ByStall   Cause = "stall"   // its evaluation loop, or its start, stood still
	ByOverrun Cause = "overrun" // it took more memory or CPU than it may
	ByReboot  Cause = "reboot"  // the host went down with it
	ByRecall  Cause = "recall"  // the publishers or the server took it back
	ByIdle    Cause = "idle"    // it evaluated too few events to prove anything
	ByMute    Cause = "mute"    // it did not reach the server, and what ran before did
)

// Shun is a digest that this host will not run.
type Shun struct {
	Digest  holdfast.Digest  `json:"digest"`
	Channel holdfast.Channel `json:"channel"` // the channel it was changed on
	Cause   Cause            `json:"cause"`
	At      time.Time        `json:"at"`
}

// Suspect is a digest whose trial was cut short by something it may not have
// caused. The second time it is shunned.
type Suspect struct {
	Digest holdfast.Digest `json:"digest"`
	Times  int             `json:"times"`
}

// Blame remembers the latest shun for as long as it may yet prove unjust: if
// what replaced the shunned content soon dies the same way, neither was at fault.
type Blame struct {
	Digests []holdfast.Digest `json:"digests"`
	Cause   Cause             `json:"cause"`
	At      time.Time         `json:"at"`
}

// Fresh is the state of a host on which nothing has ever run: the worker that
// came with the package, without content.
func Fresh() State {
	return State{Schema: Schema, Current: holdfast.Generation{}}
}

// Lost is the state of a host whose state file cannot be read: safe mode, with
// the shuns and the crash count that could be saved from an older copy.
func Lost(reason string, saved State, now time.Time) State {
	s := Fresh()
	s.Shuns = slices.Clone(saved.Shuns)
	s.Suspects = slices.Clone(saved.Suspects)
	s.Crashes = saved.Crashes
	s.Reason = clip(reason)
	s.Safe = &Safe{Since: now, Reason: clip(reason), Next: now.Add(safeRetryMin)}
	return s
}

// Shunned reports whether this host will not run d.
func (s State) Shunned(d holdfast.Digest) bool {
	return slices.ContainsFunc(s.Shuns, func(x Shun) bool { return x.Digest == d })
}

// Running returns the generation whose worker evaluates events, and whether
// that worker runs in safe mode (then without content).
func (s State) Running() (g holdfast.Generation, safe bool) {
	switch {
	case s.Trial != nil && s.Trial.Active:
		return s.Trial.Generation, false
	case s.Safe != nil:
		return holdfast.Generation{}, true
	}
	return s.Current, false
}

// Status is the state as workers are told it.
func (s State) Status() lifeline.Status {
	running, safe := s.Running()
	st := lifeline.Status{
		Boot:       s.Boot,
		Running:    running,
		SafeMode:   safe,
		Attempted:  s.Attempted,
		Failed:     s.Failed,
		Crashes:    s.Crashes,
		Reason:     s.Reason,
		Activation: s.Activation,
		Owed:       s.owed(),
	}
	onTrial := s.Trial != nil && s.Trial.Active
	st.Probation = onTrial
	if s.Trial != nil && !onTrial {
		st.Starting = s.Trial.Generation
	}
	switch {
	case s.Safe != nil:
	case onTrial:
		st.Previous = s.Current
	case len(s.Back) > 0:
		st.Previous = s.Back[0]
	}
	for _, x := range s.Shuns {
		st.Shunned = append(st.Shunned, x.Digest)
	}
	for _, d := range s.needs() {
		if !holds(running, d) && !holds(st.Previous, d) && !holds(st.Starting, d) {
			st.Keep = append(st.Keep, d)
		}
	}
	return st
}

// needs lists what must be on this host for the way forth and back.
func (s State) needs() []holdfast.Digest {
	gs := append([]holdfast.Generation{s.Current}, s.Back...)
	if s.Trial != nil {
		gs = append(gs, s.Trial.Generation)
	}
	var ds []holdfast.Digest
	for _, g := range gs {
		for _, c := range slices.Sorted(maps.Keys(g)) {
			if !slices.Contains(ds, g[c]) {
				ds = append(ds, g[c])
			}
		}
	}
	return ds
}

// holds reports whether g runs any of ds.
func holds(g holdfast.Generation, ds ...holdfast.Digest) bool {
	for _, d := range g {
		if slices.Contains(ds, d) {
			return true
		}
	}
	return false
}

// changed lists what g runs and base does not, by channel.
func changed(g, base holdfast.Generation) []holdfast.Channel {
	var cs []holdfast.Channel
	for _, c := range slices.Sorted(maps.Keys(g)) {
		if base[c] != g[c] {
			cs = append(cs, c)
		}
	}
	return cs
}

// isFinal reports whether the release of everything g runs is final.
func (s State) isFinal(g holdfast.Generation) bool {
	for _, d := range g {
		if !slices.Contains(s.Final, d) {
			return false
		}
	}
	return true
}

// inSlots reports whether d is anywhere on this host's way forth or back.
func (s State) inSlots(d holdfast.Digest) bool {
	return holds(s.Current, d) || s.Trial != nil && holds(s.Trial.Generation, d) || s.Doubt != nil && s.Doubt.Digest == d && d != "" ||
		slices.ContainsFunc(s.Back, func(g holdfast.Generation) bool { return holds(g, d) })
}

// clone copies everything Decide changes in place. Generations are never
// changed in place.
func (s State) clone() State {
	s.Back = slices.Clone(s.Back)
	s.Final = slices.Clone(s.Final)
	s.Shuns = slices.Clone(s.Shuns)
	s.Suspects = slices.Clone(s.Suspects)
	s.Deaths = slices.Clone(s.Deaths)
	if s.Trial != nil {
		t := *s.Trial
		s.Trial = &t
	}
	if s.Safe != nil {
		f := *s.Safe
		s.Safe = &f
	}
	if s.Doubt != nil {
		x := *s.Doubt
		s.Doubt = &x
	}
	return s
}

func clip(s string) string { return s[:min(len(s), maxDetail)] }
