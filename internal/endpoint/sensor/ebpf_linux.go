package sensor

import (
	"errors"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/holdfast-security/holdfast"
)

// flush is how long an event may wait in the ring for company. The kernel wakes
// the reader only when a good part of the ring is full (see wake_bytes).
const flush = 10 * time.Millisecond

// kernel is the source that reads process life from tracepoints by eBPF.
type kernel struct {
	objects processObjects
	links   []link.Link // referenced, else the garbage collector detaches them
	ring    *ringbuf.Reader
	sample  ringbuf.Record
	decoder decoder
}

// openKernel loads and attaches the programs. Its failure is the probe's
// answer: there is no better test of whether a kernel takes a program.
func openKernel() (_ source, err error) {
	k := &kernel{}
	defer func() {
		if err != nil {
			err = &holdfast.Error{
				Kind: holdfast.Unavailable, What: "the kernel takes no eBPF programs from this process", Err: err,
				Do: "run as root, or with CAP_BPF and CAP_PERFMON, on kernel 5.8 or later with BTF",
			}
			_ = k.Close()
		}
	}()
	if err := loadProcessObjects(&k.objects, nil); err != nil {
		return nil, err
	}
	for _, p := range []*ebpf.Program{k.objects.OnFork, k.objects.OnExec, k.objects.OnExit} {
		l, err := link.AttachTracing(link.TracingOptions{Program: p})
		if err != nil {
			return nil, err
		}
		k.links = append(k.links, l)
	}
	if k.ring, err = ringbuf.NewReader(k.objects.Events); err != nil {
		return nil, err
	}
	k.ring.SetDeadline(time.Now())
	return k, nil
}

func (k *kernel) next(r *record, until time.Time) (bool, error) {
	for {
		err := k.ring.ReadInto(&k.sample)
		switch {
		case err == nil:
			return true, k.decoder.decode(k.sample.RawSample, r)
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return false, holdfast.Errorf(holdfast.Internal, "read the kernel's ring: %w", err)
		}
		now := time.Now()
		if !now.Before(until) {
			return false, nil
		}
		if wait := until.Sub(now); wait > flush {
			k.ring.SetDeadline(now.Add(flush))
		} else {
			k.ring.SetDeadline(until)
		}
	}
}

func (k *kernel) tier() string { return TierEBPF }

// lost counts events that found no room in the ring, and those whose program
// could not run because it was running already.
func (k *kernel) lost() uint64 {
	var n uint64
	if err := k.objects.Dropped.Get(&n); err != nil {
		n = 0
	}
	for _, p := range []*ebpf.Program{k.objects.OnFork, k.objects.OnExec, k.objects.OnExit} {
		if s, err := p.Stats(); err == nil {
			n += s.RecursionMisses
		}
	}
	return n
}

func (k *kernel) Close() error {
	var errs []error
	for _, l := range k.links {
		errs = append(errs, l.Close())
	}
	if k.ring != nil {
		errs = append(errs, k.ring.Close())
	}
	return errors.Join(append(errs, k.objects.Close())...)
}
