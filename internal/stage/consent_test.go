package stage

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/view"
)

// A host that its organisation paused is not drawn, gets the release when the
// organisation says so, and gives it back when it is halted although it is
// paused again. The organisation signs offline, and the host verifies.
func TestAPausedHostIsNotDrawnAndIsRecalled(t *testing.T) {
	s := open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	agent := s.Program("holdfast-agent")
	replay := s.Path("replay.jsonl")
	must(os.WriteFile(replay, []byte("{\"Image\":\"/usr/bin/true\",\"CommandLine\":\"true\"}\n"), 0o600))
	frozen := Guarded{Name: "frozen", Worker: agent, Sensor: "replay", Replay: replay, Rate: 4, Guard: []string{"--probation-events", "8", "--cgroup", "", "--stall", "5s"}}
	token, err := s.EnrolmentToken(ctx, 1, false)
	must(err)
	must(s.Enrol(ctx, frozen, token))
	var identity struct{ Host holdfast.HostID }
	must(readJSON(s.hostDir("frozen")+"/identity/identity.json", &identity))

	var key struct{ Public string }
	must(s.Run(ctx, "", &key, "consent", "keygen", s.Path("keys/organisation")))
	must(pin(s.hostDir("frozen")+"/agent.json", key.Public))
	administrator, err := os.ReadFile(s.Path("server/admin-token"))
	must(err)
	must(os.WriteFile(s.tokenOf("administrator"), administrator, 0o600))
	allow := func(version int, track string) error {
		file := s.Path("policy.yaml")
		policy := fmt.Sprintf("organisation: default\nversion: %d\ngroups:\n  - {name: others, channels: {rules: {track: early}}}\n  - {name: frozen, where: {hosts: [%s]}, channels: {rules: {track: %s}}}\n", version, identity.Host, track)
		if err := os.WriteFile(file, []byte(policy), 0o600); err != nil {
			return err
		}
		if err := s.Run(ctx, "", nil, "consent", "sign", file, "--key", s.Path("keys/organisation")); err != nil {
			return err
		}
		if err := s.Run(ctx, "administrator", nil, "consent", "set", s.Path("policy.consent.json"), "--public", key.Public); err != nil {
			return err
		}
		return Until(ctx, time.Minute, 250*time.Millisecond, "the host to verify the policy", []*Process{s.Server}, func() (bool, error) {
			var d view.HostDetail
			err := s.Admin.Get(ctx, "/api/v1/hosts/"+string(identity.Host), &d)
			return d.Report.Consent == int64(version), err
		})
	}
	guard, err := s.Guard(frozen)
	must(err)
	sim, err := s.Simulate(ctx, 6)
	must(err)
	must(s.WaitConnected(ctx, 7, time.Minute, guard, sim))
	must(allow(1, "pause"))

	_, err = s.Register(ctx, agent)
	must(err)
	file, b, err := s.Content(ctx, "base", quiet, "")
	must(err)
	verdict, err := s.Rehearse(ctx, file, string(holdfast.Rules), agent)
	must(err)
	r, err := s.Release(ctx, file, verdict, string(holdfast.Rules), "", "paused for one")
	must(err)
	var p view.Preview
	must(s.Run(ctx, Publisher, &p, "rollout", "preview", file))
	if n := len(p.Rows); n == 0 || p.Rows[n-1].Group != "others" && p.Rows[n-1].Group != "frozen" {
		t.Errorf("%+v", p)
	}
	end, err := s.Follow(ctx, r.ID, 5*time.Minute, []*Process{sim, guard}, func(view.RolloutDetail) {})
	must(err)
	running := func(d holdfast.Digest) func() (bool, error) {
		return func() (bool, error) {
			var h view.HostDetail
			err := s.Admin.Get(ctx, "/api/v1/hosts/"+string(identity.Host), &h)
			return h.Report.Running[holdfast.Rules] == d, err
		}
	}
	if has, err := running(b.Digest)(); has || err != nil || end.Phase != holdfast.Complete || end.Admitted != 6 {
		t.Fatalf("%s, %d admitted; the paused host has it: %t, %v", end.Phase, end.Admitted, has, err)
	}
	must(allow(2, "early"))
	must(Until(ctx, 2*time.Minute, 250*time.Millisecond, "the host to run it", []*Process{s.Server, guard}, running(b.Digest)))
	must(allow(3, "pause"))
	must(s.Run(ctx, Approver, nil, "halt", string(r.ID), "--reason", "a rule is wrong"))
	must(Until(ctx, 2*time.Minute, 250*time.Millisecond, "the paused host to give it back", []*Process{s.Server, guard}, running("")))
}

func readJSON(file string, into any) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, into)
}

// pin puts an organisation's public key into a host's configuration.
func pin(file, public string) error {
	var c map[string]any
	if err := readJSON(file, &c); err != nil {
		return err
	}
	c["consent"] = map[string]any{"keys": []string{public}}
	raw, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return os.WriteFile(file, raw, 0o600)
}
