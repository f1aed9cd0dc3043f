package worker

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/content"
	"github.com/holdfast-security/holdfast/internal/endpoint/sensor"
	"github.com/holdfast-security/holdfast/internal/language/bundle"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
)

// BenchmarkOnAHost is what an event of a host costs its worker: the default pack
// on 462 launches that the eBPF sensor recorded (bench/record: git, make, gcc,
// dpkg, apt, cron, shell scripts, a login), with their exits.
//
//	go test ./internal/endpoint/worker -run '^$' -bench OnAHost -cpu 1
//
// cpu-ns/op is processor time, which other programs do not change much; ns/op
// is what the clock on the wall says. evaluate is the loop's own call on events that the sensor has told; loop is
// the sensor's part too: the table of processes, the texts, the users.
func BenchmarkOnAHost(b *testing.B) {
	open := func(b *testing.B) *sensor.Sensor {
		s, err := sensor.Open(sensor.Options{Tier: sensor.TierReplay, Replay: filepath.Join("testdata", "launches.jsonl"), Loop: true, Boot: "b"})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { s.Close() })
		return s
	}
	pack, err := bundle.FromRepository(content.Default, "")
	if err != nil {
		b.Fatal(err)
	}
	data, err := pack.Encode()
	if err != nil {
		b.Fatal(err)
	}
	e, problems, err := Compile(data)
	if err != nil {
		b.Fatal(err)
	}
	for _, p := range problems {
		if !p.Warning {
			b.Fatal(p)
		}
	}
	newLoop := func(s source) *loop {
		l := &loop{
			source: s, evaluator: e.NewEvaluator(), budgets: budgets{budget: DefaultBudget}, found: make(chan holdfast.Finding), counters: &Counters{}, now: time.Now(),
		}
		l.sink = l.match
		return l
	}
	far := time.Now().Add(time.Hour)
	b.Run("evaluate", func(b *testing.B) {
		s := open(b)
		var events []*ocsf.Event
		for range 2 * 462 { // each launch and its exit
			ev, err := s.Next(far)
			if err != nil || ev == nil {
				b.Fatal(ev, err)
			}
			events = append(events, clone(ev))
		}
		l := newLoop(s)
		b.ReportAllocs()
		n, used := 0, busy()
		for b.Loop() {
			l.evaluator.Evaluate(events[n], l.sink)
			if n++; n == len(events) {
				n = 0
			}
		}
		b.ReportMetric(float64(busy()-used)/float64(b.N), "cpu-ns/op")
		b.ReportMetric(float64(l.counters.Findings.Load())/float64(b.N), "findings/op")
	})
	b.Run("loop", func(b *testing.B) {
		l := newLoop(open(b))
		b.ReportAllocs()
		used := busy()
		for b.Loop() {
			ev, err := l.source.Next(far)
			if err != nil || ev == nil {
				b.Fatal(ev, err)
			}
			l.evaluator.Evaluate(ev, l.sink)
		}
		b.ReportMetric(float64(busy()-used)/float64(b.N), "cpu-ns/op")
	})
}

// clone keeps an event beyond the sensor's next.
func clone(e *ocsf.Event) *ocsf.Event {
	c := *e
	c.Values = make([]ocsf.Value, len(e.Values))
	for i, v := range e.Values {
		v.Str = string(append([]byte(nil), v.Str...))
		c.Values[i] = v
	}
	return &c
}
