package drill

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/stage"
	"github.com/holdfast-security/holdfast/internal/trust/attest"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
	"github.com/holdfast-security/holdfast/internal/view"
)

// field is where a drill is played: a stage, its hosts, and what was seen.
type field struct {
	*stage.Stage
	began    time.Time
	timeline []Moment
	hosts    []*host
	base     holdfast.Bundle // good content, which every host has
}

// host is one guard with its agent.
type host struct {
	stage.Guarded
	proc *stage.Process
	wire *stage.Cable // the way to the server, if it can be cut
}

func (h *host) log() guardLog { return guardLog{h.proc.Log} }

// open raises a stage in the drill's own trust domain.
func open(ctx context.Context, c stage.Config) (f *field, err error) {
	f = &field{began: time.Now()}
	c.Domain = string(tuf.Drill)
	for _, addr := range []*string{&c.HostsAt, &c.ConsoleAt} {
		if *addr == "" {
			if *addr, err = stage.AnyAddress(); err != nil {
				return nil, err
			}
		}
	}
	f.Stage, err = stage.Open(ctx, c)
	return f, err
}

func (f *field) close() {
	f.Stage.Close()
	for _, h := range f.hosts {
		if h.wire != nil {
			h.wire.Close()
		}
	}
}

func (f *field) note(format string, args ...any) {
	m := Moment{At: time.Since(f.began).Seconds(), What: fmt.Sprintf(format, args...)}
	f.timeline = append(f.timeline, m)
	f.Say("%6.1f s  %s", m.At, m.What)
}

// cast is what the hosts of a drill are.
type cast struct {
	hosts     int
	worker    string // program, in the folder of the binaries
	recording []launch
	rate      float64  // launches a second
	guard     []string // flags
	wires     func(i int) bool
}

// enrol makes the hosts, as drill targets, and waits until all are connected.
func (f *field) enrol(ctx context.Context, c cast) error {
	replay, err := filepath.Abs(f.Path("replay.jsonl"))
	if err != nil {
		return err
	}
	if err := write(replay, c.recording); err != nil {
		return err
	}
	worker := f.Program(c.worker)
	if _, err := f.Register(ctx, worker); err != nil {
		return err
	}
	token, err := f.EnrolmentToken(ctx, c.hosts, false)
	if err != nil {
		return err
	}
	defer os.Remove(token)
	for i := range c.hosts {
		h := &host{Guarded: stage.Guarded{
			Name: fmt.Sprintf("guard-%02d", i+1), Worker: worker, Sensor: "replay", Replay: replay, Rate: c.rate, Role: "server",
			Guard: append([]string{"--probation-events", "8", "--cgroup", "", "--stall", "5s"}, c.guard...),
		}}
		if c.wires != nil && c.wires(i) {
			if h.wire, err = stage.NewCable(f.HostsAt); err != nil {
				return err
			}
			h.Server = h.wire.Addr()
		}
		f.hosts = append(f.hosts, h)
		if err := f.Enrol(ctx, h.Guarded, token); err != nil {
			return err
		}
		if h.proc, err = f.Guard(h.Guarded); err != nil {
			return err
		}
	}
	if err := f.WaitConnected(ctx, len(f.hosts), 3*time.Minute); err != nil {
		return err
	}
	f.note("%d guards with their agents are up, as drill targets", len(f.hosts))
	return nil
}

func (f *field) restart(h *host) (err error) {
	h.proc.Stop(10 * time.Second)
	h.proc, err = f.Guard(h.Guarded)
	return err
}

// settle brings good content to every host.
func (f *field) settle(ctx context.Context) (err error) {
	r, b, err := f.honest(ctx, "base", quiet(1))
	if err != nil {
		return err
	}
	f.base = b
	d, err := f.watch(ctx, r.ID, 4*time.Minute, over)
	if err != nil {
		return err
	}
	if d.Phase != holdfast.Complete {
		return &holdfast.Error{Kind: holdfast.Internal, What: fmt.Sprintf("good content was %s: %s", d.Phase, d.Why)}
	}
	f.note("good content is on every host")
	return nil
}

// honest builds, rehearses on the builds of the fleet, signs and releases
// content.
func (f *field) honest(ctx context.Context, name string, repo fs.FS) (r holdfast.Release, b holdfast.Bundle, err error) {
	file, b, err := f.Content(ctx, name, repo, "")
	if err != nil {
		return r, b, err
	}
	verdict, err := f.Rehearse(ctx, file, string(holdfast.Rules), f.builds()...)
	if err != nil {
		return r, b, err
	}
	r, err = f.Release(ctx, file, verdict, string(holdfast.Rules), "", "drill: "+name)
	return r, b, err
}

// forced builds and releases lethal content with a verdict that lies.
func (f *field) forced(ctx context.Context, n uint64, s strike, builds ...string) (r holdfast.Release, err error) {
	file, b, err := f.Content(ctx, fmt.Sprintf("lethal-%d", n), lethal(n, s), "")
	if err != nil {
		return r, err
	}
	verdict, err := f.lie(file, holdfast.Rules, b.Digest, append(f.builds(), builds...)...)
	if err != nil {
		return r, err
	}
	return f.Release(ctx, file, verdict, string(holdfast.Rules), b.Version, "drill: a false verdict")
}

// builds are the sensor builds of the fleet.
func (f *field) builds() []string {
	var all []string
	for _, h := range f.hosts {
		if !slices.Contains(all, h.Worker) {
			all = append(all, h.Worker)
		}
	}
	return all
}

// lie signs a verdict saying that every build ran the bundle well, with the
// drill's own rehearsal key: the fault that rehearsal cannot stop.
func (f *field) lie(file string, c holdfast.Channel, bundle holdfast.Digest, builds ...string) (string, error) {
	key, err := tuf.LoadKey(f.Path("keys/rehearsal-1"))
	if err != nil {
		return "", err
	}
	now := time.Now().UTC()
	v := holdfast.Verdict{Bundle: bundle, Channel: c, Started: now, Finished: now}
	for _, build := range builds {
		d, err := digestOf(build)
		if err != nil {
			return "", err
		}
		v.Builds = append(v.Builds, holdfast.BuildVerdict{Build: d, Version: "drill: not rehearsed", Passed: true})
	}
	raw, err := attest.Sign(v, ed25519.PrivateKey(key.Private))
	if err != nil {
		return "", err
	}
	return file + ".verdict", os.WriteFile(file+".verdict", raw, 0o600)
}

func digestOf(file string) (holdfast.Digest, error) {
	raw, err := os.ReadFile(file)
	return holdfast.DigestOf(raw), err
}

// watch looks at a rollout until it is as asked, and while the server is up.
func (f *field) watch(ctx context.Context, id holdfast.ReleaseID, limit time.Duration, until func(view.RolloutDetail) bool) (d view.RolloutDetail, err error) {
	err = stage.Until(ctx, limit, 200*time.Millisecond, "the rollout", []*stage.Process{f.Server}, func() (bool, error) {
		now, err := f.Rollout(ctx, id)
		if err != nil {
			return false, err
		}
		d = now
		return until(d), nil
	})
	return d, err
}

// over reports whether a rollout has come to its end, here or there.
func over(d view.RolloutDetail) bool { return d.Phase == holdfast.Complete || recalled(d) }

// recalled reports whether every host has given a release back, and the record
// says so.
func recalled(d view.RolloutDetail) bool {
	return d.Phase.Recalling() && d.Recall.Back >= d.Recall.Hosts && !entry(d, "recalled").IsZero()
}

// halt recalls what the procedure did not, complete or not, as a person does,
// and waits for the way back to begin.
func (f *field) halt(ctx context.Context, id holdfast.ReleaseID, why string) (view.RolloutDetail, error) {
	d, err := f.Rollout(ctx, id)
	if err != nil || d.Phase.Recalling() {
		return d, err
	}
	if err := f.Run(ctx, stage.Approver, nil, "halt", string(id), "--reason", "drill: "+why); err != nil {
		return d, err
	}
	return f.watch(ctx, id, time.Minute, func(d view.RolloutDetail) bool { return d.Phase.Recalling() })
}

// swapServer starts another build of the server in the place of this one.
func (f *field) swapServer(ctx context.Context, program string) error {
	f.Server.Stop(10 * time.Second)
	if err := f.StartServer(ctx, program); err != nil {
		return err
	}
	return f.WaitConnected(ctx, len(f.hosts), 2*time.Minute)
}

// all lists the hosts as the server sees them.
func (f *field) all(ctx context.Context) ([]view.HostRow, error) {
	var page view.HostPage
	err := f.Admin.Get(ctx, "/api/v1/hosts?size=500", &page)
	return page.Hosts, err
}

// failed returns the hosts on which a digest failed, by their own report. A
// host that gave it back unharmed shuns it as well, but it did not fail there.
func (f *field) failed(ctx context.Context, c holdfast.Channel, d holdfast.Digest) ([]view.HostRow, error) {
	all, err := f.all(ctx)
	return slices.DeleteFunc(all, func(h view.HostRow) bool { return h.Report.Failed[c] != d }), err
}

// struck returns the hosts whose workers a digest killed, by the guards' own
// logs, and when the first of them died.
func (f *field) struck(d holdfast.Digest) (hosts []*host, first time.Time) {
	for _, h := range f.hosts {
		if at := h.log().struck(d); len(at) > 0 {
			hosts = append(hosts, h)
			if first.IsZero() || at[0].Before(first) {
				first = at[0]
			}
		}
	}
	return hosts, first
}

// tried returns on how many hosts a digest ran, and on how many more than once.
func (f *field) tried(d holdfast.Digest) (hosts, again int) {
	for _, h := range f.hosts {
		switch n := h.log().tried(d); {
		case n > 1:
			again++
			hosts++
		case n > 0:
			hosts++
		}
	}
	return hosts, again
}

// hands counts the hosts that are not where they should be after a while:
// connected, on good content.
func (f *field) hands(ctx context.Context, good holdfast.Digest) int {
	var stuck []string
	_ = stage.Until(ctx, time.Minute, 500*time.Millisecond, "every host to be well", nil, func() (bool, error) {
		all, err := f.all(ctx)
		stuck = nil
		for _, h := range all {
			if !h.Connected || h.Report.SafeMode || h.Report.Running[holdfast.Rules] != good {
				stuck = append(stuck, h.Attributes.Hostname+" "+string(h.State)+" "+h.Report.Running.String())
			}
		}
		for range len(f.hosts) - len(all) {
			stuck = append(stuck, "not enrolled")
		}
		return len(stuck) == 0, err
	})
	f.note("%d hosts need hands %s", len(stuck), strings.Join(stuck, "; "))
	return len(stuck)
}

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
