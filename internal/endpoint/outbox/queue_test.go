package outbox

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// faulty is a disk in memory that counts its steps, fails one of them, and can
// lose power. Faults come in pairs: a step that failed and was not done, and
// one that failed but was done (in part, for a write).
type faulty struct {
	files map[string]*content
	step  int
	fail  int // the step that fails; 0: none
	done  bool
	cut   bool // the machine stops at that step: every later one fails too
}

type content struct {
	b      []byte
	synced int // bytes that survive losing power
	named  bool
}

var errFault = errors.New("disk fault")

// next counts a step, and says whether it fails and whether it is done
// nevertheless.
func (f *faulty) next() (fails, done bool) {
	f.step++
	switch {
	case f.fail != 0 && f.step == f.fail:
		return true, f.done
	case f.fail != 0 && f.cut && f.step > f.fail:
		return true, false
	}
	return false, true
}

func (f *faulty) List() ([]string, error) {
	if fails, _ := f.next(); fails {
		return nil, errFault
	}
	var names []string
	for name := range f.files {
		names = append(names, name)
	}
	return names, nil
}

func (f *faulty) Create(name string) (segment, error) {
	fails, done := f.next()
	if done {
		if f.files[name] != nil {
			return nil, errors.New("exists")
		}
		f.files[name] = &content{}
	}
	if fails {
		return nil, errFault
	}
	return &handle{disk: f, c: f.files[name]}, nil
}

func (f *faulty) Read(name string) ([]byte, error) {
	if fails, _ := f.next(); fails {
		return nil, errFault
	}
	c := f.files[name]
	if c == nil {
		return nil, os.ErrNotExist
	}
	return slices.Clone(c.b), nil
}

func (f *faulty) Remove(name string) error {
	fails, done := f.next()
	if done {
		delete(f.files, name)
	}
	if fails {
		return errFault
	}
	return nil
}

type handle struct {
	disk *faulty
	c    *content
}

func (h *handle) Write(b []byte) (int, error) {
	fails, done := h.disk.next()
	switch {
	case !fails:
		h.c.b = append(h.c.b, b...)
		return len(b), nil
	case done:
		h.c.b = append(h.c.b, b[:len(b)/2]...)
		return len(b) / 2, errFault
	}
	return 0, errFault
}

func (h *handle) Sync() error {
	fails, done := h.disk.next()
	if done {
		h.c.synced, h.c.named = len(h.c.b), true
	}
	if fails {
		return errFault
	}
	return nil
}

func (h *handle) Close() error {
	if fails, _ := h.disk.next(); fails {
		return errFault
	}
	return nil
}

// restart is the disk after the process died, or, with power true, after the
// machine did: what was not synced is gone, but for keep bytes of each file.
func (f *faulty) restart(power bool, keep int) *faulty {
	n := &faulty{files: map[string]*content{}}
	for name, c := range f.files {
		b := c.b
		if power {
			if !c.named {
				continue
			}
			b = b[:min(len(b), c.synced+keep)]
		}
		n.files[name] = &content{b: slices.Clone(b), synced: len(b), named: true}
	}
	return n
}

// drain delivers everything in the queue.
func drain(t interface{ Fatalf(string, ...any) }, q *queue) []string {
	var got []string
	for range 10_000 {
		number, all, ok, err := q.oldest()
		if err != nil {
			continue // as the outbox does, after a pause
		}
		if !ok {
			return got
		}
		for _, r := range all {
			got = append(got, string(r))
		}
		_ = q.remove(number) // if it fails, the queue remembers
	}
	t.Fatalf("the queue never empties")
	return nil
}

// Whatever is put comes out once, in order, or is counted as dropped; the
// queue keeps within its bound.
func TestFirstInFirstOutWithinTheBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const maxBytes, segBytes = 2000, 500
		q, err := openQueue(&faulty{files: map[string]*content{}}, maxBytes, segBytes)
		if err != nil {
			t.Fatalf("%v", err)
		}
		var got []string
		n := 0
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0:
				number, all, ok, err := q.oldest()
				if err != nil {
					t.Fatalf("%v", err)
				}
				if ok {
					for _, r := range all {
						got = append(got, string(r))
					}
					if err := q.remove(number); err != nil {
						t.Fatalf("%v", err)
					}
				}
			default:
				r := fmt.Appendf(nil, "%06d", n)
				r = append(r, make([]byte, rapid.IntRange(0, 300).Draw(t, "size"))...)
				n++
				if err := q.put(r); err != nil {
					t.Fatalf("%v", err)
				}
				if q.bytes > maxBytes+segBytes {
					t.Fatalf("%d bytes in a queue of %d", q.bytes, maxBytes)
				}
			}
		}
		got = append(got, drain(t, q)...)
		if !slices.IsSorted(got) {
			t.Fatalf("out of order: %q", got)
		}
		if len(slices.Compact(slices.Clone(got))) != len(got) {
			t.Fatalf("delivered twice: %q", got)
		}
		if uint64(len(got))+q.counts.Dropped != uint64(n) {
			t.Fatalf("%d put, %d came out, %d counted as dropped", n, len(got), q.counts.Dropped)
		}
	})
}

// The process dies, or the machine loses power, at every step of the disk, in
// both ways a step can fail. What was put is then still there if the process
// died, and what was synced if the machine did; nothing is invented.
func TestCrashAtEachStep(t *testing.T) {
	story := func(q *queue) (put, synced []string) {
		for i := range 12 {
			r := fmt.Sprintf("%03d %s", i, make([]byte, 60))
			if q.put([]byte(r)) == nil {
				put = append(put, r)
			}
			if i%3 == 2 && q.sync() == nil {
				synced = slices.Clone(put)
			}
			if i == 7 { // one segment is delivered
				if number, all, ok, err := q.oldest(); err == nil && ok {
					for _, r := range all {
						put = slices.DeleteFunc(put, func(s string) bool { return s == string(r) })
						synced = slices.DeleteFunc(synced, func(s string) bool { return s == string(r) })
					}
					_ = q.remove(number) // delivered whether it can be removed or not
				}
			}
		}
		return put, synced
	}
	dry := &faulty{files: map[string]*content{}}
	q, err := openQueue(dry, 1<<20, 300)
	if err != nil {
		t.Fatal(err)
	}
	story(q)
	if dry.step < 20 {
		t.Fatalf("the story has only %d steps", dry.step)
	}
	for step := 2; step <= dry.step; step++ { // the first is List, without which there is no queue
		for _, done := range []bool{false, true} {
			for _, power := range []bool{false, true} {
				for _, keep := range []int{0, 5, 1000} {
					d := &faulty{files: map[string]*content{}, fail: step, done: done, cut: true}
					q, err := openQueue(d, 1<<20, 300)
					if err != nil {
						t.Fatal(err)
					}
					put, synced := story(q)
					again, err := openQueue(d.restart(power, keep), 1<<20, 300)
					if err != nil {
						t.Fatalf("step %d: the queue cannot be opened again: %v", step, err)
					}
					got := drain(t, again)
					must := put
					if power {
						must = synced
					}
					for _, r := range must {
						if !slices.Contains(got, r) {
							t.Errorf("step %d, done %v, power %v, keep %d: %q is lost", step, done, power, keep, r[:3])
						}
					}
					for _, r := range got {
						if len(r) != 64 {
							t.Errorf("step %d: %q was never put", step, r)
						}
					}
					// And it goes on working.
					if err := again.put([]byte("after")); err != nil {
						t.Errorf("step %d: after the restart: %v", step, err)
					}
				}
			}
		}
	}
}

// A disk that fails once (full, say) and then works loses at most what it
// counts.
func TestEachFaultAloneLosesOnlyWhatIsCounted(t *testing.T) {
	for step := 2; step < 60; step++ {
		for _, done := range []bool{false, true} {
			d := &faulty{files: map[string]*content{}, fail: step, done: done}
			q, err := openQueue(d, 1<<20, 300)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			failed := 0
			const n = 20
			for i := range n {
				if q.put(fmt.Appendf(nil, "%03d%s", i, make([]byte, 60))) != nil {
					failed++
				}
				_ = q.sync() // its failure is the fault under test
				if i%6 == 5 {
					if number, all, ok, err := q.oldest(); err == nil && ok {
						for _, r := range all {
							got = append(got, string(r[:3]))
						}
						_ = q.remove(number) // delivered whether it can be removed or not
					}
				}
			}
			for _, r := range drain(t, q) {
				got = append(got, r[:3])
			}
			slices.Sort(got)
			if len(slices.Compact(slices.Clone(got))) != len(got) {
				t.Errorf("step %d, done %v: delivered twice: %q", step, done, got)
			}
			if missing := n - len(got); uint64(missing) > q.counts.Dropped {
				t.Errorf("step %d, done %v: %d are missing, %d counted as dropped, %d refused", step, done, missing, q.counts.Dropped, failed)
			}
		}
	}
}

func FuzzSegment(f *testing.F) {
	var b []byte
	for _, r := range []string{"a", "bb", "ccc"} {
		b = appendRecord(b, []byte(r))
	}
	f.Add(b)
	f.Add(b[:len(b)-1])
	f.Add(make([]byte, 64))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		all, torn := records(b)
		if torn < 0 || torn > len(b) {
			t.Fatalf("%d bytes torn of %d", torn, len(b))
		}
		var again []byte
		for _, r := range all {
			again = appendRecord(again, r)
		}
		if string(again) != string(b[:len(b)-torn]) {
			t.Fatal("what was read is not what stands there")
		}
	})
}
