package worker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/lifeline"
	"github.com/holdfast-security/holdfast/internal/language/detect"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
)

// threeMarkers is oneRule, counted.
const threeMarkers = `
title: Three markers
id: 6f0f4a55-4d07-4b43-9a3c-8d5a4f6d2a03
level: high
correlation:
  type: event_count
  rules: [6f0f4a55-4d07-4b43-9a3c-8d5a4f6d2a01]
  group-by: [User]
  timespan: 1h
  condition: {gte: 3}
`

// childConfig names the configuration of a worker that TestMain runs instead of
// tests, so that a test can kill it.
const childConfig = "HOLDFAST_TEST_WORKER"

func TestMain(m *testing.M) {
	config := os.Getenv(childConfig)
	if config == "" {
		os.Exit(m.Run())
	}
	c, err := ReadConfig(config)
	if err == nil {
		var g holdfast.Generation
		var guard *lifeline.Worker
		if g, err = ParseGeneration(os.Getenv(childConfig + "_GENERATION")); err == nil {
			if guard, err = lifeline.Open(); err == nil {
				err = Run(context.Background(), Options{Config: c, Generation: g, Guard: guard, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
			}
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// markers makes a host whose sensor tells n events of one user that oneRule
// matches.
func markers(t *testing.T, state string, n int) Config {
	t.Helper()
	events := filepath.Join(state, "events.jsonl")
	line := `{"Image":"/usr/bin/echo","CommandLine":"echo marker","User":"ann","ParentImage":"/usr/bin/bash"}` + "\n"
	if err := os.WriteFile(events, []byte(strings.Repeat(line, n)), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := parseConfig("agent.json", fmt.Appendf(nil, `{"state": %q, "sensor": "replay", "replay": {"file": %q}, "heartbeat": "200ms"}`, state, events))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// work runs a worker until it has told its events, and drains it. It returns
// what waits for delivery, and what it logged.
func work(t *testing.T, c Config, rules ...string) (queued, said string) {
	t.Helper()
	d := rulesBundle(t, c.State, rules...)
	worker, guard := lifelines(t)
	var log bytes.Buffer
	ended := make(chan error, 1)
	go func() {
		ended <- Run(t.Context(), Options{Config: c, Generation: holdfast.Generation{holdfast.Rules: d}, Guard: worker, Log: slog.New(slog.NewTextHandler(&log, nil))})
	}()
	guard.await(t, lifeline.Ready)
	for guard.await(t, lifeline.Beat).Evaluated < 1000 {
	}
	if err := lifeline.WriteOrder(guard.orders, lifeline.Order{Kind: lifeline.Drain}); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatalf("a drained worker ends with %v", err)
	}
	segments, err := filepath.Glob(filepath.Join(c.State, "queue", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range segments {
		b, err := os.ReadFile(s)
		if err != nil {
			t.Fatal(err)
		}
		queued += string(b)
	}
	return queued, log.String()
}

func TestCountsSurviveRestartsAndAChangeOfContent(t *testing.T) {
	state := t.TempDir()
	for n, rules := range [][]string{{oneRule, threeMarkers}, {oneRule, threeMarkers}, {otherRule, oneRule, threeMarkers}} {
		queued, said := work(t, markers(t, state, 1), rules...)
		if fired := strings.Contains(queued, "Three markers"); fired != (n == 2) {
			t.Errorf("after worker %d of three, each of which saw one marker: fired %v\n%s", n+1, fired, said)
		}
		info, err := os.Stat(countsFile(state))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("what was counted is not on disk for this user alone: %v %v", info, err)
		}
	}
}

func TestCountsSurviveAKill(t *testing.T) {
	state := t.TempDir()
	c := markers(t, state, 2)
	d := rulesBundle(t, state, oneRule, threeMarkers)
	file := filepath.Join(state, "agent.json")
	config := fmt.Appendf(nil, `{"state": %q, "sensor": "replay", "replay": {"file": %q}, "heartbeat": "200ms"}`, state, c.Replay.File)
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	child := exec.CommandContext(ctx, os.Args[0])
	child.Env = append(os.Environ(), childConfig+"="+file, childConfig+"_GENERATION=rules="+string(d))
	var said bytes.Buffer
	child.Stderr = &said
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() { child.Wait(); close(gone) }()
	empty := len(countsHead("")) + sha256.Size + 100 // no user is counted yet
	for ctx.Err() == nil {
		if info, err := os.Stat(countsFile(state)); err == nil && info.Size() > int64(empty) {
			break
		}
		select {
		case <-gone:
			t.Fatalf("the worker ended by itself: %s", said.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
	child.Process.Kill()
	<-gone
	// The first count is on disk at once; how many more are is the clock's doing.
	queued, log := work(t, markers(t, state, 2), oneRule, threeMarkers)
	if !strings.Contains(queued, "Three markers") {
		t.Errorf("the counts of a worker that was killed are lost\n%s\n%s", said.String(), log)
	}
}

func TestCountsThatCannotBeTrustedAreRefusedAndSaid(t *testing.T) {
	whole := func(host holdfast.HostID, state []byte) []byte {
		b := append(countsHead(host), state...)
		sum := sha256.Sum256(b)
		return append(b, sum[:]...)
	}
	put := func(b []byte) func(*testing.T, string) {
		return func(t *testing.T, file string) {
			if err := replaceFile(file, b); err != nil {
				t.Fatal(err)
			}
		}
	}
	flip := whole("", []byte{2, 1, 2, 3})
	flip[len(countsHead(""))]++
	for name, c := range map[string]struct {
		put  func(*testing.T, string)
		said string
	}{
		"empty":              {put(nil), "knows no such format"},
		"something else":     {put([]byte("{}\n" + strings.Repeat("x", 100))), "knows no such format"},
		"a flipped bit":      {put(flip), "they are damaged"},
		"cut short":          {put(whole("", make([]byte, 100))[:80]), "they are damaged"},
		"another host":       {put(whole("h-2", []byte{2})), "they are of another host"},
		"an older version":   {put(whole("", make([]byte, 30))), "not of this version"},
		"sealed, but broken": {put(whole("", append([]byte{2}, bytes.Repeat([]byte{0xff}, 40)...))), "cannot be read"},
		"too large":          {put(make([]byte, maxCounts+maxHead+1)), "more than any worker writes"},
		"written by others": {func(t *testing.T, file string) {
			put(whole("", []byte{2}))(t, file)
			if err := os.Chmod(file, 0o620); err != nil {
				t.Fatal(err)
			}
		}, "others than the agent"},
		"a link": {func(t *testing.T, file string) {
			put(nil)(t, file+".real")
			if err := os.Symlink(file+".real", file); err != nil {
				t.Fatal(err)
			}
		}, "this is not a file"},
	} {
		t.Run(name, func(t *testing.T) {
			state := t.TempDir()
			c.put(t, countsFile(state))
			var log bytes.Buffer
			v := engine(t, oneRule, threeMarkers).NewEvaluator()
			restoreCounts(v, countsFile(state), "", slog.New(slog.NewTextHandler(&log, nil)))
			if said := log.String(); !strings.Contains(said, c.said) || !strings.Contains(said, "correlations start anew") {
				t.Errorf("want %q, said:\n%s", c.said, said)
			}
			fired := 0
			for range 3 {
				ev := launchEvent("/bin/echo", "marker", "u")
				ev.Values[ocsf.ProcessUserName] = ocsf.StringValue("ann")
				v.Evaluate(&ev, func(m *detect.Match) { fired++ })
			}
			if fired != 1 {
				t.Errorf("counted from scratch, three markers fired %d times", fired)
			}
			if _, err := os.Lstat(countsFile(state)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("what was refused is still there: %v", err)
			}
		})
	}
}

// What is on disk when the guard says that something changes is what the next
// worker counts on from, whatever the time.
func TestCountsAreSavedWhenTheGuardSpeaks(t *testing.T) {
	e := engine(t, oneRule, threeMarkers)
	file := countsFile(t.TempDir())
	k := newKeeper(file, "h", quiet)
	v, now := e.NewEvaluator(), time.Unix(1000, 0)
	saved := func() int {
		k.free <- <-k.free // what was handed over is on disk
		b, err := takeCounts(file, "h")
		if errors.Is(err, fs.ErrNotExist) {
			return -1
		}
		if err != nil {
			t.Fatal(err)
		}
		r, err := e.NewEvaluator().Restore(b, now)
		if err != nil {
			t.Fatal(err)
		}
		return r.Groups
	}
	step := func(what string, want int) {
		t.Helper()
		k.look(v, now)
		if got := saved(); got != want {
			t.Errorf("%s: %d groups on disk, want %d (-1: none saved)", what, got, want)
		}
	}
	count := func(user string) {
		ev := launchEvent("/bin/echo", "marker", user)
		ev.Time, ev.Values[ocsf.ProcessUserName] = now, ocsf.StringValue(user)
		v.Evaluate(&ev, func(*detect.Match) {})
	}
	step("what was taken goes back", 0)
	step("nothing was counted", -1)
	count("ann")
	step("the first count", 1)
	count("bob")
	step("another, too soon", -1)
	k.asked.Store(true)
	step("the guard spoke", 2)
	count("eve")
	now = now.Add(countsEvery)
	step("it is time", 3)
	count("joe")
	k.close(v)
	if b, err := takeCounts(file, "h"); err != nil || len(b) == 0 {
		t.Errorf("the end saves nothing: %v", err)
	}
}
