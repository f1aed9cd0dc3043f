package sim

import (
	"math"
	"math/rand/v2"
	"time"
)

// Peer is another system's rule for releasing to a fleet, from its own
// description.
type Peer struct {
	Name   string `json:"name"`
	Rule   string `json:"rule"`
	Source string `json:"source"`
	begin  func(hosts int) peerRule
	// report is how long a host takes to report, well or broken: 3.3 minutes
	// as for everybody, unless the rule itself says when it looks.
	report time.Duration
}

// A peerRule is asked every tick how many hosts may have been offered the
// release, and whether to stop.
type peerRule func(v peerView) (offer int, stop bool)

// peerView is what a peer's server knows.
type peerView struct {
	now                 time.Duration
	hosts               int
	offered, ok, failed int
	// of the hosts offered in the group that began last:
	groupOffered, groupOK, groupFailed int
}

// Peers are the rules compared in july19.
func Peers() []Peer {
	return []Peer{
		{
			"19 July 2024", "everything in 78 minutes, no check; then the content is withdrawn",
			"CrowdStrike, External Technical Root Cause Analysis: Channel File 291, 6 August 2024",
			func(int) peerRule {
				return func(v peerView) (int, bool) {
					return int(float64(v.hosts) * min(1, v.now.Minutes()/78)), v.now > 78*time.Minute
				}
			}, 0,
		},
		{
			"hawkBit, 10 groups", "10 groups; next at 50 % finished; pause when more than 50 % of a group report an error",
			"https://eclipse.dev/hawkbit/concepts/rollout-management", groups(func(n int) int { return (n + 9) / 10 }, .5, .5), 0,
		},
		{
			"hawkBit, 20,000 a group at 5 %", "20,000 targets a group, the largest allowed; next at 50 % finished; pause above 5 % errors",
			"https://eclipse.dev/hawkbit/concepts/rollout-management", groups(func(int) int { return 20_000 }, .5, .05), 0,
		},
		{
			"AWS IoT Jobs, 100 / 20 %", "50 a minute, doubled for every 1,000 notified, at most 1,000 a minute; cancel when at least 100 executed and 20 % failed",
			"https://docs.aws.amazon.com/iot/latest/developerguide/job-configurations-api.html", awsJobs(100, .20), 0,
		},
		{
			"AWS IoT Jobs, 100 / 5 %", "the same with 5 %",
			"https://docs.aws.amazon.com/iot/latest/developerguide/job-configurations-api.html", awsJobs(100, .05), 0,
		},
		{
			"Argo Rollouts, documented example", "20 % more every 10 minutes; measured every 5 minutes from the second step on; abort when more than 3 measurements are below 95 % success",
			"https://argo-rollouts.readthedocs.io/en/stable/features/analysis/", argo, 0,
		},
		{
			"Flagger, default", "10 % more every minute to 50 %, then all; roll back at the first tick below 99 % success; no data counts as failure",
			"https://docs.flagger.app/usage/how-it-works", flagger, 50 * time.Second,
		},
		{
			"Teleport, present", "5 canaries, then groups of a third; next when 90 % are present and up to date",
			"https://goteleport.com/docs/upgrading/agent-managed-updates/", teleport, 0,
		},
		{
			"Docker swarm, default", "one at a time, watched for 5 seconds each; pause at the first failure",
			"https://docs.docker.com/reference/cli/docker/service/update/", swarm, 5 * time.Second,
		},
		{
			"Flight Control, batches", "batches of 1 %, 10 %, 50 % and the rest; suspend below 90 % success or after 24 hours",
			"https://github.com/flightctl/flightctl, docs/user: rollout policies", flightctl, 0,
		},
		{
			"GRR hunt", "20 clients a minute; stop at 100 crashed clients",
			"https://github.com/google/grr-doc, investigating-with-grr/hunts/starting.md", grr, 0,
		},
		{
			"24 h soak with a person", "1 % for 24 hours, then all; a person notices when at least 0.5 % of it is broken",
			"common practice; no product's rule", soak, 0,
		},
	}
}

// groups is hawkBit's cascade.
func groups(size func(int) int, finished, errors float64) func(int) peerRule {
	return func(hosts int) peerRule {
		n, offered := size(hosts), 0
		return func(v peerView) (int, bool) {
			if offered == 0 {
				offered = n
				return offered, false
			}
			g := float64(v.groupOffered)
			switch {
			case float64(v.groupFailed) > errors*g:
				return offered, true
			case float64(v.groupOK) >= finished*g && v.offered >= offered:
				offered = min(hosts, offered+n)
			}
			return offered, false
		}
	}
}

func awsJobs(least int, threshold float64) func(int) peerRule {
	return func(int) peerRule {
		offered := 0.0
		var last time.Duration
		return func(v peerView) (int, bool) {
			rate := min(1000, 50*math.Exp2(math.Floor(offered/1000)))
			offered += rate * (v.now - last).Minutes()
			last = v.now
			executed := v.ok + v.failed
			return int(offered), executed >= least && float64(v.failed) >= threshold*float64(executed)
		}
	}
}

// argo is the documented example: the analysis starts with the second step.
func argo(hosts int) peerRule {
	bad, next := 0, 10*time.Minute
	return func(v peerView) (int, bool) {
		if v.now >= next {
			next += 5 * time.Minute
			if v.ok+v.failed > 0 && float64(v.ok) < .95*float64(v.ok+v.failed) {
				bad++
			}
		}
		step := int(v.now/(10*time.Minute)) + 1
		return hosts / 5 * min(step, 5), bad > 3
	}
}

func flagger(hosts int) peerRule {
	return func(v peerView) (int, bool) {
		step, done := int(v.now/time.Minute), v.ok+v.failed
		switch {
		case step >= 1 && (done == 0 || float64(v.ok) < .99*float64(done)):
			return v.offered, true
		case step >= 5:
			return hosts, false
		}
		return hosts / 10 * (step + 1), false
	}
}

func teleport(hosts int) peerRule {
	steps := []int{5, hosts / 3, 2 * hosts / 3, hosts}
	i := 0
	return func(v peerView) (int, bool) {
		if v.offered >= steps[i] && i < len(steps)-1 && v.groupOffered > 0 && float64(v.groupOK) >= .9*float64(v.groupOffered) {
			i++
		}
		return steps[i], false
	}
}

func swarm(int) peerRule {
	return func(v peerView) (int, bool) { return int(v.now / (5 * time.Second)), v.failed > 0 }
}

func flightctl(hosts int) peerRule {
	steps := []int{hosts / 100, hosts / 10, hosts / 2, hosts}
	i, began := 0, time.Duration(0)
	return func(v peerView) (int, bool) {
		done := v.groupOK + v.groupFailed
		switch {
		case v.offered < steps[i]:
		case v.now > began+24*time.Hour:
			return steps[i], true
		case done >= v.groupOffered && float64(v.groupOK) < .9*float64(v.groupOffered):
			return steps[i], true
		case done >= v.groupOffered && i < len(steps)-1:
			i++
			began = v.now
		}
		return steps[i], false
	}
}

func grr(int) peerRule {
	return func(v peerView) (int, bool) { return int(20 * v.now.Minutes()), v.failed >= 100 }
}

func soak(hosts int) peerRule {
	return func(v peerView) (int, bool) {
		if v.now < 24*time.Hour {
			return hosts / 100, false
		}
		return hosts, float64(v.failed) >= .005*float64(v.offered) || float64(v.offered-v.ok-v.failed) >= .005*float64(v.offered)
	}
}

// peerRun is what became of a peer's rollout.
type peerRun struct {
	harmed  int
	stopped time.Duration // 0: never
	all     time.Duration // when every host had it; 0: not within the time
	curve   []Point
}

// reportAfter is how long hosts take to report, in the mean of the model.
const reportAfter = 200 * time.Second

// play runs a peer's rule over hosts of which a share breaks. If mute, broken
// hosts never report.
func (p Peer) play(r *rand.Rand, hosts int, share float64, mute bool, until time.Duration) peerRun {
	rule, report := p.begin(hosts), p.report
	if report == 0 {
		report = reportAfter
	}
	type batch struct {
		at        time.Duration
		good, bad int
	}
	var batches []batch
	first := 0
	v := peerView{hosts: hosts}
	run := peerRun{}
	tick := 5 * time.Second
	marked := 0 // offered when the last group began
	for now := time.Duration(0); now <= until; now += tick {
		v.now = now
		for ; first < len(batches) && now >= batches[first].at+report; first++ {
			b := batches[first]
			v.ok += b.good
			v.groupOK += b.good
			if !mute {
				v.failed += b.bad
				v.groupFailed += b.bad
			}
		}
		offer, stop := rule(v)
		if stop {
			run.stopped = now
			run.curve = append(run.curve, Point{At: now, Exposed: v.offered, Broken: run.harmed})
			return run
		}
		if n := min(offer, hosts) - v.offered; n > 0 {
			if n > 1 && v.offered == marked+v.groupOffered && v.ok+v.failed > 0 {
				marked, v.groupOffered, v.groupOK, v.groupFailed = v.offered, 0, 0, 0
			}
			bad := binomial(r, n, share)
			batches = append(batches, batch{at: now, good: n - bad, bad: bad})
			v.offered += n
			v.groupOffered += n
			run.harmed += bad
			run.curve = append(run.curve, Point{At: now, Exposed: v.offered, Broken: run.harmed})
			if v.offered == hosts && run.all == 0 {
				run.all = now
			}
		}
		if run.all > 0 && now > run.all+2*time.Hour {
			return run
		}
		if now > 26*time.Hour {
			tick = time.Minute
		}
	}
	return run
}
