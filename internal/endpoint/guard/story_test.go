package guard

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/lifeline"
)

// Each story is a host's life, a word an event: what happens, then what must
// run. Digests are letters; "rules=A" is a generation.
func TestStories(t *testing.T) {
	for name, story := range map[string]string{
		"a release":                            "propose:A ready work runs:A previous:-",
		"a crash in probation":                 "release:A propose:B ready exit:trial runs:A shuns:B refuse:B",
		"a crash before it is ready":           "release:A propose:B exit:trial runs:A shuns:B",
		"a stall in probation":                 "release:A propose:B ready stall:trial runs:A shuns:B",
		"time without work is no proof":        "release:A propose:B ready idle runs:B probation",
		"no work at all is no trial":           "release:A propose:B ready idle idle idle idle idle idle idle idle idle idle runs:A shuns:-",
		"the same the second time":             "release:A propose:B ready idle×10 runs:A propose:B ready idle×10 runs:A shuns:B",
		"a latent fault":                       "release:A release:B exit exit runs:B exit runs:A shuns:B",
		"not a loop":                           "release:A release:B exit exit hour exit exit runs:B shuns:-",
		"a latent fault is not its own way":    "release:A final:A release:B release:C exit×3 runs:B shuns:C exit×3 runs:A previous:-",
		"final ends the way back":              "release:A final:A release:B final:B release:C previous:B keeps:-",
		"not final keeps it":                   "release:A final:A release:B release:C previous:B keeps:A",
		"both die the same way":                "release:A propose:B ready exit:trial shuns:B exit shuns:-",
		"both die, not the same way":           "release:A propose:B ready exit:trial shuns:B stall shuns:B",
		"then safe mode":                       "release:A exit×3 runs:- exit×3 safe",
		"out of safe mode by itself":           "exit×3 safe hour ready work unsafe runs:-",
		"out of safe mode, in vain":            "exit×3 safe hour ready exit:trial safe tick safe",
		"out of safe mode by content":          "exit×3 safe propose:A ready work unsafe runs:A",
		"bad content in safe mode":             "exit×3 safe propose:A ready exit:trial safe shuns:A",
		"what fell and fails in safe mode":     "exit×3 safe release:A runs:A exit×3 safe propose:A ready exit:trial safe shuns:A hour ready work unsafe runs:-",
		"safe mode is not left by crashing":    "exit×3 safe exit×9 safe",
		"a recall":                             "release:A release:B recall:B runs:A shuns:B refuse:B",
		"a recall in probation":                "release:A propose:B ready recall:B runs:A shuns:B",
		"a recall before it is ready":          "release:A propose:B recall:B runs:A shuns:B",
		"a recall of what is not here":         "release:A recall:C runs:A shuns:-",
		"a recall of the only content":         "release:A final:A release:A recall:A runs:- shuns:A",
		"a recall of the way back":             "release:A release:B recall:A runs:B shuns:A exit×3 runs:-",
		"retry allowed":                        "release:A propose:B ready exit:trial shuns:B retry:B shuns:- propose:B ready work runs:B",
		"one reboot":                           "release:A propose:B ready reboot runs:A shuns:-",
		"two reboots":                          "release:A propose:B ready reboot propose:B ready reboot runs:A shuns:B",
		"the guard restarts":                   "release:A propose:B ready restart runs:A shuns:- propose:B ready restart runs:A shuns:-",
		"a boot loop long after":               "release:A release:B reboot reboot runs:B reboot runs:A shuns:B",
		"reboots in good order":                "release:A release:B stop reboot stop reboot stop reboot stop reboot runs:B",
		"a corrupt file of the candidate":      "release:A propose:B corrupt:trial runs:A shuns:-",
		"a corrupt file of the current":        "release:A release:B corrupt runs:A shuns:-",
		"nothing but corrupt files":            "release:A release:B corrupt corrupt corrupt safe shuns:-",
		"a full disk":                          "release:A full refuse:B runs:A exit runs:A",
		"a full disk in probation":             "release:A propose:B ready full exit:trial runs:A shuns:B",
		"a full disk, then a reboot":           "release:A propose:B ready full exit:trial reboot runs:A",
		"the placebo":                          "release:A placebo ready work runs:A shuns:-",
		"the placebo crashes":                  "release:A placebo ready exit:trial runs:A shuns:-",
		"the current dies beside a candidate":  "release:A propose:B exit runs:A ready work runs:B",
		"one candidate at a time":              "release:A propose:B refuse:C",
		"agent and rules are blamed apart":     "release:A agent:D ready exit:trial runs:A shuns:D",
		"contact is part of the proof":         "release:A contact propose:B ready work:none runs:B probation work:had runs:B proved",
		"without it, back":                     "release:A contact propose:B ready work:none×6 runs:A shuns:- failed:- owes:-",
		"a mute candidate":                     "release:A contact propose:B ready work:none×6 restored contact runs:A failed:B shuns:- owes:B",
		"contact before it says that it is up": "release:A contact propose:B ready work:none×6 contact restored failed:B owes:B",
		"mute for the second time":             "release:A contact propose:B ready work:none×6 restored contact propose:B ready work:none×6 restored contact runs:A failed:B shuns:B owes:- refuse:B",
		"mute once, and then not":              "release:A contact propose:B ready work:none×6 restored contact propose:B ready work:had runs:B failed:- owes:-",
		"a network that is away":               "release:A contact propose:B ready work:none×6 restored hour contact runs:A failed:- shuns:- owes:B propose:B ready work:had runs:B owes:-",
		"away time and again":                  "release:A contact propose:B ready work:none×6 restored hour contact " + strings.Repeat("owes:B propose:B ready work:none×6 restored hour contact ", maxTries) + "runs:A failed:- shuns:- owes:-",
		"away, and the guard restarts":         "release:A contact propose:B ready work:none×6 restored reboot restored hour contact failed:- owes:B",
		"mute, and the guard restarts":         "release:A contact propose:B ready work:none×6 restart restored contact failed:B owes:B",
		"one that cannot say":                  "release:A contact propose:B ready work runs:B proved",
		"nobody has ever had contact":          "release:A propose:B ready work:none runs:B proved",
		"what replaces one that could not say": "release:A contact propose:B ready work propose:C ready work:none runs:C proved",
		"a placebo without contact":            "release:A contact placebo ready work:none×6 restored contact runs:A failed:A shuns:- owes:-",
		"a placebo, and the network away":      "release:A contact placebo ready work:none×6 restored hour contact runs:A failed:- owes:-",
		"a mute candidate that crashes":        "release:A contact propose:B ready work:none exit:trial runs:A shuns:B owes:-",
		"a recall of what is owed":             "release:A contact propose:B ready work:none×6 restored hour contact owes:B recall:B runs:A shuns:B owes:-",
		"another comes before what is owed":    "release:A contact propose:B ready work:none×6 restored hour contact owes:B release:C runs:C owes:-",
		"what is owed is forgotten in a fall":  "release:A release:C contact propose:B ready work:none×6 restored hour contact exit×3 runs:A shuns:C owes:-",
		"safe mode is left without a network":  "release:A exit×3 exit×3 safe contact hour ready work:none unsafe runs:-",
		"but not by what is mute":              "exit×3 safe contact propose:A ready work:none×6 safe restored contact safe failed:A",
		"an agent that holds, rules that fail": "agent:D ready work propose:A ready exit:trial runs:D shuns:A",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			for i, word := range strings.Fields(story) {
				word, times, _ := strings.Cut(word, "×")
				n := 1
				if times != "" {
					n = int(times[0] - '0')
					if times == "10" {
						n = 10
					}
				}
				for range n {
					w.word(t, word)
				}
				if w.violated != nil || t.Failed() {
					t.Fatalf("at word %d, %q: %v\n%+v", i, word, w.violated, w.s)
				}
			}
		})
	}
}

func letter(s string) holdfast.Digest { return holdfast.DigestOf([]byte(s)) }

func (w *world) word(t *testing.T, word string) {
	verb, arg, _ := strings.Cut(word, ":")
	slot := InCurrent
	if arg == "trial" {
		slot = InTrial
	}
	propose := func(c holdfast.Channel) bool {
		id := word + w.now.String()
		w.event(Event{Kind: Proposed, Slot: InCurrent, ID: id, Channel: c, Digest: letter(arg)})
		return w.answers[id]
	}
	ready := func() {
		if n := w.slots[InTrial]; n != nil && !n.ready {
			n.ready = true
			w.event(Event{Kind: IsReady, Slot: InTrial})
		}
	}
	work := func(contact lifeline.Contact) {
		w.now = w.now.Add(w.p.Probation)
		w.event(Event{Kind: Beaten, Slot: InTrial, Evaluated: w.p.ProbationEvents, Contact: contact})
	}
	running, safe := w.s.Running()
	st := w.s.Status()
	is := func(what string, g holdfast.Generation) {
		want := holdfast.Generation{}
		for c, d := range g {
			if arg != "-" && d == letter(arg) {
				want[c] = d
			}
		}
		if len(want) != len(g) || arg != "-" && len(g) != 1 {
			t.Errorf("%s is %v, want %s", what, g, arg)
		}
	}
	hold := func(what string, ds []holdfast.Digest) {
		if arg == "-" && len(ds) > 0 || arg != "-" && !slices.Equal(ds, []holdfast.Digest{letter(arg)}) {
			t.Errorf("%s %v, want %s (%s)", what, ds, arg, letter(arg).Short())
		}
	}
	switch verb {
	case "propose", "agent":
		c := holdfast.Rules
		if verb == "agent" {
			c = holdfast.Agent
		}
		if !propose(c) {
			t.Errorf("%s is refused", arg)
		}
	case "refuse":
		if propose(holdfast.Rules) {
			t.Errorf("%s is accepted", arg)
		}
	case "placebo":
		w.event(Event{Kind: Reactivated, ID: "placebo"})
	case "ready":
		ready()
	case "work":
		work(lifeline.Contact(arg))
	case "contact":
		w.event(Event{Kind: Beaten, Slot: InCurrent, Contact: lifeline.HadContact})
	case "restored":
		if n := w.slots[InCurrent]; n != nil && !n.ready {
			n.ready = true
			w.event(Event{Kind: IsReady, Slot: InCurrent})
		}
	case "idle":
		w.now = w.now.Add(w.p.Probation)
		w.event(Event{Kind: Beaten, Slot: InTrial, Evaluated: 1})
	case "release":
		propose(holdfast.Rules)
		ready()
		work("")
	case "exit":
		w.event(Event{Kind: Exited, Slot: slot})
	case "stall":
		w.event(Event{Kind: Stalled, Slot: slot})
	case "corrupt":
		delete(w.slots, slot)
		w.event(Event{Kind: CorruptSlot, Slot: slot, Detail: "corrupt"})
	case "recall":
		w.event(Event{Kind: Recalled, Digest: letter(arg)})
	case "retry":
		w.event(Event{Kind: RetryAllowed, Digest: letter(arg)})
	case "final":
		w.event(Event{Kind: Finalised, Digest: letter(arg)})
	case "full":
		w.full = true
	case "reboot":
		w.now = w.now.Add(time.Minute)
		w.reboot()
	case "restart":
		w.restart()
	case "stop":
		w.event(Event{Kind: Stopping})
	case "hour":
		w.now = w.now.Add(time.Hour)
		w.event(Event{Kind: Ticked})
	case "tick":
		w.event(Event{Kind: Ticked})
	case "runs":
		is("running", running)
		if safe {
			t.Error("safe mode")
		}
	case "previous":
		is("previous", st.Previous)
	case "failed":
		is("failed", st.Failed)
	case "owes":
		if got := st.Owed; arg == "-" && got != nil || arg != "-" && (got == nil || got.Digest != letter(arg) || got.ID == "") {
			t.Errorf("owed is %+v, want %s", got, arg)
		}
	case "proved":
		if st.Probation || w.s.Trial != nil {
			t.Error("on probation")
		}
	case "probation":
		if !st.Probation {
			t.Error("not on probation")
		}
	case "safe", "unsafe":
		if safe != (verb == "safe") {
			t.Errorf("safe mode is %v", safe)
		}
	case "shuns":
		hold("shunned", st.Shunned)
	case "keeps":
		hold("kept", st.Keep)
	default:
		t.Fatalf("no event is called %q", verb)
	}
}
