package sigma

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/holdfast-security/holdfast/internal/language/ocsf"
)

// Parse reads the documents of one file. A document that has a problem (other
// than a warning) is left out of the set; the others are in it.
func Parse(file string, data []byte) (Set, []Problem) {
	var (
		set      Set
		problems []Problem
	)
	docs, p := documents(data)
	if p != nil {
		p.File = file
		problems = append(problems, *p)
	}
	for _, doc := range docs {
		r := reader{file: file}
		r.document(doc, &set)
		problems = append(problems, r.problems...)
	}
	return set, problems
}

// reader reads one document and collects what is wrong with it.
type reader struct {
	file     string
	meta     Meta
	problems []Problem
	failed   bool
}

func (r *reader) report(p *Problem) {
	if p == nil {
		return
	}
	p.File, p.Rule = r.file, r.meta.Key()
	r.problems = append(r.problems, *p)
	r.failed = r.failed || !p.Warning
}

func (r *reader) warn(p *Problem) {
	p.Warning = true
	r.report(p)
}

func (r *reader) document(doc *yaml.Node, set *Set) {
	if doc.Kind == yaml.ScalarNode && doc.ShortTag() == "!!null" {
		return // an empty document, as after a trailing "---"
	}
	if p := checkShape(doc); p != nil {
		r.report(p)
		return
	}
	doc = resolve(doc)
	if doc.Kind != yaml.MappingNode {
		r.report(problem(at(doc), "a Sigma document is a mapping, with a title, a log source and a detection"))
		return
	}
	r.readMeta(doc)
	switch {
	case child(doc, "correlation") != nil:
		if c := r.correlation(doc, child(doc, "correlation")); !r.failed {
			set.Correlations = append(set.Correlations, c)
		}
	case child(doc, "filter") != nil:
		if f := r.filter(doc, child(doc, "filter")); !r.failed {
			set.Filters = append(set.Filters, f)
		}
	default:
		if rule := r.rule(doc); !r.failed {
			set.Rules = append(set.Rules, rule)
		}
	}
}

var (
	levels   = []string{"informational", "low", "medium", "high", "critical"}
	statuses = []string{"stable", "test", "experimental", "deprecated", "unsupported"}
)

func (r *reader) readMeta(doc *yaml.Node) {
	r.meta = Meta{
		ID:             text(child(doc, "id")),
		Name:           text(child(doc, "name")),
		Title:          text(child(doc, "title")),
		Description:    text(child(doc, "description")),
		Status:         strings.ToLower(text(child(doc, "status"))),
		Author:         text(child(doc, "author")),
		Level:          strings.ToLower(text(child(doc, "level"))),
		References:     texts(child(doc, "references")),
		Tags:           texts(child(doc, "tags")),
		FalsePositives: texts(child(doc, "falsepositives")),
		File:           r.file,
		Pos:            at(doc),
	}
	if r.meta.Title == "" {
		r.report(problem(at(doc), "the document has no title").do("give it one: findings are shown by it"))
	}
	if l := child(doc, "level"); l != nil && !slices.Contains(levels, r.meta.Level) {
		r.warn(problem(at(l), "%q is not a level", r.meta.Level).do("use one of " + strings.Join(levels, ", ")))
		r.meta.Level = ""
	}
	if s := child(doc, "status"); s != nil && !slices.Contains(statuses, r.meta.Status) {
		r.warn(problem(at(s), "%q is not a status", r.meta.Status).do("use one of " + strings.Join(statuses, ", ")))
	}
}

func (r *reader) rule(doc *yaml.Node) *Rule {
	rule := &Rule{Meta: r.meta, Fields: texts(child(doc, "fields"))}
	rule.LogSource, rule.LogSourcePos = r.logSource(doc)
	det := child(doc, "detection")
	if det == nil || det.Kind != yaml.MappingNode {
		r.report(problem(at(doc), "the rule has no detection").do(`add "detection:" with at least one search and a condition`))
		return rule
	}
	rule.Detection = r.detection(det, nil)
	return rule
}

func (r *reader) logSource(doc *yaml.Node) (ocsf.LogSource, Pos) {
	n := child(doc, "logsource")
	if n == nil || n.Kind != yaml.MappingNode {
		r.report(problem(at(doc), "the document has no log source").do(`add "logsource:" with a category, product or service`))
		return ocsf.LogSource{}, at(doc)
	}
	return ocsf.LogSource{
		Category: strings.ToLower(text(child(n, "category"))),
		Product:  strings.ToLower(text(child(n, "product"))),
		Service:  strings.ToLower(text(child(n, "service"))),
	}, at(n)
}

func (r *reader) filter(doc, body *yaml.Node) *Filter {
	f := &Filter{Meta: r.meta}
	f.LogSource, _ = r.logSource(doc)
	if body.Kind != yaml.MappingNode {
		r.report(problem(at(body), "a filter is a mapping with rules, a selection and a condition"))
		return f
	}
	rules := child(body, "rules")
	switch {
	case rules == nil:
		r.report(problem(at(body), "the filter names no rules").do(`list ids or names under "rules:", or say "rules: any"`))
	case rules.Kind == yaml.ScalarNode && strings.EqualFold(text(rules), "any"):
		f.Any = true
	default:
		f.Rules = refs(rules)
		if len(f.Rules) == 0 {
			r.report(problem(at(rules), "the filter names no rules").do(`list ids or names, or say "rules: any"`))
		}
	}
	f.Detection = r.detection(body, []string{"rules"})
	return f
}

func refs(n *yaml.Node) []Ref {
	if n.Kind == yaml.ScalarNode {
		if t := text(n); t != "" {
			return []Ref{{t, at(n)}}
		}
	}
	var all []Ref
	for _, kid := range n.Content {
		kid = resolve(kid)
		if t := text(kid); t != "" {
			all = append(all, Ref{t, at(kid)})
		}
	}
	return all
}
