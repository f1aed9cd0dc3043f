package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/detect"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/report"
	"github.com/holdfast-security/holdfast/internal/language/ruletest"
	"github.com/holdfast-security/holdfast/internal/language/scan"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// newRuleCommands are what looks at rules themselves.
func newRuleCommands(a *app) []*cobra.Command {
	return []*cobra.Command{newContentLintCommand(a), newContentExplainCommand(a), newContentCoverageCommand(a), newContentBenchCommand(a), newContentImportCommand(a)}
}

func newContentLintCommand(a *app) *cobra.Command {
	var (
		sarif string
		lists []string
		watch bool
	)
	cmd := &cobra.Command{
		Use: "lint DIR", Short: "Say what is wrong with rules, where, and what to do", Args: cobra.ExactArgs(1),
		Long: `Check every Sigma rule below a folder: that it can be read, that it runs on this
build's sensor (a rule for another log source, or for a field the sensor does not
supply, is listed with the reason), that it is not evaluated on every event, and
that it says what people need to know. It reads SigmaHQ's rules as they are.
Exit code 0 if every rule runs, 2 if not.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ph, err := placeholders(lists)
			if err != nil {
				return err
			}
			lint := func() error { return a.lint(cmd, args[0], sarif, ph) }
			if watch {
				return watchDir(cmd, args[0], lint)
			}
			return lint()
		},
	}
	cmd.Flags().StringVar(&sarif, "sarif", "", "also write the findings to this file, as SARIF 2.1.0")
	cmd.Flags().StringArrayVar(&lists, "list", nil, "values of a placeholder: NAME=value,value")
	cmd.Flags().BoolVar(&watch, "watch", false, "lint again whenever a file changes")
	return cmd
}

func (a *app) lint(cmd *cobra.Command, dir, sarif string, ph map[string][]string) error {
	set, problems, err := readRules(dir)
	if err != nil {
		return err
	}
	if len(set.Rules)+len(set.Correlations)+len(set.Filters)+len(problems) == 0 {
		return &holdfast.Error{Kind: holdfast.Invalid, What: "there is no rule in any .yml file", Where: dir, Do: "name a folder of Sigma rules, or a content repository"}
	}
	all := report.Lint(set, problems, nil, ph)
	if sarif != "" {
		var b bytes.Buffer
		if err := report.WriteSARIF(&b, version, all); err != nil {
			return err
		}
		if err := os.WriteFile(sarif, b.Bytes(), 0o644); err != nil {
			return err
		}
	}
	if all == nil {
		all = []report.Finding{}
	}
	err = a.print(cmd, all, func(w io.Writer) {
		for _, f := range all {
			do := ""
			if f.Do != "" {
				do = " (" + f.Do + ")"
			}
			fmt.Fprintf(w, "%s:%d:%d: %s: %s%s\n", f.File, f.Line, f.Column, f.Level, f.Message, do)
		}
		n := report.Count(set, all)
		fmt.Fprintf(w, "%s, %s, %s: %d run here, %d are for what this sensor does not supply, %d have errors\n", plural(len(set.Rules), "rule"),
			plural(len(set.Correlations), "correlation"), plural(len(set.Filters), "filter"), n.Run, n.Inapplicable, n.Wrong)
	})
	if err == nil && report.Errors(all) > 0 {
		return exitCode(holdfast.Invalid.ExitCode())
	}
	return err
}

// watchDir runs f, and again each time a file below dir has changed.
func watchDir(cmd *cobra.Command, dir string, f func() error) error {
	last := ""
	for {
		var now strings.Builder
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			if info, err := d.Info(); err == nil {
				fmt.Fprintln(&now, path, info.Size(), info.ModTime().UnixNano())
			}
			return nil
		})
		if err != nil {
			return &holdfast.Error{Kind: holdfast.NotFound, Where: dir, Err: err}
		}
		if now.String() != last {
			last = now.String()
			var quiet exitCode
			if err := f(); err != nil && !errors.As(err, &quiet) {
				fmt.Fprintln(cmd.ErrOrStderr(), err)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "-- %s, watching %s; Ctrl-C ends\n", time.Now().Format(time.TimeOnly), dir)
		}
		select {
		case <-cmd.Context().Done():
			return nil
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func newContentExplainCommand(a *app) *cobra.Command {
	var (
		line  int
		lists []string
	)
	cmd := &cobra.Command{
		Use: "explain RULE EVENTS", Short: "Say why a rule matches an event, or which part of it does not", Args: cobra.ExactArgs(2),
		Long: `Evaluate one rule on one event and show each part: which values of the rule fit
the event's field, and if the rule does not match, what kept it from it. EVENTS is
a file that scan reads; the first event of the rule's log source is taken, or that
of --line. A file with several rules is explained rule by rule.`,
		Example: `  holdfast content explain my-rules/rules/curl.yml event.json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ph, err := placeholders(lists)
			if err != nil {
				return err
			}
			set, err := loadRules(args[:1], cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if len(set.Rules) == 0 {
				return &holdfast.Error{Kind: holdfast.Invalid, What: "a correlation is about several events", Where: args[0], Do: "explain the rules it counts"}
			}
			records, err := recordsAt(args[1], line)
			if err != nil {
				return err
			}
			all := []detect.Explanation{}
			for _, r := range set.Rules {
				all = append(all, explainOn(r, records, ph))
			}
			return a.print(cmd, all, func(w io.Writer) {
				for _, e := range all {
					writeExplanation(w, e)
				}
			})
		},
	}
	cmd.Flags().IntVar(&line, "line", 0, "line of the event (of an EVTX file: number of its record)")
	cmd.Flags().StringArrayVar(&lists, "list", nil, "values of a placeholder: NAME=value,value")
	return cmd
}

// mostLooked bounds how many events are looked through for one that a rule is
// about.
const mostLooked = 10_000

// recordsAt reads the events at a line, or if it is 0 the first ones.
func recordsAt(path string, line int) ([]*scan.Record, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, &holdfast.Error{Kind: holdfast.NotFound, Where: path, Err: err}
	}
	defer f.Close()
	var found []*scan.Record
	err = scan.Records(f, func(r *scan.Record) error {
		if len(found) == mostLooked {
			return fs.SkipAll
		}
		if line == 0 || r.Line == line {
			found = append(found, r)
		}
		return nil
	}, func(int, error) {})
	if len(found) > 0 {
		return found, nil
	}
	if err == nil {
		err = &holdfast.Error{Kind: holdfast.NotFound, What: "there is no event", Where: fmt.Sprintf("%s:%d", path, line)}
	}
	return nil, err
}

// explainOn explains a rule on the first event that is of its log source; if
// there is none, on the first of all, so that it can say so.
func explainOn(r *sigma.Rule, records []*scan.Record, ph map[string][]string) detect.Explanation {
	for _, rec := range records {
		if e := scan.Explain(r, rec, ph); e.Routed {
			return e
		}
	}
	return scan.Explain(r, records[0], ph)
}

func writeExplanation(w io.Writer, e detect.Explanation) {
	mark := func(ok bool) string {
		if ok {
			return "✓"
		}
		return "✗"
	}
	fmt.Fprintf(w, "%s %s (%s)\n", mark(e.Matched), e.Title, e.Rule)
	for _, s := range e.Searches {
		fmt.Fprintf(w, "  %s %s\n", mark(s.Matched), s.Name)
		for _, i := range s.Items {
			field := i.Field
			if i.Test != "" {
				field += "|" + i.Test
			}
			switch {
			case i.Matched && len(i.Hits) > 0:
				fmt.Fprintf(w, "      ✓ %s: %q fits %.200q\n", field, i.Hits, i.Value)
			case i.Matched:
				fmt.Fprintf(w, "      ✓ %s: %.200q\n", field, i.Value)
			case !i.Present:
				fmt.Fprintf(w, "      ✗ %s: the event has no such field; wanted %q\n", field, i.Wants)
			default:
				fmt.Fprintf(w, "      ✗ %s: %.200q does not fit %q (line %d)\n", field, i.Value, i.Wants, i.Line)
			}
		}
	}
	for _, c := range e.Condition {
		fmt.Fprintf(w, "  → %s\n", c)
	}
}

func newContentCoverageCommand(a *app) *cobra.Command {
	var layer, picture string
	cmd := &cobra.Command{
		Use: "coverage DIR", Short: "Which ATT&CK techniques the rules look for", Args: cobra.ExactArgs(1),
		Long: `List the ATT&CK techniques that the rules below a folder are tagged with. --layer
writes a layer for the ATT&CK Navigator, --picture an SVG. What rules say they
look for is not what they find: that is what tests and rehearsal are for.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			set, err := loadRules(args, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			abs, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			name, all := filepath.Base(abs), report.Coverage(set.Rules)
			for _, out := range []struct {
				path  string
				write func(io.Writer) error
			}{
				{layer, func(w io.Writer) error { return report.WriteNavigator(w, name, all) }},
				{picture, func(w io.Writer) error { return report.WritePicture(w, "ATT&CK techniques of "+name, all) }},
			} {
				if out.path == "" {
					continue
				}
				var b bytes.Buffer
				if err := out.write(&b); err != nil {
					return err
				}
				if err := os.WriteFile(out.path, b.Bytes(), 0o644); err != nil {
					return err
				}
			}
			return a.print(cmd, all, func(w io.Writer) {
				for _, t := range all {
					fmt.Fprintf(w, "%-10s %3d  %s\n", t.ID, len(t.Rules), strings.Join(t.Tactics, ", "))
				}
				fmt.Fprintf(w, "%d techniques, %d rules\n", len(all), len(set.Rules))
			})
		},
	}
	cmd.Flags().StringVar(&layer, "layer", "", "write an ATT&CK Navigator layer (JSON) to this file")
	cmd.Flags().StringVar(&picture, "picture", "", "write a picture (SVG) to this file")
	return cmd
}

func newContentBenchCommand(a *app) *cobra.Command {
	var (
		rules    []string
		duration time.Duration
	)
	cmd := &cobra.Command{
		Use: "bench --rules DIR EVENTS…", Short: "What each rule costs on your own events", Args: cobra.MinimumNArgs(1),
		Long: `Evaluate the events of files over and over, and show events a second on one core
and the rules that cost most. The cost of a rule is that of evaluating it where
the index could not rule it out; finding candidates is shared by all.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			set, err := loadRules(rules, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			b, err := benchFiles(set, args, duration)
			if err != nil {
				return err
			}
			return a.print(cmd, b, func(w io.Writer) {
				fmt.Fprintf(w, "%d events of %d files, %d times: %.0f events/s, %.2f candidates an event, %.2f %% with a match\n",
					b.Events, len(args), b.Rounds, b.PerSecond, b.Candidates, 100*b.HitRate)
				for _, r := range b.Rules {
					fmt.Fprintf(w, "%8.1f ns  %6.2f %%  %s [%s]\n", r.NsPerEvent, 100*r.Candidate, r.Title, r.Rule)
				}
			})
		},
	}
	cmd.Flags().StringArrayVar(&rules, "rules", nil, "folder or file of Sigma rules (may be given several times)")
	cmd.Flags().DurationVar(&duration, "for", 5*time.Second, "how long")
	cmd.MarkFlagRequired("rules")
	return cmd
}

// benched is what content bench measured.
type benched struct {
	Events     int          `json:"events"`
	Rounds     int          `json:"rounds"`
	PerSecond  float64      `json:"events_per_second"`
	Candidates float64      `json:"candidates_per_event"`
	HitRate    float64      `json:"hit_rate"`
	Rules      []benchedRun `json:"rules"`
}

type benchedRun struct {
	Rule       string  `json:"rule_id"`
	Title      string  `json:"rule_title"`
	NsPerEvent float64 `json:"ns_per_event"`
	Candidate  float64 `json:"candidate_share"`
}

const mostBenchEvents = 200_000

func benchFiles(set sigma.Set, files []string, d time.Duration) (benched, error) {
	layout := scan.NewLayout(set)
	engine, _ := detect.Compile(set, detect.Options{Classes: layout.Classes})
	var events []*ocsf.Event
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			return benched{}, &holdfast.Error{Kind: holdfast.NotFound, Where: file, Err: err}
		}
		err = scan.Records(f, func(r *scan.Record) error {
			if class := layout.ClassOf(r.Sources); class != nil && len(events) < mostBenchEvents {
				ev := &ocsf.Event{}
				scan.Bind(ev, class, r, true)
				events = append(events, ev)
			}
			return nil
		}, func(int, error) {})
		f.Close()
		if err != nil {
			return benched{}, err
		}
	}
	if len(events) == 0 {
		return benched{}, &holdfast.Error{Kind: holdfast.Invalid, What: "no rule wants to see any of these events", Where: strings.Join(files, ", ")}
	}
	b := benched{Events: len(events)}
	v, hit, hits := engine.NewEvaluator(), false, 0
	start := time.Now()
	for time.Since(start) < d {
		for _, ev := range events {
			hit = false
			v.Evaluate(ev, func(*detect.Match) { hit = true })
			if hit {
				hits++
			}
		}
		b.Rounds++
	}
	n := float64(b.Rounds * len(events))
	b.PerSecond, b.HitRate, b.Candidates = n/time.Since(start).Seconds(), float64(hits)/n, float64(v.CandidateCount())/n
	for _, c := range v.Costs() {
		if len(b.Rules) < 20 {
			b.Rules = append(b.Rules, benchedRun{c.Rule.ID, c.Rule.Title, c.NsPerEvent, c.Candidate})
		}
	}
	return b, nil
}

// writeJUnit writes what the tests of a content repository showed: a case for
// each rule that holds, and one for each failure.
func writeJUnit(path string, rules []string, r ruletest.Result) error {
	var cases []report.Case
	failed := map[string]bool{}
	for _, p := range r.Problems {
		suite := p.Rule
		if !slices.Contains(rules, suite) {
			suite = p.File
		}
		failed[suite] = true
		cases = append(cases, report.Case{Suite: suite, Name: p.Stage, Failure: p.Reason, Where: whereOf(p)})
	}
	for _, rule := range rules {
		if !failed[rule] {
			c := report.Case{Suite: rule, Name: "its own tests"}
			if slices.Contains(r.Untested, rule) {
				c.Skipped = "it has no tests of both kinds"
			}
			cases = append(cases, c)
		}
	}
	var b bytes.Buffer
	if err := report.WriteJUnit(&b, cases); err != nil {
		return err
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}
