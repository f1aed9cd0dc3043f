// Package rehearsal finds out, before publishers sign, what content does to each
// sensor build of the fleet: it runs the real worker binary of each, under the
// real guard with the limits of production.
//
// The stages: the static check against the manifest that the build itself
// exports; load; exercise, in which every field each rule names is read with a
// value that matches and one that does not; attack, the events the bundle says
// its rules find; benign, the events they must not, and what each rule costs;
// fuzz; restart, a year later by the events' clock; and, under the guard, the
// whole life of a generation: probation, a restart of the host's agent, recall
// and return (unload).
//
// What the build's manifest promises is not believed: an event has what the
// build's own sensor supplies. A build that dies or hangs is tried again with
// ever less of the bundle, until one rule and one field are left to name.
package rehearsal

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/bundle"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/ruletest"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// Options say what is rehearsed, and on what.
type Options struct {
	Channel holdfast.Channel // Rules, or Agent
	// Content is the candidate: a bundle, or on the agent channel the worker
	// binary.
	Content []byte
	// Builds are the worker binaries, one for each sensor build of the fleet. On
	// the agent channel they are what the candidate replaces, and may be empty.
	Builds []string
	// Guard is the holdfast-guard to run them under.
	Guard string
	// Seed makes the fuzzed events; the same seed makes the same.
	Seed uint64
	// Limits are production's if they are zero.
	Limits Limits
	// Progress is told what is being done; it may be nil.
	Progress func(Progress)
}

// Limits bound what a build may take.
type Limits struct {
	Memory uint64        // bytes resident; 512 MiB
	Load   time.Duration // to load the bundle; 20 s
	Event  time.Duration // for one event; 700 ms
	// Rule is what one rule may cost per event; 20 µs, as on hosts.
	Rule time.Duration
	// Fuzz is how many fuzzed events are evaluated; 3000.
	Fuzz int
}

func (l Limits) orDefaults() Limits {
	fill := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	fill(&l.Load, 20*time.Second)
	fill(&l.Event, 700*time.Millisecond)
	fill(&l.Rule, 20*time.Microsecond)
	if l.Memory == 0 {
		l.Memory = 512 << 20
	}
	if l.Fuzz == 0 {
		l.Fuzz = 3000
	}
	return l
}

// Progress says where a rehearsal stands.
type Progress struct {
	Build   holdfast.Digest
	Version string
	N, Of   int // builds
	Stage   string
	Done    int // events, where a stage counts them
	Total   int
}

// mostFailures is how many failures of one build are worked out.
const mostFailures = 20

// Run rehearses. An error means that there is no verdict: rehearsal could not be
// carried out, or ctx ended. What a build does wrong is in the verdict.
func Run(ctx context.Context, o Options) (holdfast.Verdict, error) {
	v := holdfast.Verdict{Bundle: holdfast.DigestOf(o.Content), Channel: o.Channel, Started: time.Now().UTC(), Seed: o.Seed}
	o.Limits = o.Limits.orDefaults()
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	if runtime.GOOS != "linux" {
		return v, &holdfast.Error{Kind: holdfast.Unavailable, What: "rehearsal runs sensor builds, and needs Linux for it", Do: "run it on a Linux machine"}
	}
	if _, err := os.Stat(o.Guard); err != nil {
		return v, &holdfast.Error{Kind: holdfast.Invalid, What: "there is no guard to rehearse under", Err: err, Do: "name holdfast-guard with --guard"}
	}
	dir, err := os.MkdirTemp("", "holdfast-rehearsal-")
	if err != nil {
		return v, &holdfast.Error{Kind: holdfast.Internal, Err: err}
	}
	defer os.RemoveAll(dir)
	switch o.Channel {
	case holdfast.Rules:
		err = rehearseRules(ctx, o, dir, &v)
	case holdfast.Agent:
		err = rehearseAgent(ctx, o, dir, &v)
	default:
		err = &holdfast.Error{Kind: holdfast.Invalid, What: fmt.Sprintf("channel %q cannot be rehearsed", o.Channel), Do: "use rules or agent"}
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	v.Finished = time.Now().UTC()
	return v, err
}

func rehearseRules(ctx context.Context, o Options, dir string, v *holdfast.Verdict) error {
	b, err := bundle.Open(o.Content)
	if err != nil {
		return err
	}
	if len(o.Builds) == 0 {
		return &holdfast.Error{Kind: holdfast.Invalid, What: "no sensor build to rehearse on", Do: "name the worker binary of each build in the fleet with --agent"}
	}
	for i, path := range o.Builds {
		r := &run{Options: o, bundle: b, dir: filepath.Join(dir, fmt.Sprint(i)), agent: path, n: i + 1}
		bv, err := r.build(ctx)
		if err != nil {
			return err
		}
		v.Builds = append(v.Builds, bv)
	}
	return nil
}

// run is the rehearsal of one bundle on one build.
type run struct {
	Options
	bundle *bundle.Bundle
	dir    string // scratch, its own
	agent  string
	n      int

	manifest holdfast.Manifest
	classes  []*ocsf.Class
	set      sigma.Set
	skip     map[string]bool // rule files found guilty: the others are rehearsed without them
	verdict  holdfast.BuildVerdict
	number   int              // of requests
	late     int              // answers that did not come in time, for no reason that could be found
	probes   map[string]*item // by file
}

func (r *run) fail(p holdfast.RuleProblem) {
	for _, q := range r.verdict.Failures {
		if q.Rule == p.Rule && q.File == p.File && q.Field == p.Field && q.Stage == p.Stage {
			return
		}
	}
	r.verdict.Failures = append(r.verdict.Failures, p)
}

func (r *run) stage(name string, done, total int) {
	r.Progress(Progress{
		Build: r.verdict.Build, Version: r.verdict.Version, N: r.n, Of: max(1, len(r.Builds)), Stage: name, Done: done, Total: total,
	})
}

// build runs all stages. A failing stage does not keep the others from running,
// but for those that need it.
func (r *run) build(ctx context.Context) (holdfast.BuildVerdict, error) {
	if err := r.prepare(ctx); err != nil {
		return r.verdict, err
	}
	r.stage("static", 0, 0)
	for _, p := range ruletest.Static(r.Content, r.manifest) {
		r.fail(p)
		if p.File != "" {
			r.skip[p.File] = true // it does not run on this build; whether the rest does is still worth knowing
		}
	}
	r.parse()
	for _, stage := range []func(context.Context) error{r.exercise, r.attack, r.benign, r.fuzz, r.restart} {
		if len(r.verdict.Failures) >= mostFailures {
			break
		}
		if err := stage(ctx); err != nil {
			return r.verdict, err
		}
	}
	if len(r.verdict.Failures) == 0 {
		if err := r.live(ctx, holdfast.Rules, r.Content); err != nil {
			return r.verdict, err
		}
	}
	r.verdict.Figures.Rules = len(r.set.Rules) + len(r.set.Correlations)
	r.verdict.Passed = len(r.verdict.Failures) == 0
	return r.verdict, ctx.Err()
}

// prepare copies the binary, so that what is rehearsed is what was hashed, and
// asks it for its manifest.
func (r *run) prepare(ctx context.Context) error {
	raw, err := os.ReadFile(r.agent)
	if err != nil {
		return &holdfast.Error{Kind: holdfast.Invalid, What: "the sensor build cannot be read", Err: err}
	}
	return r.prepareBytes(ctx, raw)
}

func (r *run) prepareBytes(ctx context.Context, raw []byte) error {
	r.skip = map[string]bool{}
	r.verdict.Build = holdfast.DigestOf(raw)
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return err
	}
	r.agent = filepath.Join(r.dir, "holdfast-agent")
	if err := os.WriteFile(r.agent, raw, 0o500); err != nil {
		return &holdfast.Error{Kind: holdfast.Internal, Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	out := &tail{limit: 1 << 20}
	cmd := exec.CommandContext(ctx, r.agent, "manifest")
	cmd.Stdout = out
	contain(cmd)
	if err := cmd.Run(); err != nil {
		return r.unable("does not export its manifest", err)
	}
	if err := json.Unmarshal(out.kept(), &r.manifest); err != nil {
		return r.unable("exports no manifest we can read", err)
	}
	r.verdict.Version = r.manifest.Version
	if want := runtime.GOOS + "/" + runtime.GOARCH; r.manifest.Platform != want {
		return &holdfast.Error{Kind: holdfast.Unavailable, What: "a build for " + r.manifest.Platform + " cannot run here", Where: r.agent, Do: "rehearse it on such a machine; this one is " + want}
	}
	r.classes = ocsf.FromManifest(r.manifest)
	return nil
}

func (r *run) unable(what string, err error) error {
	return &holdfast.Error{Kind: holdfast.Invalid, What: "sensor build " + r.verdict.Build.Short() + " " + what, Err: err, Do: "give the holdfast-agent binary that hosts run"}
}

// parse reads the rules that are rehearsed.
func (r *run) parse() {
	r.set = sigma.Set{}
	for _, p := range r.bundle.Paths("rules") {
		if !r.skip[p] {
			one, _ := sigma.Parse(p, r.bundle.Files[p])
			r.set.Add(one)
		}
	}
}

// without returns the bundle without the files that were found guilty.
func (r *run) without() *bundle.Bundle {
	b := &bundle.Bundle{Header: r.bundle.Header, Files: map[string][]byte{}}
	for _, p := range r.bundle.Paths("rules") {
		if !r.skip[p] {
			b.Files[p] = r.bundle.Files[p]
		}
	}
	return b
}

// tail keeps the last bytes written to it.
type tail struct {
	limit int

	mu    sync.Mutex
	bytes []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bytes = append(t.bytes, p...)
	if n := len(t.bytes) - t.limit; n > 0 {
		t.bytes = t.bytes[n:]
	}
	return len(p), nil
}

func (t *tail) kept() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Clone(t.bytes)
}
