// Package stage runs a whole Holdfast on one machine, as real processes: the
// server, guards with their agents, simulated hosts. The demo, the drills and
// the end-to-end tests all stand on it.
//
// Nothing here decides anything about a rollout or a host: the programs do, as
// they would in production. The stage starts them, hands out keys a person
// would hold, and plays the people who release and approve.
package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/holdfast-security/holdfast"
)

// Process is one child process. Its output goes to a log file of its own.
type Process struct {
	Name string
	Log  string // path

	cmd  *exec.Cmd
	done chan struct{}
	err  error // set before done is closed
}

// Troupe is the set of processes of one stage. They end with it: cleanly by
// Close, and by the kernel if the stage itself is killed.
type Troupe struct {
	logs string

	mu  sync.Mutex
	all []*Process
}

// NewTroupe returns a troupe whose logs stand in dir.
func NewTroupe(dir string) (*Troupe, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return &Troupe{logs: dir}, nil
}

// Start starts a program. env is added to the stage's own environment.
func (t *Troupe) Start(name string, env []string, program string, args ...string) (*Process, error) {
	p := &Process{Name: name, Log: filepath.Join(t.logs, name+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = exec.Command(program, args...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.Env = append(os.Environ(), env...)
	detach(p.cmd)
	if err := p.cmd.Start(); err != nil {
		return nil, &holdfast.Error{Kind: holdfast.Internal, What: "cannot start " + name, Err: err, Do: "build first: make build"}
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = append(t.all, p)
	return p, nil
}

// PID returns the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exited returns the process's end as an error with the last lines of its log,
// or nil while it runs.
func (p *Process) Exited() error {
	select {
	case <-p.done:
	default:
		return nil
	}
	how := "ended"
	if p.err != nil {
		how = p.err.Error()
	}
	return &holdfast.Error{Kind: holdfast.Internal, What: fmt.Sprintf("%s %s; its last words:\n%s", p.Name, how, tail(p.Log, 1500)), Where: p.Log}
}

// Stop asks the process to end, and insists after grace.
func (p *Process) Stop(grace time.Duration) {
	select {
	case <-p.done:
		return
	default:
	}
	_ = interrupt(p.cmd.Process)
	select {
	case <-p.done:
	case <-time.After(grace):
		p.Kill()
	}
}

// Kill ends the process at once, as a crash would.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Close stops every process, latest first, those of one wave side by side.
func (t *Troupe) Close() {
	t.mu.Lock()
	all := t.all
	t.all = nil
	t.mu.Unlock()
	var wg sync.WaitGroup
	for i := len(all) - 1; i >= 0; i-- {
		if i == 0 { // the server goes last, so that hosts can say goodbye
			wg.Wait()
		}
		wg.Go(func() { all[i].Stop(5 * time.Second) })
	}
	wg.Wait()
}

// tail returns the end of a file, for an error message.
func tail(path string, n int64) string {
	f, err := os.Open(path)
	if err != nil {
		return "(no log)"
	}
	defer f.Close()
	if size, err := f.Seek(0, io.SeekEnd); err == nil {
		_, _ = f.Seek(max(0, size-n), io.SeekStart)
	}
	b, _ := io.ReadAll(io.LimitReader(f, n))
	return string(b)
}

// Until calls ready every step until it reports true, for at most limit. It
// ends early if a process it depends on ends.
func Until(ctx context.Context, limit, step time.Duration, what string, needs []*Process, ready func() (bool, error)) error {
	deadline := time.Now().Add(limit)
	var last error
	for {
		ok, err := ready()
		if ok {
			return nil
		}
		if err != nil {
			last = err
		}
		for _, p := range needs {
			if err := p.Exited(); err != nil {
				return err
			}
		}
		if time.Now().After(deadline) {
			return &holdfast.Error{Kind: holdfast.Unavailable, What: fmt.Sprintf("gave up after %v waiting for %s", limit, what), Err: last}
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), last)
		case <-time.After(step):
		}
	}
}
