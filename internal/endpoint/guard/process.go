package guard

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/lifeline"
)

// process is one worker. Its fields belong to the keeper's goroutine, but for
// those that say otherwise.
type process struct {
	slot    Slot // "" once another has taken over
	pid     int
	cmd     *exec.Cmd
	orders  chan lifeline.Order
	ready   bool
	started time.Time     // never changed
	excused time.Duration // of its start, in which the guard was not run
	drainBy time.Time
	beat    atomic.Int64 // nanoseconds after started; written by the reader
	cpu     meter
	group   group

	mu   sync.Mutex // guards dead
	dead bool       // reaped: the pid is no longer ours
}

// note is what a process said, or that it is gone.
type note struct {
	process *process
	report  lifeline.Report
	exited  bool
	detail  string
}

var drainOrder = lifeline.Order{Kind: lifeline.Drain}

func replyTo(a Action) lifeline.Order {
	return lifeline.Order{Kind: lifeline.Answer, ID: a.ID, Accepted: a.Accepted, Reason: a.Reason}
}

// spawn starts a worker. If it cannot, the kind says whether the program is at
// fault (Exited) or this host (Unstartable).
func (k *keeper) spawn(s *start, agent *os.File) (*process, EventKind, error) {
	in, out, err := os.Pipe() // from the worker
	if err != nil {
		return nil, Unstartable, err
	}
	defer out.Close()
	theirs, to, err := os.Pipe() // to the worker
	if err != nil {
		in.Close()
		return nil, Unstartable, err
	}
	defer theirs.Close()
	program := k.Worker
	if agent != nil {
		if program, err = executable(agent); err != nil {
			in.Close()
			to.Close()
			return nil, Unstartable, err
		}
	}
	cmd := exec.Command(program, "run", "--config", k.Config, "--generation", flagOf(s.generation))
	cmd.Args[0] = "holdfast-agent"
	if s.safe {
		cmd.Args = append(cmd.Args, "--safe")
	}
	cmd.Stdout, cmd.Stderr = k.Output, k.Output
	// The garbage collector works harder before the limit is reached.
	cmd.Env = append(os.Environ(), fmt.Sprintf("GOMEMLIMIT=%d", k.Memory/10*8))
	attach(cmd, out, theirs)
	p := &process{slot: s.slot, cmd: cmd, orders: make(chan lifeline.Order, 32), started: time.Now()}
	p.group = k.groups.prepare(k.runs)
	if err := startIn(cmd, p.group); err != nil {
		in.Close()
		to.Close()
		k.groups.release(p)
		var path *os.PathError
		if agent != nil && errors.As(err, &path) && notAProgram(err) {
			return nil, Exited, err
		}
		return nil, Unstartable, err
	}
	p.pid = cmd.Process.Pid
	if err := confine(p.pid, k.Memory, len(p.group.dirs) > 0); err != nil {
		k.Log.Warn("a hard limit could not be set; watching remains", "pid", p.pid, "err", err)
	}
	go p.read(in, k.notes)
	go p.write(to)
	go p.wait(k.notes)
	return p, "", nil
}

// flagOf writes a generation as the worker's command line takes it.
func flagOf(g holdfast.Generation) string {
	var parts []string
	for _, c := range slices.Sorted(maps.Keys(g)) {
		parts = append(parts, string(c)+"="+string(g[c]))
	}
	return strings.Join(parts, ",")
}

// A worker may say this much, and then this much a second. One that says more
// waits, and so stalls by its own doing.
const (
	burst     = 200
	perSecond = 50
)

func (p *process) read(in *os.File, notes chan<- note) {
	defer in.Close()
	r := lifeline.NewReader(in)
	for n, since := 0, time.Now(); ; {
		m, err := r.Report()
		if err != nil && holdfast.KindOf(err) != holdfast.Invalid {
			return // it is gone, or mute: then it stalls
		}
		if n++; n > burst {
			time.Sleep(time.Until(since.Add(time.Second)))
		}
		if gone := time.Since(since); gone >= time.Second {
			n, since = max(0, n-perSecond*int(min(gone/time.Second, burst))), time.Now()
		}
		if err != nil {
			continue
		}
		if m.Kind == lifeline.Beat {
			p.beaten()
		}
		notes <- note{process: p, report: m}
	}
}

// wait reaps the worker, and ends what it leaves behind first.
func (p *process) wait(notes chan<- note) {
	awaitDeath(p.pid)
	p.mu.Lock()
	killGroup(p.cmd.Process)
	err := p.cmd.Wait()
	p.dead = true
	p.mu.Unlock()
	detail := "exit status 0"
	if err != nil {
		detail = err.Error()
	}
	notes <- note{process: p, exited: true, detail: detail}
}

func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.dead {
		killGroup(p.cmd.Process)
	}
}

// tell sends an order. A worker that does not listen misses some: the guard
// waits for nobody.
func (p *process) tell(m lifeline.Order) {
	select {
	case p.orders <- m:
	default:
	}
}

// write passes orders on until the worker is gone.
func (p *process) write(to *os.File) {
	defer to.Close()
	for m := range p.orders {
		if lifeline.WriteOrder(to, m) != nil {
			return
		}
	}
}

// close ends the orders. Nothing may be told after it.
func (p *process) close() { close(p.orders) }

func (p *process) beaten() { p.beat.Store(int64(time.Since(p.started))) }

// forgive counts time in which the guard itself was not run as a sign of life.
func (p *process) forgive(late time.Duration) {
	if p.ready {
		p.beat.Store(min(int64(time.Since(p.started)), p.beat.Load()+int64(late)))
	} else {
		p.excused += late
	}
}

// judge says what is wrong with a worker, if anything is.
func (k *keeper) judge(p *process, now time.Time) (EventKind, string) {
	age := now.Sub(p.started)
	silent := age - time.Duration(p.beat.Load())
	switch {
	case !p.ready && age-p.excused > k.Start:
		return Stalled, fmt.Sprintf("not ready after %v", age.Round(time.Millisecond))
	case p.ready && p.drainBy.IsZero() && silent > k.Stall:
		return Stalled, fmt.Sprintf("no event loop for %v", silent.Round(time.Millisecond))
	}
	u, ok := usageOf(p.pid)
	if !ok {
		return "", ""
	}
	if u.resident > k.Memory {
		return Overran, fmt.Sprintf("%d MiB resident, where %d are allowed", u.resident>>20, k.Memory>>20)
	}
	if milli, full := p.cpu.over(now, u.cpu, k.CPUFor); full && milli >= k.CPU*95/100 {
		return Overran, fmt.Sprintf("%d/1000 of a core for %v, where %d are allowed", milli, k.CPUFor, k.CPU)
	}
	return "", ""
}

// usage is what a process takes.
type usage struct {
	resident uint64        // bytes
	cpu      time.Duration // since it started
}

// meter averages CPU use over a window.
type meter struct {
	at  []time.Time
	cpu []time.Duration
}

// over adds a sample and returns thousandths of a core over the window, and
// whether the window is full yet.
func (m *meter) over(now time.Time, cpu, window time.Duration) (milli uint64, full bool) {
	step := window / 10
	if n := len(m.at); n == 0 || now.Sub(m.at[n-1]) >= step {
		m.at, m.cpu = append(m.at, now), append(m.cpu, cpu)
	}
	for len(m.at) > 1 && now.Sub(m.at[1]) >= window {
		m.at, m.cpu = slices.Delete(m.at, 0, 1), slices.Delete(m.cpu, 0, 1)
	}
	lasted := now.Sub(m.at[0])
	if lasted < window {
		return 0, false
	}
	return uint64(max(0, cpu-m.cpu[0]) * 1000 / lasted), true
}

func bootID(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	id := strings.TrimSpace(string(data))
	return id[:min(len(id), lifeline.MaxID)]
}
