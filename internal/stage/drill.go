package stage

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing/fstest"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/trust/attest"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
	"github.com/holdfast-security/holdfast/internal/view"
)

// Drill replays 19 July 2024 on real processes. It stands on a stage with a
// trust root of its own, in the domain that production hosts refuse.
//
// The faulty twin is a sensor build whose definition says 21 inputs while its
// code supplies 20; the sincere builds supply 21. A new rule is the first to
// look at the 21st. No program is told to fail: the twin reads past the end of
// a slice.
type Drill struct {
	Config
	Hosts int // guards, all of which run the twin; at least 60
	Seeds []uint
}

// Report is what a drill found. Times are in seconds.
type Report struct {
	Hosts                 int           `json:"hosts"`
	Seeds                 []uint        `json:"seeds"`
	RehearsalRefused      bool          `json:"rehearsal_refused"`
	Refusal               string        `json:"refusal"` // build, rule and field it named
	Harmed                []int         `json:"harmed"`  // one per seed
	HarmedWithoutHalting  int           `json:"harmed_without_halting"`
	HarmedMixed           int           `json:"harmed_mixed"` // a third of the fleet are twins; no bound is claimed
	MixedTwins            int           `json:"mixed_twins"`
	Recalled              int           `json:"recalled"` // over all seeds
	NeverExposed          int           `json:"never_exposed"`
	HostsNeedingHands     int           `json:"hosts_needing_hands"`
	TimeToHalt            float64       `json:"time_to_halt_s"` // the longest of the seeds
	RecoveryP95           float64       `json:"recovery_p95_s"` // crash to previous generation running, by the guards' clocks
	SelfHealedOffline     bool          `json:"self_healed_offline"`
	SelfHealing           float64       `json:"self_healing_s"`
	ShunnedAfterRestart   bool          `json:"shunned_after_restart"`
	AgentReleaseRecovered bool          `json:"agent_release_recovered"`
	Timeline              []Moment      `json:"timeline"`
	Took                  time.Duration `json:"took_ns"`
}

// Moment is one line of what happened when.
type Moment struct {
	At   float64 `json:"at_s"` // seconds since the drill began
	What string  `json:"what"`
}

// Held reports whether every wall held.
func (r Report) Held() bool {
	bounded := len(r.Harmed) > 0 && !slices.ContainsFunc(r.Harmed, func(n int) bool { return n > maxHarmed || n == 0 })
	return r.RehearsalRefused && bounded && r.HarmedWithoutHalting == r.Hosts && r.HostsNeedingHands == 0 &&
		r.SelfHealedOffline && r.ShunnedAfterRestart && r.AgentReleaseRecovered
}

// maxHarmed is the bound of halting.md's goal G2 for a fleet that is all faulty.
const maxHarmed = 6

// july19 is a drill under way.
type july19 struct {
	Drill
	*Stage
	r     Report
	began time.Time
	hosts []Guarded
	procs map[string]*Process
	cut   *cable // of the host that is cut off
	twin  string
	base  holdfast.Bundle
}

// July19 runs the drill.
func (d Drill) July19(ctx context.Context) (Report, error) {
	j := &july19{Drill: d, began: time.Now(), procs: map[string]*Process{}, twin: filepath.Join(d.Bin, "drill/agent-twin")}
	j.r.Hosts, j.r.Seeds = d.Hosts, d.Seeds
	err := j.run(ctx)
	j.r.Took = time.Since(j.began)
	return j.r, err
}

func (j *july19) run(ctx context.Context) (err error) {
	for _, addr := range []*string{&j.Drill.HostsAt, &j.Drill.ConsoleAt} {
		if *addr == "" {
			if *addr, err = anyAddress(); err != nil {
				return err
			}
		}
	}
	if j.Stage, err = Open(ctx, j.Drill.Config); err != nil {
		return err
	}
	defer j.Stage.Close()
	if j.cut, err = newCable(j.Stage.HostsAt); err != nil {
		return err
	}
	defer j.cut.close()
	steps := []func(context.Context) error{j.wallRehearsal, j.fleet, j.wallHalting, j.withoutHalting, j.mixed, j.wallHost, j.agentRelease, j.hands}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (j *july19) note(format string, args ...any) {
	m := Moment{At: time.Since(j.began).Seconds(), What: fmt.Sprintf(format, args...)}
	j.r.Timeline = append(j.r.Timeline, m)
	j.Stage.Say("%6.1f s  %s", m.At, m.What)
}

// The trigger that the hosts' recorded events hold, and the rules that look at
// it. The quiet rule looks only at what every build supplies.
const triggerImage = "/opt/drill/backup-agent"

func quietRepo() fstest.MapFS {
	return repoOf("drill-base", "1", `title: Drill Base Rule
id: 0f6f4d5a-7e0c-4e57-9c3e-2b7b5f3a1c10
level: low
logsource: {product: linux, category: process_creation}
detection:
  marker:
    Image|endswith: /drill-marker
  condition: marker
`, "match:\n  - Image: /opt/drill-marker\nno_match:\n  - Image: "+triggerImage+"\n")
}

// lethalRepo is content that is valid by every definition: its one rule looks at
// the parent's working directory, input 21.
func lethalRepo(n uint64) fstest.MapFS {
	return repoOf("drill-lethal", fmt.Sprintf("2.%d", n), fmt.Sprintf(`title: Backup Agent Started From A Staging Folder (%d)
id: 0f6f4d5a-7e0c-4e57-9c3e-%012x
level: medium
logsource: {product: linux, category: process_creation}
detection:
  agent:
    Image: %s
  staging:
    ParentCurrentDirectory|startswith: /var/staging/%d
  condition: agent and staging
`, n, n, triggerImage, n), fmt.Sprintf("match:\n  - Image: %s\n    ParentCurrentDirectory: /var/staging/%d\nno_match:\n  - Image: %s\n    ParentCurrentDirectory: /home\n", triggerImage, n, triggerImage))
}

func repoOf(name, version, rule, tests string) fstest.MapFS {
	return fstest.MapFS{
		"pack.yml":        {Data: []byte(fmt.Sprintf("name: %s\nchannel: rules\nversion: %q\n", name, version))},
		"rules/rule.yml":  {Data: []byte(rule)},
		"tests/rule.yml":  {Data: []byte(tests)},
		"benign/on.jsonl": {Data: []byte("{\"Image\":\"/usr/bin/true\",\"CommandLine\":\"true\"}\n")},
	}
}

// wallRehearsal is the first wall: with three builds in the fleet, rehearsal
// refuses the bundle and names what it would have broken.
func (j *july19) wallRehearsal(ctx context.Context) error {
	file, b, err := j.content(ctx, "lethal", lethalRepo(0), "")
	if err != nil {
		return err
	}
	j.note("a rule that is valid by every definition is written: it is the first to look at input 21 (%s)", b.Digest.Short())
	verdict := file + ".verdict"
	err = j.Stage.run(ctx, "", nil, "rehearse", file, "--guard", j.program("holdfast-guard"), "--key", j.path("keys/rehearsal-1"), "-o", verdict,
		"--agent", j.program("drill/agent-sincere"), "--agent", j.program("drill/agent-sincere-older"), "--agent", j.twin)
	if holdfast.KindOf(err) != holdfast.Conflict {
		return errors.Join(&holdfast.Error{Kind: holdfast.Internal, What: "rehearsal did not refuse the bundle"}, err)
	}
	v, err := readVerdict(verdict)
	if err != nil {
		return err
	}
	twin, err := digestOf(j.twin)
	if err != nil {
		return err
	}
	for _, bv := range v.Builds {
		switch {
		case bv.Passed && bv.Build == twin || !bv.Passed && bv.Build != twin:
			return &holdfast.Error{Kind: holdfast.Internal, What: "rehearsal blamed the wrong build", Where: bv.Version}
		case !bv.Passed:
			for _, f := range bv.Failures {
				if f.Rule != "" && f.Field == "process.parent_process.working_directory" {
					j.r.RehearsalRefused = true
					j.r.Refusal = fmt.Sprintf("build %s, rule %s, field %s: %s", bv.Version, f.Rule, f.Field, f.Reason)
				}
			}
		}
	}
	j.note("WALL 1, rehearsal refused it: %s", j.r.Refusal)
	return nil
}

// fleet enrols the guards and brings them content that is good.
func (j *july19) fleet(ctx context.Context) error {
	replay := j.path("replay.jsonl")
	lines := fmt.Sprintf("{\"Image\":%q,\"CommandLine\":\"backup-agent --incremental\",\"ParentImage\":\"/usr/sbin/cron\"}\n{\"Image\":\"/usr/bin/true\",\"CommandLine\":\"true\"}\n", triggerImage)
	if err := os.WriteFile(replay, []byte(lines), 0o600); err != nil {
		return err
	}
	if replay, err := filepath.Abs(replay); err == nil {
		for i := range j.Drill.Hosts {
			j.hosts = append(j.hosts, Guarded{
				Name: fmt.Sprintf("guard-%02d", i+1), Worker: j.twin, Sensor: "replay", Replay: replay, Rate: 4, Role: "server",
				Guard: []string{"--probation-events", "8", "--cgroup", "", "--stall", "5s"},
			})
		}
	}
	if _, err := j.register(ctx, j.twin); err != nil {
		return err
	}
	token, err := j.enrolmentToken(ctx, len(j.hosts), false)
	if err != nil {
		return err
	}
	defer os.Remove(token)
	for i, g := range j.hosts {
		if i == 0 { // the host that will be cut off reaches the server by a wire of its own
			g.Server = j.cut.addr()
			j.hosts[0] = g
		}
		if err := j.Enrol(ctx, g, token); err != nil {
			return err
		}
		if j.procs[g.Name], err = j.Stage.Guard(g); err != nil {
			return err
		}
	}
	if err := j.waitConnected(ctx, len(j.hosts), 3*time.Minute); err != nil {
		return err
	}
	j.note("%d guards with their agents are up, all of them twins", len(j.hosts))
	file, b, err := j.content(ctx, "base", quietRepo(), "")
	if err != nil {
		return err
	}
	j.base = b
	verdict, err := j.rehearse(ctx, file, string(holdfast.Rules), j.twin)
	if err != nil {
		return err
	}
	r, err := j.Release(ctx, file, verdict, string(holdfast.Rules), "", "content that is good")
	if err != nil {
		return err
	}
	end, err := j.follow(ctx, r.ID, 5*time.Minute, nil, func(view.RolloutDetail) {})
	if err != nil {
		return err
	}
	if end.Phase != holdfast.Complete {
		return &holdfast.Error{Kind: holdfast.Internal, What: fmt.Sprintf("good content was %s: %s", end.Phase, end.Why)}
	}
	j.note("good content is on every host")
	return nil
}

// attack releases lethal content with a verdict that lies, and follows it to
// its end.
func (j *july19) attack(ctx context.Context, n uint64, until func(view.RolloutDetail) bool) (view.RolloutDetail, holdfast.Digest, error) {
	file, b, err := j.content(ctx, fmt.Sprintf("lethal-%d", n), lethalRepo(n), "")
	if err != nil {
		return view.RolloutDetail{}, "", err
	}
	d, err := j.force(ctx, file, holdfast.Rules, b, until, j.twin, j.program("drill/agent-sincere"))
	return d, b.Digest, err
}

// force signs a false verdict and releases. It gives the stage the time an
// honest rollout would take, at most.
func (j *july19) force(ctx context.Context, file string, c holdfast.Channel, b holdfast.Bundle, over func(view.RolloutDetail) bool, builds ...string) (d view.RolloutDetail, err error) {
	verdict, err := j.lie(file, c, b.Digest, builds...)
	if err != nil {
		return d, err
	}
	r, err := j.Release(ctx, file, verdict, string(c), b.Version, "drill: a false verdict")
	if err != nil {
		return d, err
	}
	err = until(ctx, 4*time.Minute, 200*time.Millisecond, "the rollout to end", []*Process{j.Server}, func() (bool, error) {
		if d, err = j.rollout(ctx, r.ID); err != nil {
			return false, err
		}
		return over(d), nil
	})
	return d, err
}

// lie signs a verdict saying that every build ran the bundle well, with the
// drill's own rehearsal key: the fault that the first wall cannot stop.
func (j *july19) lie(file string, c holdfast.Channel, bundle holdfast.Digest, builds ...string) (string, error) {
	key, err := tuf.LoadKey(j.path("keys/rehearsal-1"))
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

func readVerdict(file string) (v holdfast.Verdict, err error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return v, err
	}
	var envelope struct {
		Payload []byte `json:"payload"`
	}
	var statement struct {
		Predicate holdfast.Verdict `json:"predicate"`
	}
	if err := json.Unmarshal(raw, &envelope); err != nil {
		return v, err
	}
	return statement.Predicate, json.Unmarshal(envelope.Payload, &statement)
}

// harmed returns the hosts on which a digest failed, by their own report. A
// host that gave it back unharmed shuns it as well, but it did not fail there.
func (j *july19) harmed(ctx context.Context, c holdfast.Channel, d holdfast.Digest) ([]view.HostRow, error) {
	all, err := j.all(ctx)
	return slices.DeleteFunc(all, func(h view.HostRow) bool { return h.Report.Failed[c] != d }), err
}

func (j *july19) all(ctx context.Context) ([]view.HostRow, error) {
	var page view.HostPage
	err := j.Admin.Get(ctx, "/api/v1/hosts?size=500", &page)
	return page.Hosts, err
}

func recalled(d view.RolloutDetail) bool {
	return d.Phase.Recalling() && d.Recall.Back >= d.Recall.Hosts
}

// wallHalting is the second wall: rehearsal has been lied to, and the rollout
// halts after a handful.
func (j *july19) wallHalting(ctx context.Context) error {
	for i, seed := range j.Seeds {
		n := 1 + uint64(i) + 100*(uint64(seed)%1_000_000_000)
		d, digest, err := j.attack(ctx, n, recalled)
		if err != nil {
			return err
		}
		hurt, err := j.harmed(ctx, holdfast.Rules, digest)
		if err != nil {
			return err
		}
		j.r.Harmed = append(j.r.Harmed, len(hurt))
		j.r.Recalled += d.Recall.Back
		j.r.NeverExposed += len(j.hosts) - d.Admitted
		took := d.Ended.Sub(d.Started).Seconds()
		j.r.TimeToHalt = max(j.r.TimeToHalt, took)
		j.note("WALL 2, seed %d: %s after %.1f s, %d harmed, %d given back, %d never had it", seed, d.Phase, took, len(hurt), d.Recall.Back, len(j.hosts)-d.Admitted)
	}
	return nil
}

// withoutHalting shows that the content is lethal: a server built without the
// halting test harms every host.
func (j *july19) withoutHalting(ctx context.Context) error {
	if err := j.swapServer(ctx, "drill/holdfastd-unhalted"); err != nil {
		return err
	}
	d, digest, err := j.attack(ctx, 7, func(d view.RolloutDetail) bool {
		return d.Phase.Done() || d.Harmed >= len(j.hosts)
	})
	if err != nil {
		return err
	}
	err = until(ctx, time.Minute, 500*time.Millisecond, "the harmed hosts to report", nil, func() (bool, error) {
		hurt, err := j.harmed(ctx, holdfast.Rules, digest)
		j.r.HarmedWithoutHalting = len(hurt)
		return len(hurt) == len(j.hosts), err
	})
	j.note("the same release from a server built without the halting test: %d of %d harmed", j.r.HarmedWithoutHalting, len(j.hosts))
	return errors.Join(err, j.haltByHand(ctx, d, "the fault is lethal, as was to be shown"), j.swapServer(ctx, "holdfastd"))
}

// haltByHand recalls what the procedure did not, complete or not.
func (j *july19) haltByHand(ctx context.Context, d view.RolloutDetail, why string) error {
	d, err := j.rollout(ctx, d.ID)
	if err != nil || d.Phase.Recalling() {
		return err
	}
	return j.Stage.run(ctx, approver, nil, "halt", string(d.ID), "--reason", "drill: "+why)
}

func (j *july19) swapServer(ctx context.Context, program string) error {
	j.Server.Stop(10 * time.Second)
	if err := j.startServer(ctx, program); err != nil {
		return err
	}
	return j.waitConnected(ctx, len(j.hosts), 2*time.Minute)
}

// mixed replaces two thirds of the twins by sincere builds. No bound is claimed.
func (j *july19) mixed(ctx context.Context) error {
	sincere := j.program("drill/agent-sincere")
	if _, err := j.register(ctx, sincere); err != nil {
		return err
	}
	seed := rand.NewPCG(uint64(j.Seeds[0]), 19)
	order := rand.New(seed).Perm(len(j.hosts) - 1)
	j.r.MixedTwins = len(j.hosts) - 2*len(j.hosts)/3
	for _, i := range order[:len(j.hosts)-j.r.MixedTwins] {
		g := &j.hosts[i+1] // the first stays a twin, for the third wall
		g.Worker = sincere
		if err := j.restart(*g); err != nil {
			return err
		}
	}
	if err := j.waitConnected(ctx, len(j.hosts), 2*time.Minute); err != nil {
		return err
	}
	d, digest, err := j.attack(ctx, 8, func(d view.RolloutDetail) bool { return recalled(d) || d.Phase == holdfast.Complete })
	if err != nil {
		return err
	}
	hurt, err := j.harmed(ctx, holdfast.Rules, digest)
	j.r.HarmedMixed = len(hurt)
	j.note("a mixed fleet, %d twins of %d: %s with %d harmed (no bound is claimed)", j.r.MixedTwins, len(j.hosts), d.Phase, len(hurt))
	return err
}

func (j *july19) restart(g Guarded) error {
	j.procs[g.Name].Stop(10 * time.Second)
	p, err := j.Stage.Guard(g)
	j.procs[g.Name] = p
	return err
}

// hands counts the hosts that are not where they should be: connected, on good
// content.
func (j *july19) hands(ctx context.Context) error {
	var stuck []string
	_ = until(ctx, time.Minute, 500*time.Millisecond, "every host to be well", nil, func() (bool, error) {
		all, err := j.all(ctx)
		stuck = nil
		for _, h := range all {
			if !h.Connected || h.Report.SafeMode || h.Report.Running[holdfast.Rules] != j.base.Digest {
				stuck = append(stuck, h.Attributes.Hostname+" "+string(h.State)+" "+h.Report.Running.String())
			}
		}
		return len(stuck) == 0 && len(all) == len(j.hosts), err
	})
	j.r.HostsNeedingHands = len(stuck)
	j.note("%d hosts need hands %s", len(stuck), strings.Join(stuck, "; "))
	return j.recovery()
}
