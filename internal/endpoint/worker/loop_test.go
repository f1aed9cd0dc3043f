package worker

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/sensor"
	"github.com/holdfast-security/holdfast/internal/language/detect"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
	"github.com/holdfast-security/holdfast/internal/wire"
)

const oneRule = `
title: Marker
id: 6f0f4a55-4d07-4b43-9a3c-8d5a4f6d2a01
level: low
tags: [attack.t1059.004]
logsource: {product: linux, category: process_creation}
detection:
  s: {CommandLine|contains: marker}
  condition: s
`

const otherRule = `
title: Other
id: 6f0f4a55-4d07-4b43-9a3c-8d5a4f6d2a02
level: high
logsource: {product: linux, category: process_creation}
detection:
  s: {Image|endswith: /other}
  condition: s
`

func engine(t testing.TB, rules ...string) *detect.Engine {
	t.Helper()
	var set sigma.Set
	for i, r := range rules {
		one, problems := sigma.Parse(fmt.Sprintf("rules/%d.yml", i), []byte(r))
		for _, p := range problems {
			t.Fatal(p)
		}
		set.Add(one)
	}
	e, problems := detect.Compile(set, detect.Options{})
	for _, p := range problems {
		t.Fatal(p)
	}
	return e
}

// script is a source that tells the given launches, each after a pause, and
// then nothing more, or an error.
type script struct {
	events []ocsf.Event
	pause  time.Duration
	fail   error
}

func (s *script) Next(until time.Time) (*ocsf.Event, error) {
	if len(s.events) == 0 {
		if s.fail != nil {
			return nil, s.fail
		}
		time.Sleep(time.Until(until))
		return nil, nil
	}
	if s.pause > time.Until(until) {
		time.Sleep(time.Until(until))
		return nil, nil
	}
	time.Sleep(s.pause)
	e := &s.events[0]
	s.events = s.events[1:]
	return e, nil
}

func (s *script) Tree(int) []holdfast.Process {
	return []holdfast.Process{{PID: 7, Path: "/bin/\xff", CmdLine: "x"}}
}

func (s *script) Counters() sensor.Counters { return sensor.Counters{Dropped: 3, Unenriched: 2} }

func launchEvent(path, cmdLine, uid string) ocsf.Event {
	values := make([]ocsf.Value, sensor.Supplied()[ocsf.ProcessActivityUID])
	values[ocsf.ActivityID] = ocsf.IntValue(ocsf.ActivityLaunch)
	values[ocsf.ProcessPath] = ocsf.StringValue(path)
	values[ocsf.ProcessCmdLine] = ocsf.StringValue(cmdLine)
	values[ocsf.ProcessUID] = ocsf.StringValue(uid)
	return ocsf.Event{Class: ocsf.ProcessActivityUID, Values: values, Time: time.Unix(1, 0)}
}

func newLoop(t testing.TB, src source, room int, rules ...string) (*loop, chan holdfast.Finding, *[]uint64) {
	e := engine(t, rules...)
	found := make(chan holdfast.Finding, room)
	var beats []uint64
	return &loop{
		source: src, evaluator: e.NewEvaluator(), test: newSelfTest(e), budgets: budgets{budget: DefaultBudget},
		beat: func(n uint64) { beats = append(beats, n) }, found: found, counters: &Counters{},
		label: holdfast.Finding{Host: "h", Hostname: "name", Bundle: "sha256:b"},
	}, found, &beats
}

func TestAnIdleLoopBeatsAndProvesItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _, beats := newLoop(t, &script{}, 1, oneRule)
		ctx, stop := context.WithTimeout(t.Context(), 2*time.Second)
		defer stop()
		if err := l.run(ctx); err != nil {
			t.Fatal(err)
		}
		if n := len(*beats); n < 8 {
			t.Errorf("%d beats in two seconds; the guard expects four a second", n)
		}
		if !slices.IsSorted(*beats) || (*beats)[len(*beats)-1] < 1000 {
			t.Errorf("an idle host must reach probation's work in seconds: %v", *beats)
		}
		if l.counters.Events.Load() != 0 || l.counters.Findings.Load() != 0 {
			t.Error("self-tests count as events, or make findings")
		}
	})
}

func TestATrickleOfEventsDoesNotStarveTheBeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []ocsf.Event
		for range 60 {
			events = append(events, launchEvent("/bin/true", "true", "u"))
		}
		l, _, beats := newLoop(t, &script{events: events, pause: 70 * time.Millisecond}, 1, oneRule)
		ctx, stop := context.WithTimeout(t.Context(), 3*time.Second)
		defer stop()
		if err := l.run(ctx); err != nil {
			t.Fatal(err)
		}
		if len(*beats) < 12 || (*beats)[len(*beats)-1] < 1000 {
			t.Errorf("%d beats, %d evaluations in three seconds", len(*beats), (*beats)[len(*beats)-1])
		}
	})
}

func TestFindingSaysWhatAnAnalystNeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &script{events: []ocsf.Event{launchEvent("/bin/echo", "echo marker \xff", "boot-7-1")}}
		l, found, _ := newLoop(t, src, 1, oneRule)
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if err := l.run(ctx); err != nil {
			t.Fatal(err)
		}
		f := <-found
		if f.ID == "" || f.Host != "h" || f.Hostname != "name" || f.Bundle != "sha256:b" || f.Title != "Marker" || f.Severity != "low" || !f.At.Equal(time.Unix(1, 0)) {
			t.Errorf("finding %+v", f)
		}
		if !slices.Equal(f.Techniques, []string{"T1059.004"}) {
			t.Errorf("techniques %v", f.Techniques)
		}
		if want := (holdfast.Fact{Field: "process.cmd_line", Value: "echo marker \uFFFD"}); !slices.Contains(f.Matched, want) || !slices.Contains(f.Event, want) {
			t.Errorf("matched %v, event %v", f.Matched, f.Event)
		}
		if want := (holdfast.Reason{Search: "s", Field: "process.cmd_line", Test: "contains", Fits: []string{"marker"}}); len(f.Why) != 1 || !reflect.DeepEqual(f.Why[0], want) {
			t.Errorf("why: %+v, want %+v", f.Why, want)
		}
		if len(f.Tree) != 1 || f.Tree[0].Path != "/bin/\uFFFD" {
			t.Errorf("tree %v", f.Tree)
		}
		if l.counters.Dropped.Load() != 3 || l.counters.Unenriched.Load() != 2 {
			t.Error("what the sensor lost is not published")
		}
	})
}

func TestACorrelationsFindingSaysWhatItCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []ocsf.Event
		for i := range 3 {
			e := launchEvent("/bin/echo", "echo marker", fmt.Sprint("u", i))
			e.Values[ocsf.ProcessUserName] = ocsf.StringValue("ann")
			events = append(events, e)
		}
		l, found, _ := newLoop(t, &script{events: events}, 9, oneRule, threeMarkers)
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if err := l.run(ctx); err != nil {
			t.Fatal(err)
		}
		if len(found) != 1 {
			t.Fatalf("%d findings, want the correlation's alone", len(found))
		}
		f := <-found
		want := []holdfast.Reason{
			{Search: "group-by", Field: "process.user.name"},
			{Search: "event_count", Test: "gte 3 within 1h", Counted: "3"},
			{Search: "Marker: s", Field: "process.cmd_line", Test: "contains", Fits: []string{"marker"}},
		}
		if f.Title != "Three markers" || !reflect.DeepEqual(f.Why, want) {
			t.Errorf("%s: %+v, want %+v", f.Title, f.Why, want)
		}
	})
}

// What rules cost, and what correlations forgot, reaches the report.
func TestTheReportSaysWhatRulesCost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []ocsf.Event
		for i := range 5000 {
			e := launchEvent("/bin/echo", "echo marker", fmt.Sprint("u", i))
			e.Values[ocsf.ProcessUserName] = ocsf.StringValue(fmt.Sprint("user", i))
			events = append(events, e)
		}
		l, _, _ := newLoop(t, &script{events: events}, 9, oneRule, threeMarkers)
		l.counters = &Counters{}
		ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
		defer stop()
		if err := l.run(ctx); err != nil {
			t.Fatal(err)
		}
		s := &state{running: holdfast.Generation{}, counters: l.counters, queue: func() uint64 { return 0 }}
		r := s.report(time.Unix(1000, 0))
		if len(r.Forgotten) != 1 || r.Forgotten[0].Rule != "6f0f4a55-4d07-4b43-9a3c-8d5a4f6d2a03" || r.Forgotten[0].Count != 5000-4096 {
			t.Errorf("of 5,000 users 4,096 are kept, and the report says %+v", r.Forgotten)
		}
		if c, sampled := l.evaluator.EventCost(); sampled < 64 {
			t.Errorf("%d of 5,000 events were sampled (%v)", sampled, c)
		}
	})
}

func TestARulesNameFitsAReport(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.SliceOfN(rapid.Byte(), 0, 400).Draw(t, "id")
		r := holdfast.HostReport{Suspended: []holdfast.Suspension{{Rule: nameOf(string(id))}}, Costs: []holdfast.RuleCost{{Rule: nameOf(string(id))}}}
		m, err := wire.Custom(wire.ReportType, r)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := wire.ReportOf(m); err != nil || len(got.Costs) != 1 {
			t.Fatalf("a report that names the rule %q is refused: %v", id, err)
		}
	})
}

func TestTheSameMatchHasTheSameIDWhoeverSawIt(t *testing.T) {
	a, b := launchEvent("/bin/echo", "echo marker", "boot-7-1"), launchEvent("/bin/echo", "echo marker", "boot-7-1")
	b.Time, b.Values[ocsf.EventTime] = time.Unix(2, 0), ocsf.TimeValue(time.Unix(2, 0))
	if findingID("h", "r", &a) != findingID("h", "r", &b) {
		t.Error("two workers that saw one event name it differently")
	}
	for name, other := range map[string]ocsf.Event{
		"process": launchEvent("/bin/echo", "echo marker", "boot-8-1"),
		"command": launchEvent("/bin/echo", "echo marker 2", "boot-7-1"),
		"program": launchEvent("/bin/printf", "echo marker", "boot-7-1"),
	} {
		if findingID("h", "r", &a) == findingID("h", "r", &other) {
			t.Errorf("another %s has the same id", name)
		}
	}
	if findingID("h", "r", &a) == findingID("h2", "r", &a) || findingID("h", "r", &a) == findingID("h", "r2", &a) {
		t.Error("another host or rule has the same id")
	}
}

func TestARuleThatFindsTooMuchIsSuspendedAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []ocsf.Event
		for i := range 1000 {
			events = append(events, launchEvent("/bin/echo", "marker", fmt.Sprint("u", i)))
		}
		events = append(events, launchEvent("/bin/other", "x", "last"))
		l, found, _ := newLoop(t, &script{events: events}, 2000, oneRule, otherRule)
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if err := l.run(ctx); err != nil {
			t.Fatal(err)
		}
		close(found)
		by := map[string]int{}
		for f := range found {
			by[f.Title]++
		}
		if by["Marker"] != DefaultBudget.Burst || by["Other"] != 1 {
			t.Errorf("found %v", by)
		}
		list := *l.counters.Suspended.Load()
		if len(list) != 1 || list[0].Rule != "6f0f4a55-4d07-4b43-9a3c-8d5a4f6d2a01" || list[0].Reason == "" {
			t.Errorf("suspended %v", list)
		}
	})
}

func TestFindingsThatFindNoRoomAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []ocsf.Event
		for i := range 20 {
			events = append(events, launchEvent("/bin/echo", "marker", fmt.Sprint("u", i)))
		}
		l, found, _ := newLoop(t, &script{events: events}, 5, oneRule)
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if err := l.run(ctx); err != nil {
			t.Fatal(err)
		}
		if len(found) != 5 || l.counters.Lost.Load() != 15 {
			t.Errorf("%d kept, %d counted as lost", len(found), l.counters.Lost.Load())
		}
	})
}

func TestASensorThatFailsEndsTheWorker(t *testing.T) {
	broken := errors.New("broken")
	l, _, _ := newLoop(t, &script{fail: broken}, 1, oneRule)
	if err := l.run(t.Context()); !errors.Is(err, broken) {
		t.Errorf("err %v", err)
	}
}

func TestBudgetProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := budgets{budget: Budget{Burst: rapid.IntRange(1, 50).Draw(t, "burst"), PerMinute: rapid.IntRange(0, 60).Draw(t, "rate")}}
		rule, start := &detect.Rule{}, time.Unix(0, 0)
		now, spent := start, 0
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(-1000, 30_000).Draw(t, "ms")) * time.Millisecond)
			if b.spend(rule, now) {
				spent++
			}
			span := max(now.Sub(start).Minutes()+float64(300)/60, 0) // clocks may step back a second each
			if limit := float64(b.budget.Burst) + span*float64(b.budget.PerMinute) + 1; float64(spent) > limit {
				t.Fatalf("never more than the budget: %d in %v, limit %.1f", spent, now.Sub(start), limit)
			}
		}
	})
}

// BenchmarkLoop is what one ordinary event costs the loop, the sensor aside.
func BenchmarkLoop(b *testing.B) {
	e := launchEvent("/bin/true", "true", "u")
	l, _, _ := newLoop(b, &script{}, 1, oneRule, otherRule)
	l.sink = l.match
	b.ReportAllocs()
	for b.Loop() {
		l.evaluator.Evaluate(&e, l.sink)
	}
}
