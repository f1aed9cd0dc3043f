package ocsf

import (
	"github.com/holdfast-security/holdfast"
)

// Field is one input of a class.
type Field struct {
	Path string // "process.file.path"
	Type string // "string", "int", "bool", "time"
	// Names are the names Sigma rules use for it, besides the path.
	Names []string
}

// LogSource is where a rule wants to look, and what a class offers. An empty
// part of a rule's log source accepts everything.
type LogSource struct {
	Category, Product, Service string
}

// Accepts reports whether events offered as o are what a rule with log source l
// wants to see.
func (l LogSource) Accepts(o LogSource) bool {
	return (l.Category == "" || l.Category == o.Category) &&
		(l.Product == "" || l.Product == o.Product) &&
		(l.Service == "" || l.Service == o.Service)
}

func (l LogSource) String() string {
	s := ""
	for _, p := range [...]struct{ name, value string }{{"product", l.Product}, {"category", l.Category}, {"service", l.Service}} {
		if p.value != "" {
			if s != "" {
				s += " "
			}
			s += p.name + "=" + p.value
		}
	}
	if s == "" {
		return "any log source"
	}
	return s
}

// Source says that events of a class answer to a log source, when the field
// When has the value Is (or always, if When is negative).
type Source struct {
	LogSource
	When int   // ordinal of an integer field, or -1
	Is   int64 // its value
}

// Class is the layout of one kind of event.
type Class struct {
	UID     int
	Name    string
	Fields  []Field // at their ordinals
	Sources []Source
	// Open classes have no fields beyond those listed, but a rule naming
	// another is not wrong: its events just never have it. Files of other
	// people's logs are open; a sensor's classes are not.
	Open bool

	names map[string]int
}

// Index prepares Ordinal. A class is indexed once, before it is shared.
func (c *Class) Index() *Class {
	c.names = make(map[string]int, 2*len(c.Fields))
	for i, f := range c.Fields {
		c.names[f.Path] = i
		for _, n := range f.Names {
			c.names[n] = i
		}
	}
	return c
}

// Ordinal returns where the field that a rule calls name stands in an event.
func (c *Class) Ordinal(name string) (int, bool) {
	i, ok := c.names[name]
	return i, ok
}

// EventClass is the class as a manifest exports it.
func (c *Class) EventClass() holdfast.EventClass {
	e := holdfast.EventClass{Name: c.Name, UID: c.UID}
	for _, f := range c.Fields {
		e.Inputs = append(e.Inputs, holdfast.Input{Path: f.Path, Type: f.Type})
	}
	return e
}

// FromManifest returns the classes another build says it supplies, with the
// Sigma names and log sources this build knows for their paths.
func FromManifest(m holdfast.Manifest) []*Class {
	var classes []*Class
	for _, e := range m.Classes {
		c := &Class{UID: e.UID, Name: e.Name}
		for _, in := range e.Inputs {
			c.Fields = append(c.Fields, Field{Path: in.Path, Type: in.Type, Names: sigmaNames(e.UID, in.Path)})
		}
		c.Sources = sourcesOf(e.UID)
		classes = append(classes, c.Index())
	}
	return classes
}
