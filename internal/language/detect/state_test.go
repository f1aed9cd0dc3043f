package detect_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-security/holdfast/internal/language/detect"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// second is a second of the test's day.
func second(n int) time.Time { return time.Unix(1_700_000_000+int64(n), 0) }

const roomy = 1 << 20

// allKinds has a correlation of each type, and a chained one.
var allKinds = logins + func() string {
	var all []string
	for kind, rest := range map[string]string{
		"event_count":      "  rules: [failed]\n  condition: {gte: 3}\n",
		"value_count":      "  rules: [failed, success]\n  condition: {field: peer, gte: 3}\n",
		"temporal":         "  rules: [failed, success]\n",
		"temporal_ordered": "  rules: [failed, success]\n",
		"value_sum":        "  rules: [failed]\n  condition: {field: bytes, gt: 17}\n",
		"value_avg":        "  rules: [failed]\n  condition: {field: bytes, gte: 6}\n",
		"value_percentile": "  rules: [failed]\n  condition: {field: bytes, percentile: 50, gte: 6}\n",
	} {
		all = append(all, "title: "+kind+"\nid: "+kind+"\nname: "+kind+"\n"+strings.TrimPrefix(correlationOf(kind, rest), "title: C\nid: c\n"))
	}
	slices.Sort(all)
	return strings.Join(all, "---\n") + "---\ntitle: chained\nid: chained\n" +
		strings.TrimPrefix(correlationOf("temporal_ordered", "  rules: [event_count, success]\n"), "title: C\nid: c\n")
}()

// A restart is not seen: whenever the state is saved and restored, the matches
// are those of an evaluator that ran on.
func TestARestartIsNotSeen(t *testing.T) {
	e := loginEngine(t, strings.TrimPrefix(allKinds, logins))
	rapid.Check(t, func(t *rapid.T) {
		through, restarted := e.NewEvaluator(), e.NewEvaluator()
		now := 0
		for range rapid.IntRange(1, 60).Draw(t, "events") {
			now += rapid.IntRange(0, 25).Draw(t, "gap")
			line := fmt.Sprintf("%d %s %s %s %d", now, rapid.SampledFrom([]string{"fail", "fail", "ok"}).Draw(t, "action"),
				rapid.SampledFrom([]string{"ann", "bob"}).Draw(t, "user"), rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "peer"), rapid.IntRange(0, 9).Draw(t, "bytes"))
			if got, want := story(restarted, line), story(through, line); got != want {
				t.Fatalf("after %q: %q, and without restarts %q", line, got, want)
			}
			if rapid.IntRange(0, 3).Draw(t, "restart") == 0 {
				saved, left := restarted.AppendState(nil, roomy)
				restarted = e.NewEvaluator()
				if _, err := restarted.Restore(saved, second(now)); err != nil || left != 0 {
					t.Fatal(left, err)
				}
			}
		}
	})
}

// What a change of content takes over, starts anew, and forgets.
func TestCountsSurviveAChangeOfContent(t *testing.T) {
	before := correlationOf("event_count", "  rules: [failed]\n  condition: {gte: 3}\n")
	for name, c := range map[string]struct {
		after               string
		taken, changed, out []string
		want                string
	}{
		"the same":               {logins + before, []string{"c"}, nil, nil, "20:c"},
		"new words and a level":  {strings.Replace(logins+before, "title: C", "title: New words\nlevel: high", 1), []string{"c"}, nil, nil, "20:c"},
		"a lower threshold":      {strings.Replace(logins+before, "gte: 3", "gte: 2", 1), []string{"c"}, nil, nil, "20:c"},
		"a higher threshold":     {strings.Replace(logins+before, "gte: 3", "gte: 4", 1), []string{"c"}, nil, nil, ""},
		"lines moved":            {"# a remark\n" + logins + before, []string{"c"}, nil, nil, "20:c"},
		"one more correlation":   {logins + before + "---\ntitle: D\nid: d\ncorrelation: {type: event_count, rules: [success], timespan: 1h, condition: {gte: 99}}\n", []string{"c"}, nil, nil, "20:c"},
		"another timespan":       {strings.Replace(logins+before, "60s", "61s", 1), nil, []string{"c"}, nil, ""},
		"other groups":           {strings.Replace(logins+before, "[user]", "[account]", 1), nil, []string{"c"}, nil, ""},
		"what is counted":        {strings.Replace(logins+before, "action: fail", "action|startswith: fai", 1), nil, []string{"c"}, nil, ""},
		"the condition":          {strings.Replace(logins+before, "condition: s\n", "condition: not (not s)\n", 1), nil, []string{"c"}, nil, ""},
		"a filter":               {logins + before + "---\ntitle: F\nlogsource: {product: test}\nfilter: {rules: [failed], selection: {user: bob}, condition: selection}\n", nil, []string{"c"}, nil, ""},
		"the correlation is out": {logins, nil, nil, []string{"c"}, "20:failed"},
		"it has another id":      {strings.Replace(logins+before, "id: c", "id: x", 1), nil, nil, []string{"c"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			v := loginEngine(t, before).NewEvaluator()
			if got := story(v, "0 fail ann a", "10 fail ann b"); got != "" {
				t.Fatalf("fired early: %s", got)
			}
			saved, _ := v.AppendState(nil, roomy)
			after := compile(t, c.after, detect.Options{Classes: []*ocsf.Class{loginClass}}).NewEvaluator()
			r, err := after.Restore(saved, second(15))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(r.Taken, c.taken) || !slices.Equal(r.Changed, c.changed) || !slices.Equal(r.Gone, c.out) {
				t.Errorf("restored %+v", r)
			}
			if got := story(after, "20 fail ann c"); got != c.want {
				t.Errorf("the third event gave %q, want %q", got, c.want)
			}
		})
	}
}

func TestWhatHasLeftItsWindowIsNotRestored(t *testing.T) {
	v := loginEngine(t, correlationOf("event_count", "  rules: [failed]\n  condition: {gte: 3}\n")).NewEvaluator()
	story(v, "0 fail ann", "50 fail ann", "5 fail bob")
	saved, _ := v.AppendState(nil, roomy)
	for at, want := range map[int]int{60: 2, 90: 1, 1000: 0, -1000: 0} { // -1000: the clock was set back
		if r, err := v.Engine().NewEvaluator().Restore(saved, second(at)); err != nil || r.Groups != want {
			t.Errorf("at %d: %d groups, want %d: %v", at, r.Groups, want, err)
		}
	}
}

// A state never grows beyond its limit; what was seen last is kept.
func TestAStateFitsItsLimit(t *testing.T) {
	v := loginEngine(t, correlationOf("event_count", "  rules: [failed]\n  condition: {gte: 3}\n")).NewEvaluator()
	for i := range 500 {
		story(v, fmt.Sprintf("%d fail user%d", i/100, i), fmt.Sprintf("%d fail user%d", i/100, i))
	}
	for _, limit := range []int{100, 1000, 5000, roomy} {
		saved, left := v.AppendState(make([]byte, 7), limit)
		if len(saved)-7 > limit {
			t.Errorf("%d bytes, and %d are the limit", len(saved)-7, limit)
		}
		after := v.Engine().NewEvaluator()
		r, err := after.Restore(saved[7:], second(5))
		if err != nil || r.Groups+left != 500 {
			t.Errorf("limit %d: %d groups restored, %d left out: %v", limit, r.Groups, left, err)
		}
		if r.Groups > 0 {
			if got := story(after, "5 fail user499"); got != "5:c" {
				t.Errorf("limit %d: the group seen last was forgotten: %q", limit, got)
			}
		}
	}
}

func TestADamagedStateRestoresNothing(t *testing.T) {
	v := loginEngine(t, correlationOf("event_count", "  rules: [failed]\n  condition: {gte: 3}\n")).NewEvaluator()
	story(v, "0 fail ann", "1 fail ann", "2 fail bob")
	saved, _ := v.AppendState(nil, roomy)
	for n := range len(saved) { // every way to be cut short
		after := v.Engine().NewEvaluator()
		if _, err := after.Restore(saved[:n], second(2)); err == nil && n != headBytes {
			t.Errorf("%d of %d bytes were restored", n, len(saved))
		}
		if got := story(after, "3 fail ann"); got != "" {
			t.Fatalf("%d of %d bytes: something was restored: %q", n, len(saved), got)
		}
	}
}

// headBytes is where a state without correlations ends: version, key, and the
// number of events.
const headBytes = 1 + 16 + 1

// FuzzRestore reads any bytes as a state: no panic, and an evaluator that works,
// whose own state can be restored.
func FuzzRestore(f *testing.F) {
	set, problems := sigma.Parse("test.yml", []byte(allKinds))
	if len(problems) > 0 {
		f.Fatal(problems)
	}
	e, problems := detect.Compile(set, detect.Options{Classes: []*ocsf.Class{loginClass}, Correlation: detect.Bounds{Groups: 3, Entries: 10}})
	if len(problems) > 0 {
		f.Fatal(problems)
	}
	v := e.NewEvaluator()
	lines := []string{"0 fail ann a 5", "1 ok bob b 6", "2 fail ann b 7", "3 ok ann c 8", "4 fail eve c 1", "5 fail bob a 2", "6 fail ann a 2"}
	for _, line := range lines {
		story(v, line)
		saved, _ := v.AppendState(nil, roomy)
		f.Add(saved)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v := e.NewEvaluator()
		if _, err := v.Restore(b, second(6)); err != nil {
			return
		}
		story(v, lines...)
		saved, left := v.AppendState(nil, roomy)
		if _, err := e.NewEvaluator().Restore(saved, second(6)); err != nil || left > 0 {
			t.Errorf("what was restored cannot be saved and restored again: %d left out, %v", left, err)
		}
	})
}

// BenchmarkAppendState is what saving a full correlation costs the loop: 4,096
// groups with 65,536 entries.
func BenchmarkAppendState(b *testing.B) {
	set, problems := sigma.Parse("test.yml", []byte(logins+correlationOf("event_count", "  rules: [failed]\n  condition: {gte: 20}\n")))
	if len(problems) > 0 {
		b.Fatal(problems)
	}
	e, _ := detect.Compile(set, detect.Options{Classes: []*ocsf.Class{loginClass}})
	v := e.NewEvaluator()
	for i := range 1 << 16 {
		v.Evaluate(login(i>>12, "fail", fmt.Sprint("user", i&4095), "", 0), func(*detect.Match) {})
	}
	var state []byte
	b.ReportAllocs()
	for b.Loop() {
		var left int
		if state, left = v.AppendState(state[:0], 8<<20); left > 0 {
			b.Fatal(left)
		}
	}
	b.ReportMetric(float64(len(state)), "bytes")
}
