package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	sigmago "github.com/bradleyjkemp/sigma-go"
	"github.com/bradleyjkemp/sigma-go/evaluator"

	"github.com/holdfast-security/holdfast/internal/language/detect"
	"github.com/holdfast-security/holdfast/internal/language/detect/reference"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/scan"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// agreement compares verdicts: of the engine with the naive reference, which
// must agree always, and with sigma-go, whose disagreements are listed with the
// sentence of the specification that decides.
type agreement struct {
	Verdicts       int
	WithReference  int // disagreements
	WithSigmaGo    int
	SigmaGoErrors  int // verdicts it could not give
	disagreements  map[string]*disagreement
	noVerdict      map[string]map[string]bool // rules, by why sigma-go gives none
	sigmaGoByRule  map[string]*evaluator.RuleEvaluator
	unparsedByPeer int
}

type disagreement struct {
	rule  *sigma.Rule
	ours  bool
	count int
	cause cause
}

// agree runs over the regression data and n generated events, most of them
// written to match a rule.
func agree(w io.Writer, dir string, seed uint64, n int) error {
	set, err := load(dir)
	if err != nil {
		return err
	}
	layout := scan.NewLayout(set)
	engine, problems := detect.Compile(set, detect.Options{Classes: layout.Classes})
	left := map[string]bool{}
	for _, p := range problems {
		left[p.Rule] = left[p.Rule] || !p.Warning
	}
	a := &agreement{disagreements: map[string]*disagreement{}, noVerdict: map[string]map[string]bool{}, sigmaGoByRule: map[string]*evaluator.RuleEvaluator{}}
	err = ruleFiles(dir, func(string) bool { return true }, func(_ string, data []byte) {
		rule, err := sigmago.ParseRule(data)
		if err != nil {
			a.unparsedByPeer++
			return
		}
		a.sigmaGoByRule[rule.ID] = evaluator.ForRule(rule)
	})
	if err != nil {
		return err
	}
	v := engine.NewEvaluator()
	var ev ocsf.Event
	each := func(r *scan.Record) error {
		class := layout.ClassOf(r.Sources)
		if class == nil {
			return nil
		}
		ev.Reset()
		scan.Bind(&ev, class, r, false)
		var got []string
		v.Evaluate(&ev, func(m *detect.Match) { got = append(got, m.Rule.ID) })
		a.compare(set, left, r, got)
		return nil
	}
	files := 0
	err = filepath.WalkDir(filepath.Join(dir, "regression_data"), func(path string, d os.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".json" {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		files++
		return scan.Records(f, each, func(int, error) {})
	})
	if err != nil {
		return err
	}
	g := newGenerator(seed, set.Rules, 0.8, false)
	for range n {
		each(g.next())
	}
	fmt.Fprintf(w, "%d files of regression data, %d generated events (seed %d):\n", files, n, seed)
	a.print(w)
	return nil
}

func (a *agreement) compare(set sigma.Set, left map[string]bool, r *scan.Record, got []string) {
	ref := reference.Event{Fields: map[string][]any{}}
	m := map[string]any{}
	for _, f := range r.Fields {
		var v any = f.Value.Text()
		if f.Value.Kind == ocsf.Int {
			v = f.Value.Num
		}
		ref.Fields[f.Name] = append(ref.Fields[f.Name], v)
		m[f.Name] = v
	}
	for _, rule := range set.Rules {
		if left[rule.Key()] || hasKeyword(rule) || !accepts(rule, r.Sources) {
			continue
		}
		a.Verdicts++
		ours := slices.Contains(got, rule.ID)
		if reference.Matches(&rule.Detection, ref, nil) != ours {
			a.WithReference++
		}
		peer := a.sigmaGoByRule[rule.ID]
		if peer == nil {
			a.refused(rule, "the rule is not parsed")
			continue
		}
		result, err := peer.Matches(context.Background(), m)
		if err != nil {
			a.refused(rule, err.Error())
			continue
		}
		if result.Match != ours {
			a.WithSigmaGo++
			d := a.disagreements[rule.ID]
			if d == nil {
				d = &disagreement{rule: rule, ours: ours, cause: causeOf(peer.Rule, ref, m)}
				a.disagreements[rule.ID] = d
			}
			d.count++
		}
	}
}

// refused notes that sigma-go gives no verdict.
func (a *agreement) refused(r *sigma.Rule, why string) {
	a.SigmaGoErrors++
	why = theRule.ReplaceAllString(why, "…")
	if a.noVerdict[why] == nil {
		a.noVerdict[why] = map[string]bool{}
	}
	a.noVerdict[why][r.ID] = true
}

// theRule is what of an error's text differs between rules.
var theRule = regexp.MustCompile(`(search \S+|can't expand \S+,|: \[.*)`)

// hasKeyword leaves keyword rules out: sigma-go has no whole event to search.
func hasKeyword(r *sigma.Rule) bool {
	var walk func(n *sigma.Node) bool
	walk = func(n *sigma.Node) bool {
		if n.Item != nil {
			return n.Item.Field == ""
		}
		for i := range n.Kids {
			if walk(&n.Kids[i]) {
				return true
			}
		}
		return false
	}
	for i := range r.Detection.Searches {
		if walk(&r.Detection.Searches[i].Node) {
			return true
		}
	}
	return false
}
