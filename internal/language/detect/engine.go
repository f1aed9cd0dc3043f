// Package detect is the engine that runs Sigma rules over events, on hosts and
// in rehearsal alike.
//
// Compile makes an Engine, which never changes; an Evaluator runs it over one
// stream of events. Per event the engine (1) picks the program of the event's
// class, (2) finds by an index over necessary conditions the few rules that
// might match, (3) evaluates those, each predicate at most once, and (4) feeds
// matches to correlations. In steady state nothing is allocated.
package detect

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// Options say what a set is compiled for.
type Options struct {
	// Classes are the layouts of the events to come; if nil, those of this
	// build's sensor.
	Classes []*ocsf.Class
	// Placeholders are the lists for the modifier expand, by name.
	Placeholders map[string][]string
	// Unrouted runs every rule on every class, whatever its log source. It is
	// for measuring, and for logs that do not say where they come from.
	Unrouted bool
	// Correlation bounds what correlations keep. Zero values mean the defaults.
	Correlation Bounds
}

// Engine is a compiled set. It may be used by several goroutines.
type Engine struct {
	rules        []*Rule
	programs     []*program
	byClass      map[int]int // program by class UID
	near         []int16     // the same for small UIDs, as a table; -1 if there is none
	correlations []*correlation
	feeds        [][]feed // by rule: the correlations that count its matches
	weak         []Weak
	placeholders map[string][]string
}

// Rule is a rule or a correlation as findings name it.
type Rule struct {
	ID         string
	Title      string
	Severity   holdfast.Severity // Sigma's level; empty if the rule has none
	Techniques []string
	File       string
	Source     *sigma.Rule        // nil for a correlation
	Compound   *sigma.Correlation // nil for a rule
	Silent     bool               // only feeds correlations
}

// Weak is a rule that the index cannot keep from most events.
type Weak struct {
	Rule  *Rule
	Class string
	Share float64 // of the class's events that it is expected to be evaluated on
}

func (w Weak) String() string {
	return fmt.Sprintf("%s (%s) is evaluated on about %.0f %% of all %s events: nothing it needs is rarer", w.Rule.ID, w.Rule.Title, 100*w.Share, w.Class)
}

// Compile compiles a set. A rule with a problem is left out, and the others are
// not affected; if two rules have the same id, the second is left out. The
// same set gives the same engine, and the same problems in the same order, on
// every machine.
func Compile(set sigma.Set, o Options) (*Engine, []sigma.Problem) {
	if o.Classes == nil {
		o.Classes = ocsf.SensorClasses()
	}
	c := compiler{options: o, engine: &Engine{byClass: map[int]int{}, placeholders: o.Placeholders}, failed: map[int]bool{}, reported: map[sigma.Problem]bool{}}
	c.addRules(set.Rules)
	c.addFilters(set.Filters)
	c.compilePrograms()
	c.addCorrelations(set.Correlations)
	c.drop()
	slices.SortStableFunc(c.problems, func(a, b sigma.Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Pos.Line, b.Pos.Line), cmp.Compare(a.Pos.Column, b.Pos.Column))
	})
	return c.engine, c.problems
}

type compiler struct {
	options  Options
	engine   *Engine
	admitted []admitted // by rule
	failed   map[int]bool
	meanings []fingerprint // by rule
	problems []sigma.Problem
	reported map[sigma.Problem]bool
}

func (c *compiler) report(m *sigma.Meta, p sigma.Problem) {
	p.Rule = m.Key()
	if p.File == "" {
		p.File = m.File
	}
	if p.Pos == (sigma.Pos{}) {
		p.Pos = m.Pos
	}
	if !c.reported[p] { // one class is enough to say it
		c.reported[p] = true
		c.problems = append(c.problems, p)
	}
}

func (c *compiler) addRules(rules []*sigma.Rule) {
	seen := map[string]*sigma.Rule{}
	for _, r := range rules {
		if first := seen[r.Key()]; first != nil {
			c.report(&r.Meta, sigma.Problem{Reason: fmt.Sprintf("%s already has the id %s", first.File, r.Key()), Do: "give each rule an id of its own"})
			continue
		}
		seen[r.Key()] = r
		c.admitted = append(c.admitted, admitted{rule: len(c.engine.rules), source: r})
		rule := newRule(&r.Meta)
		rule.Source = r
		c.engine.rules = append(c.engine.rules, rule)
	}
}

func newRule(m *sigma.Meta) *Rule {
	return &Rule{ID: m.Key(), Title: m.Title, Severity: holdfast.Severity(m.Level), Techniques: m.Techniques(), File: m.File}
}

// addFilters hangs each filter on the rules it names.
func (c *compiler) addFilters(filters []*sigma.Filter) {
	for _, f := range filters {
		for i := range c.admitted {
			r := c.admitted[i].source
			named := f.Any || slices.ContainsFunc(f.Rules, func(ref sigma.Ref) bool { return ref.Name == r.ID || ref.Name == r.Name })
			if named && f.LogSource.Accepts(r.LogSource) {
				c.admitted[i].filter = append(c.admitted[i].filter, f)
			}
		}
		for _, ref := range f.Rules {
			known := slices.ContainsFunc(c.admitted, func(a admitted) bool { return ref.Name == a.source.ID || ref.Name == a.source.Name })
			if !known {
				c.report(&f.Meta, sigma.Problem{Pos: ref.Pos, Warning: true, Reason: fmt.Sprintf("the filter names the rule %q, which is not in this set", ref.Name)})
			}
		}
	}
}

func (c *compiler) compilePrograms() {
	e := c.engine
	s := shared{c.options.Placeholders, map[string]*automaton{}, map[*sigma.Item]resolved{}, takeCensus(c.admitted)}
	homeless := make([]bool, len(c.admitted))
	for i := range homeless {
		homeless[i] = true
	}
	for _, class := range c.options.Classes {
		var rules []admitted
		for i, a := range c.admitted {
			when, ok := c.sources(class, a.source.LogSource)
			if !ok {
				continue
			}
			homeless[i] = false
			a.when = when
			rules = append(rules, a)
		}
		p, weaknesses, problems := newProgram(class, rules, s)
		for _, rp := range problems {
			c.failed[rp.rule] = true
			c.report(&e.rules[rp.rule].Source.Meta, rp.problem)
		}
		for _, w := range weaknesses {
			e.weak = append(e.weak, Weak{e.rules[w.rule], class.Name, w.cost})
		}
		e.byClass[class.UID] = len(e.programs)
		e.programs = append(e.programs, p)
	}
	e.near = nearTable(e.byClass)
	for i, a := range c.admitted {
		if homeless[i] {
			c.failed[i] = true
			var names []string
			for _, class := range c.options.Classes {
				names = append(names, class.Name)
			}
			c.report(&a.source.Meta, sigma.Problem{
				Pos: a.source.LogSourcePos, Inapplicable: true,
				Reason: fmt.Sprintf("no class of these events answers to the log source %s", a.source.LogSource),
				Do:     "the classes are " + strings.Join(names, ", "),
			})
		}
	}
}

// sources says whether a rule wants events of a class, and which: nil is all.
func (c *compiler) sources(class *ocsf.Class, want ocsf.LogSource) ([]ocsf.Source, bool) {
	if c.options.Unrouted {
		return nil, true
	}
	var some []ocsf.Source
	for _, s := range class.Sources {
		switch {
		case !want.Accepts(s.LogSource):
		case s.When < 0:
			return nil, true
		case !slices.ContainsFunc(some, func(o ocsf.Source) bool { return o.When == s.When && o.Is == s.Is }):
			some = append(some, s)
		}
	}
	return some, some != nil
}

// drop takes rules that failed in one class out of the others too: a rule runs
// everywhere it wants to, or nowhere.
func (c *compiler) drop() {
	for _, p := range c.engine.programs {
		p.silence(c.failed)
	}
	c.engine.weak = slices.DeleteFunc(c.engine.weak, func(w Weak) bool {
		return c.failed[slices.Index(c.engine.rules, w.Rule)]
	})
}

func nearTable(byClass map[int]int) []int16 {
	t := make([]int16, 4096)
	for uid := range t {
		n, ok := byClass[uid]
		if !ok || n > math.MaxInt16 {
			n = -1
		}
		t[uid] = int16(n)
	}
	return t
}

// programOf returns the number of a class's program, or -1.
func (e *Engine) programOf(class int) int {
	if uint(class) < uint(len(e.near)) && e.near[class] >= 0 {
		return int(e.near[class])
	}
	if n, ok := e.byClass[class]; ok {
		return n
	}
	return -1
}

// Rules returns every rule that was read, in order; those left out are named
// by the problems.
func (e *Engine) Rules() []*Rule { return e.rules }

// Weak returns the rules that are evaluated on most events of a class.
func (e *Engine) Weak() []Weak { return e.weak }

// Literals returns what the index of a class looks for in each field (-1 are
// keywords), folded; for benchmarks.
func (e *Engine) Literals(class int) map[int][]string {
	n, ok := e.byClass[class]
	if !ok {
		return nil
	}
	all := map[int][]string{}
	for _, a := range e.programs[n].atomList {
		if a.kind != present && a.lit != "" {
			all[a.field] = append(all[a.field], a.lit)
		}
	}
	return all
}

// takeCensus counts what all rules look for.
func takeCensus(rules []admitted) census {
	c := newCensus()
	var walk func(n *sigma.Node)
	walk = func(n *sigma.Node) {
		if n.Item != nil {
			for _, l := range n.Item.Values {
				c.add(fold(l.Text), 1)
			}
		}
		for i := range n.Kids {
			walk(&n.Kids[i])
		}
	}
	for _, r := range rules {
		for i := range r.source.Detection.Searches {
			walk(&r.source.Detection.Searches[i].Node)
		}
	}
	return c
}
