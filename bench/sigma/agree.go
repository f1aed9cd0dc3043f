package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

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
	sigmaGoByRule  map[string]*evaluator.RuleEvaluator
	unparsedByPeer int
}

type disagreement struct {
	rule        *sigma.Rule
	ours        bool
	count       int
	sentence    string
	firstRecord *scan.Record
}

// agree runs over n files of the regression data and n generated events, most of
// them written to match a rule.
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
	a := &agreement{disagreements: map[string]*disagreement{}, sigmaGoByRule: map[string]*evaluator.RuleEvaluator{}}
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
		if files++; files > n {
			return filepath.SkipAll
		}
		return scan.Records(f, each, func(int, error) {})
	})
	if err != nil {
		return err
	}
	g := newGenerator(seed, set.Rules, 0.8, false)
	for range n {
		each(g.next())
	}
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
			a.SigmaGoErrors++
			continue
		}
		result, err := peer.Matches(context.Background(), m)
		if err != nil {
			a.SigmaGoErrors++
			continue
		}
		if result.Match != ours {
			a.WithSigmaGo++
			d := a.disagreements[rule.ID]
			if d == nil {
				d = &disagreement{rule: rule, ours: ours, sentence: decide(rule), firstRecord: r}
				a.disagreements[rule.ID] = d
			}
			d.count++
		}
	}
}

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

// decide names the sentence of the specification about what sigma-go does
// differently in a rule: the first of these that the rule uses.
func decide(r *sigma.Rule) string {
	uses := map[string]bool{}
	var walk func(n *sigma.Node)
	walk = func(n *sigma.Node) {
		if n.Item != nil {
			for _, m := range n.Item.Modifiers {
				uses[m] = true
			}
			for _, l := range n.Item.Values {
				switch {
				case l.Kind == sigma.Nothing:
					uses["null"] = true
				case l.Text == "":
					uses["empty"] = true
				case strings.ContainsAny(l.Text, "*?"):
					uses["wildcard"] = true
				}
				if strings.Contains(l.Text, `\`) {
					uses["backslash"] = true
				}
				for _, c := range l.Text {
					if c > 127 {
						uses["unicode"] = true
					}
				}
			}
		}
		for i := range n.Kids {
			walk(&n.Kids[i])
		}
	}
	for i := range r.Detection.Searches {
		walk(&r.Detection.Searches[i].Node)
	}
	for _, s := range []struct{ use, sentence string }{
		{"fieldref", "Modifiers, fieldref: “A field reference can be used to compare fields of matched events directly at query/matching time.”"},
		{"windash", "Modifiers, windash: “Creates all possible permutations of the -, /, – (en dash), — (em dash), and ― (horizontal bar) characters.”"},
		{"exists", "Modifiers, exists: “this check only verifies the presence of a field, not its value, be it empty or null.”"},
		{"re", "Modifiers, re: “Regex is matched case-sensitive by default.”"},
		{"null", "Special Field Values: “A null value is defined with null.”"},
		{"empty", "Special Field Values: “An empty value is defined with ''.”"},
		{"cidr", "Modifiers, cidr: “The value is handled as a CIDR network range specification.”"},
		{"unicode", "General: “All values are treated as case-insensitive strings.”"},
		{"wildcard", "String Wildcard: “? to replace a single mandatory character, * to replace an unbounded length wildcard.”"},
		{"backslash", "Escape Character: “Plain backslash not followed by a wildcard can be expressed as single \\ or double backslash \\\\.”"},
	} {
		if uses[s.use] {
			return s.sentence
		}
	}
	return "General: “All values are treated as case-insensitive strings.”"
}

func (a *agreement) print(w io.Writer) {
	fmt.Fprintf(w, "%d verdicts: %d disagreements with the naive reference, %d with sigma-go v0.6.6 (in %d rules); it gave none in %d cases\n\n",
		a.Verdicts, a.WithReference, a.WithSigmaGo, len(a.disagreements), a.SigmaGoErrors)
	bySentence := map[string][]*disagreement{}
	for _, d := range a.disagreements {
		bySentence[d.sentence] = append(bySentence[d.sentence], d)
	}
	var sentences []string
	for s := range bySentence {
		sentences = append(sentences, s)
	}
	slices.Sort(sentences)
	for _, s := range sentences {
		fmt.Fprintln(w, s)
		ds := bySentence[s]
		slices.SortFunc(ds, func(x, y *disagreement) int { return strings.Compare(x.rule.File, y.rule.File) })
		for _, d := range ds {
			fmt.Fprintf(w, "  %s: here %v, there %v, on %d events (%s)\n", d.rule.ID, d.ours, !d.ours, d.count, d.rule.File)
		}
	}
}
