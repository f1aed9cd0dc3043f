package drill

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/stage"
	"github.com/holdfast-security/holdfast/internal/view"
)

// wallHost is the third wall: a harmed host that is cut off heals itself, and
// never tries the digest again.
func (j *july19) wallHost(ctx context.Context) error {
	lone, s := j.hosts[0], j.first()
	for _, h := range j.hosts[1:] {
		h.proc.Stop(10 * time.Second)
	}
	usual := lone.Guarded
	if err := j.slowly(ctx, lone, s); err != nil {
		return err
	}
	log := lone.log()
	healed := len(log.recoveries())
	d, err := j.attack(ctx, 9, s, func(d view.RolloutDetail) bool { return log.tried(d.Bundle.Digest) > 0 })
	if err != nil {
		return err
	}
	lone.wire.Sever(true)
	j.note("the lone host runs the lethal content; its network is cut")
	if err := stage.Until(ctx, time.Minute, 50*time.Millisecond, "the lone host to crash and go back", nil, func() (bool, error) { return len(log.recoveries()) > healed, nil }); err != nil {
		return err
	}
	took := log.recoveries()[healed]
	j.r.SelfHealing = took.Seconds()
	j.r.SelfHealedOffline = took <= 2*time.Second
	j.note("WALL 3, offline: it crashed, and ran the previous generation again after %.2f s", took.Seconds())
	if err := j.forgetsNothing(ctx, lone, d.Bundle.Digest); err != nil {
		return err
	}
	if _, err := j.halt(ctx, d.ID, "the third wall has been seen"); err != nil {
		return err
	}
	lone.Guarded = usual
	for _, h := range j.hosts {
		if err := j.Enrol(ctx, h.Guarded, ""); err != nil { // the lone host's recorded events, as they were
			return err
		}
		if err := j.restart(h); err != nil {
			return err
		}
	}
	return j.WaitConnected(ctx, len(j.hosts), 3*time.Minute)
}

// slowly lets a host meet the program only ten seconds after each start, so
// that there is time to cut it off between activation and crash.
func (j *july19) slowly(ctx context.Context, h *host, s strike) (err error) {
	file := j.Path("replay-slow.jsonl")
	if err := write(file, append(slices.Repeat([]launch{idle}, 40), launch{Image: s.image()})); err != nil {
		return err
	}
	if h.Replay, err = filepath.Abs(file); err != nil {
		return err
	}
	h.Guarded.Guard = append(slices.Clone(h.Guarded.Guard), "--probation", "60s")
	if err := j.Enrol(ctx, h.Guarded, ""); err != nil {
		return err
	}
	if err := j.restart(h); err != nil {
		return err
	}
	return j.WaitConnected(ctx, 1, time.Minute)
}

// forgetsNothing kills the healed host's guard, and sees whether it still shuns
// the digest when it and its network are back.
func (j *july19) forgetsNothing(ctx context.Context, lone *host, digest holdfast.Digest) (err error) {
	log := lone.log()
	starts := log.count("ready", "current")
	lone.proc.Kill()
	if lone.proc, err = j.Guard(lone.Guarded); err != nil {
		return err
	}
	if err := stage.Until(ctx, time.Minute, 100*time.Millisecond, "the restarted guard's worker", nil, func() (bool, error) { return log.count("ready", "current") > starts, nil }); err != nil {
		return err
	}
	lone.wire.Sever(false)
	attempts := log.tried(digest)
	if err := stage.Until(ctx, time.Minute, 200*time.Millisecond, "the healed host to report", nil, func() (bool, error) {
		hurt, err := j.failed(ctx, holdfast.Rules, digest)
		return len(hurt) == 1 && hurt[0].Connected && slices.Contains(hurt[0].Report.Shunned, digest), err
	}); err != nil {
		return err
	}
	// A few heartbeats in which a server that forgot would offer it again.
	if err := pause(ctx, 5*j.Heartbeat); err != nil {
		return err
	}
	j.r.ShunnedAfterRestart = log.tried(digest) == attempts
	j.note("killed, restarted and connected again, it still shuns the digest, and was not offered it again: %t", j.r.ShunnedAfterRestart)
	return nil
}

// agentRelease sends a worker that dies at start down the same road.
func (j *july19) agentRelease(ctx context.Context) error {
	dead := j.Program("drill/agent-deadstart")
	r, err := j.agent(ctx, dead, "0.2.0-deadstart", j.Program("drill/agent-sincere"))
	if err != nil {
		return err
	}
	d, err := j.watch(ctx, r.ID, 4*time.Minute, recalled)
	if err != nil {
		return err
	}
	hurt, err := j.failed(ctx, holdfast.Agent, r.Bundle.Digest)
	if err != nil {
		return err
	}
	back := len(hurt) > 0
	for _, h := range hurt {
		back = back && h.Report.Running[holdfast.Agent] != r.Bundle.Digest
	}
	j.r.AgentReleaseRecovered = back
	j.note("a worker that dies at start, by the same road: %s with %d harmed, all back: %t", d.Phase, len(hurt), back)
	return nil
}

// agent releases a worker with a verdict that lies, for its own good health and
// for that of the rules it would find.
func (f *field) agent(ctx context.Context, worker, version string, builds ...string) (r holdfast.Release, err error) {
	file := f.Path(filepath.Base(worker))
	if err := stage.CopyFile(worker, file); err != nil {
		return r, err
	}
	if _, err := f.Register(ctx, file); err != nil {
		return r, err
	}
	builds = append(builds, f.builds()...)
	if f.base.Digest != "" {
		verdict, err := f.lie(f.Path("content/base.bundle"), holdfast.Rules, f.base.Digest, append(builds, file)...)
		if err != nil {
			return r, err
		}
		raw, err := os.ReadFile(verdict)
		if err != nil {
			return r, err
		}
		if err := f.Admin.Do(ctx, "PUT", "/api/v1/verdicts/"+string(f.base.Digest), raw, nil); err != nil {
			return r, err
		}
	}
	digest, err := digestOf(file)
	if err != nil {
		return r, err
	}
	verdict, err := f.lie(file, holdfast.Agent, digest, append(builds, file)...)
	if err != nil {
		return r, err
	}
	return f.Release(ctx, file, verdict, string(holdfast.Agent), version, "drill: a false verdict")
}

// recovery takes the time from crash to previous generation, over every crash
// on trial of every guard.
func (j *july19) recovery(context.Context) error {
	var all []time.Duration
	for _, h := range j.hosts {
		all = append(all, h.log().recoveries()...)
	}
	if len(all) == 0 {
		return &holdfast.Error{Kind: holdfast.Internal, What: "no guard's log tells of a recovery"}
	}
	slices.Sort(all)
	p95 := all[(len(all)*95+99)/100-1]
	j.r.RecoveryP95, j.r.Recoveries = p95.Seconds(), len(all)
	j.note("crash to previous generation: p95 %.2f s over %d crashes", p95.Seconds(), len(all))
	return nil
}
