package stage

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast"
)

// Guarded is one real host: a guard with its agent.
type Guarded struct {
	Name string
	// Worker is the packaged worker, which the guard starts.
	Worker string
	// Sensor is "auto", "replay", …; Replay is the file of events of a replay.
	Sensor, Replay string
	Rate           float64 // replayed launches per second
	Role           string
	// Server is the server's address as this host sees it; the stage's own if
	// empty.
	Server string
	// Guard is flags of the guard's, on top of the stage's.
	Guard []string
	Env   []string
}

// agentConfig is agent.json.
type agentConfig struct {
	Servers   []string     `json:"servers"`
	State     string       `json:"state"`
	Role      string       `json:"role"`
	Domain    string       `json:"domain"`
	Sensor    string       `json:"sensor"`
	Replay    *agentReplay `json:"replay,omitempty"`
	Heartbeat string       `json:"heartbeat"`
}

type agentReplay struct {
	File string  `json:"file"`
	Loop bool    `json:"loop"`
	Rate float64 `json:"rate"`
}

func (s *Stage) hostDir(name string) string { return s.Path("hosts/" + name) }

// Enrol makes a host's folder and identity, unless it has one. token is a file.
func (s *Stage) Enrol(ctx context.Context, g Guarded, token string) error {
	dir := s.hostDir(g.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	server := g.Server
	if server == "" {
		server = s.HostsAt
	}
	c := agentConfig{
		Servers: []string{"https://" + server}, State: dir, Role: g.Role, Domain: s.Domain, Sensor: g.Sensor, Heartbeat: s.Heartbeat.String(),
	}
	if g.Sensor == "replay" {
		c.Replay = &agentReplay{File: g.Replay, Loop: true, Rate: g.Rate}
	}
	raw, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(dir+"/agent.json", raw, 0o600); err != nil {
		return err
	}
	if _, err := os.Stat(dir + "/identity"); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	cmd := exec.CommandContext(ctx, g.Worker, "enrol", "--config", dir+"/agent.json", "--token-file", token)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return &holdfast.Error{Kind: holdfast.Internal, What: "host " + g.Name + " could not enrol: " + strings.TrimSpace(string(out)), Err: err}
	}
	return nil
}

// Guard starts the guard of an enrolled host.
func (s *Stage) Guard(g Guarded) (*Process, error) {
	dir := s.hostDir(g.Name)
	args := append([]string{"--state", dir, "--worker", g.Worker, "--config", dir + "/agent.json", "--probation", (3 * s.Heartbeat).String()}, g.Guard...)
	return s.Start("host-"+g.Name, g.Env, s.Program("holdfast-guard"), args...)
}

// Simulate starts n simulated hosts in one process, and enrols them if they
// are new.
func (s *Stage) Simulate(ctx context.Context, n int) (*Process, error) {
	args := []string{"sim", "--connect", s.HostsAt, "--hosts", itoa(n), "--state", s.Path("simulated"), "--heartbeat", s.Heartbeat.String(), "--agent", s.Program("holdfast-agent")}
	if _, err := os.Stat(s.Path("simulated")); err != nil {
		token, err := s.EnrolmentToken(ctx, n, true)
		if err != nil {
			return nil, err
		}
		args = append(args, "--token-file", token)
	}
	return s.Start("simulated", nil, s.Program("holdfast"), args...)
}

// WaitConnected waits until at least n hosts are connected.
func (s *Stage) WaitConnected(ctx context.Context, n int, limit time.Duration, needs ...*Process) error {
	return Until(ctx, limit, 200*time.Millisecond, "the hosts to connect", append(needs, s.Server), func() (bool, error) {
		o, err := s.overview(ctx)
		return err == nil && o.Hosts-o.States[silent] >= n, err
	})
}
