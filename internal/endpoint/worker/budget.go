package worker

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/detect"
)

// Budget bounds what one rule may take from a host before it is suspended, it
// alone.
type Budget struct {
	Burst     int           // findings at once
	PerMinute int           // findings after that
	Time      time.Duration // of evaluation per event, over all events
}

// DefaultBudget is what hosts run with. A rule that makes more findings than
// this is not looked at by anybody, and hides the others.
var DefaultBudget = Budget{Burst: 200, PerMinute: 20, Time: 20 * time.Microsecond}

// The bounds of the lists a host reports.
const (
	maxSuspended = 32
	maxCosts     = 8
	maxForgotten = 32
)

// budgets keeps the accounts. It belongs to the evaluation loop.
type budgets struct {
	budget    Budget
	hits      map[*detect.Rule]*account
	suspended []holdfast.Suspension
}

// account is a bucket of tokens: each finding takes one, time brings them back.
type account struct {
	tokens float64
	at     time.Time
}

// spend takes one finding from the rule's account, and reports whether there
// was one.
func (b *budgets) spend(r *detect.Rule, now time.Time) bool {
	a := b.hits[r]
	if a == nil {
		if b.hits == nil {
			b.hits = map[*detect.Rule]*account{}
		}
		a = &account{tokens: float64(b.budget.Burst), at: now}
		b.hits[r] = a
	}
	back := now.Sub(a.at).Minutes() * float64(b.budget.PerMinute)
	a.tokens = min(a.tokens+max(back, 0), float64(b.budget.Burst))
	a.at = now
	if a.tokens < 1 {
		return false
	}
	a.tokens--
	return true
}

// suspend notes that a rule was taken out.
func (b *budgets) suspend(r *detect.Rule, reason string) {
	if len(b.suspended) < maxSuspended {
		b.suspended = append(b.suspended, holdfast.Suspension{Rule: nameOf(r.ID), Reason: reason})
	}
}

func (b *budgets) tooMany() string {
	return fmt.Sprintf("more than %d findings at once or %d a minute", b.budget.Burst, b.budget.PerMinute)
}

func (b *budgets) tooSlow(c detect.Cost) string {
	return fmt.Sprintf("%.1f µs an event, and %s are allowed", c.NsPerEvent/1000, b.budget.Time)
}

// costsOf says what the evaluator's rules cost, and what its correlations forgot.
func costsOf(v *detect.Evaluator) *Costs {
	c := &Costs{}
	c.Event, _ = v.EventCost()
	for _, r := range v.Costs() {
		if len(c.Rules) < maxCosts && r.NsPerEvent > 0 {
			c.Rules = append(c.Rules, holdfast.RuleCost{Rule: nameOf(r.Rule.ID), NsPerEvent: r.NsPerEvent, Share: r.Candidate})
		}
	}
	evicted := v.Evicted()
	for _, id := range slices.Sorted(maps.Keys(evicted)) {
		if len(c.Forgotten) < maxForgotten {
			c.Forgotten = append(c.Forgotten, holdfast.Forgotten{Rule: nameOf(id), Count: evicted[id]})
		}
	}
	return c
}

// nameOf makes a rule's id fit a report. Rules without an id go by their title,
// and a report that the server refuses would make the host look dead.
func nameOf(id string) string {
	id = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(id, "\uFFFD"))
	if len(id) > 200 {
		id = strings.ToValidUTF8(id[:200], "") + "…"
	}
	return id
}
