package scan

import (
	"maps"
	"slices"
	"strings"

	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// Layout holds a class for each kind of event that files can be of. The rules
// decide the fields: a class has those its rules read, and no others.
type Layout struct {
	Classes []*ocsf.Class
	byKind  map[string]*ocsf.Class
	Unknown *ocsf.Class // of events that do not say what they are: every rule may match
}

// kindKey is the same for the same log sources.
func kindKey(sources []ocsf.LogSource) string {
	var b strings.Builder
	for _, s := range sources {
		b.WriteString(s.Category + "\x00" + s.Product + "\x00" + s.Service + "\x01")
	}
	return b.String()
}

// NewLayout lays out classes for a set. Rules of log sources that no table
// names get a kind of their own, which a record can only be of if it is said
// which log source its file has; so do those in also.
func NewLayout(set sigma.Set, also ...ocsf.LogSource) *Layout {
	l := &Layout{byKind: map[string]*ocsf.Class{}}
	kinds := append(ocsf.WindowsKinds(), ocsf.OtherKinds()...)
	for _, r := range set.Rules {
		kinds = append(kinds, []ocsf.LogSource{r.LogSource})
	}
	for _, source := range also {
		kinds = append(kinds, []ocsf.LogSource{source})
	}
	for _, sources := range kinds {
		if l.byKind[kindKey(sources)] == nil {
			l.add(sources, set, func(r *sigma.Rule) bool {
				return slices.ContainsFunc(sources, r.LogSource.Accepts)
			})
		}
	}
	all := func(*sigma.Rule) bool { return true }
	var everySource []ocsf.LogSource
	seen := map[ocsf.LogSource]bool{}
	for _, r := range set.Rules {
		if !seen[r.LogSource] {
			seen[r.LogSource] = true
			everySource = append(everySource, r.LogSource)
		}
	}
	l.Unknown = l.add(everySource, set, all)
	return l
}

func (l *Layout) add(sources []ocsf.LogSource, set sigma.Set, wanted func(*sigma.Rule) bool) *ocsf.Class {
	c := &ocsf.Class{UID: len(l.Classes) + 1, Name: sources2name(sources), Open: true}
	for _, s := range sources {
		c.Sources = append(c.Sources, ocsf.Source{LogSource: s, When: -1})
	}
	names := map[string]bool{}
	any := false
	for _, r := range set.Rules {
		if wanted(r) {
			any = true
			for _, n := range r.Detection.FieldNames() {
				names[n] = true
			}
		}
	}
	if !any {
		return nil
	}
	for _, f := range set.Filters {
		for _, n := range f.Detection.FieldNames() {
			names[n] = true
		}
	}
	for _, co := range set.Correlations {
		for i := range co.Rules {
			for _, n := range append(slices.Clone(co.GroupBy), co.Fields...) {
				names[co.FieldOf(n, i)] = true
			}
		}
	}
	for _, n := range slices.Sorted(maps.Keys(names)) {
		c.Fields = append(c.Fields, ocsf.Field{Path: n, Type: "string"})
	}
	l.Classes = append(l.Classes, c.Index())
	l.byKind[kindKey(sources)] = c
	return c
}

func sources2name(sources []ocsf.LogSource) string {
	if len(sources) == 0 {
		return "event"
	}
	s := sources[0]
	if len(sources) > 1 && len(sources) < 5 {
		s = sources[1]
	}
	var parts []string
	for _, p := range []string{s.Product, s.Service, s.Category} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, "/")
}

// ClassOf returns the class of a record, or nil if no rule wants to see it.
func (l *Layout) ClassOf(sources []ocsf.LogSource) *ocsf.Class {
	if sources == nil {
		return l.Unknown
	}
	if c := l.byKind[kindKey(sources)]; c != nil {
		return c
	}
	if len(sources) == 0 {
		return nil
	}
	// A Windows event that no table row names is of its product and service.
	return l.byKind[kindKey(sources[:1])]
}

// Bind lays a record out as an event of class c.
func Bind(ev *ocsf.Event, c *ocsf.Class, r *Record, withMessage bool) {
	if cap(ev.Values) < len(c.Fields) {
		ev.Values = make([]ocsf.Value, len(c.Fields))
	}
	ev.Class, ev.Values = c.UID, ev.Values[:len(c.Fields)]
	if ev.Set == nil {
		ev.Set = []uint16{}
	}
	ev.Time = r.Time
	if withMessage {
		ev.Message = r.text()
	}
	for _, f := range r.Fields {
		o, ok := c.Ordinal(f.Name)
		if !ok {
			continue
		}
		switch old := ev.Values[o]; old.Kind {
		case ocsf.Absent:
			ev.Put(o, f.Value)
		case ocsf.List:
			ev.Lists[old.Num] = append(ev.Lists[old.Num], f.Value)
		default:
			ev.Lists = append(ev.Lists, []ocsf.Value{old, f.Value})
			ev.Values[o] = ocsf.Value{Kind: ocsf.List, Num: int64(len(ev.Lists) - 1)}
		}
	}
}
