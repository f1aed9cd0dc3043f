package drill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/stage"
	"github.com/holdfast-security/holdfast/internal/view"
)

// July19 replays 19 July 2024.
//
// The faulty twin is a sensor build whose definition says 21 inputs while its
// code supplies 20; the sincere builds supply 21. A new rule is the first to
// look at the 21st. No program is told to fail: the twin reads past the end of
// a slice.
type July19 struct {
	stage.Config
	Hosts int // guards, all of which run the twin; at least 60
	// Seeds are one release each. A seed says which of the recorded programs
	// the rule looks for, and so when after each start of a worker the fault
	// strikes, and how the rule compares; the first one also which hosts of the
	// mixed fleet are sincere. Which hosts are drawn, and in which order
	// processes get to run, is the system's, on purpose.
	Seeds []uint
}

// Report is what the replay found. Times are in seconds.
type Report struct {
	Hosts                 int           `json:"hosts"`
	Seeds                 []uint        `json:"seeds"`
	RehearsalRefused      bool          `json:"rehearsal_refused"`
	Refusal               string        `json:"refusal"`  // build, rule and field it named
	Harmed                []int         `json:"harmed"`   // one per seed
	StrikeAt              []float64     `json:"strike_s"` // one per seed: after a worker's start
	HarmedWithoutHalting  int           `json:"harmed_without_halting"`
	HarmedMixed           int           `json:"harmed_mixed"` // a third of the fleet are twins; no bound is claimed
	MixedTwins            int           `json:"mixed_twins"`
	Recalled              int           `json:"recalled"` // over all seeds
	NeverExposed          int           `json:"never_exposed"`
	HostsNeedingHands     int           `json:"hosts_needing_hands"`
	TimeToHalt            float64       `json:"time_to_halt_s"` // the longest of the seeds
	RecoveryP95           float64       `json:"recovery_p95_s"` // crash on trial to previous generation running, by the guards' clocks
	Recoveries            int           `json:"recoveries"`     // how many that is of
	SelfHealedOffline     bool          `json:"self_healed_offline"`
	SelfHealing           float64       `json:"self_healing_s"`
	ShunnedAfterRestart   bool          `json:"shunned_after_restart"`
	AgentReleaseRecovered bool          `json:"agent_release_recovered"`
	Timeline              []Moment      `json:"timeline"`
	Took                  time.Duration `json:"took_ns"`
}

// Held reports whether every wall held.
func (r Report) Held() bool {
	bounded := len(r.Harmed) > 0 && !slices.ContainsFunc(r.Harmed, func(n int) bool { return n > maxHarmed || n == 0 })
	return r.RehearsalRefused && bounded && r.HarmedWithoutHalting == r.Hosts && r.HostsNeedingHands == 0 &&
		r.SelfHealedOffline && r.ShunnedAfterRestart && r.AgentReleaseRecovered
}

// maxHarmed is the bound of halting.md's goal G2 for a fleet that is all faulty.
const maxHarmed = 6

// july19 is the replay under way.
type july19 struct {
	*field
	July19
	r    Report
	twin string
}

// Play plays it.
func (d July19) Play(ctx context.Context) (Report, error) {
	began := time.Now()
	j := &july19{July19: d, r: Report{Hosts: d.Hosts, Seeds: d.Seeds}}
	err := j.run(ctx)
	if j.field != nil {
		j.r.Timeline = j.timeline
	}
	j.r.Took = time.Since(began)
	return j.r, err
}

func (j *july19) run(ctx context.Context) (err error) {
	if j.field, err = open(ctx, j.July19.Config); err != nil {
		return err
	}
	defer j.close()
	j.twin = j.Program("drill/agent-twin")
	fleet := cast{
		hosts: j.July19.Hosts, worker: "drill/agent-twin", recording: cycle(), rate: 4,
		wires: func(i int) bool { return i == 0 }, // of the host that will be cut off
	}
	steps := []func(context.Context) error{
		j.wallRehearsal,
		func(ctx context.Context) error { return j.enrol(ctx, fleet) },
		j.settle, j.wallHalting, j.withoutHalting, j.mixed, j.wallHost, j.agentRelease, j.recovery,
		func(ctx context.Context) error { j.r.HostsNeedingHands = j.hands(ctx, j.base.Digest); return nil },
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// wallRehearsal is the first wall: with three builds in the fleet, rehearsal
// refuses the bundle and names what it would have broken.
func (j *july19) wallRehearsal(ctx context.Context) error {
	file, b, err := j.Content(ctx, "lethal", lethal(0, strikeOf(0)), "")
	if err != nil {
		return err
	}
	j.note("a rule that is valid by every definition is written: it is the first to look at input 21 (%s)", b.Digest.Short())
	_, err = j.Rehearse(ctx, file, string(holdfast.Rules), j.Program("drill/agent-sincere"), j.Program("drill/agent-sincere-older"), j.twin)
	if holdfast.KindOf(err) != holdfast.Conflict {
		return errors.Join(&holdfast.Error{Kind: holdfast.Internal, What: "rehearsal did not refuse the bundle"}, err)
	}
	v, err := readVerdict(file + ".verdict")
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

// attack releases lethal content with a verdict that lies, and follows it. It
// gives it the time an honest rollout would take, at most.
func (j *july19) attack(ctx context.Context, n uint64, s strike, until func(view.RolloutDetail) bool) (view.RolloutDetail, error) {
	r, err := j.forced(ctx, n, s, j.Program("drill/agent-sincere"))
	if err != nil {
		return view.RolloutDetail{}, err
	}
	return j.watch(ctx, r.ID, 4*time.Minute, until)
}

// first is the strike of the first seed, which the single releases use.
func (j *july19) first() strike { return strikeOf(uint64(j.Seeds[0])) }

// wallHalting is the second wall: rehearsal has been lied to, and the rollout
// halts after a handful.
func (j *july19) wallHalting(ctx context.Context) error {
	for i, seed := range j.Seeds {
		s := strikeOf(uint64(seed))
		d, err := j.attack(ctx, 1+uint64(i)+100*(uint64(seed)%1_000_000_000), s, recalled)
		if err != nil {
			return err
		}
		hurt, _ := j.struck(d.Bundle.Digest)
		at := float64(s.after()) / 4
		j.r.Harmed = append(j.r.Harmed, len(hurt))
		j.r.StrikeAt = append(j.r.StrikeAt, at)
		j.r.Recalled += d.Recall.Back
		j.r.NeverExposed += len(j.hosts) - d.Admitted
		took := d.Ended.Sub(d.Started).Seconds()
		j.r.TimeToHalt = max(j.r.TimeToHalt, took)
		j.note("WALL 2, seed %d (%s, %s, %.1f s after a start): %s after %.1f s, %d harmed, %d given back, %d never had it",
			seed, s.image(), s.how, at, d.Phase, took, len(hurt), d.Recall.Back, len(j.hosts)-d.Admitted)
	}
	return nil
}

// withoutHalting shows that the content is lethal: a server built without the
// halting test harms every host. It recalls its own release before the real
// server takes over.
func (j *july19) withoutHalting(ctx context.Context) error {
	if err := j.swapServer(ctx, "drill/holdfastd-unhalted"); err != nil {
		return err
	}
	d, err := j.attack(ctx, 7, j.first(), func(d view.RolloutDetail) bool {
		return d.Phase.Done() || d.Harmed >= len(j.hosts)
	})
	if err != nil {
		return err
	}
	err = stage.Until(ctx, time.Minute, 500*time.Millisecond, "the harmed hosts", nil, func() (bool, error) {
		hurt, _ := j.struck(d.Bundle.Digest)
		j.r.HarmedWithoutHalting = len(hurt)
		return len(hurt) == len(j.hosts), nil
	})
	j.note("the same release from a server built without the halting test: %d of %d harmed", j.r.HarmedWithoutHalting, len(j.hosts))
	_, herr := j.halt(ctx, d.ID, "the fault is lethal, as was to be shown")
	return errors.Join(err, herr, j.swapServer(ctx, "holdfastd"))
}

// mixed replaces two thirds of the twins by sincere builds. No bound is claimed.
func (j *july19) mixed(ctx context.Context) error {
	sincere := j.Program("drill/agent-sincere")
	if _, err := j.Register(ctx, sincere); err != nil {
		return err
	}
	order := rand.New(rand.NewPCG(uint64(j.Seeds[0]), 19)).Perm(len(j.hosts) - 1)
	j.r.MixedTwins = len(j.hosts) - 2*len(j.hosts)/3
	for _, i := range order[:len(j.hosts)-j.r.MixedTwins] {
		h := j.hosts[i+1] // the first stays a twin, for the third wall
		h.Worker = sincere
		if err := j.restart(h); err != nil {
			return err
		}
	}
	if err := j.WaitConnected(ctx, len(j.hosts), 2*time.Minute); err != nil {
		return err
	}
	d, err := j.attack(ctx, 8, j.first(), over)
	if err != nil {
		return err
	}
	hurt, _ := j.struck(d.Bundle.Digest)
	j.r.HarmedMixed = len(hurt)
	j.note("a mixed fleet, %d twins of %d: %s with %d harmed (no bound is claimed)", j.r.MixedTwins, len(j.hosts), d.Phase, len(hurt))
	if !d.Phase.Recalling() { // the twins on it must not keep it
		_, err = j.halt(ctx, d.ID, "what was let through is recalled")
	}
	return err
}
