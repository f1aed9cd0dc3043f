package consent

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // a host without a table of time zones must keep the same windows

	"go.yaml.in/yaml/v3"

	"github.com/holdfast-security/holdfast"
)

// PayloadType is what a policy file is signed as. The file itself is the
// payload: what people read is what was signed.
const PayloadType = "application/vnd.holdfast.consent.v1+yaml"

// MaxEnvelope bounds a signed policy, in bytes.
const MaxEnvelope = 3 << 19

// Bounds of a policy file.
const (
	maxBytes   = 1 << 20
	maxGroups  = 1000
	maxWindows = 50
)

type fileRule struct {
	Track string `yaml:"track"`
	Delay string `yaml:"delay"`
	Pin   string `yaml:"pin"`
	line  int
}

func (r *fileRule) UnmarshalYAML(n *yaml.Node) error {
	type plain fileRule
	r.line = n.Line
	if err := only(n, "track", "delay", "pin"); err != nil {
		return err
	}
	return n.Decode((*plain)(r))
}

type fileWindow struct {
	Days []string `yaml:"days"`
	From string   `yaml:"from"`
	To   string   `yaml:"to"`
	Zone string   `yaml:"zone"`
}

type fileGroup struct {
	Name     string              `yaml:"name"`
	Where    fileWhere           `yaml:"where"`
	Channels map[string]fileRule `yaml:"channels"`
	Critical map[string]fileRule `yaml:"critical"`
	Windows  []yaml.Node         `yaml:"windows"`
}

type fileWhere struct {
	Kernel string   `yaml:"kernel"`
	Distro string   `yaml:"distro"`
	Role   string   `yaml:"role"`
	Agent  string   `yaml:"agent"`
	Hosts  []string `yaml:"hosts"`
}

func (w *fileWhere) UnmarshalYAML(n *yaml.Node) error {
	type plain fileWhere
	if err := only(n, "kernel", "distro", "role", "agent", "hosts"); err != nil {
		return err
	}
	return n.Decode((*plain)(w))
}

type file struct {
	Organisation string      `yaml:"organisation"`
	Version      yaml.Node   `yaml:"version"`
	Groups       []yaml.Node `yaml:"groups"`
}

// only refuses a field that is none of names: the decoder does so for whole
// files alone.
func only(n *yaml.Node, names ...string) error {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if k := n.Content[i]; !slices.Contains(names, k.Value) {
			return fmt.Errorf("line %d: field %s not found in type policy", k.Line, k.Value)
		}
	}
	return nil
}

type parser struct{ file string }

func (p parser) bad(line int, what, do string) error {
	return &holdfast.Error{Kind: holdfast.Invalid, What: what, Where: fmt.Sprintf("%s:%d", p.file, max(line, 1)), Do: do}
}

var yamlLine = regexp.MustCompile(`line (\d+): (.*)`)

func (p parser) yaml(err error, line int) error {
	what := strings.TrimPrefix(err.Error(), "yaml: ")
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		line, _ = strconv.Atoi(m[1])
		what = m[2]
	}
	if f, _, ok := strings.Cut(strings.TrimPrefix(what, "field "), " not found in type"); ok {
		what = fmt.Sprintf("there is no field %q here", f)
	}
	return p.bad(line, what, "")
}

// decode reads a node into v, which has the fields names and no others.
func (p parser) decode(n *yaml.Node, v any, names ...string) error {
	err := only(n, names...)
	if err == nil {
		err = n.Decode(v)
	}
	if err != nil {
		return p.yaml(err, n.Line)
	}
	return nil
}

// Parse reads a policy file. Every error names file and line, and says what is
// impossible about it.
func Parse(name string, b []byte) (Policy, error) {
	p := parser{name}
	if len(b) > maxBytes {
		return Policy{}, p.bad(1, "the file is larger than 1 MiB", "")
	}
	var n, more yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(b))
	switch err := d.Decode(&n); {
	case errors.Is(err, io.EOF) || err == nil && len(n.Content) == 0:
		return Policy{}, p.bad(1, "the file is empty", "name an organisation and its groups")
	case err != nil:
		return Policy{}, p.yaml(err, 1)
	}
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return Policy{}, p.bad(cmp.Or(more.Line, 1), "there is more behind the policy's end", "a file holds one policy: remove the second document (---)")
	}
	return ParseNode(name, n.Content[0])
}

// ParseNode is Parse for a policy that stands in another file, whose lines
// errors name.
func ParseNode(name string, n *yaml.Node) (Policy, error) {
	p := parser{name}
	var f file
	if err := p.decode(n, &f, "organisation", "version", "groups"); err != nil {
		return Policy{}, err
	}
	if f.Organisation == "" {
		return Policy{}, p.bad(n.Line, "organisation is missing", "")
	}
	if len(f.Groups) > maxGroups {
		return Policy{}, p.bad(f.Groups[maxGroups].Line, fmt.Sprintf("more than %d groups", maxGroups), "")
	}
	out := Policy{Org: holdfast.OrgID(f.Organisation)}
	if err := f.Version.Decode(&out.Version); err != nil || out.Version < 1 {
		return Policy{}, p.bad(cmp.Or(f.Version.Line, n.Line), "version must be a number from 1 on", "count it up with every change: hosts refuse what is not newer than what they have")
	}
	seen := map[string]bool{}
	for i := range f.Groups {
		g, err := p.group(&f.Groups[i])
		if err != nil {
			return Policy{}, err
		}
		if g.Name == "" || seen[g.Name] {
			return Policy{}, p.bad(f.Groups[i].Line, "every group needs a name of its own", "")
		}
		seen[g.Name] = true
		out.Groups = append(out.Groups, g)
	}
	return out, nil
}

// Accept reads a policy whose signature has been verified. Denied, if it is of
// another organisation; Conflict, if it is not newer than version after.
func Accept(name string, b []byte, org holdfast.OrgID, after int64) (Policy, error) {
	p, err := Parse(name, b)
	switch {
	case err != nil:
		return Policy{}, err
	case p.Org != org:
		return Policy{}, holdfast.Errorf(holdfast.Denied, "the policy is of organisation %q, not of %q", p.Org, org)
	case p.Version <= after:
		return Policy{}, holdfast.Errorf(holdfast.Conflict, "the policy has version %d, and version %d is in force", p.Version, after)
	}
	return p, nil
}

// CheckPins refuses a pin to a version that exists reports false for.
func (p *Policy) CheckPins(name string, exists func(c holdfast.Channel, version string) bool) error {
	for _, g := range p.Groups {
		for _, c := range holdfast.Channels {
			if r, ok := g.Rules[c]; ok && r.Track == Pin && !exists(c, r.Pin) {
				return parser{name}.bad(r.Line, fmt.Sprintf("group %q is pinned to %s %s, which nobody published", g.Name, c, r.Pin), "name a version of that channel")
			}
		}
	}
	return nil
}

func (p parser) group(n *yaml.Node) (Group, error) {
	var f fileGroup
	if err := p.decode(n, &f, "name", "where", "channels", "critical", "windows"); err != nil {
		return Group{}, err
	}
	g := Group{Name: f.Name, Where: Selector{Kernel: f.Where.Kernel, Distro: f.Where.Distro, Role: f.Where.Role, Version: f.Where.Agent}}
	for _, h := range f.Where.Hosts {
		g.Where.Hosts = append(g.Where.Hosts, holdfast.HostID(h))
	}
	var err error
	if g.Rules, err = p.rules(f.Channels, false, n.Line); err != nil {
		return g, err
	}
	if g.Critical, err = p.rules(f.Critical, true, n.Line); err != nil {
		return g, err
	}
	if len(f.Windows) > maxWindows {
		return g, p.bad(f.Windows[maxWindows].Line, fmt.Sprintf("more than %d windows", maxWindows), "")
	}
	for i := range f.Windows {
		w, err := p.window(&f.Windows[i])
		if err != nil {
			return g, err
		}
		g.Windows = append(g.Windows, w)
	}
	return g, nil
}

func (p parser) rules(in map[string]fileRule, critical bool, line int) (map[holdfast.Channel]Rule, error) {
	out := map[holdfast.Channel]Rule{}
	for name, f := range in {
		known := false
		for _, c := range holdfast.Channels {
			known = known || string(c) == name
		}
		if !known {
			return nil, p.bad(max(f.line, line), fmt.Sprintf("there is no channel %q", name), fmt.Sprintf("the channels are %v", holdfast.Channels))
		}
		r, err := p.rule(f, critical)
		if err != nil {
			return nil, err
		}
		out[holdfast.Channel(name)] = r
	}
	return out, nil
}

func (p parser) rule(f fileRule, critical bool) (Rule, error) {
	r := Rule{Track: Track(f.Track), Pin: f.Pin, Line: f.line}
	if f.Delay != "" {
		d, err := time.ParseDuration(f.Delay)
		if err != nil || d < 0 || d > MostDelay {
			return r, p.bad(f.line, fmt.Sprintf("a delay of %q is not between 0h and 72h", f.Delay), "write it as 4h or 90m")
		}
		r.Delay = d
	}
	switch r.Track {
	case Early, General, Delay, Before, Pin, Pause:
	default:
		return r, p.bad(f.line, fmt.Sprintf("%q is not a track", f.Track), "use early, general, delay, n-1, pin or pause")
	}
	switch {
	case f.Delay != "" && r.Track != Delay:
		return r, p.bad(f.line, fmt.Sprintf("a delay on %s means nothing", r.Track), "use track: delay, or remove the delay")
	case r.Track == Delay && f.Delay == "":
		return r, p.bad(f.line, "track delay needs a delay", "delay: 24h")
	case (r.Pin != "") != (r.Track == Pin):
		return r, p.bad(f.line, "a pin needs track pin and a version, and only it has one", "track: pin with pin: VERSION")
	case critical && r.Track != Early && r.Track != General && r.Track != Delay:
		return r, p.bad(f.line, fmt.Sprintf("critical releases may be delayed, not held by %s", r.Track), "use early, general, or delay with at most 72h")
	}
	return r, nil
}

var days = map[string]time.Weekday{"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}

func (p parser) window(n *yaml.Node) (Window, error) {
	var f fileWindow
	var w Window
	if err := p.decode(n, &f, "days", "from", "to", "zone"); err != nil {
		return w, err
	}
	if f.Zone == "" || f.Zone == "Local" {
		return w, p.bad(n.Line, "a window needs a time zone", "zone: Europe/Berlin, or UTC")
	}
	zone, err := time.LoadLocation(f.Zone)
	if err != nil {
		return w, p.bad(n.Line, fmt.Sprintf("%q is not a time zone", f.Zone), "use a name such as Europe/Berlin or UTC")
	}
	w.Zone = zone
	for _, d := range f.Days {
		day, ok := days[strings.ToLower(d)]
		if !ok {
			return w, p.bad(n.Line, fmt.Sprintf("%q is not a day", d), "use mon, tue, wed, thu, fri, sat or sun")
		}
		w.Days[day] = true
	}
	if len(f.Days) == 0 {
		return w, p.bad(n.Line, "a window without days never opens", "days: [sat, sun]")
	}
	if w.From, err = clock(f.From); err == nil {
		w.To, err = clock(f.To)
	}
	if err != nil {
		return w, p.bad(n.Line, err.Error(), `write times as "01:30"`)
	}
	if w.From == w.To {
		return w, p.bad(n.Line, "a window that ends when it begins never opens", "")
	}
	return w, nil
}

func clock(s string) (time.Duration, error) {
	if s == "24:00" {
		return 24 * time.Hour, nil
	}
	t, err := time.Parse("15:04", s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a time of day", s)
	}
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, nil
}
