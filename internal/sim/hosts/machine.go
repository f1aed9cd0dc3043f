package hosts

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/guard"
	"github.com/holdfast-security/holdfast/internal/endpoint/lifeline"
)

// machine plays what is below the guard of one host: its disk, its workers and
// its clock. The guard's decisions are guard.Decide's; what the driver of a
// real guard does with processes and signals is done here with timers.
type machine struct {
	policy     guard.Policy
	script     Script
	attributes holdfast.Attributes
	content    string // directory
	file       string // of the guard's state
	random     *rand.Rand

	mu      sync.Mutex
	down    bool        // switched off
	up      *time.Timer // comes up again
	state   guard.State
	slots   map[guard.Slot]*process
	queue   []guard.Event
	busy    bool
	load    load
	changed func(lifeline.Status) // the guard informs its workers
	refused func(reason string)   // the guard refused a proposal
	power   func(on bool)         // the machine is switched off, or on again
}

// load is what the machine's counters say.
type load struct {
	events   uint64
	rss, cpu uint64 // of a healthy worker
	more     struct{ rss, cpu uint64 }
}

// What a busy phase of a healthy worker takes on top (its heap grows to the
// next size, say), and what a fault takes.
const (
	busyRSS, busyCPU   = 6 << 20, 60 // bytes, thousandths of a core
	faultRSS, faultCPU = 64 << 20, 500
)

// process is a played worker.
type process struct {
	slot      guard.Slot
	from      time.Time // ready since; zero before
	stalled   bool
	evaluated uint64
	timers    []*time.Timer
}

func (p *process) end() {
	for _, t := range p.timers {
		t.Stop()
	}
}

// rebootTime is how long a machine needs to come up again.
const rebootTime = 3 * time.Second

// perSecond is how many events a played worker evaluates.
const perSecond = 400

func newMachine(seed uint64, n int, policy guard.Policy, script Script, a holdfast.Attributes, content, dir string) (*machine, error) {
	m := &machine{
		policy: policy, script: script, attributes: a, content: content, file: filepath.Join(dir, "guard.json"),
		random: rand.New(rand.NewPCG(seed, uint64(n)^0x9e3779b97f4a7c15)), slots: map[guard.Slot]*process{}, state: guard.Fresh(),
	}
	m.load.rss = 30<<20 + m.random.Uint64N(10<<20)
	m.load.cpu = 5 + m.random.Uint64N(15)
	b, err := os.ReadFile(m.file)
	if err == nil {
		err = json.Unmarshal(b, &m.state)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, &holdfast.Error{Kind: holdfast.Internal, What: "the state of a simulated guard cannot be read", Where: m.file, Err: err}
	}
	return m, nil
}

// start switches the machine on. The boot id of an earlier run is kept: that
// this process was stopped is no reboot of the machines it plays.
func (m *machine) start() {
	boot := m.state.Boot
	if boot == "" {
		boot = m.newBoot()
	}
	m.tell(guard.Event{Kind: guard.Started, Boot: boot})
}

func (m *machine) newBoot() string {
	return fmt.Sprintf("%016x%016x", m.random.Uint64(), m.random.Uint64())
}

// stop switches the machine off in good order.
func (m *machine) stop() {
	m.tell(guard.Event{Kind: guard.Stopping})
	m.mu.Lock()
	defer m.mu.Unlock()
	m.powerOff()
	if m.up != nil {
		m.up.Stop()
	}
}

func (m *machine) powerOff() {
	m.down = true
	m.queue = nil
	for s, p := range m.slots {
		p.end()
		delete(m.slots, s)
	}
}

// tell lets the guard decide about an event and carries out what it says.
func (m *machine) tell(e guard.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.decide(e)
}

func (m *machine) decide(e guard.Event) {
	m.queue = append(m.queue, e)
	if m.busy {
		return // an action caused it; it is decided after the list is done
	}
	m.busy = true
	defer func() { m.busy = false }()
	for len(m.queue) > 0 && !m.down {
		e, m.queue = m.queue[0], m.queue[1:]
		before := m.state
		next, actions := guard.Decide(m.policy, m.state, e, time.Now())
		m.state = next
		for _, a := range actions {
			if err := m.do(a); err != nil && a.Must {
				m.state = before
				m.queue = append([]guard.Event{{Kind: guard.WriteFailed, ID: e.ID, Detail: err.Error()}}, m.queue...)
				break
			}
		}
	}
}

func (m *machine) do(a guard.Action) error {
	switch a.Kind {
	case guard.Persist:
		return m.persist()
	case guard.Start:
		m.launch(a)
	case guard.Kill:
		if p := m.slots[a.Slot]; p != nil {
			p.end()
			delete(m.slots, a.Slot)
		}
	case guard.Leave:
		// It would go on evaluating until it is drained; nothing of that shows.
		if p := m.slots[a.Slot]; p != nil {
			p.end()
			delete(m.slots, a.Slot)
		}
	case guard.Drain:
	case guard.Adopt:
		if p := m.slots[guard.InTrial]; p != nil {
			p.slot = guard.InCurrent
			m.slots[guard.InCurrent] = p
			delete(m.slots, guard.InTrial)
		}
	case guard.Reply:
		if !a.Accepted {
			m.refused(a.Reason)
		}
	case guard.Inform:
		m.changed(m.state.Status())
	}
	return nil
}

func (m *machine) persist() error {
	b, err := json.Marshal(m.state)
	if err != nil {
		return err
	}
	tmp := m.file + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, m.file)
}

// launch starts a worker: it is ready after a moment, and fails when the
// script says so.
func (m *machine) launch(a guard.Action) {
	if p := m.slots[a.Slot]; p != nil {
		p.end()
	}
	p := &process{slot: a.Slot}
	m.slots[a.Slot] = p
	m.load.more.rss, m.load.more.cpu = 0, 0
	for _, d := range a.Generation {
		if _, err := os.Stat(filepath.Join(m.content, d.Hex())); err != nil {
			m.decide(guard.Event{Kind: guard.CorruptSlot, Slot: a.Slot, Detail: d.Short() + " is missing"})
			return
		}
	}
	fault, after, faulty := m.script.faultOf(m.attributes, a.Generation)
	m.after(p, a.After+20*time.Millisecond+time.Duration(m.random.Int64N(int64(80*time.Millisecond))), func() {
		p.from = time.Now()
		m.decide(guard.Event{Kind: guard.IsReady, Slot: p.slot})
		if faulty {
			m.after(p, after, func() { m.fail(p, fault) })
		}
	})
}

// after calls f with the machine locked, unless the process has ended before.
func (m *machine) after(p *process, d time.Duration, f func()) {
	p.timers = append(p.timers, time.AfterFunc(d, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if !m.down && m.slots[p.slot] == p {
			f()
		}
	}))
}

func (m *machine) fail(p *process, f Fault) {
	switch f {
	case Crash:
		p.end()
		delete(m.slots, p.slot)
		m.decide(guard.Event{Kind: guard.Exited, Slot: p.slot, Detail: "exit status 2 (played)"})
	case Stall:
		p.stalled = true
		m.after(p, 700*time.Millisecond, func() {
			m.decide(guard.Event{Kind: guard.Stalled, Slot: p.slot, Detail: "no beat for 700ms (played)"})
		})
	case CPU:
		m.load.more.cpu = faultCPU
	case Memory:
		m.load.more.rss = faultRSS
	case Silence:
		m.powerOff()
		m.power(false)
	case Reboot:
		m.powerOff()
		m.power(false)
		m.up = time.AfterFunc(rebootTime, func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.down = false
			m.power(true)
			m.decide(guard.Event{Kind: guard.Started, Boot: m.newBoot()})
		})
	}
}

// tick lets time pass: workers evaluate, and the guard looks at its clock.
func (m *machine) tick(since time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return
	}
	n := uint64(float64(perSecond) * since.Seconds())
	m.load.events += n
	for _, slot := range []guard.Slot{guard.InCurrent, guard.InTrial} {
		if p := m.slots[slot]; p != nil && !p.from.IsZero() && !p.stalled {
			p.evaluated += n
			m.decide(guard.Event{Kind: guard.Beaten, Slot: slot, Evaluated: p.evaluated})
		}
	}
	m.decide(guard.Event{Kind: guard.Ticked})
}

// report is what the host says of itself, and whether it can say anything.
func (m *machine) report() (holdfast.HostReport, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.state.Status().Report()
	r.Events = m.load.events
	r.RSS, r.CPU = m.load.rss+m.load.more.rss, m.load.cpu+m.load.more.cpu
	if m.random.IntN(8) == 0 {
		r.RSS, r.CPU = r.RSS+busyRSS, r.CPU+busyCPU
	}
	return r, !m.down
}

func (m *machine) status() lifeline.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state.Status()
}
