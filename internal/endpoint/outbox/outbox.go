// Package outbox keeps findings on disk until the control plane has stored
// them: whatever ends first (the worker, the network, the server, the
// machine), each finding arrives, at least once.
//
// Findings wait in a bounded queue below one directory. When it is full the
// oldest are dropped, and counted. One process at a time owns the queue: a new
// worker that starts beside the old one keeps its findings in memory, within
// bounds, until the old one lets go.
package outbox

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/wire"
)

// Deliver sends records, in order. On a nil error all of them are stored, or
// refused for good: refused says how many. Errors of kind Invalid mean that
// the server will never take this batch; all others that it may later, and not
// before retryAfter.
type Deliver func(ctx context.Context, records [][]byte) (refused int, retryAfter time.Duration, err error)

// Config is what an Outbox needs. Zero fields from MaxBytes on have defaults.
type Config struct {
	Dir     string
	Deliver Deliver
	Log     *slog.Logger

	MaxBytes     int64         // of the queue on disk: 64 MiB
	SegmentBytes int64         // of one file of it: 1 MiB
	MemoryBytes  int64         // kept in memory until the queue can be opened: 8 MiB
	Sync         time.Duration // at least this often everything is made durable: 1 s
	Patience     time.Duration // longest pause between attempts to deliver: 1 min
}

// Stats say how an Outbox is doing. The counters are cumulative since New.
type Stats struct {
	Owner     bool // this process owns the queue; else findings wait in memory
	Queued    int  // waiting, in memory and on disk
	Bytes     int64
	Delivered uint64
	Dropped   uint64    // lost: the queue was full, the disk failed, or the finding could not be written
	Refused   uint64    // the server will never take them
	Torn      uint64    // bytes on disk that a crash had left half written
	Since     time.Time // of not being able to deliver; zero while all is well
	Err       error     // why not
}

// Outbox takes findings. Safe for concurrent use.
type Outbox struct {
	cfg  Config
	wake chan struct{}

	mu     sync.Mutex
	queue  *queue   // nil until owned
	over   bool     // it was owned, and let go
	memory [][]byte // waiting for queue
	held   int64    // bytes in memory
	stats  Stats
}

// New makes an outbox. Put works at once, Run delivers.
func New(cfg Config) *Outbox {
	defaults := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	defaults(&cfg.MaxBytes, 64<<20)
	defaults(&cfg.SegmentBytes, 1<<20)
	defaults(&cfg.MemoryBytes, 8<<20)
	defaults((*int64)(&cfg.Sync), int64(time.Second))
	defaults((*int64)(&cfg.Patience), int64(time.Minute))
	return &Outbox{cfg: cfg, wake: make(chan struct{}, 1)}
}

// Put takes a finding. It waits for the disk at most, never for the network or
// another process. An error means that the finding is lost; it is counted too.
// After Run has returned, findings are lost: stop evaluating before.
func (o *Outbox) Put(f holdfast.Finding) error {
	record, err := wire.MarshalFinding(f)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		o.stats.Dropped++
		return err
	}
	select {
	case o.wake <- struct{}{}:
	default:
	}
	if o.over {
		o.stats.Dropped++
		return holdfast.Errorf(holdfast.Unavailable, "the queue of findings was let go")
	}
	if o.queue != nil {
		return o.queue.put(record)
	}
	o.memory = append(o.memory, record)
	o.held += int64(len(record))
	for o.held > o.cfg.MemoryBytes {
		o.held -= int64(len(o.memory[0]))
		o.memory = o.memory[1:]
		o.stats.Dropped++
	}
	return nil
}

// Stats returns how the outbox is doing now.
func (o *Outbox) Stats() Stats {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.stats
	s.Queued, s.Bytes = len(o.memory), o.held
	if q := o.queue; q != nil {
		s.Owner = true
		s.Queued += q.len()
		s.Bytes += q.bytes
		s.Dropped += q.counts.Dropped
		s.Torn += q.counts.Torn
	}
	return s
}

// Run waits until it owns the queue, and delivers until ctx ends. Then it lets
// go of the queue, in which everything undelivered stays; call Put no more.
func (o *Outbox) Run(ctx context.Context) error {
	lock, err := o.acquire(ctx)
	if err != nil {
		return err
	}
	defer lock.Close() // which gives the lock back
	if err := o.adopt(); err != nil {
		return err
	}
	defer o.letGo()
	flush := time.NewTicker(o.cfg.Sync)
	defer flush.Stop()
	work := time.NewTimer(0)
	defer work.Stop()
	delivering := make(chan outcome, 1)
	var busy bool // a delivery is under way
	var waiting bool
	failures := 0
	for {
		select {
		case <-ctx.Done():
			if busy {
				<-delivering // its context has ended too
			}
			return nil
		case <-flush.C:
			o.note("findings not synced", o.locked(func(q *queue) error { return q.sync() }))
		case <-o.wake:
			if !busy && !waiting {
				waiting = true
				work.Reset(linger)
			}
		case <-work.C:
			waiting = false
			if !busy {
				busy = true
				go func() { delivering <- o.deliverOldest(ctx) }()
			}
		case r := <-delivering:
			busy = false
			switch {
			case r.err != nil:
				failures++
				waiting = true
				work.Reset(o.pause(failures, r.retryAfter))
			default:
				// Looked at here and not where the delivery ended, so that a finding put
				// in between is either seen now or wakes us later.
				failures = 0
				if waiting = o.Stats().Queued > 0; waiting {
					work.Reset(0)
				}
			}
		}
	}
}

// linger lets findings that come in a burst travel together.
const linger = 20 * time.Millisecond

type outcome struct {
	retryAfter time.Duration
	err        error
}

// acquire waits for the lock. The process that has it gives it up when it is
// drained, or the kernel does when it dies.
func (o *Outbox) acquire(ctx context.Context) (*os.File, error) {
	if err := os.MkdirAll(o.cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(o.cfg.Dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		ok, err := tryLock(f)
		if err != nil {
			f.Close()
			return nil, &holdfast.Error{Kind: holdfast.Internal, What: "cannot lock the queue of findings", Where: o.cfg.Dir, Err: err}
		}
		if ok {
			return f, nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		}
	}
}

// adopt opens the queue and moves what waited in memory into it.
func (o *Outbox) adopt() error {
	q, err := openQueue(directory(o.cfg.Dir), o.cfg.MaxBytes, o.cfg.SegmentBytes)
	if err != nil {
		return &holdfast.Error{Kind: holdfast.Internal, What: "cannot open the queue of findings", Where: o.cfg.Dir, Err: err}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if q.counts.Torn > 0 {
		o.cfg.Log.Warn("the queue of findings ended in the middle of a record", "bytes", q.counts.Torn)
	}
	for _, r := range o.memory {
		o.note("a finding is lost", q.put(r))
	}
	o.queue, o.memory, o.held = q, nil, 0
	return nil
}

// letGo closes the queue.
func (o *Outbox) letGo() {
	o.note("findings not synced", o.locked(func(q *queue) error {
		o.over = true
		return q.close()
	}))
}

func (o *Outbox) locked(f func(*queue) error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return f(o.queue)
}

func (o *Outbox) note(what string, err error) {
	if err != nil {
		o.cfg.Log.Error(what, "dir", o.cfg.Dir, "why", err)
	}
}

// deliverOldest delivers the oldest segment.
func (o *Outbox) deliverOldest(ctx context.Context) outcome {
	var number uint64
	var all [][]byte
	var ok bool
	err := o.locked(func(q *queue) (err error) {
		number, all, ok, err = q.oldest()
		return err
	})
	if err != nil {
		return o.failed(outcome{err: err})
	}
	if !ok {
		return outcome{}
	}
	for len(all) > 0 {
		n := batch(all)
		if out := o.deliver(ctx, all[:n]); out.err != nil {
			return o.failed(out)
		}
		all = all[n:]
	}
	err = o.locked(func(q *queue) error {
		o.stats.Since, o.stats.Err = time.Time{}, nil
		return q.remove(number)
	})
	if err != nil {
		return o.failed(outcome{err: err})
	}
	return outcome{}
}

func (o *Outbox) failed(out outcome) outcome {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stats.Since.IsZero() {
		o.stats.Since = time.Now()
	}
	o.stats.Err = out.err
	return out
}

// deliver delivers a batch. One the server will never take is halved until
// the findings it objects to are alone; they are given up, and counted.
func (o *Outbox) deliver(ctx context.Context, all [][]byte) outcome {
	refused, retryAfter, err := o.cfg.Deliver(ctx, all)
	switch {
	case err == nil:
	case holdfast.KindOf(err) != holdfast.Invalid:
		return outcome{retryAfter: retryAfter, err: err}
	case len(all) > 1:
		for _, half := range [][][]byte{all[:len(all)/2], all[len(all)/2:]} {
			if out := o.deliver(ctx, half); out.err != nil {
				return out
			}
		}
		return outcome{}
	default:
		o.cfg.Log.Error("the server will never take a finding", "why", err)
		refused = 1
	}
	o.mu.Lock()
	o.stats.Refused += uint64(refused)
	o.stats.Delivered += uint64(len(all) - min(refused, len(all)))
	o.mu.Unlock()
	return outcome{}
}

// batch says how many records fit into one request.
func batch(all [][]byte) int {
	bytes := 0
	for i, r := range all {
		if bytes += len(r) + 16; i > 0 && (bytes > wire.MaxRequest/2 || i >= wire.MaxRecords/2) {
			return i
		}
	}
	return len(all)
}

// pause grows with failures, up to the configured patience, and is random so
// that hosts do not come back together.
func (o *Outbox) pause(failures int, retryAfter time.Duration) time.Duration {
	d := o.cfg.Patience
	if failures < 16 {
		d = min(d, 250*time.Millisecond<<failures)
	}
	return max(retryAfter, d/2) + rand.N(max(d/2, time.Millisecond))
}
