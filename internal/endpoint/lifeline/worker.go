package lifeline

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-security/holdfast"
)

// Env is the environment variable by which the guard tells a worker its two
// ends: the descriptors (on Windows the handles) to write on and to read from,
// "3,4". Without it there is no guard, whatever descriptor 3 happens to be.
const Env = "HOLDFAST_LIFELINE"

// ErrNoGuard is what a Worker's methods return in an agent that was started by
// hand.
var ErrNoGuard error = &holdfast.Error{
	Kind: holdfast.Unavailable,
	What: "there is no guard above this worker",
	Do:   "start holdfast-guard, which starts the worker",
}

// Worker is the worker's end. Its methods may be called from any goroutine.
// Without a guard they return ErrNoGuard and do nothing else, so that an agent
// can be run by hand.
type Worker struct {
	mu     sync.Mutex // one line at a time
	out    io.Writer  // nil without a guard
	orders chan Order
	beats  atomic.Uint64
	met    atomic.Bool // the server, since this worker started
	beat   chan struct{}
}

// Open returns the worker's end as the environment names it, or an end without
// a guard if it names none. It may be called once, and takes the variable out
// of the environment: the lifeline is not for the worker's own children.
func Open() (*Worker, error) {
	named, ok := os.LookupEnv(Env)
	if !ok {
		return &Worker{orders: make(chan Order)}, nil
	}
	os.Unsetenv(Env)
	var out, in uintptr
	if n, err := fmt.Sscanf(named, "%d,%d", &out, &in); n != 2 || err != nil {
		return nil, &holdfast.Error{
			Kind: holdfast.Invalid, What: "not two descriptors", Where: Env,
			Do: "leave it to the guard to set; unset it to run an agent by hand",
		}
	}
	w, err := inherit(out, "lifeline out")
	if err != nil {
		return nil, err
	}
	r, err := inherit(in, "lifeline in")
	if err != nil {
		return nil, err
	}
	return NewWorker(r, w), nil
}

// NewWorker returns a worker's end over any two streams. It reads r to its end
// in a goroutine of its own.
func NewWorker(r io.Reader, w io.Writer) *Worker {
	k := &Worker{out: w, orders: make(chan Order, 16), beat: make(chan struct{}, 1)}
	go k.read(r)
	go k.pass()
	return k
}

// Guarded reports whether there is a guard at the other end.
func (k *Worker) Guarded() bool { return k.out != nil }

// Messages returns the guard's orders in their order. It is closed when the
// guard is gone, after which a worker must exit: nobody watches it any more.
// Without a guard it stays open and empty. It must be read: the guard drops
// orders for a worker that does not listen.
func (k *Worker) Messages() <-chan Order { return k.orders }

func (k *Worker) read(r io.Reader) {
	defer close(k.orders)
	in := NewReader(r)
	for {
		m, err := in.Order()
		switch {
		case err == nil:
			k.orders <- m
		case holdfast.KindOf(err) != holdfast.Invalid:
			return
		}
	}
}

// Beat tells the guard that the evaluation loop has turned, and how many events
// it has evaluated since the worker started. Call it from that loop and from
// nowhere else, at least four times a second, events or none; call it as often
// as you like: it does not block, does not allocate, and unsent beats become
// one.
func (k *Worker) Beat(evaluated uint64) {
	k.beats.Store(evaluated)
	select {
	case k.beat <- struct{}{}: // without a guard the channel is nil, and never ready
	default:
	}
}

// Contact notes that this worker has completed an authenticated exchange with
// the server. Every beat says whether it has, and so does every proposal.
func (k *Worker) Contact() { k.met.Store(true) }

// beatEvery is the least time between two beats on the wire.
const beatEvery = 50 * time.Millisecond

// pass writes the beats, so that a guard that does not read can never hold up
// the evaluation of events.
func (k *Worker) pass() {
	for range k.beat {
		if k.send(Report{Kind: Beat, Evaluated: k.beats.Load(), Contact: k.contact()}) != nil {
			return
		}
		time.Sleep(beatEvery)
	}
}

func (k *Worker) contact() Contact {
	if k.met.Load() {
		return HadContact
	}
	return NoContact
}

// Ready says that the content is loaded and events are evaluated. The guard now
// drains the worker this one replaces.
func (k *Worker) Ready() error { return k.send(Report{Kind: Ready}) }

// Propose asks to run digest on channel. The bytes must be in the content store,
// verified and test-loaded. id names the offer; the answer carries it. An
// accepted proposal soon ends in an order to drain.
func (k *Worker) Propose(id string, channel holdfast.Channel, digest holdfast.Digest) error {
	return k.send(Report{Kind: Propose, ID: id, Channel: channel, Digest: digest, Contact: k.contact()})
}

// Reactivate asks for the placebo: the same swap and the same observation, with
// what runs now.
func (k *Worker) Reactivate(id string) error {
	return k.send(Report{Kind: Reactivate, ID: id, Contact: k.contact()})
}

// Recall says that signed metadata took digest back.
func (k *Worker) Recall(digest holdfast.Digest) error {
	return k.send(Report{Kind: Recall, Digest: digest})
}

// Retry says that the publishers signed that a shunned or recalled digest may be
// tried again.
func (k *Worker) Retry(digest holdfast.Digest) error {
	return k.send(Report{Kind: Retry, Digest: digest})
}

// Final says that the publishers marked the release of digest final.
func (k *Worker) Final(digest holdfast.Digest) error {
	return k.send(Report{Kind: Final, Digest: digest})
}

func (k *Worker) send(m Report) error {
	if k.out == nil {
		return ErrNoGuard
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return WriteReport(k.out, m)
}
