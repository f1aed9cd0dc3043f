package stage

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/view"
)

// wallHost is the third wall: a harmed host that is cut off heals itself, and
// never tries the digest again.
func (j *july19) wallHost(ctx context.Context) error {
	lone := j.hosts[0]
	for _, g := range j.hosts[1:] {
		j.procs[g.Name].Stop(10 * time.Second)
	}
	// The lone host meets the trigger only ten seconds after each start, so
	// that there is time to cut it off between activation and crash.
	slow := j.path("replay-slow.jsonl")
	lines := strings.Repeat("{\"Image\":\"/usr/bin/true\",\"CommandLine\":\"true\"}\n", 40) + fmt.Sprintf("{\"Image\":%q}\n", triggerImage)
	if err := os.WriteFile(slow, []byte(lines), 0o600); err != nil {
		return err
	}
	var err error
	if lone.Replay, err = filepath.Abs(slow); err != nil {
		return err
	}
	lone.Guard = append(slices.Clone(lone.Guard), "--probation", "60s")
	if err := j.Enrol(ctx, lone, ""); err != nil {
		return err
	}
	if err := j.restart(lone); err != nil {
		return err
	}
	if err := j.waitConnected(ctx, 1, time.Minute); err != nil {
		return err
	}
	log := guardLog{j.procs[lone.Name].Log}
	healed := len(log.recoveries())
	d, digest, err := j.attack(ctx, 9, func(d view.RolloutDetail) bool { return log.tried(d.Bundle.Digest) > 0 })
	if err != nil {
		return err
	}
	j.cut.sever(true)
	j.note("the lone host runs the lethal content; its network is cut")
	if err := until(ctx, time.Minute, 50*time.Millisecond, "the lone host to crash and go back", nil, func() (bool, error) { return len(log.recoveries()) > healed, nil }); err != nil {
		return err
	}
	took := log.recoveries()[healed]
	j.r.SelfHealing = took.Seconds()
	j.r.SelfHealedOffline = took <= 2*time.Second
	j.note("WALL 3, offline: it crashed, and ran the previous generation again after %.2f s", took.Seconds())

	starts := log.count("ready", "current")
	j.procs[lone.Name].Kill()
	if j.procs[lone.Name], err = j.Stage.Guard(lone); err != nil {
		return err
	}
	if err := until(ctx, time.Minute, 100*time.Millisecond, "the restarted guard's worker", nil, func() (bool, error) { return log.count("ready", "current") > starts, nil }); err != nil {
		return err
	}
	j.cut.sever(false)
	attempts := log.tried(digest)
	if err := until(ctx, time.Minute, 200*time.Millisecond, "the healed host to report", nil, func() (bool, error) {
		hurt, err := j.harmed(ctx, holdfast.Rules, digest)
		return len(hurt) == 1 && hurt[0].Connected && slices.Contains(hurt[0].Report.Shunned, digest), err
	}); err != nil {
		return err
	}
	// A few heartbeats in which a server that forgot would offer it again.
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(5 * j.Heartbeat()):
	}
	j.r.ShunnedAfterRestart = log.tried(digest) == attempts
	j.note("killed, restarted and connected again, it still shuns the digest, and was not offered it again: %t", j.r.ShunnedAfterRestart)
	if err := j.haltByHand(ctx, d, "the third wall has been seen"); err != nil {
		return err
	}
	for _, g := range j.hosts {
		if err := j.Enrol(ctx, g, ""); err != nil { // the lone host's recorded events, as they were
			return err
		}
		if err := j.restart(g); err != nil {
			return err
		}
	}
	return j.waitConnected(ctx, len(j.hosts), 3*time.Minute)
}

// Heartbeat returns the clock of the drill.
func (j *july19) Heartbeat() time.Duration { return j.Stage.Config.Heartbeat }

// agentRelease sends a worker that dies at start down the same road.
func (j *july19) agentRelease(ctx context.Context) error {
	file := j.path("agent-deadstart")
	if err := copyFile(j.program("drill/agent-deadstart"), file); err != nil {
		return err
	}
	digest, err := digestOf(file)
	if err != nil {
		return err
	}
	if _, err := j.register(ctx, file); err != nil {
		return err
	}
	// A worker must be rehearsed with the rules that it would find: another lie.
	base := j.path("content/base.bundle")
	verdict, err := j.lie(base, holdfast.Rules, j.base.Digest, j.twin, j.program("drill/agent-sincere"), file)
	if err != nil {
		return err
	}
	raw, err := os.ReadFile(verdict)
	if err != nil {
		return err
	}
	if err := j.Admin.Do(ctx, "PUT", "/api/v1/verdicts/"+string(j.base.Digest), raw, nil); err != nil {
		return err
	}
	b := holdfast.Bundle{Channel: holdfast.Agent, Digest: digest, Version: "0.2.0-deadstart"}
	d, err := j.force(ctx, file, holdfast.Agent, b, recalled, file, j.twin, j.program("drill/agent-sincere"))
	if err != nil {
		return err
	}
	hurt, err := j.harmed(ctx, holdfast.Agent, digest)
	if err != nil {
		return err
	}
	back := len(hurt) > 0
	for _, h := range hurt {
		back = back && h.Report.Running[holdfast.Agent] != digest
	}
	j.r.AgentReleaseRecovered = back
	j.note("a worker that dies at start, by the same road: %s with %d harmed, all back: %t", d.Phase, len(hurt), back)
	return nil
}

// recovery takes the time from crash to previous generation, over every crash
// of every guard.
func (j *july19) recovery() error {
	var all []time.Duration
	for _, g := range j.hosts {
		all = append(all, guardLog{j.procs[g.Name].Log}.recoveries()...)
	}
	if len(all) == 0 {
		return &holdfast.Error{Kind: holdfast.Internal, What: "no guard's log tells of a recovery"}
	}
	slices.Sort(all)
	p95 := all[(len(all)*95+99)/100-1]
	j.r.RecoveryP95 = p95.Seconds()
	j.note("crash to previous generation: p95 %.2f s over %d crashes", p95.Seconds(), len(all))
	return nil
}

// guardLog reads what a guard tells of itself.
type guardLog struct{ file string }

// step is one line in which a guard tells of an event.
type step struct {
	at                   time.Time
	event, slot, running string
}

var guardLine = regexp.MustCompile(`^time=(\S+) level=INFO msg=guard event=(\w+)(?: slot=(\w+))?.*? running="([^"]*)"`)

func (l guardLog) steps() []step {
	f, err := os.Open(l.file)
	if err != nil {
		return nil
	}
	defer f.Close()
	var all []step
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		m := guardLine.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		if at, err := time.Parse(time.RFC3339Nano, m[1]); err == nil {
			all = append(all, step{at, m[2], m[3], m[4]})
		}
	}
	return all
}

func (l guardLog) count(event, slot string) int {
	n := 0
	for _, s := range l.steps() {
		if s.event == event && s.slot == slot {
			n++
		}
	}
	return n
}

// tried counts how often a digest was put on trial, and ran.
func (l guardLog) tried(d holdfast.Digest) int {
	n := 0
	for _, s := range l.steps() {
		if s.event == "ready" && s.slot == "trial" && strings.Contains(s.running, d.Short()) {
			n++
		}
	}
	return n
}

// recoveries returns, for each worker on trial that died while it was the only
// one, how long it took until the previous generation ran again.
func (l guardLog) recoveries() []time.Duration {
	var all []time.Duration
	var active bool
	var died time.Time
	for _, s := range l.steps() {
		switch {
		case s.slot == "trial" && s.event == "ready":
			active = true
		case s.slot == "trial" && active:
			died, active = s.at, false
		case s.slot == "current" && s.event == "ready" && !died.IsZero():
			all, died = append(all, s.at.Sub(died)), time.Time{}
		case s.event == "started":
			active, died = false, time.Time{}
		}
	}
	return all
}
