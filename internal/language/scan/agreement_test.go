package scan_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast/internal/language/detect"
	"github.com/holdfast-security/holdfast/internal/language/detect/reference"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/scan"
)

// asReference is a record as the naive evaluator reads it.
func asReference(r *scan.Record, message string) reference.Event {
	ev := reference.Event{Fields: map[string][]any{}, Message: message}
	for _, f := range r.Fields {
		var v any
		switch f.Value.Kind {
		case ocsf.Null:
			ev.Fields[f.Name] = append(ev.Fields[f.Name], []any{}...)
			continue
		case ocsf.Int:
			v = f.Value.Num
		case ocsf.Float:
			v = f.Value.Float()
		case ocsf.Bool:
			v = f.Value.Num != 0
		case ocsf.Time:
			v = time.Unix(0, f.Value.Num).UTC()
		default:
			v = f.Value.Str
		}
		ev.Fields[f.Name] = append(ev.Fields[f.Name], v)
	}
	return ev
}

// On every event of the regression data, the engine and the naive evaluator
// agree about every rule that wants to see it: what must not fire does not.
func TestSigmaHQAgreement(t *testing.T) {
	dir := sigmaHQ(t)
	if testing.Short() {
		t.Skip("evaluates every rule naively")
	}
	set, _ := loadSigmaHQ(t, dir)
	layout := scan.NewLayout(set)
	engine, problems := detect.Compile(set, detect.Options{Classes: layout.Classes})
	left := map[string]bool{}
	for _, p := range problems {
		left[p.Rule] = true
	}
	v := engine.NewEvaluator()
	var ev ocsf.Event
	records, verdicts := 0, 0
	files, _ := filepath.Glob(filepath.Join(dir, "regression_data", "*", "*", "*", "*", "*.json"))
	deeper, _ := filepath.Glob(filepath.Join(dir, "regression_data", "*", "*", "*", "*", "*", "*.json"))
	for _, file := range append(files, deeper...) {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		err = scan.Records(f, func(r *scan.Record) error {
			records++
			class := layout.ClassOf(r.Sources)
			if class == nil {
				return nil
			}
			ev.Reset()
			scan.Bind(&ev, class, r, true)
			var got []string
			v.Evaluate(&ev, func(m *detect.Match) { got = append(got, m.Rule.ID) })
			ref := asReference(r, ev.Message)
			for _, rule := range set.Rules {
				wanted := slices.ContainsFunc(r.Sources, rule.LogSource.Accepts)
				if !wanted || left[rule.Key()] {
					continue
				}
				verdicts++
				if want := reference.Matches(&rule.Detection, ref, nil); want != slices.Contains(got, rule.ID) {
					t.Errorf("%s: %s (%s): engine %v, reference %v", strings.TrimPrefix(file, dir), rule.ID, rule.Title, !want, want)
				}
			}
			return nil
		}, func(line int, err error) { t.Errorf("%s:%d: %v", file, line, err) })
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d records, %d verdicts", records, verdicts)
	if records < 100 || verdicts < 10_000 {
		t.Error("too little was compared")
	}
}
