package stage

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/view"
)

const silent = view.Silent

func itoa(n int) string { return strconv.Itoa(n) }

func (s *Stage) overview(ctx context.Context) (o view.Overview, err error) {
	return o, s.Admin.Get(ctx, "/api/v1/status", &o)
}

func (s *Stage) Rollout(ctx context.Context, id holdfast.ReleaseID) (d view.RolloutDetail, err error) {
	return d, s.Admin.Get(ctx, "/api/v1/rollouts/"+string(id), &d)
}

// Content writes a content repository and builds it.
func (s *Stage) Content(ctx context.Context, name string, repo fs.FS, version string) (file string, b holdfast.Bundle, err error) {
	dir := s.Path("content/" + name)
	if err := os.RemoveAll(dir); err != nil {
		return "", b, err
	}
	if err := os.CopyFS(dir, repo); err != nil {
		return "", b, err
	}
	args := []string{"content", "build", dir, "-o", dir + ".bundle"}
	if version != "" {
		args = append(args, "--version", version)
	}
	return dir + ".bundle", b, s.Run(ctx, "", &b, args...)
}

// Register tells the server about a sensor build: the manifest is what the
// build itself says.
func (s *Stage) Register(ctx context.Context, agent string) (holdfast.Digest, error) {
	raw, err := os.ReadFile(agent)
	if err != nil {
		return "", err
	}
	d := holdfast.DigestOf(raw)
	manifest, err := exec.CommandContext(ctx, agent, "manifest").Output()
	if err != nil {
		return "", &holdfast.Error{Kind: holdfast.Internal, What: "the sensor build does not export its manifest", Where: agent, Err: err}
	}
	return d, s.Admin.Do(ctx, "PUT", "/api/v1/builds/"+string(d), manifest, nil)
}

// Rehearse runs the bundle on sensor builds and writes the signed verdict.
func (s *Stage) Rehearse(ctx context.Context, bundle, channel string, agents ...string) (verdict string, err error) {
	verdict = bundle + ".verdict"
	args := []string{"rehearse", bundle, "--channel", channel, "--guard", s.Program("holdfast-guard"), "--key", s.Path("keys/rehearsal-1"), "-o", verdict}
	for _, a := range agents {
		args = append(args, "--agent", a)
	}
	return verdict, s.Run(ctx, "", nil, args...)
}

// demoRings soaks nothing: a demo has no hour to wait. The publishers sign it,
// as they would sign any other plan.
const demoRings = "internal:1%:0s,early:10%:0s,general:100%:0s"

// Release signs, asks for, and approves a release, as the two people it takes.
func (s *Stage) Release(ctx context.Context, file, verdict, channel, version, note string) (r holdfast.Release, err error) {
	args := []string{
		"release", file, "--desk", s.Path("desk"), "--verdict", verdict, "--channel", channel, "--profile", string(holdfast.Urgent), "--rings", demoRings,
		"--key", s.Path("keys/publisher-1"), "--key", s.Path("keys/publisher-2"), "--note", note,
	}
	if version != "" {
		args = append(args, "--version", version)
	}
	if err := s.Run(ctx, Publisher, &r, args...); err != nil {
		return r, err
	}
	return r, s.Run(ctx, Approver, nil, "approve", string(r.ID))
}

// Follow waits until a rollout ends, and calls see with what changes.
func (s *Stage) Follow(ctx context.Context, id holdfast.ReleaseID, limit time.Duration, needs []*Process, see func(view.RolloutDetail)) (d view.RolloutDetail, err error) {
	err = Until(ctx, limit, 250*time.Millisecond, "the rollout to end", append(needs, s.Server), func() (bool, error) {
		if d, err = s.Rollout(ctx, id); err != nil {
			return false, err
		}
		see(d)
		return d.Phase == holdfast.Complete || d.Phase.Recalling() && d.Recall.Back >= d.Recall.Hosts, nil
	})
	return d, err
}
