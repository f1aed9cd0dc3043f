package guard

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/lifeline"
)

// tick is how often the guard looks at its workers.
const tick = 100 * time.Millisecond

// Run guards this host until ctx is done, then drains the worker and returns
// nil. It returns an error only if it could not begin: the options are wrong, or
// another guard has this state.
func Run(ctx context.Context, o Options) error {
	if err := o.check(); err != nil {
		return err
	}
	dir := directory(filepath.Join(o.State, "guard"))
	if err := os.MkdirAll(string(dir), 0o700); err != nil {
		// A full or read-only disk is no reason not to protect: safe mode needs
		// no state. The write of the state says what is wrong.
		o.Log.Error("cannot make the state directory", "err", err)
	} else if lock, err := dir.lock(); err != nil {
		return &holdfast.Error{
			Kind: holdfast.Conflict, What: "another guard holds this state", Where: dir.at("lock"), Err: err,
			Do: "one guard runs per state directory; stop the other, or give --state",
		}
	} else {
		defer lock.Close()
	}
	// Workers die with the thread that started them (PDEATHSIG), so that thread
	// must be the guard's for life.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	k := &keeper{
		Options: o,
		store:   store{dir},
		slots:   map[Slot]*process{},
		waiting: map[Slot]*start{},
		notes:   make(chan note, 64),
		began:   time.Now(),
		groups:  newGroups(o),
	}
	defer k.groups.close()
	return k.run(ctx)
}

// keeper drives Decide: it turns what happens into events, and does what the
// actions say. All but the readers and waiters of its processes is one
// goroutine.
type keeper struct {
	Options
	store store
	state State
	saved State     // the latest that is certainly on disk
	dirty bool      // the disk may hold another state than memory
	tried time.Time // the latest attempt to write

	slots   map[Slot]*process
	left    []*process // draining, or about to be
	waiting map[Slot]*start
	notes   chan note
	queue   []Event
	began   time.Time
	looked  time.Time // the latest tick
	groups  *groups
	runs    uint64
}

// start is a worker that is to be started.
type start struct {
	at         time.Time
	slot       Slot
	generation holdfast.Generation
	safe       bool
}

// now never goes back, and is plain wall-clock time otherwise.
func (k *keeper) now() time.Time { return k.began.Add(time.Since(k.began)).Round(0) }

func (k *keeper) run(ctx context.Context) error {
	var err error
	if k.state, err = k.store.load(k.now()); err != nil {
		k.Log.Error("starting in safe mode", "err", err)
	}
	k.saved = k.state
	k.handle(Event{Kind: Started, Boot: bootID(k.BootID)})
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	k.looked = time.Now()
	for {
		select {
		case <-ctx.Done():
			k.stop()
			return nil
		case n := <-k.notes:
			k.note(n)
		case <-ticker.C:
			k.look()
		}
	}
}

// handle decides about an event and everything that follows from it at once.
func (k *keeper) handle(e Event) {
	k.queue = append(k.queue, e)
	for len(k.queue) > 0 {
		e := k.queue[0]
		k.queue = k.queue[1:]
		next, acts := Decide(k.Policy, k.state, e, k.now())
		k.report(e, next)
		k.act(e, next, acts)
	}
}

// report logs what an event changed.
func (k *keeper) report(e Event, next State) {
	switch e.Kind {
	case Beaten, Ticked:
		if (next.Trial == nil) == (k.state.Trial == nil) && next.Reason == k.state.Reason {
			return
		}
	}
	g, safe := next.Running()
	at := []any{"event", string(e.Kind)}
	if e.Slot != "" {
		at = append(at, "slot", string(e.Slot))
	}
	if e.Digest != "" {
		at = append(at, "digest", e.Digest.Short())
	}
	if e.Detail != "" {
		at = append(at, "detail", e.Detail)
	}
	at = append(at, "running", g.String(), "safe", safe)
	if t := next.Trial; t != nil {
		at = append(at, "trial", t.Generation.String(), "probation", t.Active)
	}
	if next.Reason != k.state.Reason {
		at = append(at, "reason", next.Reason)
	}
	if n := len(next.Shuns) - len(k.state.Shuns); n > 0 {
		at = append(at, "shunned", next.Shuns[0].Digest.Short())
	}
	k.Log.Info("guard", at...)
}

// act does what was decided, in its order.
func (k *keeper) act(e Event, next State, acts []Action) {
	before := k.state
	k.state = next
	for _, a := range acts {
		switch a.Kind {
		case Persist:
			err := k.save()
			if err == nil {
				continue
			}
			k.Log.Error("cannot write the state", "err", err)
			if a.Must {
				k.state = before
				k.queue = append(k.queue, Event{Kind: WriteFailed, Slot: e.Slot, ID: e.ID, Detail: err.Error()})
				return
			}
		case Start:
			k.waiting[a.Slot] = &start{k.now().Add(a.After), a.Slot, a.Generation, a.Safe}
			if a.After == 0 {
				k.launch(a.Slot)
			}
		case Kill:
			delete(k.waiting, a.Slot)
			if p := k.slots[a.Slot]; p != nil {
				delete(k.slots, a.Slot)
				p.kill()
			}
		case Leave:
			k.leave(a.Slot)
		case Drain:
			for _, p := range k.left {
				k.drain(p)
			}
		case Adopt:
			k.leave(InCurrent)
			if p := k.slots[InTrial]; p != nil {
				delete(k.slots, InTrial)
				p.slot, k.slots[InCurrent] = InCurrent, p
			}
		case Reply:
			if p := k.slots[e.Slot]; p != nil { // who asked
				p.tell(replyTo(a))
			}
		case Inform:
			k.inform()
		}
	}
}

func (k *keeper) save() error {
	err := k.store.save(k.state)
	k.dirty, k.tried = err != nil, time.Now()
	if err == nil {
		k.saved = k.state
	}
	return err
}

func (k *keeper) inform() {
	for _, p := range k.slots {
		p.tell(k.status())
	}
}

// status is what workers are told. While the state cannot be written, what the
// older one on disk needs must be kept as well: a restart would find that one.
func (k *keeper) status() lifeline.Order {
	st := k.state.Status()
	if k.dirty {
		st.Keep = append(st.Keep, k.saved.needs()...)
	}
	return lifeline.Order{Kind: lifeline.Tell, Status: &st}
}

// leave takes the worker in slot out of it.
func (k *keeper) leave(slot Slot) {
	delete(k.waiting, slot)
	if p := k.slots[slot]; p != nil {
		delete(k.slots, slot)
		p.slot = ""
		k.left = append(k.left, p)
	}
}

func (k *keeper) drain(p *process) {
	if p.drainBy.IsZero() {
		p.drainBy = time.Now().Add(k.Drain)
		p.tell(drainOrder)
	}
}

// launch starts what waits for slot. What goes wrong is the next event.
func (k *keeper) launch(slot Slot) {
	s := k.waiting[slot]
	delete(k.waiting, slot)
	k.leave(slot) // until the new one is ready
	agent, err := verify(filepath.Join(k.State, "content"), s.generation)
	if err != nil {
		k.queue = append(k.queue, Event{Kind: CorruptSlot, Slot: slot, Detail: err.Error()})
		return
	}
	k.runs++
	p, kind, err := k.spawn(s, agent)
	if agent != nil {
		agent.Close()
	}
	if err != nil {
		k.queue = append(k.queue, Event{Kind: kind, Slot: slot, Detail: err.Error()})
		return
	}
	k.slots[slot] = p
	k.Log.Info("started", "slot", string(slot), "pid", p.pid, "generation", s.generation.String(), "safe", s.safe)
	p.tell(k.status())
}

// note turns what a process said or did into an event.
func (k *keeper) note(n note) {
	p := n.process
	if n.exited {
		k.exited(p, n.detail)
		return
	}
	if p.slot == "" || k.slots[p.slot] != p {
		return // it has been replaced: what it wants no longer counts
	}
	e := Event{Slot: p.slot, ID: n.report.ID, Channel: n.report.Channel, Digest: n.report.Digest, Evaluated: n.report.Evaluated, Contact: n.report.Contact}
	switch n.report.Kind {
	case "ready":
		if p.ready {
			return
		}
		p.ready = true
		p.beaten()
		e.Kind = IsReady
	case "beat":
		e.Kind = Beaten
	case "propose":
		e.Kind = Proposed
	case "reactivate":
		e.Kind = Reactivated
	case "recall":
		e.Kind = Recalled
	case "retry":
		e.Kind = RetryAllowed
	case "final":
		e.Kind = Finalised
	}
	k.handle(e)
}

func (k *keeper) exited(p *process, detail string) {
	p.close()
	k.groups.release(p)
	for i, q := range k.left {
		if q == p {
			k.left = append(k.left[:i:i], k.left[i+1:]...)
			k.Log.Info("drained", "pid", p.pid, "status", detail)
			return
		}
	}
	if p.slot == "" || k.slots[p.slot] != p {
		return // killed, and replaced already
	}
	delete(k.slots, p.slot)
	kind := Exited
	if k.groups.outOfMemory(p) {
		kind, detail = Overran, "the kernel killed it for want of memory: "+detail
	}
	k.handle(Event{Kind: kind, Slot: p.slot, Detail: detail})
}

// look is one tick.
func (k *keeper) look() {
	now := time.Now()
	// A guard that was not run for a while (a suspended or starved host) has no
	// business calling its workers late.
	late := now.Sub(k.looked) - tick
	k.looked = now
	for slot, s := range k.waiting {
		if !k.now().Before(s.at) {
			k.launch(slot)
		}
	}
	for _, p := range k.left {
		if !p.drainBy.IsZero() && now.After(p.drainBy) {
			p.kill()
		}
	}
	for _, p := range append([]*process{k.slots[InTrial], k.slots[InCurrent]}, k.left...) {
		if p == nil {
			continue
		}
		if late > tick {
			p.forgive(late)
		}
		kind, detail := k.judge(p, now)
		switch {
		case kind == "":
		case p.slot == "":
			p.kill()
		case k.slots[p.slot] == p:
			k.queue = append(k.queue, Event{Kind: kind, Slot: p.slot, Detail: detail})
		}
	}
	if k.dirty && now.Sub(k.tried) > time.Second && k.save() == nil {
		k.Log.Info("the state can be written again")
		k.inform()
	}
	k.handle(Event{Kind: Ticked})
}

// stop ends a guard that was asked to: the worker finishes what it has.
func (k *keeper) stop() {
	k.handle(Event{Kind: Stopping})
	clear(k.waiting)
	for _, slot := range []Slot{InTrial, InCurrent} {
		k.leave(slot)
	}
	for _, p := range k.left {
		k.drain(p)
	}
	deadline := time.After(k.Drain)
	for len(k.left) > 0 {
		select {
		case n := <-k.notes:
			k.note(n)
		case <-deadline:
			for _, p := range k.left {
				p.kill()
			}
			deadline = nil
		}
	}
}
