package guard

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
)

// faulty is a directory in memory whose steps fail as told. Names reach the
// medium in their order, and for certain only with Sync; bytes with Write.
type faulty struct {
	names   map[string][]byte // what a process sees
	durable map[string][]byte // what is on the medium for certain
	pending []func(map[string][]byte)

	synced bool // by the step that is being done

	at    int // the step that fails, from 0; negative for none
	mode  fault
	steps int
}

type fault int

// Faults come in pairs.
const (
	notDone     fault = iota // an error, and the step was not done
	done                     // an error, but the step was done
	killedBefor              // the host dies before the step
	killedAfter              // … after it
)

var errKilled = errors.New("killed")

func newFaulty() *faulty {
	return &faulty{names: map[string][]byte{}, durable: map[string][]byte{}, at: -1}
}

func (d *faulty) step(do func(map[string][]byte) error) error {
	n := d.steps
	d.steps++
	fails := n == d.at
	if fails && d.mode == killedBefor {
		panic(errKilled)
	}
	if fails && d.mode == notDone {
		return errors.New("input/output error")
	}
	if err := do(d.names); err != nil {
		return err
	}
	if d.synced {
		d.synced = false
	} else {
		d.pending = append(d.pending, func(m map[string][]byte) { _ = do(m) })
	}
	if fails && d.mode == killedAfter {
		panic(errKilled)
	}
	if fails {
		return errors.New("input/output error")
	}
	return nil
}

func (d *faulty) Read(name string, limit int64) ([]byte, error) {
	data, ok := d.names[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	if int64(len(data)) > limit {
		return nil, errors.New("too large")
	}
	return data, nil
}

func (d *faulty) Write(name string, data []byte) error {
	return d.step(func(m map[string][]byte) error {
		m[name] = bytes.Clone(data)
		return nil
	})
}

func (d *faulty) Rename(from, to string) error {
	return d.step(func(m map[string][]byte) error {
		data, ok := m[from]
		if !ok {
			return fs.ErrNotExist
		}
		delete(m, from)
		m[to] = data
		return nil
	})
}

func (d *faulty) Link(from, to string) error {
	return d.step(func(m map[string][]byte) error {
		data, ok := m[from]
		if _, taken := m[to]; !ok || taken {
			return fs.ErrExist
		}
		m[to] = data
		return nil
	})
}

func (d *faulty) Remove(name string) error {
	return d.step(func(m map[string][]byte) error {
		if _, ok := m[name]; !ok {
			return fs.ErrNotExist
		}
		delete(m, name)
		return nil
	})
}

func (d *faulty) Sync() error {
	return d.step(func(map[string][]byte) error {
		d.durable = maps.Clone(d.names)
		d.pending, d.synced = nil, true
		return nil
	})
}

// crashes lists what the medium may hold after the host died: the names that
// were certain, and any number of those that were on their way.
func (d *faulty) crashes() []map[string][]byte {
	out := []map[string][]byte{maps.Clone(d.durable)}
	for i := range d.pending {
		m := maps.Clone(d.durable)
		for _, do := range d.pending[:i+1] {
			do(m)
		}
		out = append(out, m)
	}
	return out
}

// Whatever step of a save fails or is the host's last, what is found afterwards
// is the state before or the state after, whole; and a failed save, tried again,
// succeeds.
func TestASaveKilledAtEveryStepLeavesOneStateOrTheOther(t *testing.T) {
	before, after := Fresh(), Fresh()
	before.Crashes, after.Crashes = 1, 2
	after.Trial = &Trial{Kind: Candidate, Generation: holdfast.Generation{holdfast.Rules: contents[0]}}
	count := 0
	for at := 0; ; at++ {
		reached := false
		for mode := notDone; mode <= killedAfter; mode++ {
			d := newFaulty()
			if err := (store{d}).save(before); err != nil {
				t.Fatal(err)
			}
			d.at, d.mode, d.steps = at, mode, 0
			err := func() (err error) {
				defer func() {
					if r := recover(); r != nil {
						err = r.(error)
					}
				}()
				return store{d}.save(after)
			}()
			reached = reached || d.steps > at
			for i, medium := range d.crashes() {
				s, e := store{&faulty{names: medium, durable: medium, at: -1}}.load(time.Time{})
				if e != nil || s.Crashes != 1 && s.Crashes != 2 || s.Safe != nil {
					t.Fatalf("step %d, fault %d, crash %d: found %+v, %v", at, mode, i, s, e)
				}
				if err == nil && s.Crashes != 2 {
					t.Fatalf("step %d, fault %d, crash %d: saved, and lost", at, mode, i)
				}
				if (s.Trial != nil) != (s.Crashes == 2) {
					t.Fatalf("step %d, fault %d: half of one and half of the other: %+v", at, mode, s)
				}
				count++
			}
			if mode <= done {
				d.at = -1
				if err := (store{d}).save(after); err != nil {
					t.Fatalf("step %d, fault %d: tried again: %v", at, mode, err)
				}
				if s, _ := (store{d}).load(time.Time{}); s.Crashes != 2 {
					t.Fatalf("step %d, fault %d: tried again, and lost", at, mode)
				}
			}
		}
		if !reached {
			t.Logf("%d steps, %d media", at, count)
			return
		}
	}
}

func TestAnUnreadableStateIsSafeModeAndIsKept(t *testing.T) {
	s := Fresh()
	s.Current = holdfast.Generation{holdfast.Rules: contents[0]}
	s.Shuns = []Shun{{Digest: contents[1], Channel: holdfast.Rules, Cause: ByCrash}}
	s.Crashes = 7
	good, err := encode(s)
	if err != nil {
		t.Fatal(err)
	}
	newer := s
	newer.Schema = Schema + 1
	tooNew, _ := encode(newer)
	for name, bad := range map[string][]byte{
		"empty":            {},
		"cut":              good[:len(good)/2],
		"garbage":          bytes.Repeat([]byte{0xff}, 100),
		"a bit fell":       bytes.Replace(good, []byte(`"crashes":7`), []byte(`"crashes":6`), 1),
		"a newer schema":   tooNew,
		"too large":        bytes.Repeat([]byte{' '}, maxState+1),
		"of another shape": []byte(`{"sum":"` + string(holdfast.DigestOf([]byte(`[]`))) + `","state":[]}`),
	} {
		t.Run(name, func(t *testing.T) {
			dir := directory(t.TempDir())
			for range 2 { // the second save leaves a copy of the first
				if err := (store{dir}).save(s); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(dir.at(stateFile), bad, 0o600); err != nil {
				t.Fatal(err)
			}
			now := time.Unix(1_700_000_000, 0)
			got, err := store{dir}.load(now)
			if err == nil || got.Safe == nil || !strings.Contains(got.Reason, "unreadable") {
				t.Fatalf("%+v, %v", got, err)
			}
			if !got.Shunned(contents[1]) || got.Crashes != 7 {
				t.Errorf("what was shunned is lost: %+v", got)
			}
			kept, _ := filepath.Glob(dir.at(badFile + ".*"))
			if len(kept) != 1 {
				t.Fatalf("kept: %v", kept)
			}
			if data, _ := os.ReadFile(kept[0]); !bytes.Equal(data, bad) {
				t.Error("what was kept is not what was there")
			}
		})
	}
}

func TestAStateThatWasTakenAwayIsNotAFreshHost(t *testing.T) {
	dir := directory(t.TempDir())
	if s, err := (store{dir}).load(time.Now()); err != nil || s.Safe != nil {
		t.Fatalf("an empty directory: %+v, %v", s, err)
	}
	for range 2 {
		if err := (store{dir}).save(Fresh()); err != nil {
			t.Fatal(err)
		}
	}
	os.Remove(dir.at(stateFile))
	if s, err := (store{dir}).load(time.Now()); err == nil || s.Safe == nil {
		t.Fatalf("%+v, %v", s, err)
	}
}

// A guard that replaces one of before contact was told of goes on where that one
// was: with a trial under way, shuns, and a way back.
func TestAStateOfVersionOneIsReadWhole(t *testing.T) {
	data, err := os.ReadFile("testdata/state-1.json")
	if err != nil {
		t.Fatal(err)
	}
	s, err := decode(data)
	if err != nil {
		t.Fatal(err)
	}
	if s.Schema != Schema || s.Reached || s.Doubt != nil {
		t.Errorf("read as %+v", s)
	}
	if s.Current[holdfast.Agent] != contents[1] || len(s.Back) != 2 || len(s.Final) != 1 || !s.Shunned(contents[3]) || len(s.Suspects) != 1 || s.Blame == nil || s.Crashes != 2 || s.Activation != "lease" {
		t.Errorf("something is lost: %+v", s)
	}
	if t1 := s.Trial; t1 == nil || !t1.Active || t1.Generation[holdfast.Agent] != contents[2] || t1.Contact != "" {
		t.Fatalf("the trial is %+v", s.Trial)
	}
	next, _ := Decide(testPolicy, s, Event{Kind: Started, Boot: "boot-2"}, s.Trial.Since)
	if g, safe := next.Running(); safe || !g.Equal(s.Current) || !next.Shunned(contents[2]) {
		t.Errorf("after a reboot %v runs: %+v", g, next)
	}
	again, err := encode(next)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decode(again); err != nil {
		t.Error(err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{}`))
	s := Fresh()
	s.Current = holdfast.Generation{holdfast.Rules: contents[0]}
	s.Back = []holdfast.Generation{{}}
	s.Trial = &Trial{Kind: Placebo, Generation: s.Current, Since: time.Unix(0, 0).UTC()}
	s.Safe = &Safe{}
	s.Shuns = []Shun{{Digest: contents[1]}}
	s.Deaths = []time.Time{time.Unix(0, 0).UTC()}
	s.Reached, s.Doubt = true, &Doubt{Kind: Candidate, Channel: holdfast.Agent, Digest: contents[2], ID: "lease", Judged: true, Next: time.Unix(0, 0).UTC()}
	data, _ := encode(s)
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		// The fuzzer cannot guess the digest: decode what it changed as the state.
		for _, d := range [][]byte{data, fmt.Appendf(nil, `{"sum":%q,"state":%s}`, holdfast.DigestOf(data), data)} {
			s, err := decode(d)
			if err != nil {
				continue
			}
			for _, kind := range EventKinds {
				next, _ := Decide(testPolicy, s, Event{Kind: kind, Slot: InTrial, Boot: "b", Contact: "had"}, time.Unix(1e9, 0))
				if _, err := encode(next); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}
