package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/edge/otlp"
	"github.com/holdfast-security/holdfast/internal/endpoint/outbox"
	"github.com/holdfast-security/holdfast/internal/wire"
)

func finding(n int) holdfast.Finding {
	return holdfast.Finding{ID: fmt.Sprintf("f%05d", n), Rule: "r", Severity: "high", At: time.Unix(1e9, 0)}
}

// receiver is a server that can be away, and that stores by id.
type receiver struct {
	mu    sync.Mutex
	away  error
	never map[string]bool // ids that make it refuse the batch for good
	after time.Duration
	got   map[string]int
	calls []time.Time
}

func (r *receiver) deliver(_ context.Context, records [][]byte) (int, time.Duration, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, time.Now())
	if r.away != nil {
		return 0, r.after, r.away
	}
	found, rejected, _, err := wire.Findings(wire.ExportRequest(holdfast.Attributes{}, records))
	if err != nil {
		return 0, 0, err
	}
	for _, f := range found {
		if r.never[f.ID] {
			return 0, 0, holdfast.Errorf(holdfast.Invalid, "not this one")
		}
	}
	for _, f := range found {
		r.got[f.ID]++
	}
	return rejected, 0, nil
}

func (r *receiver) set(err error, after time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.away, r.after = err, after
}

func (r *receiver) has() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.got)
}

func run(o *outbox.Outbox) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	return func() error {
		cancel()
		return <-done
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestServerAwayForAnHourLosesNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{got: map[string]int{}}
		r.set(holdfast.Errorf(holdfast.Unavailable, "away"), 0)
		o := outbox.New(outbox.Config{Dir: t.TempDir(), Deliver: r.deliver, Log: quiet(), SegmentBytes: 4 << 10})
		stop := run(o)
		const n = 600
		for i := range n {
			if err := o.Put(finding(i)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(6 * time.Second)
		}
		if s := o.Stats(); s.Queued != n || s.Since.IsZero() || s.Err == nil {
			t.Errorf("while the server is away: %+v", s)
		}
		r.set(nil, 0)
		time.Sleep(5 * time.Minute)
		if r.has() != n {
			t.Errorf("%d of %d arrived", r.has(), n)
		}
		if s := o.Stats(); s.Queued != 0 || s.Dropped != 0 || s.Delivered != n || s.Err != nil || !s.Since.IsZero() {
			t.Errorf("after the server came back: %+v", s)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		// It was asked seldom while it was away: 600 findings, an hour, at most a
		// minute between attempts.
		if calls := len(r.calls); calls > 250 {
			t.Errorf("%d attempts in an hour", calls)
		}
	})
}

func TestRetryAfterIsHonoured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{got: map[string]int{}}
		r.set(holdfast.Errorf(holdfast.Unavailable, "too many"), 10*time.Minute)
		o := outbox.New(outbox.Config{Dir: t.TempDir(), Deliver: r.deliver, Log: quiet()})
		stop := run(o)
		for i := range 5 {
			if err := o.Put(finding(i)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		time.Sleep(9 * time.Minute)
		if len(r.calls) != 1 {
			t.Errorf("asked %d times in the ten minutes it was told to wait", len(r.calls))
		}
		r.set(nil, 0)
		time.Sleep(5 * time.Minute)
		if r.has() != 5 {
			t.Errorf("%d of 5 arrived", r.has())
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestAFindingTheServerNeverTakesDoesNotHoldUpTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{got: map[string]int{}, never: map[string]bool{"f00003": true, "f00017": true}}
		o := outbox.New(outbox.Config{Dir: t.TempDir(), Deliver: r.deliver, Log: quiet()})
		for i := range 40 {
			if err := o.Put(finding(i)); err != nil {
				t.Fatal(err)
			}
		}
		stop := run(o)
		time.Sleep(time.Minute)
		if s := o.Stats(); s.Refused != 2 || s.Delivered != 38 || s.Queued != 0 || r.has() != 38 {
			t.Errorf("%+v, %d arrived", s, r.has())
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestFullQueueDropsTheOldestAndCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{got: map[string]int{}}
		r.set(errors.New("away"), 0)
		o := outbox.New(outbox.Config{Dir: t.TempDir(), Deliver: r.deliver, Log: quiet(), MaxBytes: 64 << 10, SegmentBytes: 8 << 10})
		stop := run(o)
		time.Sleep(time.Second)
		const n = 500
		for i := range n {
			if err := o.Put(finding(i)); err != nil {
				t.Fatal(err)
			}
		}
		s := o.Stats()
		if s.Dropped == 0 || s.Queued+int(s.Dropped) != n || s.Bytes > 72<<10 {
			t.Errorf("%+v", s)
		}
		r.set(nil, 0)
		time.Sleep(5 * time.Minute)
		if r.has() != n-int(s.Dropped) || r.got[finding(n-1).ID] == 0 || r.got[finding(0).ID] != 0 {
			t.Errorf("%d arrived; the newest must be among them, the oldest not", r.has())
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// A new worker starts beside the old one and takes over when it lets go.
// Nothing that either found is lost, and one delivers at a time.
func TestHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		r := &receiver{got: map[string]int{}}
		r.set(errors.New("away"), 0)
		older := outbox.New(outbox.Config{Dir: dir, Deliver: r.deliver, Log: quiet()})
		stopOlder := run(older)
		time.Sleep(time.Second)
		newer := outbox.New(outbox.Config{Dir: dir, Deliver: r.deliver, Log: quiet()})
		stopNewer := run(newer)
		for i := range 10 {
			if err := errors.Join(older.Put(finding(i)), newer.Put(finding(i+5))); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		if !older.Stats().Owner || newer.Stats().Owner {
			t.Fatal("two own the queue, or none")
		}
		if err := stopOlder(); err != nil {
			t.Fatal(err)
		}
		if older.Put(finding(99)) == nil || older.Stats().Dropped != 1 {
			t.Error("a finding after letting go is neither refused nor counted")
		}
		r.set(nil, 0)
		time.Sleep(5 * time.Minute)
		if r.has() != 15 || !newer.Stats().Owner || newer.Stats().Queued != 0 {
			t.Errorf("%d of 15 arrived; %+v", r.has(), newer.Stats())
		}
		if err := stopNewer(); err != nil {
			t.Error(err)
		}
	})
}

func TestMemoryIsBoundedWhileAnotherOwnsTheQueue(t *testing.T) {
	o := outbox.New(outbox.Config{Dir: t.TempDir(), Log: quiet(), MemoryBytes: 10 << 10})
	for i := range 100 {
		if err := o.Put(finding(i)); err != nil {
			t.Fatal(err)
		}
	}
	if s := o.Stats(); s.Bytes > 10<<10 || s.Dropped == 0 || s.Queued+int(s.Dropped) != 100 {
		t.Errorf("%+v", s)
	}
}

// sink stores by id, and fails when told: in pairs, before and after storing.
type sink struct {
	mu    sync.Mutex
	fault string
	kept  map[string]holdfast.Finding
}

func (s *sink) AddFindings(_ context.Context, host holdfast.HostID, found []holdfast.Finding) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault == "failed, not done" {
		s.fault = "failed, but done"
		return 0, errors.New("disk full")
	}
	added := 0
	for _, f := range found {
		if _, ok := s.kept[f.ID]; !ok {
			added++
			s.kept[f.ID] = f
		}
	}
	if s.fault == "failed, but done" {
		s.fault = ""
		return 0, errors.New("connection to the database lost")
	}
	return added, nil
}

// Over real HTTP, with a store that fails before and after storing.
func TestOverHTTP(t *testing.T) {
	s := &sink{kept: map[string]holdfast.Finding{}, fault: "failed, not done"}
	identify := func(*http.Request) (holdfast.HostID, error) { return "host-1", nil }
	server := httptest.NewServer(otlp.New(s, identify, time.Now, quiet()))
	defer server.Close()
	post := outbox.Post(server.Client(), server.URL, func() holdfast.Attributes { return holdfast.Attributes{Hostname: "web-1"} })
	dir := t.TempDir()
	o := outbox.New(outbox.Config{Dir: dir, Log: quiet(), Deliver: func(ctx context.Context, records [][]byte) (int, time.Duration, error) {
		refused, _, err := post(ctx, records) // without waiting as long as the server asks for
		return refused, 0, err
	}})
	const n = 2500
	for i := range n {
		if err := o.Put(finding(i)); err != nil {
			t.Fatal(err)
		}
	}
	stop := run(o)
	for range 600 {
		if o.Stats().Delivered == n {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if len(s.kept) != n || o.Stats().Delivered != n {
		t.Fatalf("%d of %d stored; %+v", len(s.kept), n, o.Stats())
	}
	var hosts []holdfast.HostID
	for _, f := range s.kept {
		if f.Received.IsZero() {
			t.Error("a finding does not say when it was received")
		}
		hosts = append(hosts, f.Host)
	}
	if slices.Sort(hosts); hosts[0] != "host-1" || hosts[n-1] != "host-1" {
		t.Errorf("findings of %s and %s", hosts[0], hosts[n-1])
	}
}
