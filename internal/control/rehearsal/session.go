package rehearsal

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-security/holdfast/internal/language/bundle"
	"github.com/holdfast-security/holdfast/internal/language/rehearse"
)

// session is one process of the build with one bundle, and a conversation with
// it.
type session struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers chan rehearse.Answer // closed at the end of its output
	stderr  *tail
	limits  Limits
	peak    uint64
	loaded  rehearse.Loaded
	once    sync.Once
	stop    context.CancelFunc
}

const hung = "hung"

// death is how a build failed.
type death struct {
	what string // "crashed", "hung", "took too much memory"
	why  string
}

func (d *death) Error() string {
	if d.why == "" {
		return "the build " + d.what
	}
	return "the build " + d.what + ": " + d.why
}

// open starts the build with a bundle. A *death is the build's fault; any other
// error is ours.
func (r *run) open(ctx context.Context, b *bundle.Bundle) (*session, error) {
	data, err := b.Encode()
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(r.dir, "*.bundle")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name()) // it is read before the first answer
	if _, err := f.Write(data); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	s := &session{
		cmd: exec.CommandContext(ctx, r.agent, "rehearse", "--bundle", f.Name()), answers: make(chan rehearse.Answer, 16),
		stderr: &tail{limit: 8 << 10}, limits: r.Limits, stop: stop,
	}
	contain(s.cmd)
	s.cmd.Env = append(os.Environ(), fmt.Sprintf("GOMEMLIMIT=%d", r.Limits.Memory/10*8))
	s.cmd.Stderr = s.stderr
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		stop()
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		stop()
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		stop()
		return nil, err
	}
	go s.read(out)
	a, d := s.next(r.Limits.Load)
	switch {
	case d != nil:
		s.close()
		return nil, d
	case a.Loaded == nil:
		s.close()
		return nil, &death{"does not say that it has loaded the bundle", ""}
	}
	s.loaded = *a.Loaded
	return s, nil
}

func (s *session) read(out io.Reader) {
	defer close(s.answers)
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, rehearse.MaxLine)
	for lines.Scan() {
		var a rehearse.Answer
		if json.Unmarshal(lines.Bytes(), &a) != nil {
			return
		}
		s.answers <- a
	}
}

// next waits for an answer, and watches the build meanwhile.
func (s *session) next(limit time.Duration) (rehearse.Answer, *death) {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	for {
		look := time.NewTimer(50 * time.Millisecond)
		select {
		case a, ok := <-s.answers:
			look.Stop()
			if !ok {
				return a, s.died()
			}
			return a, nil
		case <-deadline.C:
			look.Stop()
			return rehearse.Answer{}, &death{hung, fmt.Sprintf("no answer for %v", limit)}
		case <-look.C:
			now, peak := residentOf(s.cmd.Process.Pid)
			s.peak = max(s.peak, peak)
			if now > s.limits.Memory {
				return rehearse.Answer{}, &death{"took too much memory", fmt.Sprintf("%d MiB resident, where %d are allowed", now>>20, s.limits.Memory>>20)}
			}
		}
	}
}

// died says how a build that is gone came to its end.
func (s *session) died() *death {
	err := s.cmd.Wait()
	why := lastWords(s.stderr.kept())
	if why == "" && err != nil {
		why = err.Error()
	}
	return &death{"crashed", why}
}

// lastWords finds the line of a Go program's end that says what happened.
func lastWords(stderr []byte) string {
	first := ""
	for line := range bytes.Lines(stderr) {
		text := strings.TrimSpace(string(line))
		if first == "" {
			first = text
		}
		for _, sign := range []string{"panic: ", "fatal error: ", "holdfast-agent: "} {
			if rest, ok := strings.CutPrefix(text, sign); ok {
				return rest[:min(len(rest), 300)]
			}
		}
	}
	return first[:min(len(first), 300)]
}

// ask evaluates one event.
func (s *session) ask(r rehearse.Request) (rehearse.Answer, *death) {
	line, err := json.Marshal(r)
	if err != nil {
		return rehearse.Answer{}, &death{"cannot be asked", err.Error()}
	}
	if _, err := s.in.Write(append(line, '\n')); err != nil {
		if _, d := s.next(time.Second); d != nil {
			return rehearse.Answer{}, d
		}
		return rehearse.Answer{}, &death{"does not listen", err.Error()}
	}
	limit := s.limits.Event + time.Duration(r.Repeat)*s.limits.Event/1000
	for {
		a, d := s.next(limit)
		switch {
		case d != nil:
			return a, d
		case a.N == r.N:
			return a, nil
		case a.Begin != r.N:
			return a, &death{"answers out of turn", ""}
		}
	}
}

// end lets the build finish, and returns what it says last.
func (s *session) end() (rehearse.End, *death) {
	defer s.close()
	_, peak := residentOf(s.cmd.Process.Pid)
	s.peak = max(s.peak, peak)
	_ = s.in.Close()
	a, d := s.next(s.limits.Load)
	if d != nil {
		return rehearse.End{}, d
	}
	if a.End == nil {
		return rehearse.End{}, &death{"does not finish", ""}
	}
	return *a.End, nil
}

func (s *session) close() {
	s.once.Do(func() {
		s.stop()
		_ = s.in.Close()
		go func() {
			for range s.answers { // its reader must end
			}
		}()
		_ = s.cmd.Wait()
	})
}
