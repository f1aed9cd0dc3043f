package detect

import (
	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
)

// Match is one rule, or correlation, that an event fulfils.
type Match struct {
	Rule  *Rule
	Event *ocsf.Event

	evaluator *Evaluator
	program   *program
}

// Facts returns which fields matched, with their values, by OCSF path: of a
// correlation, its group. It allocates; call it for findings only.
func (m *Match) Facts() []holdfast.Fact {
	var facts []holdfast.Fact
	add := func(field int) {
		path, value := "message", m.Event.Message
		if field != everything {
			path, value = m.program.class.Fields[field].Path, joined(m.Event.Texts(field))
		}
		for _, f := range facts {
			if f.Field == path {
				return
			}
		}
		facts = append(facts, holdfast.Fact{Field: path, Value: value})
	}
	if m.Rule.Source != nil {
		for _, field := range explainedFields(m) {
			add(field)
		}
		return facts
	}
	for _, co := range m.evaluator.engine.correlations {
		if m.evaluator.engine.rules[co.rule] == m.Rule {
			f := co.fields[m.Event.Class][0]
			for _, field := range append(append([]int{}, f.groupBy...), f.values...) {
				if field >= 0 {
					add(field)
				}
			}
		}
	}
	return facts
}

// EventFacts returns all fields the event has.
func (m *Match) EventFacts() []holdfast.Fact {
	var facts []holdfast.Fact
	for i := range m.Event.Values {
		if m.Event.Values[i].Present() {
			facts = append(facts, holdfast.Fact{Field: m.program.class.Fields[i].Path, Value: joined(m.Event.Texts(i))})
		}
	}
	return facts
}

func joined(texts []string) string {
	if len(texts) == 1 {
		return texts[0]
	}
	s := ""
	for i, t := range texts {
		if i > 0 {
			s += ", "
		}
		s += t
	}
	return s
}
