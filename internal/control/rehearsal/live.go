package rehearsal

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/bundle"
)

// A host's life with the candidate, under the real guard: it is proposed, goes
// through probation on events of the bundle, comes back after a restart, is
// recalled, and what ran before runs again.
//
// Nobody but the loader of a running agent proposes to a guard, and no program
// of ours has a way around that. Rehearsal is root on its own machine, and
// speaks for the loader as root could anywhere: the packaged worker it names is
// a script that says one line on the lifeline and then becomes the agent.

// Probation is short here: what it waits for on hosts has been done by the other
// stages.
const (
	liveProbation = time.Second
	liveEvents    = 500
	livePhase     = 30 * time.Second
)

const launcher = `#!/bin/sh
# The packaged worker of a rehearsal: it says what the loader would, once, and
# becomes the agent.
if [ -f %[1]s ]; then
	cat %[1]s >&3
	rm -f %[1]s
fi
exec %[2]s "$@"
`

// live runs the stages under the guard. A stall is tried a second time: other
// programs run on this machine too, and one that stalls does so again.
func (r *run) live(ctx context.Context, channel holdfast.Channel, content []byte) error {
	for attempt := 1; ; attempt++ {
		p, err := r.life(ctx, channel, content, attempt)
		if err != nil || p == nil {
			return err
		}
		if attempt == 2 || !strings.Contains(p.Reason, "stall") {
			r.fail(*p)
			return nil
		}
	}
}

func (r *run) life(ctx context.Context, channel holdfast.Channel, content []byte, attempt int) (*holdfast.RuleProblem, error) {
	h := &hosted{run: r, state: filepath.Join(r.dir, fmt.Sprintf("host-%d", attempt)), digest: holdfast.DigestOf(content), channel: channel}
	if err := h.furnish(content); err != nil {
		return nil, &holdfast.Error{Kind: holdfast.Internal, What: "the rehearsal's host cannot be set up", Err: err}
	}
	phases := []struct {
		stage, say string
		ready      string // the slot in which a worker must be ready
		reached    func(guardState) bool
		what       string
	}{
		{"load", fmt.Sprintf(`{"kind":"propose","id":"rehearsal","channel":%q,"digest":%q}`, channel, h.digest), "trial", h.holds, "it did not get through probation"},
		{"restart", "", "current", h.holds, "it did not come back after a restart"},
		{"unload", fmt.Sprintf(`{"kind":"recall","digest":%q}`, h.digest), "current", h.gone, "the host did not return to what it had"},
	}
	for _, ph := range phases {
		r.stage(ph.stage, 0, 0)
		if ph.stage == "unload" && channel == holdfast.Agent {
			// The candidate is started from its own file, not by the script, and
			// nobody speaks for its loader. The file is taken away instead: the
			// guard finds that out, and returns.
			ph.say = ""
			if err := os.Remove(h.at("content/" + h.digest.Hex())); err != nil {
				return nil, err
			}
		}
		reason, err := h.phase(ctx, ph.say, ph.ready, ph.reached)
		if err != nil {
			return nil, err
		}
		if reason != "" {
			return &holdfast.RuleProblem{Stage: ph.stage, Reason: ph.what + ": " + reason}, nil
		}
	}
	return nil, nil
}

// hosted is a host of rehearsal's own.
type hosted struct {
	*run
	state   string
	channel holdfast.Channel
	digest  holdfast.Digest
}

func (h *hosted) furnish(content []byte) error {
	for _, dir := range []string{"content", "guard"} {
		if err := os.MkdirAll(filepath.Join(h.state, dir), 0o700); err != nil {
			return err
		}
	}
	replay, err := h.replay()
	if err != nil {
		return err
	}
	config, err := json.Marshal(map[string]any{
		"state": h.state, "domain": "production", "sensor": "replay",
		"replay": map[string]any{"file": h.at("replay.jsonl"), "loop": true, "rate": 200},
	})
	if err != nil {
		return err
	}
	script := fmt.Sprintf(launcher, shellQuoted(h.at("say")), shellQuoted(h.agent))
	for name, data := range map[string][]byte{
		"content/" + h.digest.Hex(): content, "replay.jsonl": replay, "agent.json": config, "launcher": []byte(script),
	} {
		if err := os.WriteFile(h.at(name), data, 0o700); err != nil {
			return err
		}
	}
	return nil
}

func (h *hosted) at(name string) string { return filepath.Join(h.state, name) }

func shellQuoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// replay writes the bundle's events for the sensor to tell: benign ones, and
// those that rules find.
func (h *hosted) replay() ([]byte, error) {
	var events []map[string]string
	if h.bundle != nil {
		cases, _ := h.bundle.Cases()
		_ = h.bundle.Benign(func(_ string, _ int, e bundle.Event) error {
			events = append(events, e)
			return nil
		})
		for _, c := range cases {
			for _, e := range c.Match {
				events = append(events, e)
			}
		}
	}
	events = append(events, map[string]string{"Image": "/usr/bin/true", "CommandLine": "true"})
	var out bytes.Buffer
	lines := json.NewEncoder(&out)
	for _, e := range events {
		if e["Image"] == "" || !h.supplies(e) {
			continue
		}
		if err := lines.Encode(e); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

// supplies reports whether the build knows every field of an event.
func (h *hosted) supplies(e map[string]string) bool {
	for name := range e {
		known := false
		for _, c := range h.classes {
			_, ok := c.Ordinal(name)
			known = known || ok
		}
		if !known {
			return false
		}
	}
	return true
}

// guardState is what rehearsal reads of the guard's state file.
type guardState struct {
	State struct {
		Current holdfast.Generation `json:"current"`
		Trial   *struct{}           `json:"trial"`
		Safe    *struct{}           `json:"safe"`
		Failed  holdfast.Generation `json:"failed"`
		Reason  string              `json:"reason"`
		Crashes uint64              `json:"crashes"`
	} `json:"state"`
}

func (h *hosted) holds(g guardState) bool {
	return g.State.Current[h.channel] == h.digest && g.State.Trial == nil
}

func (h *hosted) gone(g guardState) bool {
	return g.State.Current[h.channel] != h.digest && g.State.Trial == nil
}

// phase runs the guard until the host is as it should be and stays so for as
// long as a probation, and returns what went wrong, if anything did.
func (h *hosted) phase(ctx context.Context, say, ready string, reached func(guardState) bool) (string, error) {
	if say != "" {
		if err := os.WriteFile(h.at("say"), []byte(say+"\n"), 0o600); err != nil {
			return "", err
		}
	}
	log := &tail{limit: 64 << 10}
	cmd := exec.CommandContext(ctx, h.Guard,
		"--state", h.state, "--worker", h.at("launcher"), "--config", h.at("agent.json"),
		"--probation", liveProbation.String(), "--probation-events", strconv.Itoa(liveEvents),
		"--memory-max", strconv.FormatUint(h.Limits.Memory>>20, 10), "--stall", max(h.Limits.Event, 300*time.Millisecond).String())
	contain(cmd)
	// A guard that is asked to end takes its worker and its control groups along.
	cmd.Cancel = func() error { interrupt(cmd.Process); return nil }
	cmd.WaitDelay = 10 * time.Second
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		return "", &holdfast.Error{Kind: holdfast.Internal, What: "the guard cannot be started", Err: err}
	}
	reason, steady := h.watch(ctx, log, "event=ready slot="+ready, reached)
	interrupt(cmd.Process)
	err := cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil && !steady:
		return "the guard ended: " + lastLine(log.kept()), nil
	case reason == "" && !steady:
		return "not within " + livePhase.String() + "; the last words: " + lastLine(log.kept()), nil
	}
	return reason, nil
}

// watch reads the guard's state until a worker is ready and all is as it should
// be, and a while longer.
func (h *hosted) watch(ctx context.Context, log *tail, ready string, reached func(guardState) bool) (reason string, steady bool) {
	var since time.Time
	for end := time.Now().Add(livePhase); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
		h.weigh(log.kept())
		var g guardState
		data, err := os.ReadFile(h.at("guard/state.json"))
		if err != nil || json.Unmarshal(data, &g) != nil {
			continue
		}
		switch {
		case g.State.Crashes > 0 || g.State.Safe != nil || len(g.State.Failed) > 0:
			return g.State.Reason, true
		case !reached(g) || !bytes.Contains(log.kept(), []byte(ready)):
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) > liveProbation:
			return "", true
		}
	}
	return "", false
}

var startedPID = regexp.MustCompile(`msg=started .*pid=(\d+)`)

// weigh notes what the latest worker holds in memory.
func (h *hosted) weigh(log []byte) {
	if all := startedPID.FindAllSubmatch(log, -1); len(all) > 0 {
		pid, _ := strconv.Atoi(string(all[len(all)-1][1]))
		_, peak := residentOf(pid)
		h.verdict.Figures.PeakRSS = max(h.verdict.Figures.PeakRSS, peak)
	}
}

func lastLine(log []byte) string {
	lines := bytes.Split(bytes.TrimSpace(log), []byte("\n"))
	last := string(lines[len(lines)-1])
	return last[:min(len(last), 300)]
}

// rehearseAgent rehearses a worker binary: it is a sensor build of its own, and
// what it replaces is the packaged worker it returns to.
func rehearseAgent(ctx context.Context, o Options, dir string, v *holdfast.Verdict) error {
	r := &run{Options: o, dir: dir, n: 1}
	if err := r.prepareBytes(ctx, o.Content); err != nil {
		return err
	}
	if len(o.Builds) > 0 { // what runs before and after
		r.agent = o.Builds[0]
		if abs, err := filepath.Abs(r.agent); err == nil {
			r.agent = abs
		}
	}
	if err := r.live(ctx, holdfast.Agent, o.Content); err != nil {
		return err
	}
	r.verdict.Passed = len(r.verdict.Failures) == 0
	v.Builds = append(v.Builds, r.verdict)
	return nil
}
