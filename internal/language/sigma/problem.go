package sigma

import (
	"fmt"
	"strconv"

	"github.com/holdfast-security/holdfast"
)

// Pos is a place in a file; both count from 1, and 0 means unknown.
type Pos struct{ Line, Column int }

// Problem is what is wrong with a rule, where, and what to do about it.
type Problem struct {
	Rule    string // id, or what else names the rule
	File    string
	Pos     Pos
	Field   string // the event field concerned, if one is
	Reason  string
	Do      string
	Warning bool // the rule still runs
	// Inapplicable says that nothing is wrong with the rule, but the events it
	// was compiled for lack its log source or a field.
	Inapplicable bool
}

// Where is the problem's place, file:line:column.
func (p Problem) Where() string {
	s := p.File
	if p.Pos.Line > 0 {
		s += ":" + strconv.Itoa(p.Pos.Line)
		if p.Pos.Column > 0 {
			s += ":" + strconv.Itoa(p.Pos.Column)
		}
	}
	return s
}

// Error makes a Problem an error for a person.
func (p Problem) Error() string {
	e := holdfast.Error{Kind: holdfast.Invalid, What: p.Reason, Where: p.Where(), Do: p.Do}
	return e.Error()
}

// RuleProblem is the problem as the rest of the house reports it.
func (p Problem) RuleProblem(stage string) holdfast.RuleProblem {
	reason := p.Reason
	if p.Do != "" {
		reason += " (" + p.Do + ")"
	}
	return holdfast.RuleProblem{
		Rule: p.Rule, File: p.File, Line: p.Pos.Line, Column: p.Pos.Column,
		Field: p.Field, Stage: stage, Reason: reason,
	}
}

func problem(pos Pos, format string, args ...any) *Problem {
	return &Problem{Pos: pos, Reason: fmt.Sprintf(format, args...)}
}

func (p *Problem) do(what string) *Problem {
	p.Do = what
	return p
}

func (p *Problem) field(name string) *Problem {
	p.Field = name
	return p
}
