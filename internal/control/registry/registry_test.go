package registry_test

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/registry"
	"github.com/holdfast-security/holdfast/internal/edge/store"
	"github.com/holdfast-security/holdfast/internal/trust/attest"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

var t0 = time.Date(2026, 11, 21, 18, 0, 0, 0, time.UTC)

// desk is what officers and publishers signed, without the signatures: those
// are package tuf's to test.
type desk struct {
	policy   tuf.Policy
	released map[holdfast.Digest]tuf.Release
	refuse   error
}

func (d *desk) Accept(tuf.Files, time.Time) error { return d.refuse }
func (d *desk) Policy() (tuf.Policy, error)       { return d.policy, nil }
func (d *desk) Released(g holdfast.Digest) (tuf.Release, error) {
	r, ok := d.released[g]
	if !ok {
		return r, holdfast.Errorf(holdfast.NotFound, "not signed")
	}
	return r, nil
}

type bench struct {
	*registry.Registry
	db   *store.Store
	desk *desk
	key  ed25519.PrivateKey
}

func newBench(t *testing.T) *bench {
	t.Helper()
	dir := t.TempDir()
	db, err := store.Open(t.Context(), filepath.Join(dir, "holdfast.db"))
	must(t, err)
	t.Cleanup(func() { db.Close() })
	public, private, err := ed25519.GenerateKey(nil)
	must(t, err)
	b := &bench{db: db, key: private, desk: &desk{policy: tuf.Policy{Rehearsal: []ed25519.PublicKey{public}, RehearsalThreshold: 1, Rings: []string{"internal", "early", "general"}}, released: map[holdfast.Digest]tuf.Release{}}}
	b.Registry = &registry.Registry{
		Store: db.Registry(), Files: registry.Files{Dir: dir}, Trust: b.desk, Now: func() time.Time { return t0 },
		Check: func(_ holdfast.Bundle, data []byte, m holdfast.Manifest) []holdfast.RuleProblem {
			if strings.Contains(string(data), "field 21") && m.Version == "old" {
				return []holdfast.RuleProblem{{Rule: "r1", Field: "field 21", File: "rules/r1.yml", Stage: "static", Reason: "the build supplies 20"}}
			}
			return nil
		},
	}
	return b
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func build(version string) holdfast.Build {
	return holdfast.Build{Digest: holdfast.DigestOf([]byte(version)), Manifest: holdfast.Manifest{Schema: 1, Version: version, Platform: "linux/amd64"}}
}

func (b *bench) content(t *testing.T, data string) holdfast.Bundle {
	t.Helper()
	c := holdfast.Bundle{Channel: holdfast.Rules, Version: "1", Digest: holdfast.DigestOf([]byte(data)), Created: t0}
	must(t, b.PutContent(t.Context(), holdfast.DefaultOrg, c, []byte(data), "ann"))
	return c
}

func (b *bench) sign(c holdfast.Bundle) {
	b.desk.released[c.Digest] = tuf.Release{Channel: c.Channel, Digest: c.Digest, Version: c.Version, Rings: holdfast.DefaultRings, Signed: t0}
}

func (b *bench) rehearse(t *testing.T, c holdfast.Bundle, passed bool, builds ...holdfast.Build) error {
	t.Helper()
	v := holdfast.Verdict{Bundle: c.Digest, Channel: c.Channel, Started: t0, Finished: t0.Add(time.Duration(len(builds)))}
	for _, x := range builds {
		bv := holdfast.BuildVerdict{Build: x.Digest, Version: x.Manifest.Version, Passed: passed}
		if !passed {
			bv.Failures = []holdfast.RuleProblem{{Rule: "r1", Field: "field 21", Stage: "exercise", Reason: "the worker died"}}
		}
		v.Builds = append(v.Builds, bv)
	}
	env, err := attest.Sign(v, b.key)
	must(t, err)
	_, err = b.PutVerdict(t.Context(), c.Digest, env, "rehearsal")
	return err
}

func (b *bench) host(t *testing.T, id holdfast.HostID, runs holdfast.Build) {
	t.Helper()
	must(t, b.db.CreateHost(t.Context(), holdfast.Host{ID: id, Org: holdfast.DefaultOrg, Attributes: holdfast.Attributes{Build: runs.Digest}}))
}

// A release needs everything, and says what is missing.
func TestReleaseNeedsEverything(t *testing.T) {
	old, current := build("old"), build("current")
	cases := []struct {
		name string
		prep func(t *testing.T, b *bench) holdfast.Bundle
		says string // empty: released
	}{
		{"all is there", func(t *testing.T, b *bench) holdfast.Bundle {
			c := b.content(t, "rules")
			b.sign(c)
			must(t, b.rehearse(t, c, true, old, current))
			return c
		}, ""},
		{"not signed", func(t *testing.T, b *bench) holdfast.Bundle {
			c := b.content(t, "rules")
			must(t, b.rehearse(t, c, true, old, current))
			return c
		}, "publishers have not signed"},
		{"never rehearsed", func(t *testing.T, b *bench) holdfast.Bundle {
			c := b.content(t, "rules")
			b.sign(c)
			return c
		}, "never rehearsed"},
		{"rehearsal failed", func(t *testing.T, b *bench) holdfast.Bundle {
			c := b.content(t, "rules")
			b.sign(c)
			must(t, b.rehearse(t, c, false, old, current))
			return c
		}, "failed on old, rule r1, field field 21"},
		{"a build of the fleet was not rehearsed", func(t *testing.T, b *bench) holdfast.Bundle {
			c := b.content(t, "rules")
			b.sign(c)
			must(t, b.rehearse(t, c, true, current))
			return c
		}, "not rehearsed on sensor build old"},
		{"a build of the fleet is not registered", func(t *testing.T, b *bench) holdfast.Bundle {
			c := b.content(t, "rules")
			b.sign(c)
			must(t, b.rehearse(t, c, true, old, current))
			b.host(t, "stranger", build("unknown"))
			return c
		}, "not registered"},
		{"the static check refuses", func(t *testing.T, b *bench) holdfast.Bundle {
			c := b.content(t, "rules that look at field 21")
			b.sign(c)
			must(t, b.rehearse(t, c, true, old, current))
			return c
		}, "the build supplies 20"},
		{"a ring that the director does not have", func(t *testing.T, b *bench) holdfast.Bundle {
			c := b.content(t, "rules")
			b.sign(c)
			must(t, b.rehearse(t, c, true, old, current))
			b.desk.policy.Rings = []string{"internal"}
			return c
		}, `no role for ring "early"`},
		{"the rehearsal key was revoked since", func(t *testing.T, b *bench) holdfast.Bundle {
			c := b.content(t, "rules")
			b.sign(c)
			must(t, b.rehearse(t, c, true, old, current))
			other, _, err := ed25519.GenerateKey(nil)
			must(t, err)
			b.desk.policy.Rehearsal = []ed25519.PublicKey{other}
			return c
		}, "0 of the 1 signatures"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			must(t, b.PutBuild(t.Context(), old, "ci"))
			must(t, b.PutBuild(t.Context(), current, "ci"))
			b.host(t, "h1", old)
			b.host(t, "h2", current)
			content := c.prep(t, b)
			r, err := b.Release(t.Context(), registry.Ask{Bundle: content.Digest, Profile: holdfast.Urgent}, "ann")
			if c.says == "" {
				must(t, err)
				stored, err := b.db.Release(t.Context(), r.ID)
				must(t, err)
				if stored.By != "ann" || stored.Approved != "" || len(stored.Rings) != len(holdfast.DefaultRings) {
					t.Errorf("stored %+v", stored)
				}
				ro, err := b.db.Rollout(t.Context(), r.ID)
				must(t, err)
				if ro.Phase != holdfast.Waiting {
					t.Errorf("it is %s before a second person approved it", ro.Phase)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %q", err, c.says)
			}
			if all, err := b.db.Releases(t.Context(), ""); err != nil || len(all) != 0 {
				t.Errorf("a refused release left %v, %v", all, err)
			}
		})
	}
}

func ready(t *testing.T, b *bench, data string) holdfast.Bundle {
	t.Helper()
	must(t, b.PutBuild(t.Context(), build("current"), "ci"))
	c := b.content(t, data)
	b.sign(c)
	must(t, b.rehearse(t, c, true, build("current")))
	return c
}

// A worker is rehearsed by itself, and with the rules that hosts run.
func TestWorkerIsRehearsedWithWhatHostsRun(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	rules := ready(t, b, "rules")
	running, err := b.Release(ctx, registry.Ask{Bundle: rules.Digest}, "ann")
	must(t, err)
	ro, err := b.db.Rollout(ctx, running.ID)
	must(t, err)
	ro.Phase = holdfast.Complete
	must(t, b.db.SwapRollout(ctx, ro, false))

	worker := holdfast.Bundle{Channel: holdfast.Agent, Version: "2", Digest: holdfast.DigestOf([]byte("worker")), Created: t0}
	must(t, b.PutContent(ctx, holdfast.DefaultOrg, worker, []byte("worker"), "ann"))
	b.sign(worker)
	release := func(says string) {
		t.Helper()
		_, err := b.Release(ctx, registry.Ask{Bundle: worker.Digest}, "ann")
		if says == "" {
			must(t, err)
		} else if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want %q", err, says)
		}
	}
	release("not registered as a sensor build")
	self := holdfast.Build{Digest: worker.Digest, Manifest: build("2").Manifest}
	must(t, b.PutBuild(ctx, self, "ci"))
	release("never rehearsed")
	must(t, b.rehearse(t, worker, true, self))
	release("rules 1, which hosts run: " + rules.Digest.Short() + ": it was not rehearsed on sensor build 2")
	must(t, b.rehearse(t, rules, true, build("current"), self))
	release("")
}

func TestOneReleaseOfAChannelAtATime(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	one, two := ready(t, b, "one"), ready(t, b, "two")
	first, err := b.Release(ctx, registry.Ask{Bundle: one.Digest}, "ann")
	must(t, err)
	if _, err := b.Release(ctx, registry.Ask{Bundle: two.Digest}, "ann"); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("a second release beside the first: %v", err)
	}
	ro, err := b.db.Rollout(ctx, first.ID)
	must(t, err)
	ro.Phase = holdfast.Halted
	must(t, b.db.SwapRollout(ctx, ro, true))
	if _, err := b.Release(ctx, registry.Ask{Bundle: one.Digest}, "ann"); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("recalled content was released again: %v", err)
	}
	if _, err := b.Release(ctx, registry.Ask{Bundle: two.Digest}, "ann"); err != nil {
		t.Errorf("after the halt: %v", err)
	}
}

func TestWhatIsSentIsChecked(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	c := ready(t, b, "one")
	wrong := c
	wrong.Digest = holdfast.DigestOf([]byte("else"))
	noChannel := c
	noChannel.Channel = "../etc"
	notPath := c
	notPath.Digest = "sha256:../../etc/passwd"
	for name, err := range map[string]error{
		"digest of something else": b.PutContent(ctx, holdfast.DefaultOrg, wrong, []byte("one"), "ann"),
		"unknown channel":          b.PutContent(ctx, holdfast.DefaultOrg, noChannel, []byte("one"), "ann"),
		"digest that is a path":    b.PutContent(ctx, holdfast.DefaultOrg, notPath, []byte("one"), "ann"),
		"build without a manifest": b.PutBuild(ctx, holdfast.Build{Digest: c.Digest}, "ann"),
		"build without a digest":   b.PutBuild(ctx, holdfast.Build{Manifest: build("x").Manifest}, "ann"),
	} {
		if holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := b.PutVerdict(ctx, c.Digest, []byte("{}"), "x"); err == nil {
		t.Error("an unsigned verdict was taken")
	}
	b.desk.refuse = holdfast.Errorf(holdfast.Denied, "signatures")
	if err := b.PutMetadata(ctx, nil, "ann"); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("metadata: %v", err)
	}
}

// The same call twice is the same as once, on the record as well.
func TestTwiceIsOnce(t *testing.T) {
	b := newBench(t)
	ready(t, b, "one")
	before, err := b.db.RecordSize(t.Context())
	must(t, err)
	ready(t, b, "one")
	after, err := b.db.RecordSize(t.Context())
	must(t, err)
	if before != after || before != 3 {
		t.Errorf("%d entries, then %d; want build, publish and verdict once each", before, after)
	}
}

// A build that is registered later is checked against the bundles that are
// there.
func TestLaterBuildIsChecked(t *testing.T) {
	b := newBench(t)
	c := b.content(t, "rules that look at field 21")
	must(t, b.PutBuild(t.Context(), build("old"), "ci"))
	checks, err := b.db.Checks(t.Context(), c.Digest)
	must(t, err)
	if len(checks[build("old").Digest]) != 1 {
		t.Errorf("checks %v", checks)
	}
}

func TestFiles(t *testing.T) {
	f := registry.Files{Dir: t.TempDir()}
	data := []byte("content")
	d := holdfast.DigestOf(data)
	if _, err := f.Read(d); holdfast.KindOf(err) != holdfast.NotFound {
		t.Errorf("absent: %v", err)
	}
	must(t, f.Put(d, data))
	must(t, f.Put(d, data))
	got, err := f.Read(d)
	must(t, err)
	if string(got) != "content" {
		t.Errorf("read %q", got)
	}
	path := filepath.Join(f.ContentDir(), d.Hex())
	must(t, os.WriteFile(path, []byte("damaged"), 0o644))
	if _, err := f.Read(d); holdfast.KindOf(err) != holdfast.Internal {
		t.Errorf("damaged: %v", err)
	}
	must(t, f.Put(d, data)) // repairs it
	if _, err := f.Read(d); err != nil {
		t.Error(err)
	}
	left, err := filepath.Glob(filepath.Join(f.ContentDir(), ".tmp-*"))
	must(t, err)
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	for _, bad := range []holdfast.Digest{"", "sha256:x", holdfast.Digest("sha256:" + strings.Repeat("A", 64)), "sha256:../../../../etc/passwd"} {
		if _, err := f.Read(bad); err == nil || errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", fmt.Sprintf("%q", bad), err)
		}
	}
}
