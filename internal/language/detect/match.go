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
