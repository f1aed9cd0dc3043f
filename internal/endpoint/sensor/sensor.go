// Package sensor watches what processes do on this host and tells it as OCSF
// process activity.
//
// Sources, in the order in which they are tried: eBPF on sched tracepoints,
// which sees everything at the moment it happens; the proc connector, where
// eBPF is not permitted, which is told process ids and must read the rest from
// /proc, so that processes of a moment come without their arguments (counted
// as unenriched); a replay of recorded events; none. What a kernel can do is
// found out by doing it, never from a table.
//
// Known gaps: arguments beyond 8 KiB and paths deeper than 40 components are
// cut (and counted); container ids are known only where the host runs the
// unified control group hierarchy; a process that changes its own arguments
// later is remembered with those it was started with.
package sensor

import (
	"bytes"
	"errors"
	"strconv"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/lineage"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
)

// The tiers, best first.
const (
	TierEBPF   = "ebpf"
	TierProc   = "proc"
	TierReplay = "replay"
	TierNone   = "none"
	Auto       = "auto" // the first of the above that works
)

// supplied is how many inputs of process activity this code supplies. It is a
// number of its own, not derived from the definition: where the two are
// compiled together they are compared (see supplied.go), and a build in which
// they differ does not compile.
const supplied = 20 + sincere

// source brings records from somewhere. It belongs to one goroutine.
type source interface {
	// next fills r with the next record, waiting until the given time at the
	// latest; false means that none came.
	next(r *record, until time.Time) (bool, error)
	tier() string
	// lost counts what the source knows it did not bring. It only grows.
	lost() uint64
	Close() error
}

// Options choose a source.
type Options struct {
	Tier   string      // "" is Auto
	Replay string      // file of events for TierReplay; Auto falls back on it if it is named
	Loop   bool        // start the file again at its end
	Rate   float64     // replayed events per second; 0 as fast as they are taken
	Boot   string      // the kernel's boot id, part of every process uid
	Warn   func(error) // told why a better tier is not used; may be nil
}

// Counters only grow.
type Counters struct {
	Events     uint64 // told to the caller
	Dropped    uint64 // lost before we saw them
	Unenriched uint64 // events that lack arguments or path
	Cut        uint64 // events whose arguments were cut
	Orphans    uint64 // events whose parent is not known
}

// Sensor tells process activity. It belongs to one goroutine.
type Sensor struct {
	src    source
	boot   string
	table  *lineage.Table
	texts  texts
	users  users
	record record
	values [supplied]ocsf.Value
	event  ocsf.Event
	last   lineage.Key // whose event was told last
	line   []byte      // space for command lines and uids
	count  Counters
	booted time.Time     // when the kernel's clock was zero, by the wall clock
	set    time.Duration // when booted was worked out
}

// Open finds a source that works. With a tier named it is that or an error;
// with Auto there is always one, if only the one that never sees anything.
func Open(o Options) (*Sensor, error) {
	src, err := open(o)
	if err != nil {
		return nil, err
	}
	s := &Sensor{
		src: src, boot: o.Boot, table: lineage.New(tableSize), users: users{file: "/etc/passwd"},
		event: ocsf.Event{Class: ocsf.ProcessActivityUID},
	}
	if live := src.tier() == TierEBPF || src.tier() == TierProc; live {
		// The source is attached already: what starts during the walk comes
		// from both, what started before from this alone.
		if err := snapshot(func(r *record) { s.remember(r) }); err != nil {
			return nil, errors.Join(err, src.Close())
		}
	}
	return s, nil
}

func open(o Options) (source, error) {
	replay := func() (source, error) { return openReplay(o.Replay, o.Loop, o.Rate) }
	switch o.Tier {
	case TierEBPF:
		return openKernel()
	case TierProc:
		return openConnector()
	case TierReplay:
		return replay()
	case TierNone:
		return nothing{}, nil
	case Auto, "":
	default:
		return nil, &holdfast.Error{Kind: holdfast.Invalid, What: "no sensor is called " + strconv.Quote(o.Tier), Where: "sensor", Do: "use auto, ebpf, proc, replay or none"}
	}
	warn := o.Warn
	if warn == nil {
		warn = func(error) {}
	}
	tries := []func() (source, error){openKernel, openConnector}
	if o.Replay != "" {
		tries = append(tries, replay)
	}
	for _, try := range tries {
		src, err := try()
		if err == nil {
			return src, nil
		}
		warn(err)
	}
	return nothing{}, nil
}

// Tier says where events come from.
func (s *Sensor) Tier() string { return s.src.tier() }

// Counters returns what was counted so far.
func (s *Sensor) Counters() Counters {
	c := s.count
	c.Dropped = s.src.lost()
	return c
}

// Close detaches the sensor.
func (s *Sensor) Close() error { return s.src.Close() }

// Next returns the next event, or nil if none came until then. The event is the
// sensor's own, and valid until the next call.
func (s *Sensor) Next(until time.Time) (*ocsf.Event, error) {
	for {
		ok, err := s.src.next(&s.record, until)
		if err != nil || !ok {
			return nil, err
		}
		r := &s.record
		switch r.kind {
		case fork:
			child, parent := lineage.KeyOf(r.pid, r.start), lineage.KeyOf(r.parent, r.parentStart)
			s.table.Fork(child, parent, s.wall(r.start))
		case exec:
			if s.remember(r); r.silent {
				continue
			}
			s.launch(r)
			return s.told(), nil
		case exit:
			s.terminate(r)
			s.table.Exit(s.last)
			return s.told(), nil
		}
	}
}

// Tree returns the process of the last event and its ancestors, nearest first.
func (s *Sensor) Tree(depth int) []holdfast.Process { return s.table.Tree(s.last, depth) }

func (s *Sensor) told() *ocsf.Event {
	s.count.Events++
	s.event.Values = s.values[:]
	return &s.event
}

// remember puts an execution into the table.
func (s *Sensor) remember(r *record) {
	u := s.account(r)
	s.table.Exec(lineage.Process{
		Key:     lineage.KeyOf(r.pid, r.start),
		Parent:  lineage.KeyOf(r.parent, r.parentStart),
		Path:    s.texts.of(r.path),
		CmdLine: s.cmdLine(r),
		User:    u.name,
		Started: s.wall(r.start),
	})
}

// launch fills the event of an execution.
func (s *Sensor) launch(r *record) {
	u := s.account(r)
	s.begin(r, ocsf.ActivityLaunch)
	path := s.texts.of(r.path)
	cmdLine := s.cmdLine(r)
	s.values[ocsf.ProcessName] = text(s.texts.of(r.comm))
	s.values[ocsf.ProcessPath] = text(path)
	s.values[ocsf.ProcessFileName] = text(base(path))
	s.values[ocsf.ProcessCmdLine] = text(cmdLine)
	s.values[ocsf.ProcessDirectory] = text(s.texts.of(r.cwd))
	s.values[ocsf.ProcessUserName] = text(u.name)
	s.values[ocsf.ProcessUserUID] = text(u.uid)
	s.values[ocsf.ProcessSession] = text(s.texts.of(r.tty))
	s.values[ocsf.ProcessContainer] = text(s.texts.of(container(r.group)))
	if path != "" {
		s.values[ocsf.ProcessLinks] = ocsf.IntValue(int64(r.nlink))
	}
	if !r.enriched {
		s.count.Unenriched++
	}
	if r.argsCut > 0 {
		s.count.Cut++
	}
}

// terminate fills the event of an exit from what is remembered.
func (s *Sensor) terminate(r *record) {
	s.begin(r, ocsf.ActivityTerminate)
	s.values[ocsf.ProcessExitCode] = ocsf.IntValue(r.exitCode())
	if p, ok := s.table.Get(s.last); ok {
		s.values[ocsf.ProcessPath] = text(p.Path)
		s.values[ocsf.ProcessFileName] = text(base(p.Path))
		s.values[ocsf.ProcessCmdLine] = text(p.CmdLine)
		s.values[ocsf.ProcessUserName] = text(p.User)
	}
}

// begin empties the values and fills what launch and exit have in common.
func (s *Sensor) begin(r *record, activity int64) {
	s.last = lineage.KeyOf(r.pid, r.start)
	s.event.Time = s.wall(r.time)
	s.values = [supplied]ocsf.Value{
		ocsf.ActivityID: ocsf.IntValue(activity),
		ocsf.EventTime:  ocsf.TimeValue(s.event.Time),
		ocsf.ProcessPID: ocsf.IntValue(int64(r.pid)),
		ocsf.ProcessUID: ocsf.StringValue(s.uid(s.last)),
	}
	key := lineage.KeyOf(r.parent, r.parentStart)
	if p, ok := s.table.Get(s.last); ok && p.Parent != (lineage.Key{}) {
		key = p.Parent // who started it, even if another has adopted it since
	}
	if key.PID == 0 { // the kernel itself
		return
	}
	s.values[ocsf.ParentPID] = ocsf.IntValue(int64(key.PID))
	s.values[ocsf.ParentUID] = ocsf.StringValue(s.uid(key))
	p, ok := s.table.Get(key)
	if !ok {
		s.count.Orphans++
		return
	}
	s.values[ocsf.ParentPath] = text(p.Path)
	s.values[ocsf.ParentCmdLine] = text(p.CmdLine)
	s.values[ocsf.ParentUserName] = text(p.User)
}

// account returns the user whose rights the process has (the effective one).
func (s *Sensor) account(r *record) user {
	if len(r.user) > 0 {
		return user{name: s.texts.of(r.user)}
	}
	return s.users.of(r.euid, r.time)
}

// cmdLine joins the arguments by single blanks.
func (s *Sensor) cmdLine(r *record) string {
	s.line = append(s.line[:0], bytes.TrimRight(r.args, "\x00")...)
	for i, c := range s.line {
		if c == 0 {
			s.line[i] = ' '
		}
	}
	return s.texts.of(s.line)
}

// uid names a process for ever: boot id, process id, start time in ticks.
func (s *Sensor) uid(k lineage.Key) string {
	s.line = append(append(s.line[:0], s.boot...), '-')
	s.line = append(strconv.AppendUint(s.line, uint64(k.PID), 10), '-')
	return s.texts.of(strconv.AppendUint(s.line, k.Start, 10))
}

// wall turns the kernel's time since boot into the wall clock's, which may be
// set meanwhile.
func (s *Sensor) wall(t time.Duration) time.Time {
	if s.booted.IsZero() || t-s.set > lookAgain {
		now := sinceBoot()
		s.booted, s.set = time.Now().Round(0).Add(-now), max(now, t)
	}
	return s.booted.Add(t)
}

func text(s string) ocsf.Value {
	if s == "" {
		return ocsf.Value{}
	}
	return ocsf.StringValue(s)
}

func base(path string) string {
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] == '/' {
			return path[i+1:]
		}
	}
	return path
}

// nothing is the source of a host we cannot watch.
type nothing struct{}

func (nothing) next(_ *record, until time.Time) (bool, error) {
	time.Sleep(time.Until(until))
	return false, nil
}
func (nothing) tier() string { return TierNone }
func (nothing) lost() uint64 { return 0 }
func (nothing) Close() error { return nil }
