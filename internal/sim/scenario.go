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

// Scenario is a scenario file, checked: what [Counts] needs.
type Scenario struct {
	Name   string
	Policy rollout.Policy
	World  World
}

// maxScenario bounds a scenario file, in bytes.
const maxScenario = 1 << 20

// A value remembers the line it was written on.
type value[T any] struct {
	v    T
	line int
	set  bool
}

func (x *value[T]) UnmarshalYAML(n *yaml.Node) error {
	x.line, x.set = n.Line, true
	return n.Decode(&x.v)
}

// length is a duration, "90s" or "4h".
type length struct{ time.Duration }

func (l *length) UnmarshalYAML(n *yaml.Node) error {
	d, err := time.ParseDuration(n.Value)
	if err != nil || d < 0 {
		return fmt.Errorf("line %d: %q is not a duration such as 90s, 10m or 4h", n.Line, n.Value)
	}
	l.Duration = d
	return nil
}

// portion is a share, "10%" or 0.1.
type portion float64

func (p *portion) UnmarshalYAML(n *yaml.Node) error {
	s, percent := strings.CutSuffix(strings.TrimSpace(n.Value), "%")
	f, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if percent {
		f /= 100
	}
	if err != nil || !(f >= 0 && f <= 1) {
		return fmt.Errorf("line %d: %q is not a share such as 10%% or 0.1", n.Line, n.Value)
	}
	*p = portion(f)
	return nil
}

type scenarioFile struct {
	Name    string        `yaml:"name"`
	Seed    uint64        `yaml:"seed"`
	Until   value[length] `yaml:"until"`
	Tick    value[length] `yaml:"tick"`
	Restart portion       `yaml:"restart"`
	Fleet   struct {
		Hosts   value[int]       `yaml:"hosts"`
		Strata  value[int]       `yaml:"strata"`
		Laptops bool             `yaml:"laptops"`
		Kinds   []value[oneKind] `yaml:"kinds"`
	} `yaml:"fleet"`
	Release struct {
		Profile   value[string]   `yaml:"profile"`
		Alpha     value[float64]  `yaml:"alpha"`
		Heartbeat value[length]   `yaml:"heartbeat"`
		Signals   []value[string] `yaml:"signals"`
		Rings     []value[struct {
			Name    string  `yaml:"name"`
			Through portion `yaml:"through"`
			Soak    length  `yaml:"soak"`
		}] `yaml:"rings"`
	} `yaml:"release"`
	Faults  []value[oneFault]  `yaml:"faults"`
	Outages []value[oneOutage] `yaml:"outages"`
}

type selector struct {
	Organisation string `yaml:"organisation"`
	Kernel       string `yaml:"kernel"`
	Distro       string `yaml:"distro"`
	Agent        string `yaml:"agent"`
	Role         string `yaml:"role"`
	Stratum      string `yaml:"stratum"`
	Rank         *int   `yaml:"rank"` // of the generated fleet: 0 holds 10 %, 1 holds 1 %, 2 holds 0.1 %
}

type oneKind struct {
	selector `yaml:",inline"`
	Hosts    int     `yaml:"hosts"`
	Offline  int     `yaml:"offline"`
	Silence  portion `yaml:"silence"`
	Crash    portion `yaml:"crash"`
}

type oneFault struct {
	Kind    string   `yaml:"kind"` // dead, crash, reboot, cpu, memory, rate
	Share   *portion `yaml:"share"`
	Where   selector `yaml:"where"`
	Soonest *length  `yaml:"soonest"`
	Latest  *length  `yaml:"latest"`
	Times   float64  `yaml:"times"` // of kind rate: the crash rate becomes this many times the normal one
}

type oneOutage struct {
	Of    string   `yaml:"of"` // server or hosts
	From  length   `yaml:"from"`
	For   length   `yaml:"for"`
	Share *portion `yaml:"share"`
	Where selector `yaml:"where"`
}

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
	return s.scenario()
}

type scenarioReader struct {
	file string
	in   scenarioFile
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
	out := Scenario{Name: in.Name}
	kinds, err := s.fleet()
	if err != nil {
		return out, err
	}
	if out.Policy, err = s.release(kinds); err != nil {
		return out, err
	}
	w := World{Seed: in.Seed, Kinds: kinds, Tick: in.Tick.v.Duration, Until: in.Until.v.Duration, Restart: float64(in.Restart)}
	if w.Until == 0 {
		w.Until = 4 * time.Hour
	}
	tick := cmp.Or(w.Tick, out.Policy.Heartbeat/4)
	if tick <= 0 || tick > out.Policy.Heartbeat {
		return out, s.bad(in.Tick.line, "a tick must not be longer than the heartbeat", "leave it out: a quarter of the heartbeat is the default")
	}
	if w.Until/tick > 1_000_000 {
		return out, s.bad(in.Until.line, fmt.Sprintf("%s in steps of %s are more than a million steps", w.Until, tick), "shorten until, or lengthen tick")
	}
	for i, f := range in.Faults {
		fault, err := s.fault(f, i, kinds)
		if err != nil {
			return out, err
		}
		w.Faults = append(w.Faults, fault)
	}
	for _, o := range in.Outages {
		outage, err := s.outage(o, kinds)
		if err != nil {
			return out, err
		}
		w.Outage = append(w.Outage, outage)
	}
	out.World = w
	return out, nil
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
		parts := append(strings.SplitN(string(k.Stratum), "|", 4), "", "", "", "")
		return is(x.Organisation, string(k.Org)) && is(x.Stratum, string(k.Stratum)) &&
			is(x.Kernel, parts[0]) && is(x.Distro, parts[1]) && is(x.Agent, parts[2]) && is(x.Role, parts[3])
	}
	for i := range kinds {
		if f(&kinds[i]) {
			return f, nil
		}
	}
	return nil, s.bad(line, "where selects no host of this fleet", "check its values against fleet")
}

func (s *scenarioReader) fault(v value[oneFault], i int, kinds []Kind) (Fault, error) {
	x := v.v
	where, err := s.where(v.line, x.Where, kinds)
	if err != nil {
		return Fault{}, err
	}
	share := 1.0
	if x.Share != nil {
		share = float64(*x.Share)
	}
	var f Fault
	switch x.Kind {
	case "dead":
		f = Dead(share, where)
	case "crash", "reboot", "cpu", "memory":
		f = Crashing(share, where)
		f.Kind = holdfast.HarmKind(x.Kind)
	case "rate":
		if x.Times <= 1 || x.Times > 1e4 {
			return f, s.bad(v.line, "a fault of kind rate needs times, above 1 and at most 10,000", "times: 2 doubles the crash rate")
		}
		f = Fault{Rate: crashRate * (x.Times - 1), Where: where}
	default:
		return f, s.bad(v.line, fmt.Sprintf("%q is not a kind of fault", x.Kind), "use dead, crash, reboot, cpu, memory or rate")
	}
	f.Name = fmt.Sprintf("%s %d", x.Kind, i+1)
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
	o := Outage{From: x.From.Duration, For: x.For.Duration, Where: where, Share: 1}
	if x.Share != nil {
		o.Share = float64(*x.Share)
	}
	switch x.Of {
	case "server":
		o.Server = true
	case "hosts":
	default:
		return o, s.bad(v.line, fmt.Sprintf("%q cannot have an outage", x.Of), "use server or hosts")
	}
	if o.For <= 0 {
		return o, s.bad(v.line, "an outage needs for, longer than zero", "for: 15m")
	}
	return o, nil
}

// Run plays the scenario.
func (s Scenario) Run() (Outcome, error) { return Counts(s.Policy, s.World) }
