package stage

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/view"
)

// A release of the agent that never reaches the server passes rehearsal, which
// has none. Whoever takes it falls silent, that halts it, and no recall reaches
// them: each of them comes back by itself.
func TestHostsComeBackFromAMuteAgentByThemselves(t *testing.T) {
	s := open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	const hosts = 6
	agent, replay, mute := s.Program("holdfast-agent"), s.Path("replay.jsonl"), s.Path("agent-mute")
	must(os.WriteFile(replay, []byte("{\"Image\":\"/usr/bin/true\",\"CommandLine\":\"true\"}\n"), 0o600))
	must(CopyFile(s.Program("drill/agent-mute"), mute)) // made by make twins
	token, err := s.EnrolmentToken(ctx, hosts, false)
	must(err)
	var guards []*Process
	for i := range hosts {
		g := Guarded{Name: fmt.Sprintf("guard-%d", i), Worker: agent, Sensor: "replay", Replay: replay, Rate: 4, Guard: []string{"--probation-events", "8", "--cgroup", "", "--stall", "5s"}}
		must(s.Enrol(ctx, g, token))
		p, err := s.Guard(g)
		must(err)
		guards = append(guards, p)
	}
	must(s.WaitConnected(ctx, hosts, time.Minute, guards...))
	for _, build := range []string{agent, mute} {
		_, err := s.Register(ctx, build)
		must(err)
	}
	verdict, err := s.Rehearse(ctx, mute, string(holdfast.Agent), agent)
	must(err)
	r, err := s.Release(ctx, mute, verdict, string(holdfast.Agent), "0.2.0-mute", "it reaches nobody")
	must(err)
	end, err := s.Follow(ctx, r.ID, 4*time.Minute, guards, func(view.RolloutDetail) {})
	must(err)
	if !end.Phase.Recalling() || end.Harmed == 0 {
		t.Errorf("the release is %s with %d harmed: %s", end.Phase, end.Harmed, end.Why)
	}
	must(Until(ctx, 2*time.Minute, 250*time.Millisecond, "every host to be back", append(guards, s.Server), func() (bool, error) {
		var page view.HostPage
		if err := s.Admin.Get(ctx, "/api/v1/hosts?size=100", &page); err != nil {
			return false, err
		}
		var away []string
		for _, h := range page.Hosts {
			if !h.Connected || h.Report.SafeMode || len(h.Report.Running) > 0 {
				away = append(away, h.Attributes.Hostname+" runs "+h.Report.Running.String())
			}
		}
		return len(page.Hosts) == hosts && len(away) == 0, fmt.Errorf("away: %q", away)
	}))
	took := 0
	for _, p := range guards {
		log, err := os.ReadFile(p.Log)
		must(err)
		if !strings.Contains(string(log), "event=ready slot=trial running=\"agent="+r.Bundle.Digest.Short()) {
			continue
		}
		took++
		if !strings.Contains(string(log), "it did not reach the server on probation") {
			t.Errorf("%s came back, and its guard does not say why:\n%s", p.Log, log)
		}
	}
	t.Logf("%d of %d hosts ran it, and came back; %s: %s", took, hosts, end.Phase, end.Why)
	if took == 0 {
		t.Error("no host ran it")
	}
}
