package rehearsal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/bundle"
	"github.com/holdfast-security/holdfast/internal/language/rehearse"
)

// trial is one event on the build, and what is expected of it.
type trial struct {
	rehearse.Request
	rule, file, field string // what is looked at; empty if nothing in particular
	foreign           bool   // the event need not be one that can happen on this build
	// check says what is wrong with the answer, if anything is.
	check func(rehearse.Answer) string
}

// try evaluates trials on the build with a bundle, and says what went wrong. A
// build that dies is opened again without what it died of, and goes on behind
// the event.
func (r *run) try(ctx context.Context, stage string, b *bundle.Bundle, trials []trial) (rehearse.End, error) {
	var end rehearse.End
	at := 0
	for range 2 * mostFailures { // each turn but the last ends in a death
		s, err := r.open(ctx, b)
		var d *death
		if errors.As(err, &d) {
			if next, err := r.blame(ctx, "load", b, nil, d); err != nil || next == enough {
				return end, err
			}
			continue
		}
		if err != nil {
			return end, err
		}
		if at == 0 {
			r.loaded(stage, s.loaded)
		}
		for d = nil; at < len(trials) && d == nil; at++ {
			if ctx.Err() != nil {
				s.close()
				return end, ctx.Err()
			}
			if at%256 == 0 {
				r.stage(stage, at, len(trials))
			}
			t := &trials[at]
			if t.file != "" && r.skip[t.file] {
				continue
			}
			r.number++
			t.N = r.number
			var a rehearse.Answer
			if a, d = s.ask(t.Request); d != nil {
				break
			}
			r.verdict.Figures.Events += max(1, t.Repeat)
			why := a.Error
			if t.foreign {
				why = ""
			}
			if why == "" && t.check != nil {
				why = t.check(a)
			}
			if why != "" {
				r.fail(holdfast.RuleProblem{Rule: t.rule, File: t.file, Field: t.field, Stage: stage, Reason: why})
			}
		}
		if d == nil {
			end, d = s.end()
			r.verdict.Figures.PeakRSS = max(r.verdict.Figures.PeakRSS, s.peak)
			if d == nil || len(trials) == 0 {
				r.stage(stage, len(trials), len(trials))
				return end, nil
			}
			at = len(trials) - 1
		} else {
			s.close()
		}
		if ctx.Err() != nil {
			return end, ctx.Err()
		}
		switch next, err := r.blame(ctx, stage, b, &trials[at], d); {
		case err != nil || next == enough:
			return end, err
		case next == onward:
			at++
		}
	}
	return end, nil
}

// loaded notes what the build says about the bundle itself, once.
func (r *run) loaded(stage string, l rehearse.Loaded) {
	if stage != "benign" {
		return
	}
	r.verdict.Figures.LoadMillis = l.Millis
	for _, p := range l.Problems {
		r.fail(p)
	}
}

// What follows a death.
type next int

const (
	onward next = iota // with the event after it
	repeat             // with the same event
	enough             // no further
)

// mostLate is how often a build may be late with an answer that it then gives in
// time: other programs run on this machine too.
const mostLate = 3

// blame works out which rule and field a build died of, and takes the rule's
// file out of the bundle.
func (r *run) blame(ctx context.Context, stage string, b *bundle.Bundle, t *trial, d *death) (next, error) {
	p := holdfast.RuleProblem{Stage: stage, Reason: d.Error()}
	var request *rehearse.Request
	if t != nil {
		p.Rule, p.File, p.Field = t.rule, t.file, t.field
		request = &t.Request
	}
	guilty, err := r.guilty(ctx, b, request)
	if err != nil {
		return enough, err
	}
	if r.late < mostLate && d.what == hung && len(guilty) == 0 {
		r.late++
		return repeat, nil
	}
	for _, file := range guilty {
		delete(b.Files, file)
	}
	switch {
	case len(guilty) == 0: // it does not happen again, or not without what came before
		p.Reason += ", once: alone, the same event does no harm"
		r.fail(p)
	case isProbe(guilty[0]): // one line of a rule: t says which
		if t == nil {
			p.Field = r.probes[guilty[0]].path
			p.Rule, p.File = r.probes[guilty[0]].rule.Key(), r.probes[guilty[0]].rule.File
		} else if it := r.probes[guilty[0]]; it != nil {
			p.Rule, p.File, p.Field = it.rule.Key(), it.rule.File, it.path
		}
		r.skip[p.File] = true
		r.fail(p)
	default:
		for _, file := range guilty {
			r.skip[file] = true
			q := p
			if q.File != file {
				q.Rule, q.File, q.Field = r.ruleIn(file), file, ""
			}
			r.fail(q)
		}
	}
	if len(r.verdict.Failures) >= mostFailures || len(b.Files) == 0 {
		return enough, nil
	}
	return onward, nil
}

func (r *run) ruleIn(file string) string {
	for _, rule := range r.set.Rules {
		if rule.File == file {
			return rule.Key()
		}
	}
	return ""
}

// guilty finds the smallest part of a bundle on which the build dies of an
// event (or, without one, of loading): a file, or a few that do it together.
func (r *run) guilty(ctx context.Context, b *bundle.Bundle, request *rehearse.Request) ([]string, error) {
	files := b.Paths("rules")
	dies := func(files []string) (bool, error) {
		part := &bundle.Bundle{Header: b.Header, Files: map[string][]byte{}}
		for _, f := range files {
			part.Files[f] = b.Files[f]
		}
		s, err := r.open(ctx, part)
		var d *death
		if errors.As(err, &d) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		defer s.close()
		s.limits.Event *= 3 // one that hangs does so for longer
		if request == nil {
			return false, nil
		}
		one := *request
		one.Fresh = true
		_, d = s.ask(one)
		return d != nil, ctx.Err()
	}
	if bad, err := dies(files); err != nil || !bad {
		return nil, err
	}
	for len(files) > 1 {
		half := files[:len(files)/2]
		bad, err := dies(half)
		if err != nil {
			return nil, err
		}
		if !bad {
			half = files[len(files)/2:]
			if bad, err = dies(half); err != nil {
				return nil, err
			}
			if !bad {
				return files, nil // only together
			}
		}
		files = half
	}
	return files, nil
}

// exercise reads every field each rule names: with each line of each search as a
// rule of its own, which must see a value that matches and one that does not;
// and with the rules as they are.
func (r *run) exercise(ctx context.Context) error {
	seen := r.corpus()
	probes := &bundle.Bundle{Header: r.bundle.Header, Files: map[string][]byte{}}
	r.probes = map[string]*item{}
	var alone, whole []trial
	pairs := map[[2]string]bool{}
	for _, rule := range r.set.Rules {
		items := r.items(rule, seen)
		for _, it := range items {
			if it.match == nil || it.miss == nil || it.probe == nil {
				r.fail(holdfast.RuleProblem{
					Rule: rule.Key(), File: rule.File, Line: it.Pos.Line, Field: it.path, Stage: "exercise",
					Reason: fmt.Sprintf("no value is known that this line %s (add a test event that has one)", map[bool]string{true: "matches", false: "does not match"}[it.match == nil]),
				})
				continue
			}
			n := len(r.probes)
			name := fmt.Sprintf("rules/probe-%06d.yml", n)
			it.text = probeText(rule, it.Item, n)
			probes.Files[name], r.probes[name] = it.text, it
			id := probeID(n)
			alone = append(alone, it.trial(it.match, id, true), it.trial(it.miss, id, false))
			pairs[[2]string{rule.Key(), it.path}] = true
		}
		whole = append(whole, r.combinations(rule, items)...)
	}
	if len(alone) > 0 {
		if err := r.inParts(ctx, probes, alone); err != nil {
			return err
		}
	}
	for _, p := range r.verdict.Failures {
		if p.Stage == "exercise" {
			delete(pairs, [2]string{p.Rule, p.Field})
		}
	}
	r.verdict.Figures.FieldsExercised = len(pairs)
	_, err := r.try(ctx, "exercise", r.without(), whole)
	return err
}

// partSize is how many probes stand in one bundle.
const partSize = 2000

// inParts tries probes in bundles of a size that every build loads.
func (r *run) inParts(ctx context.Context, probes *bundle.Bundle, alone []trial) error {
	for files := range slices.Chunk(probes.Paths("rules"), partSize) {
		part := &bundle.Bundle{Header: probes.Header, Files: map[string][]byte{}}
		for _, f := range files {
			part.Files[f] = probes.Files[f]
		}
		n := min(2*len(files), len(alone))
		if _, err := r.try(ctx, "exercise", part, alone[:n]); err != nil {
			return err
		}
		alone = alone[n:]
	}
	return nil
}

func isProbe(file string) bool { return len(file) > 12 && file[:12] == "rules/probe-" }

func (it *item) trial(fields map[string]string, id string, want bool) trial {
	return trial{
		Request: rehearse.Request{Class: it.class.Name, Fields: fields, Fresh: true},
		rule:    it.rule.Key(), file: it.rule.File, field: it.path,
		check: func(a rehearse.Answer) string {
			switch got := slices.Contains(a.Matches, id); {
			case got == want:
				return ""
			case want:
				return "the build does not see a value that matches: its sensor does not supply the field, or it reads another"
			default:
				return "the build matches a value that does not match"
			}
		},
	}
}

// combinations makes events that lead a rule's evaluation everywhere: all lines
// match; all but one; one search alone; none.
func (r *run) combinations(rule interface{ Key() string }, items []*item) []trial {
	var out []trial
	add := func(choose func(it *item) bool) {
		fields := map[string]string{}
		var of *item
		for _, it := range items {
			side := it.miss
			if choose(it) {
				side = it.match
			}
			if side != nil {
				fields, of = merged(fields, side), it
			}
		}
		if of != nil {
			out = append(out, trial{Request: rehearse.Request{Class: of.class.Name, Fields: fields, Fresh: true}, rule: rule.Key(), file: of.rule.File})
		}
	}
	add(func(*item) bool { return true })
	add(func(*item) bool { return false })
	searches := map[string]bool{}
	for _, one := range items {
		add(func(it *item) bool { return it != one })
		if !searches[one.search] {
			searches[one.search] = true
			add(func(it *item) bool { return it.search == one.search })
		}
	}
	return out
}

// restart runs the attacks again in a new process, at other times: in a year, at
// the clock's beginning, and far off.
func (r *run) restart(ctx context.Context) error {
	now := time.Now().UTC()
	for _, at := range []time.Time{now.AddDate(1, 1, 0), time.Unix(1, 0).UTC(), time.Date(2106, 2, 7, 6, 28, 16, 0, time.UTC)} {
		if err := r.attacks(ctx, "restart", at); err != nil {
			return err
		}
	}
	return nil
}
