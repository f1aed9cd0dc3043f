package worker

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/lifeline"
	"github.com/holdfast-security/holdfast/internal/language/bundle"
)

var quiet = slog.New(slog.DiscardHandler)

// guardEnd is the other end of a worker's lifeline, played by the test.
type guardEnd struct {
	reports *lifeline.Reader
	orders  io.WriteCloser
}

func lifelines(t *testing.T) (*lifeline.Worker, guardEnd) {
	t.Helper()
	in, reports, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	orders, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, f := range []*os.File{in, reports, orders, out} {
			f.Close()
		}
	})
	return lifeline.NewWorker(orders, reports), guardEnd{lifeline.NewReader(in), out}
}

// await reads reports until one is of the kind.
func (g guardEnd) await(t *testing.T, kind lifeline.ReportKind) lifeline.Report {
	t.Helper()
	for range 10_000 {
		r, err := g.reports.Report()
		if err != nil {
			t.Fatalf("waiting for %s: %v", kind, err)
		}
		if r.Kind == kind {
			return r
		}
	}
	t.Fatalf("no %s in ten thousand reports", kind)
	return lifeline.Report{}
}

func rulesBundle(t *testing.T, state string, rules ...string) holdfast.Digest {
	t.Helper()
	b := bundle.Bundle{Header: bundle.Header{Schema: 1, Channel: holdfast.Rules, Name: "t", Version: "1"}, Files: map[string][]byte{}}
	for i, r := range rules {
		b.Files[fmt.Sprintf("rules/%d.yml", i)] = []byte(r)
	}
	data, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	d := holdfast.DigestOf(data)
	if err := os.MkdirAll(filepath.Join(state, "content"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(contentFile(state, d), data, 0o600); err != nil {
		t.Fatal(err)
	}
	return d
}

func config(t *testing.T) Config {
	t.Helper()
	state := t.TempDir()
	events := filepath.Join(state, "events.jsonl")
	if err := os.WriteFile(events, []byte(`{"Image":"/usr/bin/echo","CommandLine":"echo marker","ParentImage":"/usr/bin/bash"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := parseConfig("agent.json", fmt.Appendf(nil, `{"state": %q, "sensor": "replay", "replay": {"file": %q}, "heartbeat": "200ms"}`, state, events))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestWorkerEvaluatesProvesItselfAndHandsOver(t *testing.T) {
	c := config(t)
	d := rulesBundle(t, c.State, oneRule)
	worker, guard := lifelines(t)
	ended := make(chan error, 1)
	go func() {
		ended <- Run(t.Context(), Options{Config: c, Generation: holdfast.Generation{holdfast.Rules: d}, Guard: worker, Log: quiet})
	}()
	guard.await(t, lifeline.Ready)
	for enough := false; !enough; { // a host that is idle but for one event
		beat := guard.await(t, lifeline.Beat)
		if beat.Contact != lifeline.NoContact {
			t.Fatalf("without a server it says of contact %q", beat.Contact)
		}
		enough = beat.Evaluated >= 1000
	}
	if err := lifeline.WriteOrder(guard.orders, lifeline.Order{Kind: lifeline.Drain}); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("a drained worker ends with %v", err)
	}
	// There is no identity and no server: the finding waits on disk.
	segments, err := filepath.Glob(filepath.Join(c.State, "queue", "*"))
	if err != nil {
		t.Fatal(err)
	}
	queued := ""
	for _, s := range segments {
		b, err := os.ReadFile(s)
		if err != nil {
			t.Fatal(err)
		}
		queued += string(b)
	}
	if !strings.Contains(queued, "echo marker") {
		t.Errorf("the finding is not on disk after the hand-over: %d files", len(segments))
	}
}

func TestWorkerEndsWhenItsGuardIsGone(t *testing.T) {
	c := config(t)
	worker, guard := lifelines(t)
	ended := make(chan error, 1)
	go func() { ended <- Run(t.Context(), Options{Config: c, Guard: worker, Log: quiet}) }()
	guard.await(t, lifeline.Ready)
	guard.orders.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestSafeModeNeedsNoContentAndNoSensor(t *testing.T) {
	c := config(t)
	c.Replay.File = "/nowhere" // a sensor that cannot open
	worker, guard := lifelines(t)
	ended := make(chan error, 1)
	generation := holdfast.Generation{holdfast.Rules: holdfast.DigestOf([]byte("not there"))}
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		ended <- Run(ctx, Options{Config: c, Generation: generation, Safe: true, Guard: worker, Log: quiet})
	}()
	guard.await(t, lifeline.Ready)
	guard.await(t, lifeline.Beat)
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestContentThatIsNotWhatItsNameSaysIsNotRun(t *testing.T) {
	c := config(t)
	d := rulesBundle(t, c.State, oneRule)
	if err := os.WriteFile(contentFile(c.State, d), []byte("something else"), 0o600); err != nil {
		t.Fatal(err)
	}
	worker, _ := lifelines(t)
	err := Run(t.Context(), Options{Config: c, Generation: holdfast.Generation{holdfast.Rules: d}, Guard: worker, Log: quiet})
	if holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("err %v", err)
	}
}

func TestTestLoadNamesRuleFileAndField(t *testing.T) {
	state := t.TempDir()
	if err := TestLoad(contentFile(state, rulesBundle(t, state, oneRule, otherRule))); err != nil {
		t.Error(err)
	}
	bad := strings.Replace(otherRule, "Image|endswith", "Colour|endswith", 1)
	err := TestLoad(contentFile(state, rulesBundle(t, state, oneRule, bad)))
	if holdfast.KindOf(err) != holdfast.Invalid || !strings.Contains(err.Error(), "rules/1.yml:") || !strings.Contains(err.Error(), "Colour") {
		t.Errorf("err %v", err)
	}
	file := filepath.Join(state, "garbage")
	if err := os.WriteFile(file, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, state, filepath.Join(state, "missing")} {
		if TestLoad(path) == nil {
			t.Errorf("%s loads", path)
		}
	}
}

func TestReportIsTheGuardsWordAndOurCounters(t *testing.T) {
	counters := &Counters{}
	counters.Events.Store(7)
	counters.Dropped.Store(2)
	counters.Lost.Store(1)
	a, b := holdfast.DigestOf([]byte("a")), holdfast.DigestOf([]byte("b"))
	s := &state{running: holdfast.Generation{holdfast.Rules: b}, counters: counters, queue: func() uint64 { return 4 }}
	now := time.Unix(1000, 0)

	if r := s.report(now); !r.Running.Equal(s.running) || r.Events != 7 || r.EventsDropped != 2 || r.FindingsDropped != 5 {
		t.Errorf("without a guard: %+v", r)
	}
	s.tell(lifeline.Status{Running: holdfast.Generation{holdfast.Rules: a}, Crashes: 3, Reason: "crash"})
	if r := s.report(now); r.Running[holdfast.Rules] != a || r.Crashes != 3 || r.Reason != "crash" {
		t.Errorf("with a guard: %+v", r)
	}
	s.refuse("refused: too early")
	if r := s.report(now); r.Reason != "refused: too early" {
		t.Errorf("a refusal is not reported: %+v", r)
	}
	s.accepted()
	if r := s.report(now); r.Reason != "crash" {
		t.Errorf("an old refusal is reported: %+v", r)
	}
}

func TestNothingIsSweptInTimesOfChange(t *testing.T) {
	a, b, c, d := holdfast.DigestOf([]byte("a")), holdfast.DigestOf([]byte("b")), holdfast.DigestOf([]byte("c")), holdfast.DigestOf([]byte("d"))
	s := &state{running: holdfast.Generation{holdfast.Rules: a}}
	if _, ok := s.keep(); ok {
		t.Error("swept before the guard has spoken")
	}
	for _, st := range []lifeline.Status{{Probation: true}, {Starting: holdfast.Generation{holdfast.Rules: b}}} {
		s.tell(st)
		if _, ok := s.keep(); ok {
			t.Errorf("swept during %+v", st)
		}
	}
	s.tell(lifeline.Status{Running: holdfast.Generation{holdfast.Rules: a}, Previous: holdfast.Generation{holdfast.Rules: b}, Keep: []holdfast.Digest{c}, Attempted: holdfast.Generation{holdfast.Rules: d}})
	keep, ok := s.keep()
	if !ok {
		t.Fatal("never swept")
	}
	kept := map[holdfast.Digest]bool{}
	for _, k := range keep {
		kept[k] = true
	}
	for _, want := range []holdfast.Digest{a, b, c, d} {
		if !kept[want] {
			t.Errorf("%s would be swept", want.Short())
		}
	}
}
