package rehearsal

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/bundle"
	"github.com/holdfast-security/holdfast/internal/language/rehearse"
)

// corpus lists the events that the bundle brings.
func (r *run) corpus() []map[string]string {
	var all []map[string]string
	cases, _ := r.bundle.Cases() // what is wrong with them is attack's to say
	for _, c := range cases {
		for _, e := range slices.Concat(c.Match, c.NoMatch) {
			all = append(all, e)
		}
	}
	_ = r.bundle.Benign(func(_ string, _ int, e bundle.Event) error {
		all = append(all, e)
		return nil
	})
	return all
}

// attack runs the events that rules say they find, and those they say they do
// not.
func (r *run) attack(ctx context.Context) error { return r.attacks(ctx, "attack", time.Time{}) }

func (r *run) attacks(ctx context.Context, stage string, at time.Time) error {
	cases, err := r.bundle.Cases()
	if err != nil {
		r.fail(holdfast.RuleProblem{Stage: stage, Reason: err.Error()})
		return nil
	}
	ids := r.rulesByFile()
	var trials []trial
	found := 0
	for _, c := range cases {
		if r.skip[c.Rule] {
			continue
		}
		one := func(list string, i int, e bundle.Event, want bool) {
			trials = append(trials, trial{
				Request: rehearse.Request{Fields: e, Fresh: true, At: at}, rule: r.ruleIn(c.Rule), file: c.Rule,
				check: func(a rehearse.Answer) string {
					fired := slices.ContainsFunc(a.Matches, func(id string) bool { return slices.Contains(ids[c.Rule], id) })
					switch {
					case fired && want:
						found++
					case want:
						return fmt.Sprintf("the rule does not match its event %s[%d] in %s", list, i, c.File)
					case fired:
						return fmt.Sprintf("the rule matches its event %s[%d] in %s", list, i, c.File)
					}
					return ""
				},
			})
		}
		for i, e := range c.Match {
			one("match", i, e, true)
		}
		for i, e := range c.NoMatch {
			one("no_match", i, e, false)
		}
		if stage == "attack" {
			r.verdict.Figures.Attacks += len(c.Match)
		}
	}
	if _, err := r.try(ctx, stage, r.without(), trials); err != nil {
		return err
	}
	if stage == "attack" {
		r.verdict.Figures.AttacksFound = found
	}
	return nil
}

func (r *run) rulesByFile() map[string][]string {
	ids := map[string][]string{}
	for _, rule := range r.set.Rules {
		ids[rule.File] = append(ids[rule.File], rule.Key())
	}
	for _, c := range r.set.Correlations {
		ids[c.File] = append(ids[c.File], c.Key())
	}
	return ids
}

// Rules are timed on one event in 1024, and their cost is known from 64 such
// events on.
const evaluations = 80 * 1024

// benign runs the events on which no rule may fire, and measures on them what
// each rule costs. A cost is only believed if it is too high three times: other
// programs run on this machine too.
func (r *run) benign(ctx context.Context) error {
	var events []bundle.Event
	var where []string
	if err := r.bundle.Benign(func(file string, line int, e bundle.Event) error {
		events, where = append(events, e), append(where, fmt.Sprintf("%s:%d", file, line))
		return nil
	}); err != nil {
		r.fail(holdfast.RuleProblem{Stage: "benign", Reason: err.Error()})
		return nil
	}
	r.verdict.Figures.Benign = len(events)
	if len(events) == 0 { // something must be measured
		events, where = []bundle.Event{{"Image": "/usr/bin/true", "CommandLine": "true"}}, []string{"an ordinary event"}
	}
	files := map[string]string{}
	for file, ids := range r.rulesByFile() {
		for _, id := range ids {
			files[id] = file
		}
	}
	repeat := 1 + evaluations/len(events)
	var slow map[string]float64
	for round := range 3 {
		var trials []trial
		var ns float64
		for i, e := range events {
			trials = append(trials, trial{
				Request: rehearse.Request{Fields: e, Repeat: repeat},
				check: func(a rehearse.Answer) string {
					ns += float64(a.Ns)
					for _, id := range a.Matches {
						if round == 0 {
							r.verdict.Figures.FalsePositives++
						}
						r.fail(holdfast.RuleProblem{Rule: id, File: files[id], Stage: "benign", Reason: "the rule matches the benign event " + where[i]})
					}
					return ""
				},
			})
		}
		end, err := r.try(ctx, "benign", r.without(), trials)
		if err != nil {
			return err
		}
		if per := ns / float64(len(events)); round == 0 || per < r.verdict.Figures.NsPerEvent {
			r.verdict.Figures.NsPerEvent = per
		}
		now := map[string]float64{}
		for _, c := range end.Costs {
			if _, before := slow[c.Rule]; (before || round == 0) && c.Sampled >= 64 && c.NsPerEvent > float64(r.Limits.Rule) {
				now[c.Rule] = c.NsPerEvent
			}
		}
		if slow = now; len(slow) == 0 {
			return nil
		}
	}
	for _, id := range slices.Sorted(maps.Keys(slow)) {
		r.fail(holdfast.RuleProblem{
			Rule: id, File: files[id], Stage: "benign",
			Reason: fmt.Sprintf("the rule costs %.1f µs an event, and %v are allowed", slow[id]/1000, r.Limits.Rule),
		})
	}
	return nil
}

// fuzz runs events that nobody writes: those of the bundle, changed at random.
// The seed stands in the verdict.
func (r *run) fuzz(ctx context.Context) error {
	rng := rand.New(rand.NewPCG(r.Seed, 0x486f6c6466617374))
	seeds := r.corpus()
	if len(seeds) == 0 {
		seeds = []map[string]string{{"Image": "/usr/bin/true", "CommandLine": "true"}}
	}
	var trials []trial
	for range r.Limits.Fuzz {
		class := r.classes[rng.IntN(len(r.classes))]
		q := rehearse.Request{Class: class.Name, Fields: maps.Clone(seeds[rng.IntN(len(seeds))]), Raw: map[string][]byte{}}
		for range 1 + rng.IntN(4) {
			f := class.Fields[rng.IntN(len(class.Fields))]
			if rng.IntN(8) == 0 {
				delete(q.Fields, f.Path)
				for _, n := range f.Names {
					delete(q.Fields, n)
				}
				continue
			}
			switch f.Type {
			case "int":
				q.Fields[f.Path] = fmt.Sprint([]int64{0, 1, -1, 1 << 31, 1<<63 - 1, -1 << 63, rng.Int64()}[rng.IntN(7)])
			case "bool":
				q.Fields[f.Path] = fmt.Sprint(rng.IntN(2) == 0)
			case "time":
				q.Fields[f.Path] = time.Unix(rng.Int64N(1<<33), 0).UTC().Format(time.RFC3339)
			default:
				delete(q.Fields, f.Path)
				q.Raw[f.Path] = r.noise(rng, seeds)
			}
		}
		trials = append(trials, trial{Request: q, foreign: true})
	}
	_, err := r.try(ctx, "fuzz", r.without(), trials)
	return err
}

// noise makes a value: too long, empty, not text, or almost one of the corpus.
func (r *run) noise(rng *rand.Rand, seeds []map[string]string) []byte {
	words := slices.Sorted(maps.Values(seeds[rng.IntN(len(seeds))]))
	word := "x"
	if len(words) > 0 {
		word = words[rng.IntN(len(words))]
	}
	switch rng.IntN(8) {
	case 0:
		return nil
	case 1:
		return []byte(strings.Repeat(word+" ", 1+rng.IntN(max(1, r.manifest.Limits.ValueBytes/(len(word)+1)))))
	case 2:
		b := make([]byte, rng.IntN(300))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	case 3:
		return []byte(strings.ToUpper(word) + "ıİſKß\u0345\U0001f980\x00")
	case 4:
		b := []byte(word)
		for range 1 + len(b)/8 {
			if len(b) > 0 {
				b[rng.IntN(len(b))] = byte(rng.Uint32())
			}
		}
		return b
	case 5:
		return []byte(word[:rng.IntN(len(word)+1)])
	case 6:
		return []byte(word + "*?\\%{}[]()|&$`'\"<>\r\n\t")
	default:
		return []byte(word + word)
	}
}
