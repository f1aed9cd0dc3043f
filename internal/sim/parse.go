package sim

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/rollout"
)

// ParseScenario reads a scenario file. Every error names file and line.
func ParseScenario(file string, b []byte) (Scenario, error) {
	s := scenarioReader{file: file}
	if len(b) > maxScenario {
		return Scenario{}, s.bad(1, "the file is larger than 1 MiB", "")
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&s.in); err != nil {
		if errors.Is(err, io.EOF) {
			return Scenario{}, s.bad(1, "the file is empty", "a scenario needs fleet and release; see docs/halting.md")
		}
		return Scenario{}, s.yamlError(err)
	}
	var more yaml.Node
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return Scenario{}, s.bad(more.Line, "there is more behind the scenario's end", "a file holds one scenario: remove the second document (---)")
	}
	return s.scenario()
}

type scenarioReader struct {
	file   string
	in     scenarioFile
	limits []limit
}

// only notes an option that one fidelity cannot play.
func (s *scenarioReader) only(not Fidelity, line int, what, do string) {
	s.limits = append(s.limits, limit{not, line, what, do})
}

func (s *scenarioReader) bad(line int, what, do string) error {
	return &holdfast.Error{Kind: holdfast.Invalid, What: what, Where: fmt.Sprintf("%s:%d", s.file, max(line, 1)), Do: do}
}

var yamlLine = regexp.MustCompile(`line (\d+): (.*)`)

// yamlError puts the first line a YAML error names in front of it.
func (s *scenarioReader) yamlError(err error) error {
	m := yamlLine.FindStringSubmatch(err.Error())
	if m == nil {
		return s.bad(1, strings.TrimPrefix(err.Error(), "yaml: "), "")
	}
	line, _ := strconv.Atoi(m[1])
	what := m[2]
	if field, _, ok := strings.Cut(strings.TrimPrefix(what, "field "), " not found in type"); ok {
		what = fmt.Sprintf("there is no field %q here", field)
	}
	return s.bad(line, what, "")
}

func (s *scenarioReader) scenario() (Scenario, error) {
	in := &s.in
	out := Scenario{Name: in.Name, Fidelity: cmp.Or(in.Fidelity.v, InCounts), file: s.file}
	if f := out.Fidelity; f != InCounts && f != Exact {
		return out, s.bad(in.Fidelity.line, fmt.Sprintf("%q is not a fidelity", f), "use counts (groups of like hosts) or exact (every host)")
	}
	kinds, err := s.fleet()
	if err != nil {
		return out, err
	}
	if out.Policy, err = s.release(kinds); err != nil {
		return out, err
	}
	out.World = World{Seed: in.Seed, Kinds: kinds, Tick: in.Tick.v.Duration, Until: in.Until.v.Duration}
	if out.World.Until == 0 {
		out.World.Until = 4 * time.Hour
	}
	if err := s.steps(&out.World, out.Policy.Heartbeat); err != nil {
		return out, err
	}
	if err := s.happenings(&out.World, kinds, out.Policy.Heartbeat); err != nil {
		return out, err
	}
	if err := s.policies(&out.World); err != nil {
		return out, err
	}
	s.exactOnly(&out.World)
	out.limits, out.Notes = s.limits, idle(&out.World)
	return out, nil
}

func (s *scenarioReader) steps(w *World, heartbeat time.Duration) error {
	in := &s.in
	tick := cmp.Or(w.Tick, heartbeat/4)
	if tick <= 0 || tick > heartbeat {
		return s.bad(in.Tick.line, "a tick must not be longer than the heartbeat", "leave it out: a quarter of the heartbeat is the default")
	}
	if w.Until/tick > 1_000_000 {
		return s.bad(in.Until.line, fmt.Sprintf("%s in steps of %s are more than a million steps", w.Until, tick), "shorten until, or lengthen tick")
	}
	if tick != heartbeat/4 {
		s.only(Exact, in.Tick.line, "host by host, a step is a quarter of a heartbeat", "leave tick out, or play it in counts")
	}
	hosts, line := 0, s.in.Fleet.Hosts.line
	for i, k := range w.Kinds {
		if hosts += k.Hosts; hosts > MostExact {
			if i < len(in.Fleet.Kinds) {
				line = in.Fleet.Kinds[i].line
			}
			s.only(Exact, line, "at most 20,000 hosts are played one by one", "take a smaller fleet, or fidelity: counts")
			break
		}
	}
	return nil
}

// happenings reads what happens to the fleet.
func (s *scenarioReader) happenings(w *World, kinds []Kind, heartbeat time.Duration) error {
	for i, f := range s.in.Faults {
		fault, err := s.fault(f, i, kinds, heartbeat)
		if err != nil {
			return err
		}
		w.Faults = append(w.Faults, fault)
	}
	for _, o := range s.in.Outages {
		outage, err := s.outage(o, kinds)
		if err != nil {
			return err
		}
		w.Outage = append(w.Outage, outage)
	}
	for _, c := range s.in.Clocks {
		where, err := s.where(c.line, c.v.Where, kinds)
		if err != nil {
			return err
		}
		w.Clocks = append(w.Clocks, WrongClock{Where: where, Share: c.v.Share.or(1), Skew: c.v.Skew.Duration})
	}
	for _, h := range s.in.Hostile {
		where, err := s.where(h.line, h.v.Where, kinds)
		if err != nil {
			return err
		}
		if l := h.v.Lie; l != ClaimsHarm && l != ClaimsHealth && l != Garbage {
			return s.bad(h.line, fmt.Sprintf("%q is not what a hostile host does", l), "use lie: claims-harm, claims-health or garbage")
		}
		w.Hostile = append(w.Hostile, Hostility{Where: where, Share: h.v.Share.or(1), Lie: h.v.Lie})
	}
	server, messages := s.in.Server.v, s.in.Messages.v
	w.Restart, w.Takeover, w.StoreFails = float64(server.Crash), float64(server.Takeover), float64(server.Store)
	w.Messages = Messages{Lose: float64(messages.Lose), Duplicate: float64(messages.Duplicate), Reorder: float64(messages.Reorder)}
	return nil
}

// exactOnly notes what counts cannot play.
func (s *scenarioReader) exactOnly(w *World) {
	const do = "write fidelity: exact, or leave it out"
	if w.Takeover > 0 || w.StoreFails > 0 {
		s.only(InCounts, s.in.Server.line, "a takeover and a failing store need a control plane of several parts, which counts does not play", do)
	}
	if w.Messages != (Messages{}) {
		s.only(InCounts, s.in.Messages.line, "counts plays no single messages", do)
	}
	for _, c := range s.in.Clocks {
		s.only(InCounts, c.line, "counts plays no single hosts, and so no clocks", do)
	}
	for _, h := range s.in.Hostile {
		s.only(InCounts, h.line, "counts plays no single hosts, and so none that lies", do)
	}
	for i, f := range w.Faults {
		if f.CutOff {
			s.only(InCounts, s.in.Faults[i].line, "counts plays no single hosts that are cut off", do)
		}
	}
}

// or is the share, or a default where none was written.
func (p *portion) or(share float64) float64 {
	if p == nil {
		return share
	}
	return float64(*p)
}

func (s *scenarioReader) fleet() ([]Kind, error) {
	f := &s.in.Fleet
	switch {
	case len(f.Kinds) > 0 && f.Hosts.set:
		return nil, s.bad(f.Hosts.line, "a fleet is either generated (hosts, strata) or listed (kinds)", "remove one of the two")
	case len(f.Kinds) == 0:
		n := f.Hosts.v
		if n < 1 || n > 100_000_000 {
			return nil, s.bad(f.Hosts.line, fmt.Sprintf("fleet.hosts is %d, and must be 1 to 100,000,000", n), "")
		}
		if f.Strata.set && (f.Strata.v < 1 || f.Strata.v > 250) {
			return nil, s.bad(f.Strata.line, fmt.Sprintf("fleet.strata is %d, and must be 1 to 250", f.Strata.v), "list kinds for more")
		}
		if f.Strata.v == 1 {
			return SmallFleet(n), nil
		}
		strata := 250
		if f.Strata.set {
			strata = f.Strata.v
		}
		return ModelFleet(n, strata, f.Laptops), nil
	}
	var kinds []Kind
	for _, v := range f.Kinds {
		k := v.v
		if k.Hosts < 0 || k.Offline < 0 || k.Offline > k.Hosts {
			return nil, s.bad(v.line, "hosts and offline must not be negative, and offline not more than hosts", "")
		}
		name := k.Stratum
		if name == "" {
			parts := []string{cmp.Or(k.Kernel, "6.1"), cmp.Or(k.Distro, "debian-12"), cmp.Or(k.Agent, "1.0.0"), cmp.Or(k.Role, "server")}
			for _, p := range parts {
				if strings.ContainsAny(p, "|*") {
					return nil, s.bad(v.line, fmt.Sprintf("%q must not contain | or *", p), "")
				}
			}
			name = strings.Join(parts, "|")
		} else if strings.Count(name, "|") != 3 {
			return nil, s.bad(v.line, fmt.Sprintf("%q is not a stratum", name), `write "kernel|distro|agent|role", or each by its own field`)
		}
		kind := Kind{Org: holdfast.OrgID(cmp.Or(k.Organisation, string(holdfast.DefaultOrg))), Stratum: holdfast.Stratum(name), Hosts: k.Hosts, Offline: k.Offline, Silence: float64(k.Silence), Crash: float64(k.Crash)}
		if kind.Silence == 0 {
			kind.Silence = serverSilence
		}
		if kind.Crash == 0 {
			kind.Crash = crashRate
		}
		kinds = append(kinds, kind)
	}
	return kinds, nil
}

func (s *scenarioReader) release(kinds []Kind) (rollout.Policy, error) {
	r := &s.in.Release
	profile := holdfast.Profile(cmp.Or(r.Profile.v, string(holdfast.Urgent)))
	p := rollout.DefaultPolicy(profile)
	p.Release, p.By = "scenario", "simulator"
	p.Approved = "simulator's second person"
	p.Baselines = Baselines(kinds)
	p.Rings = holdfast.RingPlan{{Name: "all", Through: 1_000_000}}
	line := r.Profile.line
	if r.Alpha.set {
		p.Alpha, line = r.Alpha.v, r.Alpha.line
	}
	if r.Heartbeat.set {
		if r.Heartbeat.v.Duration <= 0 {
			return p, s.bad(r.Heartbeat.line, "a heartbeat must be longer than zero", "")
		}
		p = p.WithClock(r.Heartbeat.v.Duration)
	}
	if len(r.Signals) > 0 {
		p.Signals = nil
		for _, x := range r.Signals {
			p.Signals = append(p.Signals, holdfast.HarmKind(x.v))
			line = x.line
		}
	}
	if len(r.Rings) > 0 {
		p.Rings = nil
		for _, x := range r.Rings {
			p.Rings = append(p.Rings, holdfast.Ring{Name: x.v.Name, Through: uint32(math.Round(float64(x.v.Through) * 1e6)), Soak: x.v.Soak.Duration})
			line = x.line
		}
	}
	if err := p.Validate(); err != nil {
		return p, s.bad(line, err.Error(), "")
	}
	return p, nil
}

// where makes a selection, and refuses one that selects nothing.
func (s *scenarioReader) where(line int, x selector, kinds []Kind) (func(*Kind) bool, error) {
	if x == (selector{}) {
		return nil, nil
	}
	if x.Rank != nil {
		if *x.Rank < 0 || *x.Rank >= len(kinds) {
			return nil, s.bad(line, fmt.Sprintf("where.rank is %d, and the fleet has %d kinds", *x.Rank, len(kinds)), "")
		}
		return In(kinds[*x.Rank].Stratum), nil
	}
	is := func(want, got string) bool { return want == "" || want == got }
	f := func(k *Kind) bool {
		a := k.Attributes()
		return is(x.Organisation, string(k.Org)) && is(x.Stratum, string(k.Stratum)) &&
			is(x.Kernel, a.Kernel) && is(x.Distro, a.Distro) && is(x.Agent, a.Version) && is(x.Role, a.Role)
	}
	for i := range kinds {
		if f(&kinds[i]) {
			return f, nil
		}
	}
	return nil, s.bad(line, "where selects no host of this fleet", "check its values against fleet")
}

func (s *scenarioReader) fault(v value[oneFault], i int, kinds []Kind, heartbeat time.Duration) (Fault, error) {
	x := v.v
	where, err := s.where(v.line, x.Where, kinds)
	if err != nil {
		return Fault{}, err
	}
	share := x.Share.or(1)
	var f Fault
	switch x.Kind {
	case "dead":
		f = Dead(share, where).scaled(heartbeat)
	case "mute":
		if f = MuteAgent(share, where, heartbeat); x.Soonest != nil || x.Latest != nil {
			return f, s.bad(v.line, "what never reaches the server does so from its start", "leave out soonest and latest, or write kind: dead")
		}
	case "crash", "reboot", "cpu", "memory":
		f = Crashing(share, where)
		f.Kind = holdfast.HarmKind(x.Kind)
	case "rate":
		if x.Times <= 1 || x.Times > 1e4 {
			return f, s.bad(v.line, "a fault of kind rate needs times, above 1 and at most 10,000", "times: 2 doubles the crash rate")
		}
		f = Fault{Rate: crashRate * (x.Times - 1), Where: where}
	default:
		return f, s.bad(v.line, fmt.Sprintf("%q is not a kind of fault", x.Kind), "use dead, mute, crash, reboot, cpu, memory or rate")
	}
	f.Name, f.CutOff = fmt.Sprintf("%s %d", x.Kind, i+1), x.CutOff
	if x.Soonest != nil {
		f.Soonest = x.Soonest.Duration
		f.Latest = max(f.Latest, f.Soonest)
	}
	if x.Latest != nil {
		f.Latest = x.Latest.Duration
	}
	if f.Latest < f.Soonest {
		return f, s.bad(v.line, "latest is sooner than soonest", "")
	}
	return f, nil
}

func (s *scenarioReader) outage(v value[oneOutage], kinds []Kind) (Outage, error) {
	x := v.v
	where, err := s.where(v.line, x.Where, kinds)
	if err != nil {
		return Outage{}, err
	}
	o := Outage{From: x.From.Duration, For: x.For.Duration, Where: where, Share: x.Share.or(1)}
	switch {
	case x.Of == "server" && (where != nil || x.Share != nil):
		return o, s.bad(v.line, "the server is away for everybody", "leave out share and where, or write of: network")
	case x.Of == "server":
		o.Server = true
	case x.Of == "network":
	case x.Of == "stratum" && where == nil:
		return o, s.bad(v.line, "an outage of a stratum needs where", "where: {kernel: \"6.1\"}")
	case x.Of == "stratum":
	default:
		return o, s.bad(v.line, fmt.Sprintf("%q cannot have an outage", x.Of), "use server, network or stratum")
	}
	if o.For <= 0 {
		return o, s.bad(v.line, "an outage needs for, longer than zero", "for: 15m")
	}
	return o, nil
}
