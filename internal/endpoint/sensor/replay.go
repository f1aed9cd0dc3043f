package sensor

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
)

// The bounds of a file of events.
const (
	maxReplayLine   = 64 << 10
	maxReplayEvents = 100_000
)

// replay is the source that tells recorded process launches again: one JSON
// object a line, its keys the names Sigma uses (Image, CommandLine, ParentImage,
// …) or OCSF paths, its values strings or numbers. Each line becomes a parent
// that runs already, a launch, and an exit, of processes with ids of their own,
// so that no two are ever the same process.
type replay struct {
	events []replayed
	loop   bool
	gap    time.Duration // between launches
	due    time.Time
	at     int    // which event
	step   int    // what of it: parent, launch, exit
	serial uint32 // processes so far
	child  replayedProcess
	parent replayedProcess
}

type replayedProcess struct {
	pid   uint32
	start time.Duration
}

type replayed struct {
	image, cmdLine, user, cwd, tty, container []byte
	parentImage, parentCmdLine, parentUser    []byte
}

// What a replayed event consists of.
const (
	stepParent = iota
	stepLaunch
	stepExit
	steps
)

// firstReplayPID is beyond the ids Linux gives out (2²² at most), so that a
// replayed process can be told from one of this host.
const firstReplayPID = 1 << 23

func openReplay(file string, loop bool, rate float64) (source, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, &holdfast.Error{Kind: holdfast.Invalid, What: "the file of events to replay cannot be read", Where: "replay", Err: err}
	}
	defer f.Close()
	p := &replay{loop: loop}
	if rate > 0 {
		p.gap = time.Duration(float64(time.Second) / rate)
	}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxReplayLine)
	n := 0
	for lines.Scan() {
		n++
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		e, err := decodeReplayed(lines.Bytes())
		if err != nil {
			return nil, &holdfast.Error{Kind: holdfast.Invalid, Where: fmt.Sprintf("%s:%d", file, n), Err: err}
		}
		if len(p.events) == maxReplayEvents {
			return nil, &holdfast.Error{Kind: holdfast.Invalid, What: fmt.Sprintf("more than %d events", maxReplayEvents), Where: file}
		}
		p.events = append(p.events, e)
	}
	if err := lines.Err(); err != nil {
		return nil, &holdfast.Error{Kind: holdfast.Invalid, Where: fmt.Sprintf("%s:%d", file, n+1), Err: err}
	}
	if len(p.events) == 0 {
		return nil, &holdfast.Error{Kind: holdfast.Invalid, What: "no events to replay", Where: file}
	}
	return p, nil
}

func decodeReplayed(line []byte) (replayed, error) {
	var fields map[string]any
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	if err := d.Decode(&fields); err != nil {
		return replayed{}, err
	}
	var e replayed
	for name, v := range fields {
		ordinal, ok := ocsf.ProcessActivity().Ordinal(name)
		if !ok {
			return e, fmt.Errorf("%q is not a field of a process's launch", name)
		}
		var b []byte
		switch v := v.(type) {
		case string:
			b = []byte(v)
		case json.Number:
			b = []byte(v)
		default:
			return e, fmt.Errorf("%s needs a string or a number", name)
		}
		switch ordinal {
		case ocsf.ProcessPath:
			e.image = b
		case ocsf.ProcessCmdLine:
			e.cmdLine = b
		case ocsf.ProcessUserName:
			e.user = b
		case ocsf.ProcessDirectory:
			e.cwd = b
		case ocsf.ProcessSession:
			e.tty = b
		case ocsf.ProcessContainer:
			e.container = b
		case ocsf.ParentPath:
			e.parentImage = b
		case ocsf.ParentCmdLine:
			e.parentCmdLine = b
		case ocsf.ParentUserName:
			e.parentUser = b
		default: // ids and times are given out anew
		}
	}
	if len(e.image) == 0 {
		return e, fmt.Errorf("an event needs an Image")
	}
	return e, nil
}

func (p *replay) next(r *record, until time.Time) (bool, error) {
	if p.at == len(p.events) {
		if !p.loop {
			time.Sleep(time.Until(until))
			return false, nil
		}
		p.at = 0
	}
	if p.step == stepParent && p.gap > 0 {
		if p.due.After(until) {
			time.Sleep(time.Until(until))
			return false, nil
		}
		time.Sleep(time.Until(p.due))
		if now := time.Now(); p.due.IsZero() || now.Sub(p.due) > time.Second {
			p.due = now // a host that slept does not catch up
		}
		p.due = p.due.Add(p.gap)
	}
	e := &p.events[p.at]
	switch p.step {
	case stepParent:
		p.child, p.parent = p.begin(), replayedProcess{}
		p.fill(r, exec)
		r.silent, r.path, r.args, r.user = true, e.parentImage, e.parentCmdLine, e.parentUser
	case stepLaunch:
		p.child, p.parent = p.begin(), p.child
		p.fill(r, exec)
		r.path, r.args, r.user, r.cwd, r.tty, r.group = e.image, e.cmdLine, e.user, e.cwd, e.tty, e.container
		r.file = e.image
	case stepExit:
		p.fill(r, exit)
	}
	if p.step = (p.step + 1) % steps; p.step == stepParent {
		p.at++
	}
	return true, nil
}

// begin gives the next process an id and a start.
func (p *replay) begin() replayedProcess {
	p.serial++
	return replayedProcess{pid: firstReplayPID + p.serial, start: sinceBoot()}
}

func (p *replay) fill(r *record, k kind) {
	*r = record{
		kind: k, time: sinceBoot(), nlink: 1, enriched: true,
		pid: p.child.pid, start: p.child.start, parent: p.parent.pid, parentStart: p.parent.start,
	}
}

func (p *replay) tier() string { return TierReplay }
func (p *replay) lost() uint64 { return 0 }
func (p *replay) Close() error { return nil }
