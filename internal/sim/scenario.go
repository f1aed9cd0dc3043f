package sim

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/rollout"
)

// Scenario is a scenario file, checked: what [Counts] and package exact need.
type Scenario struct {
	Name     string
	Fidelity Fidelity // as the file asks for
	Policy   rollout.Policy
	World    World
	Notes    []string // what is odd about it, though it can be played

	file   string
	limits []limit
}

// Fidelity is how closely a fleet is played.
type Fidelity string

// The fidelities.
const (
	InCounts Fidelity = "counts" // groups of like hosts, any number
	Exact    Fidelity = "exact"  // every host, at most MostExact
)

// MostExact is the largest fleet that is played host by host.
const MostExact = 20_000

// A limit is an option that a fidelity cannot play.
type limit struct {
	not      Fidelity
	line     int
	what, do string
}

// Plays refuses the first option of the file that a fidelity cannot play, with
// file, line and reason: nothing is ignored.
func (s *Scenario) Plays(f Fidelity) error {
	for _, l := range s.limits {
		if l.not == f {
			return &holdfast.Error{Kind: holdfast.Invalid, What: l.what, Where: fmt.Sprintf("%s:%d", s.file, max(l.line, 1)), Do: l.do}
		}
	}
	return nil
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
	if err := known(n, reflect.TypeFor[T]()); err != nil {
		return err
	}
	return n.Decode(&x.v)
}

// known refuses a field that a struct does not have: the decoder does so only
// where no type decodes itself.
func known(n *yaml.Node, t reflect.Type) error {
	if n.Kind != yaml.MappingNode || t.Kind() != reflect.Struct || t == reflect.TypeFor[yaml.Node]() {
		return nil
	}
	fields := map[string]reflect.Type{}
	gather(fields, t)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		field, ok := fields[key.Value]
		if !ok {
			return fmt.Errorf("line %d: field %s not found in type %s", key.Line, key.Value, t)
		}
		if err := known(n.Content[i+1], field); err != nil {
			return err
		}
	}
	return nil
}

func gather(fields map[string]reflect.Type, t reflect.Type) {
	for i := range t.NumField() {
		f := t.Field(i)
		switch name, inline := strings.CutSuffix(f.Tag.Get("yaml"), ",inline"); {
		case inline:
			gather(fields, f.Type)
		case name != "":
			fields[name] = f.Type
		}
	}
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

// offset is a duration that may be negative, "-5m".
type offset struct{ time.Duration }

func (o *offset) UnmarshalYAML(n *yaml.Node) error {
	d, err := time.ParseDuration(n.Value)
	if err != nil || d < -maxSkew || d > maxSkew {
		return fmt.Errorf("line %d: %q is not an offset of a clock such as 90s or -5m, of at most 30 days", n.Line, n.Value)
	}
	o.Duration = d
	return nil
}

// moment is a point in time, "2026-07-04T20:00:00Z".
type moment struct{ time.Time }

func (m *moment) UnmarshalYAML(n *yaml.Node) error {
	t, err := time.Parse(time.RFC3339, n.Value)
	if err != nil || t.Year() < 2000 || t.Year() > 2200 {
		return fmt.Errorf("line %d: %q is not a moment such as 2026-07-04T20:00:00Z, between the years 2000 and 2200", n.Line, n.Value)
	}
	m.Time = t
	return nil
}

const maxSkew = 30 * 24 * time.Hour

type scenarioFile struct {
	Name     string          `yaml:"name"`
	Fidelity value[Fidelity] `yaml:"fidelity"`
	Seed     uint64          `yaml:"seed"`
	Until    value[length]   `yaml:"until"`
	Tick     value[length]   `yaml:"tick"`
	Server   value[struct {
		Crash    portion `yaml:"crash"`
		Takeover portion `yaml:"takeover"`
		Store    portion `yaml:"store"`
	}] `yaml:"server"`
	Messages value[struct {
		Lose      portion `yaml:"lose"`
		Duplicate portion `yaml:"duplicate"`
		Reorder   portion `yaml:"reorder"`
	}] `yaml:"messages"`
	Clocks  []value[oneClock]   `yaml:"clocks"`
	Hostile []value[oneHostile] `yaml:"hostile"`
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
		Critical bool          `yaml:"critical"`
		Signed   value[length] `yaml:"signed"` // so long before it is approved
		Version  value[string] `yaml:"version"`
		Before   value[string] `yaml:"before"`
	} `yaml:"release"`
	Faults  []value[oneFault]  `yaml:"faults"`
	Outages []value[oneOutage] `yaml:"outages"`

	Begins   value[moment]      `yaml:"begins"`
	Policies []value[onePolicy] `yaml:"policies"`
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
	Kind    string   `yaml:"kind"` // dead, mute, crash, reboot, cpu, memory, rate
	Share   *portion `yaml:"share"`
	Where   selector `yaml:"where"`
	Soonest *length  `yaml:"soonest"`
	Latest  *length  `yaml:"latest"`
	Times   float64  `yaml:"times"` // of kind rate: the crash rate becomes this many times the normal one
	CutOff  bool     `yaml:"cut_off"`
}

type oneClock struct {
	Skew  offset   `yaml:"skew"`
	Share *portion `yaml:"share"`
	Where selector `yaml:"where"`
}

type oneHostile struct {
	Lie   Lie      `yaml:"lie"`
	Share *portion `yaml:"share"`
	Where selector `yaml:"where"`
}

type oneOutage struct {
	Of    string   `yaml:"of"` // server, network or stratum
	From  length   `yaml:"from"`
	For   length   `yaml:"for"`
	Share *portion `yaml:"share"`
	Where selector `yaml:"where"`
}
