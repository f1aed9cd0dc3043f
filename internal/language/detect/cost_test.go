package detect

import (
	"testing"
	"time"

	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

func TestARuleIsOverBudgetByItsOwnDoing(t *testing.T) {
	set, _ := sigma.Parse("r.yml", []byte("title: R\nid: r\nlogsource: {product: linux, category: process_creation}\ndetection: {s: {Image: a}, condition: s}\n"))
	e, _ := Compile(set, Options{})
	budget := 20 * time.Microsecond
	for name, c := range map[string]struct {
		sampled, dear uint64
		spent         time.Duration
		suspended     bool
		over          bool
	}{
		"slow on every event":                      {1000, 1000, 30 * time.Millisecond, false, true},
		"slow on one event in a hundred":           {1000, 10, 30 * time.Millisecond, false, true},
		"within its budget":                        {1000, 1000, 15 * time.Millisecond, false, false},
		"too few samples to say":                   {63, 63, time.Second, false, false},
		"the processor was taken away a few times": {64, 4, 4 * longest, false, false},
		"suspended already":                        {1000, 1000, time.Second, true, false},
	} {
		v := e.NewEvaluator()
		v.costs.sampled, v.costs.dear[0], v.costs.spent[0], v.costs.suspended[0] = c.sampled, c.dear, c.spent, c.suspended
		if over := len(v.OverBudget(budget)) > 0; over != c.over {
			t.Errorf("%s: over budget %v", name, over)
		}
	}
}

// Few events are enough to say what rules cost, and many are not slowed by it.
func TestEarlyEventsAreSampledMoreOften(t *testing.T) {
	c := newCosts(0)
	sampled := func(from, to uint64) (n int) {
		for event := from; event < to; event++ {
			if c.due(event) {
				c.sampled++
				n++
			}
		}
		return n
	}
	if n := sampled(1, enough*sampleFirst+1); n != enough {
		t.Errorf("%d of the first %d events, want %d", n, enough*sampleFirst, enough)
	}
	if n := sampled(1<<20, 1<<21); n != 1<<20/sampleEvery {
		t.Errorf("%d of a million later events", n)
	}
}
