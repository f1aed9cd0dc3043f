package stage

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/view"
	"github.com/holdfast-security/holdfast/internal/wire/apiv1"
)

// Demo is a Holdfast to look at: the server, this host, and simulated hosts
// beside it.
type Demo struct {
	Config
	Simulated int
	Content   fs.FS  // the default content pack
	Paste     string // a harmless command line that a default rule finds
	Out       io.Writer
	Root      bool // whether this host can really be watched
	Once      bool // end when ready
}

// Run starts the demo, brings the default content to every host, and goes on
// until ctx ends. A second run in the same folder goes on where the first was.
func (d Demo) Run(ctx context.Context) error {
	live := &line{w: d.Out}
	d.Say = live.say
	began := time.Now()
	s, err := Open(ctx, d.Config)
	if err != nil {
		return err
	}
	defer func() {
		live.say("stopping")
		s.Close()
	}()
	link, err := s.signIn(ctx)
	if err != nil {
		return err
	}
	d.say(s, link)
	this, simulated, err := d.hosts(ctx, s)
	if err != nil {
		return err
	}
	hosts := []*Process{this, simulated}
	if err := d.release(ctx, s, live, hosts); err != nil {
		return err
	}
	fmt.Fprintf(d.Out, "ready after %.0f s\nREADY %s\n", time.Since(began).Seconds(), s.Admin.Base)
	if d.Once {
		return nil
	}
	return d.watch(ctx, s, live, hosts)
}

func (d Demo) say(s *Stage, link string) {
	fmt.Fprintf(d.Out, "console      %s\nsign in once %s\n", s.Admin.Base, link)
	if !d.Root {
		fmt.Fprintln(d.Out, "not root: this host replays recorded events instead of watching its own; run as root to see it watched")
	}
	fmt.Fprintf(d.Out, "clock        local: a heartbeat every %v, and every window scaled with it (production: every minute)\n", d.Heartbeat)
	fmt.Fprintf(d.Out, "demo         it approves its own releases; soaks are signed as zero\ntry          %s\n", d.Paste)
}

func (s *Stage) signIn(ctx context.Context) (string, error) {
	var a apiv1.TokenAnswer
	if err := s.Admin.Post(ctx, "/api/v1/users/admin/links", nil, &a); err != nil {
		return "", err
	}
	return s.Admin.Base + "/sign-in/once?" + url.Values{"link": {a.Token}}.Encode(), nil
}

// hosts starts this host and the simulated ones.
func (d Demo) hosts(ctx context.Context, s *Stage) (this, simulated *Process, err error) {
	g := Guarded{Name: "this-host", Worker: s.Program("holdfast-agent"), Sensor: "auto", Role: "server"}
	if !d.Root {
		g.Sensor, g.Rate = "replay", 5
		if g.Replay, err = s.replayOf(d.Content); err != nil {
			return nil, nil, err
		}
	}
	token, err := s.EnrolmentToken(ctx, 1, false)
	if err != nil {
		return nil, nil, err
	}
	defer os.Remove(token)
	if err := s.Enrol(ctx, g, token); err != nil {
		return nil, nil, err
	}
	if this, err = s.Guard(g); err != nil {
		return nil, nil, err
	}
	if simulated, err = s.Simulate(ctx, d.Simulated); err != nil {
		return nil, nil, err
	}
	s.Say("waiting for %d hosts to enrol and connect", d.Simulated+1)
	return this, simulated, s.WaitConnected(ctx, d.Simulated+1, 2*time.Minute, this, simulated)
}

// replayOf writes the pack's benign events to one file.
func (s *Stage) replayOf(pack fs.FS) (string, error) {
	files, err := fs.Glob(pack, "benign/*.jsonl")
	if err != nil {
		return "", err
	}
	slices.Sort(files)
	var all []byte
	for _, f := range files {
		raw, err := fs.ReadFile(pack, f)
		if err != nil {
			return "", err
		}
		all = append(all, raw...)
	}
	file, err := filepath.Abs(s.Path("replay.jsonl"))
	if err != nil {
		return "", err
	}
	return file, os.WriteFile(file, all, 0o600)
}

// release brings the default content to every host, unless it is there.
func (d Demo) release(ctx context.Context, s *Stage, live *line, hosts []*Process) error {
	agent := s.Program("holdfast-agent")
	if _, err := s.Register(ctx, agent); err != nil {
		return err
	}
	file, b, err := s.Content(ctx, "default", d.Content, "")
	if err != nil {
		return err
	}
	var rows []view.RolloutRow
	if err := s.Admin.Get(ctx, "/api/v1/rollouts", &rows); err != nil {
		return err
	}
	at := slices.IndexFunc(rows, func(r view.RolloutRow) bool { return r.Bundle.Digest == b.Digest })
	var id holdfast.ReleaseID
	if at >= 0 {
		id = rows[at].ID
		live.say("going on with release %s of %s", id, b.Version)
	} else {
		live.say("rehearsing %s (%s) on the fleet's sensor build", b.Version, b.Digest.Short())
		verdict, err := s.Rehearse(ctx, file, string(holdfast.Rules), agent)
		if err != nil {
			return err
		}
		r, err := s.Release(ctx, file, verdict, string(holdfast.Rules), "", "the default content pack")
		if err != nil {
			return err
		}
		id = r.ID
		live.say("release %s: rehearsed, signed by two publishers, approved", id)
	}
	end, err := s.Follow(ctx, id, 5*time.Minute, hosts, func(r view.RolloutDetail) {
		live.show("%-9s %d of %d admitted, %d clean, %d harmed, evidence %.2g of %.0f", r.Phase, r.Admitted, r.Eligible, r.Clean, r.Harmed, r.Evidence, 1/r.Alpha)
	})
	if err != nil {
		return err
	}
	live.end()
	if end.Phase != holdfast.Complete {
		return &holdfast.Error{Kind: holdfast.Conflict, What: fmt.Sprintf("the release of the default content was %s: %s", end.Phase, end.Why), Do: "look at it in the console, or start anew with make clean-state"}
	}
	return nil
}

// watch shows a live line until ctx ends.
func (d Demo) watch(ctx context.Context, s *Stage, live *line, hosts []*Process) error {
	for {
		if o, err := s.overview(ctx); err == nil {
			live.show("%d hosts, %d protected, %d findings lately, %d of %d events dropped", o.Hosts, o.States[view.Protected], recent(o.Trend), o.Loss.EventsDropped, o.Loss.Events)
		}
		for _, p := range append(hosts, s.Server) {
			if err := p.Exited(); err != nil && ctx.Err() == nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			live.end()
			return nil
		case <-time.After(time.Second):
		}
	}
}

// recent counts the findings of a trend.
func recent(t view.Trend) int {
	n := 0
	for _, by := range t.By {
		for _, k := range by {
			n += k
		}
	}
	return n
}

// line prints lines, and one that is overwritten while it changes. Where the
// output is no terminal a changing line is printed when it has changed, at
// most every few seconds.
type line struct {
	w     io.Writer
	shown string
	at    time.Time
}

func (l *line) say(format string, args ...any) {
	l.end()
	fmt.Fprintf(l.w, format+"\n", args...)
}

func (l *line) show(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	switch {
	case terminal(l.w):
		fmt.Fprintf(l.w, "\r%-100s", s)
		l.shown = s
	case s != l.shown && time.Since(l.at) > 5*time.Second:
		fmt.Fprintln(l.w, s)
		l.shown, l.at = s, time.Now()
	}
}

func (l *line) end() {
	if l.shown != "" && terminal(l.w) {
		fmt.Fprintln(l.w)
	}
	l.shown = ""
}

func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
