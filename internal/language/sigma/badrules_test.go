package sigma_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

const good = `title: Good
id: good
logsource: {product: linux, category: process_creation}
detection:
  s:
    Image: /bin/true
  condition: s
`

// with returns a rule with its detection replaced.
func with(detection string) string {
	return "title: Bad\nid: bad\nlogsource: {product: linux, category: process_creation}\ndetection:\n" + detection
}

// Each bad rule is reported with the place and the reason, and the good rule
// after it in the file (or, where YAML itself is broken, before it) still loads.
func TestBadRules(t *testing.T) {
	bomb := "title: Bomb\na: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'i'; c++ {
		prev := string(c - 1)
		bomb += string(c) + ": &" + string(c) + " [" + strings.TrimSuffix(strings.Repeat("*"+prev+",", 9), ",") + "]\n"
	}
	for name, c := range map[string]struct{ rule, where, reason, do string }{
		"unknown modifier":          {with("  s:\n    Image|endwith: x\n  condition: s\n"), ":6:5", `there is no modifier "endwith"`, "did you mean endswith?"},
		"modifier twice":            {with("  s:\n    Image|contains|contains: x\n  condition: s\n"), ":6:5", "contains is there twice", ""},
		"wildcard kinds excluded":   {with("  s:\n    Image|contains|endswith: x\n  condition: s\n"), ":6:5", "contains and endswith exclude one another", ""},
		"number wanted":             {with("  s:\n    pid|gt: many\n  condition: s\n"), ":6:13", `the modifier gt needs a number, not "many"`, ""},
		"base64 of a number":        {with("  s:\n    Image|base64: 5\n  condition: s\n"), ":6:19", "the modifier base64 is for text", "quotes"},
		"base64 of a wildcard":      {with("  s:\n    Image|base64: 'a*b'\n  condition: s\n"), ":6:19", "wildcards cannot be encoded", ""},
		"encoding after contains":   {with("  s:\n    Image|contains|base64: abc\n  condition: s\n"), ":6:5", "base64 after contains would encode the wildcards", ""},
		"exists wants a truth":      {with("  s:\n    Image|exists: maybe\n  condition: s\n"), ":6:19", "exists needs true or false", ""},
		"cidr of a name":            {with("  s:\n    Image|cidr: localhost\n  condition: s\n"), ":6:17", `"localhost" is not an address range`, "10.0.0.0/8"},
		"null with a modifier":      {with("  s:\n    Image|contains: null\n  condition: s\n"), ":6:21", "null cannot be combined", ""},
		"flag without re":           {with("  s:\n    Image|i: x\n  condition: s\n"), ":6:5", "only follows re", ""},
		"look-around":               {with("  s:\n    Image|re: 'a(?=b)'\n  condition: s\n"), ":6:15", "cannot be evaluated in linear time", "without look-around"},
		"back-reference":            {with("  s:\n    Image|re: '(a)\\1'\n  condition: s\n"), ":6:15", "cannot be evaluated in linear time", "back-references"},
		"missing search":            {with("  s:\n    Image: x\n  condition: s and filter\n"), ":7:20", `the search "filter" does not exist`, "there are: s"},
		"pattern without a search":  {with("  s:\n    Image: x\n  condition: 1 of filter_*\n"), ":7:19", `no search has a name like "filter_*"`, ""},
		"parenthesis":               {with("  s:\n    Image: x\n  condition: (s\n"), ":7:16", "closing parenthesis is missing", ""},
		"operator at the end":       {with("  s:\n    Image: x\n  condition: s and\n"), ":7:19", "missing at the end", ""},
		"aggregation of Sigma 1":    {with("  s:\n    Image: x\n  condition: s | count() > 5\n"), ":7:16", "aggregations belong to Sigma 1", "correlation"},
		"timeframe":                 {with("  s:\n    Image: x\n  timeframe: 5m\n  condition: s\n"), ":7:3", "timeframe", "correlation"},
		"no condition":              {with("  s:\n    Image: x\n"), ":5:3", "there is no condition", ""},
		"no search":                 {with("  condition: s\n"), ":5:3", "there is no search", ""},
		"mapping as a value":        {with("  s:\n    Image: {a: b}\n  condition: s\n"), ":6:12", "must be plain text", "with a dot"},
		"empty list":                {with("  s:\n    Image: []\n  condition: s\n"), ":6:12", "the list of values is empty", ""},
		"duplicate key":             {with("  s:\n    Image: x\n    Image: y\n  condition: s\n"), ":7:5", `the key "Image" is there twice, first in line 6`, ""},
		"duplicate search":          {with("  s:\n    Image: x\n  s:\n    Image: y\n  condition: s\n"), ":7:3", `the key "s" is there twice`, ""},
		"merge key":                 {with("  s: &s\n    Image: x\n  t:\n    <<: *s\n  condition: s\n"), ":8:5", "merge keys", ""},
		"alias bomb":                {bomb, "", "more than 50000 nodes, counting what aliases stand for", ""},
		"nesting bomb":              {"title: deep\nx: " + strings.Repeat("[", 200) + strings.Repeat("]", 200) + "\n", ":2:", "nested more than 32 deep", ""},
		"no log source":             {"title: x\ndetection:\n  s: {Image: x}\n  condition: s\n", ":1:1", "no log source", ""},
		"no title":                  {strings.Replace(with("  s:\n    Image: x\n  condition: s\n"), "title: Bad\n", "", 1), ":1:1", "no title", ""},
		"not a mapping":             {"- a\n- b\n", ":1:1", "a Sigma document is a mapping", ""},
		"correlation type":          {"title: x\ncorrelation:\n  type: sum\n  rules: [a]\n  timespan: 5m\n  condition: {gte: 1}\n", ":3:9", `"sum" is not a type of correlation`, "event_count"},
		"correlation timespan":      {"title: x\ncorrelation:\n  type: event_count\n  rules: [a]\n  timespan: 5 minutes\n  condition: {gte: 1}\n", ":5:13", "is not a timespan", "90m"},
		"correlation without field": {"title: x\ncorrelation:\n  type: value_count\n  rules: [a]\n  timespan: 5m\n  condition: {gte: 1}\n", ":6:14", "needs the field", ""},
		"correlation bound":         {"title: x\ncorrelation:\n  type: event_count\n  rules: [a]\n  timespan: 5m\n  condition: {above: 1}\n", ":6:15", `has no "above"`, "gte"},
		"filter without rules":      {"title: x\nlogsource: {product: linux}\nfilter:\n  selection: {User: x}\n  condition: selection\n", ":4:3", "the filter names no rules", "any"},
	} {
		t.Run(name, func(t *testing.T) {
			set, problems := sigma.Parse("bad.yml", []byte(c.rule+"---\n"+good))
			if len(set.Rules) != 1 || set.Rules[0].ID != "good" {
				t.Errorf("the good rule was not read alone: %d rules", len(set.Rules))
			}
			if len(problems) == 0 {
				t.Fatal("no problem reported")
			}
			p := problems[0]
			if p.Warning || !strings.HasPrefix(p.Where(), "bad.yml"+c.where) || c.where != "" && !strings.HasSuffix(c.where, ":") && p.Where() != "bad.yml"+c.where {
				t.Errorf("reported at %s, want bad.yml%s: %v", p.Where(), c.where, p)
			}
			if !strings.Contains(p.Reason, c.reason) || !strings.Contains(p.Do, c.do) {
				t.Errorf("problem: %v\nwant %q and %q", p, c.reason, c.do)
			}
		})
	}
}

func TestBrokenYAMLKeepsWhatWasBeforeIt(t *testing.T) {
	set, problems := sigma.Parse("bad.yml", []byte(good+"---\ntitle: [unclosed\nlevel: low\n"))
	if len(set.Rules) != 1 || len(problems) != 1 || problems[0].Pos.Line < 8 || !strings.Contains(problems[0].Reason, "this is not YAML") {
		t.Errorf("%d rules, problems %v", len(set.Rules), problems)
	}
}

func TestAHugeFileIsRefusedUnread(t *testing.T) {
	set, problems := sigma.Parse("huge.yml", bytes.Repeat([]byte("# padding\n"), 1<<20))
	if len(set.Rules) != 0 || len(problems) != 1 || problems[0].Where() != "huge.yml:1:1" || !strings.Contains(problems[0].Reason, "10485760 bytes") {
		t.Errorf("problems %v", problems)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte(good + "---\n" + with("  s:\n    - Image|re|i: 'a.*'\n    - keyword\n  f: {'|all': [a, b]}\n  condition: 1 of s* and not (f or all of them)\n")))
	f.Add([]byte("title: c\nname: c\ncorrelation:\n  type: value_count\n  rules: [good]\n  group-by: [User]\n  timespan: 5m\n  condition: {field: Image, gte: 3}\n  aliases: {u: {good: User}}\n"))
	f.Add([]byte("title: f\nlogsource: {product: linux}\nfilter:\n  rules: any\n  selection: {User|startswith: adm_}\n  condition: selection\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		set, problems := sigma.Parse("fuzz.yml", data)
		for _, p := range problems {
			if p.Reason == "" || p.File != "fuzz.yml" || p.Pos.Line < 1 {
				t.Errorf("a problem without reason or place: %+v", p)
			}
		}
		for _, r := range set.Rules {
			for _, name := range r.Detection.FieldNames() {
				if name == "" {
					t.Error("a field without a name")
				}
			}
		}
	})
}
