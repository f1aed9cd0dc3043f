// Package sigma reads Sigma documents (rules, correlations and filters of the
// Sigma specification, version 2.1) into a tree, and says for each value what
// it means once its modifiers are applied.
//
// Reading is bounded and knows nothing of any host: the same bytes give the
// same tree and the same problems everywhere. A document with a problem does
// not touch the others of its file.
package sigma

import (
	"strings"

	"github.com/holdfast-security/holdfast/internal/language/ocsf"
)

// Set is what files hold.
type Set struct {
	Rules        []*Rule
	Correlations []*Correlation
	Filters      []*Filter
}

// Add appends what another file holds.
func (s *Set) Add(o Set) {
	s.Rules = append(s.Rules, o.Rules...)
	s.Correlations = append(s.Correlations, o.Correlations...)
	s.Filters = append(s.Filters, o.Filters...)
}

// Meta is what documents of all kinds say of themselves.
type Meta struct {
	ID             string
	Name           string // how correlations and filters may refer to it
	Title          string
	Description    string
	Status         string
	Author         string
	Level          string // informational, low, medium, high, critical; empty if not said
	References     []string
	Tags           []string
	FalsePositives []string
	File           string
	Pos            Pos // where the document starts
}

// Key names the document in findings and messages: its id, else its name, else
// its title.
func (m *Meta) Key() string {
	switch {
	case m.ID != "":
		return m.ID
	case m.Name != "":
		return m.Name
	}
	return m.Title
}

// Techniques returns the ATT&CK techniques among the tags, written "T1059.004".
func (m *Meta) Techniques() []string {
	var ts []string
	for _, tag := range m.Tags {
		if t, ok := strings.CutPrefix(strings.ToLower(tag), "attack.t"); ok && t != "" && t[0] >= '0' && t[0] <= '9' {
			ts = append(ts, "T"+t)
		}
	}
	return ts
}

// Tactics returns the ATT&CK tactics among the tags, "defense-evasion".
func (m *Meta) Tactics() []string {
	var ts []string
	for _, tag := range m.Tags {
		t, ok := strings.CutPrefix(strings.ToLower(tag), "attack.")
		if ok && t != "" && !isID(t) {
			ts = append(ts, strings.ReplaceAll(t, "_", "-"))
		}
	}
	return ts
}

// isID recognises technique, group and software numbers: t1059, g0007, s0154.
func isID(t string) bool {
	return len(t) > 1 && strings.IndexByte("tgsc", t[0]) >= 0 && t[1] >= '0' && t[1] <= '9'
}

// Rule is a Sigma rule.
type Rule struct {
	Meta
	LogSource    ocsf.LogSource
	LogSourcePos Pos
	Fields       []string // interesting for an analyst
	Detection    Detection
}

// Detection holds the named searches of a rule and how they combine.
type Detection struct {
	Searches  []Search
	Condition *Condition
}

// Search is a named search identifier.
type Search struct {
	Name string
	Pos  Pos
	Node Node
}

// Node is a leaf (Item) or a group: all, or any, of its kids.
type Node struct {
	Item *Item
	All  bool
	Kids []Node
}

// Item is one line of a search: a field, its modifiers, and the values.
type Item struct {
	Field     string // empty for a keyword, which looks at the whole event
	Modifiers []string
	Values    []Literal
	Pos       Pos
}

// LiteralKind is the type of a value in a rule, as YAML reads it.
type LiteralKind uint8

// The kinds of literal.
const (
	Text LiteralKind = iota
	Number
	Truth
	Nothing // null
)

// Literal is one value in a rule, as written.
type Literal struct {
	Kind LiteralKind
	Text string
	Pos  Pos
}

// Filter is a Sigma filter: what to take away from other rules.
type Filter struct {
	Meta
	LogSource ocsf.LogSource
	Any       bool  // applies to every rule of its log source
	Rules     []Ref // else to these
	Detection Detection
}

// Ref names another document by id or name.
type Ref struct {
	Name string
	Pos  Pos
}
