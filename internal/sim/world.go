package sim

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/rollout"
	"github.com/holdfast-security/holdfast/internal/endpoint/guard"
)

// World is a fleet and what happens to it.
type World struct {
	Seed   uint64
	Kinds  []Kind
	Faults []Fault
	Outage []Outage
	// Tick is how often the controller decides; the heartbeat divided by four
	// if zero.
	Tick time.Duration
	// Until ends the run.
	Until time.Duration
	// Restart makes the control plane lose everything but what is stored,
	// with this probability after each step.
	Restart float64
	// StopAtRecall ends the run when the release is recalled.
	StopAtRecall bool

	// What follows happens to single hosts and messages, which only package
	// exact plays: Counts refuses it, up to Halt.

	// Takeover makes another node lead after a step, with this probability,
	// while the one before does not know it yet; StoreFails loses a
	// transaction, before it was made or after.
	Takeover, StoreFails float64
	Messages             Messages
	Clocks               []WrongClock
	Hostile              []Hostility
	// Guard is the share of hosts whose guard starts anew within ten heartbeats
	// though nothing failed: its package was updated, or somebody restarted it.
	// Forget is the share of those starts that find the state unreadable.
	Guard, Forget float64
	// Halt is when a person halts the release, after it was approved; never if
	// zero.
	Halt time.Duration
	// Consents is what organisations sign about their hosts, which counts play
	// as far as it needs no single host. Critical is what the publishers signed
	// the release as, and Signed how long before it is approved. Begins is the
	// moment of that, by which maintenance windows open; some midnight if zero.
	// Version is released, and Before runs until then.
	Consents        []Consent
	Critical        bool
	Signed          time.Duration
	Begins          time.Time
	Version, Before string
}

// The versions of what is released and of what runs before it, which a pin can
// name, unless a world says others.
const NewVersion, OldVersion = "2", "1"

// Messages says what becomes of a message between a host and the control
// plane, by probability.
type Messages struct {
	Lose      float64 // it never arrives
	Duplicate float64 // it arrives twice
	Reorder   float64 // a report arrives up to three heartbeats late, after newer ones
}

// WrongClock is a share of hosts whose clocks are wrong by Skew.
type WrongClock struct {
	Where func(*Kind) bool
	Share float64
	Skew  time.Duration
}

// Lie is what a hostile host does.
type Lie string

// The lies.
const (
	ClaimsHarm   Lie = "claims-harm"   // reports a crash when it was given the release
	ClaimsHealth Lie = "claims-health" // reports that it runs what it was offered, in health, whatever becomes of it
	Garbage      Lie = "garbage"       // reports and asks for things at random
)

// Hostility is a share of hosts that lie.
type Hostility struct {
	Where func(*Kind) bool
	Share float64
	Lie   Lie
}

// needsHosts reports the first thing that cannot be played in counts.
func (w *World) needsHosts() string {
	switch {
	case w.Takeover > 0 || w.StoreFails > 0:
		return "a change of leader, or a store that fails"
	case w.Messages != (Messages{}):
		return "lost, repeated or reordered messages"
	case len(w.Clocks) > 0:
		return "clocks"
	case len(w.Hostile) > 0:
		return "hostile hosts"
	case w.Guard > 0:
		return "a guard that starts anew"
	case w.Halt > 0:
		return "a person who halts"
	case slices.ContainsFunc(w.Consents, func(c Consent) bool { return c.needsHosts() }):
		return "a policy that comes while the release is under way, or past the server, or that names hosts"
	}
	for i := range w.Kinds {
		if w.Kinds[i].Back > 0 {
			return "a host that wakes up"
		}
	}
	for i := range w.Faults {
		if w.Faults[i].CutOff {
			return "a host that is cut off"
		}
	}
	return ""
}

// Kind is a set of like hosts.
type Kind struct {
	Org     holdfast.OrgID
	Stratum holdfast.Stratum // as the hosts describe themselves
	Hosts   int
	Offline int // of them, asleep all the time
	// Back is when those who are asleep wake up, all at once; never if zero (exact).
	Back time.Duration
	// Silence and Crash are what is normal: the share of hosts that fall
	// silent for a while within ten heartbeats, and crash.
	Silence, Crash float64
}

// Attributes are what the hosts of a kind say of themselves.
func (k *Kind) Attributes() holdfast.Attributes {
	parts := append(strings.SplitN(string(k.Stratum), "|", 4), "", "", "")
	return holdfast.Attributes{Kernel: parts[0], Distro: parts[1], Version: parts[2], Role: parts[3]}
}

// HostName names the nth host of a fleet, in the order of its kinds.
func HostName(n int) holdfast.HostID { return holdfast.HostID(fmt.Sprintf("host-%05d", n)) }

// Fault is what the release does to some hosts.
type Fault struct {
	Name string
	// Where selects kinds; nil means all.
	Where func(*Kind) bool
	// Share is the share of the selected hosts it breaks.
	Share float64
	// Kind of harm that is observed, and how long after the host was drawn,
	// uniformly between Soonest and Latest. A broken host that cannot report
	// shows as Silence.
	Kind            holdfast.HarmKind
	Soonest, Latest time.Duration
	// Rate adds crashes to every selected host that has the release, per fast
	// window; Share and the delays are then not used.
	Rate float64
	// CutOff takes a broken host's network away for ten heartbeats (exact).
	CutOff bool
	// Mute, of kind Silence: it works and never reaches the server, until the
	// host's guard has enough of that. Host by host it is so from its start; in
	// counts, Soonest and Latest are when it is noticed.
	Mute bool
}

// mute is how long a host runs what never reaches the server: its probation is
// five heartbeats, as in production.
func mute(heartbeat time.Duration) time.Duration { return guard.MuteAfter * 5 * heartbeat }

// Outage is a time in which somebody cannot be heard.
type Outage struct {
	From, For time.Duration
	// Server: the control plane itself; it notices. Otherwise this share of
	// the selected hosts is cut off, treated and control alike.
	Server bool
	Where  func(*Kind) bool
	Share  float64
}

// Normal rates of the model of the goals, per fast window of ten minutes.
const (
	serverSilence = 2e-5
	laptopSilence = 5e-3
	crashPerDay   = 5e-4
	crashRate     = crashPerDay / 144
)

// Dead is the fault of 19 July: the host stops for good within seconds, and
// all that shows is its silence, 3.3 minutes later in the mean.
func Dead(share float64, where func(*Kind) bool) Fault {
	return Fault{Name: "dead", Where: where, Share: share, Kind: holdfast.Silence, Soonest: 168 * time.Second, Latest: 228 * time.Second}
}

// MuteAgent is a fault of an agent that works and never reaches the server, with
// heartbeats of a length: it shows as silence, and the host heals itself.
func MuteAgent(share float64, where func(*Kind) bool, heartbeat time.Duration) Fault {
	f := Dead(share, where).scaled(heartbeat)
	f.Name, f.Mute = "mute", true
	return f
}

// scaled is a fault that is noticed by missed heartbeats of another length.
func (f Fault) scaled(heartbeat time.Duration) Fault {
	by := heartbeat.Minutes()
	f.Soonest, f.Latest = time.Duration(by*float64(f.Soonest)), time.Duration(by*float64(f.Latest))
	return f
}

// Crashing is a fault that the guard survives: it reverts and reports within
// seconds.
func Crashing(share float64, where func(*Kind) bool) Fault {
	return Fault{Name: "crash", Where: where, Share: share, Kind: holdfast.Crash, Soonest: 2 * time.Second, Latest: 6 * time.Second}
}

// Special strata of the model fleet, with exactly a tenth, a hundredth and a
// thousandth of the hosts.
const (
	TenthStratum      = 0
	HundredthStratum  = 1
	ThousandthStratum = 2
)

// ModelFleet is the fleet of the goals: n hosts in strata kinds, of which the
// first three hold exactly 10 %, 1 % and 0.1 %, and about 66 % of all hosts are
// servers. laptops makes the special strata laptops.
func ModelFleet(n, strata int, laptops bool) []Kind {
	kernels := []string{"5.4", "5.10", "5.15", "6.1", "6.8"}
	distros := []string{"debian-12", "ubuntu-22.04", "rhel-9", "sles-15", "amazon-2023"}
	agents := []string{"1.9.0", "1.9.1", "1.10.0", "1.10.1", "1.11.0"}
	roles := []string{"server", "laptop"}
	var names []holdfast.Stratum
	for i := range min(max(strata, 4), 250) {
		// Mixed radix, so that few strata still differ in every factor.
		role := roles[min(1, i%3/2)] // two of three are servers
		names = append(names, holdfast.Stratum(fmt.Sprintf("%s|%s|%s|%s", kernels[i%5], distros[i/5%5], agents[(i/25+i)%5], role)))
	}
	special := []float64{.1, .01, .001}
	weights := make([]float64, len(names))
	r := newRandom(20240719, 0)
	var sum float64
	for i := range names {
		if i < len(special) {
			continue
		}
		weights[i] = math.Exp(.8 * r.NormFloat64())
		sum += weights[i]
	}
	kinds := make([]Kind, len(names))
	left := n
	for i := range names {
		share := (1 - .111) * weights[i] / sum
		if i < len(special) {
			share = special[i]
		}
		hosts := int(math.Round(share * float64(n)))
		if i == len(names)-1 {
			hosts = left
		}
		hosts = min(hosts, left)
		left -= hosts
		role := "server"
		if i%3 == 2 {
			role = "laptop"
		}
		if i < len(special) {
			role = "server"
			if laptops {
				role = "laptop"
			}
		}
		kinds[i] = kindOf(names[i], role, hosts)
	}
	return dedupe(kinds)
}

func kindOf(name holdfast.Stratum, role string, hosts int) Kind {
	f := name.Factors()
	base := holdfast.Stratum(fmt.Sprintf("%s|%s|%s|%s", after(f[0]), after(f[1]), after(f[2]), role))
	k := Kind{Org: holdfast.DefaultOrg, Stratum: base, Hosts: hosts, Silence: serverSilence, Crash: crashRate}
	if role == "laptop" {
		k.Silence = laptopSilence
	}
	return k
}

func after(level string) string {
	for i := range level {
		if level[i] == '=' {
			return level[i+1:]
		}
	}
	return level
}

// dedupe gives strata that came out with the same name another distribution,
// so that every kind is a stratum of its own.
func dedupe(kinds []Kind) []Kind {
	seen := map[holdfast.Stratum]int{}
	for i := range kinds {
		name := kinds[i].Stratum
		if n := seen[name]; n > 0 {
			f := name.Factors()
			kinds[i].Stratum = holdfast.Stratum(fmt.Sprintf("%s|%s-%d|%s|%s", after(f[0]), after(f[1]), n, after(f[2]), after(f[3])))
		}
		seen[name]++
	}
	return kinds
}

// SmallFleet is n like servers.
func SmallFleet(n int) []Kind {
	return []Kind{kindOf("6.1|debian-12|1.11.0|server", "server", n)}
}

// In selects the kinds with a stratum.
func In(s holdfast.Stratum) func(*Kind) bool { return func(k *Kind) bool { return k.Stratum == s } }

// Merged returns each kind's stratum as the controller compares it.
func Merged(kinds []Kind) map[holdfast.Stratum]holdfast.Stratum {
	sizes := map[holdfast.Stratum]int{}
	for _, k := range kinds {
		sizes[k.Stratum] += k.Hosts
	}
	return rollout.Merge(sizes, rollout.MergeBelow)
}

// Baselines are the policy's entries for what is normal in a world.
func Baselines(kinds []Kind) []rollout.Baseline {
	type sum struct{ hosts, silence, crash float64 }
	sums := map[holdfast.Stratum]*sum{}
	merged := Merged(kinds)
	var order []holdfast.Stratum
	for _, k := range kinds {
		s := merged[k.Stratum]
		if sums[s] == nil {
			sums[s] = &sum{}
			order = append(order, s)
		}
		n := float64(k.Hosts)
		sums[s].hosts += n
		sums[s].silence += n * k.Silence
		sums[s].crash += n * k.Crash
	}
	slices.Sort(order)
	out := []rollout.Baseline{{Signal: holdfast.Crash, Rate: crashRate}}
	for _, s := range order {
		if x := sums[s]; x.hosts > 0 && x.silence > 0 {
			out = append(out, rollout.Baseline{Stratum: s, Signal: holdfast.Silence, Rate: x.silence / x.hosts})
		}
	}
	return out
}
