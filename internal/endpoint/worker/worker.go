// Package worker is the process that protects a host: it takes events from the
// sensor, evaluates the content's rules on them, and hands findings to the
// outbox; beside that it follows the server's offers and reports.
//
// One process runs one generation of content, from its start to its end. What
// may go wrong with content goes wrong here, and the guard, which watches, puts
// back what held.
package worker

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/lifeline"
	"github.com/holdfast-security/holdfast/internal/endpoint/loader"
	"github.com/holdfast-security/holdfast/internal/endpoint/outbox"
	"github.com/holdfast-security/holdfast/internal/endpoint/sensor"
	"github.com/holdfast-security/holdfast/internal/endpoint/uplink"
	"github.com/holdfast-security/holdfast/internal/language/detect"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

// Options are what the command line adds to the configuration.
type Options struct {
	Config     Config
	Version    string
	Generation holdfast.Generation
	// Safe runs uplink and loader only: no content, no sensor.
	Safe bool
	// Guard is the worker's end of the lifeline (lifeline.Open).
	Guard *lifeline.Worker
	Log   *slog.Logger
}

// findingsWaiting is how many findings may wait for the disk.
const findingsWaiting = 4096

// takeOver is how long a new worker waits for the old one to let go of the
// connection before it connects itself.
const takeOver = 5 * time.Second

// worker is one run.
type worker struct {
	Options
	identity *uplink.Identity // nil on a host that is not enrolled
	attr     holdfast.Attributes
	state    *state
	counters *Counters
	findings chan holdfast.Finding
	keeper   *keeper // nil if nothing is counted
	outbox   *outbox.Outbox
	link     *uplink.Link // nil until connected the first time, and without an identity
	mine     chan struct{}
	once     sync.Once
}

// Run evaluates events until ctx ends, the guard asks to drain, or the guard is
// gone. A nil error means that everything was handed over.
func Run(ctx context.Context, o Options) error {
	begun := time.Now()
	if !o.Guard.Guarded() {
		o.Log.Warn("no guard watches this agent")
	}
	w := &worker{
		Options: o, counters: &Counters{},
		findings: make(chan holdfast.Finding, findingsWaiting), mine: make(chan struct{}),
	}
	build := o.Generation[holdfast.Agent]
	var err error
	if w.attr, err = Attributes(o.Config, o.Version, build); err != nil {
		return err
	}
	if w.identity, err = w.identify(); err != nil {
		return err
	}
	engine, err := w.load()
	if err != nil {
		return err
	}
	started["content"] = time.Now()
	s, err := w.sense()
	if err != nil {
		return err
	}
	defer s.Close()
	started["sensor"] = time.Now()
	w.attr.Sensor = s.Tier()
	o.Log.Info("worker", "version", o.Version, "generation", o.Generation.String(), "sensor", s.Tier(), "safe", o.Safe,
		"content_up", started["content"].Sub(begun), "sensor_up", started["sensor"].Sub(begun))

	l := &loop{
		source: s, evaluator: engine.NewEvaluator(), test: newSelfTest(engine), budgets: budgets{budget: DefaultBudget},
		beat: o.Guard.Beat, found: w.findings, counters: w.counters,
		label: holdfast.Finding{Org: o.Config.Org, Hostname: w.attr.Hostname, Bundle: o.Generation[holdfast.Rules]},
	}
	if w.identity != nil {
		l.label.Host, l.label.Org = w.identity.Host, w.identity.Org
	}
	if engine.Correlates() { // else what was counted before is left alone
		file := countsFile(o.Config.State)
		restoreCounts(l.evaluator, file, l.label.Host, o.Log)
		w.keeper = newKeeper(file, l.label.Host, o.Log)
		l.keeper = w.keeper
	}
	return w.run(ctx, l)
}

// identify reads who this host is. A host that cannot say still protects
// itself.
func (w *worker) identify() (*uplink.Identity, error) {
	id, err := uplink.Open(filepath.Join(w.Config.State, "identity"))
	if err != nil {
		w.Log.Error("this host has no identity: it evaluates events, and keeps what it finds", "err", err)
		return nil, nil
	}
	if id.Role != "" {
		w.attr.Role = id.Role
	}
	if len(w.Config.Servers) > 0 {
		id.Server = strings.TrimSuffix(w.Config.Servers[0], "/")
	}
	return id, nil
}

// load compiles the generation's rules. A generation without rules is an engine
// without rules: it evaluates, and proves itself, like any other.
func (w *worker) load() (*detect.Engine, error) {
	digest := w.Generation[holdfast.Rules]
	if w.Safe || digest == "" {
		engine, _ := detect.Compile(sigma.Set{}, detect.Options{})
		return engine, nil
	}
	data, err := readContent(contentFile(w.Config.State, digest), digest)
	if err != nil {
		return nil, err
	}
	engine, problems, err := Compile(data)
	if err != nil {
		return nil, err
	}
	for _, p := range problems {
		w.Log.Warn("content", "problem", p.Error(), "runs", p.Warning)
	}
	return engine, nil
}

func (w *worker) sense() (*sensor.Sensor, error) {
	o := sensor.Options{
		Tier: w.Config.Sensor, Boot: strings.ReplaceAll(bootID(), "-", ""),
		Warn: func(err error) { w.Log.Warn("a better sensor is not to be had", "err", err) },
	}
	if w.Safe {
		o.Tier = sensor.TierNone
	}
	if r := w.Config.Replay; r != nil {
		o.Replay, o.Loop, o.Rate = r.File, r.Loop, r.Rate
	}
	return sensor.Open(o)
}

// run starts the other parts, evaluates in this goroutine, and ends them all.
func (w *worker) run(ctx context.Context, l *loop) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	w.outbox = outbox.New(outbox.Config{
		Dir: filepath.Join(w.Config.State, "queue"), Deliver: w.deliver, Log: w.Log,
		Patience: max(time.Duration(w.Config.Heartbeat), time.Second),
	})
	w.state = &state{
		running: w.Generation, counters: w.counters,
		queue: func() uint64 { s := w.outbox.Stats(); return s.Dropped + s.Refused },
	}

	var parts sync.WaitGroup
	parts.Go(func() { w.obey(ctx, stop) })
	parts.Go(func() { w.connect(ctx) })
	writer := make(chan struct{})
	go func() { // ends when the loop has ended and everything is on disk
		defer close(writer)
		for f := range w.findings {
			if err := w.outbox.Put(f); err != nil {
				w.Log.Error("a finding is lost", "rule", f.Rule, "err", err)
			}
		}
	}()
	delivery, endDelivery := context.WithCancel(context.WithoutCancel(ctx))
	defer endDelivery()
	delivered := make(chan struct{})
	go func() {
		defer close(delivered)
		if err := w.outbox.Run(delivery); err != nil {
			w.Log.Error("findings are not delivered", "err", err)
		}
	}()

	l.test.run(selfTestRound) // what dies of it dies before the old worker is drained
	if err := w.Guard.Ready(); err != nil && w.Guard.Guarded() {
		return err
	}
	err := l.run(ctx)
	if w.keeper != nil { // first, because another worker may be waiting for it
		w.keeper.close(l.evaluator)
	}
	stop()
	close(w.findings)
	<-writer
	endDelivery()
	<-delivered
	parts.Wait()
	return err
}

// obey takes the guard's orders until it is gone or asks for the end.
func (w *worker) obey(ctx context.Context, stop context.CancelFunc) {
	defer stop()
	for {
		select {
		case <-ctx.Done():
			return
		case m, ok := <-w.Guard.Messages():
			if !ok {
				w.Log.Error("the guard is gone; nobody watches this worker any more")
				return
			}
			switch m.Kind {
			case lifeline.Tell:
				w.state.tell(*m.Status)
				if w.keeper != nil { // another worker may have come, and taken what was saved, or be about to
					w.keeper.asked.Store(true)
				}
				if m.Status.SafeMode == w.Safe && m.Status.Running.Equal(w.Generation) {
					w.once.Do(func() { close(w.mine) })
				}
				w.say()
			case lifeline.Answer:
				if m.Accepted {
					w.state.accepted()
				} else {
					w.Log.Warn("the guard refused", "id", m.ID, "reason", m.Reason)
					w.state.refuse(m.Reason)
				}
				w.say()
			case lifeline.Drain:
				w.Log.Info("another worker has taken over")
				return
			}
		}
	}
}

// connect waits until this worker is the one that runs, and then keeps the host
// connected and follows what it is offered. Two workers of one host on the line
// at once would push each other off it.
func (w *worker) connect(ctx context.Context) {
	if w.identity == nil {
		return
	}
	if w.Guard.Guarded() {
		select {
		case <-ctx.Done():
			return
		case <-w.mine:
		case <-time.After(takeOver):
		}
	}
	heartbeat := time.Duration(w.Config.Heartbeat)
	met := make(chan struct{}, 1)
	link := uplink.Start(uplink.Config{
		Identity: w.identity, Attributes: w.attr, Report: w.state.report(time.Now()), Log: w.Log, Heartbeat: heartbeat,
		Contact: func() {
			select {
			case met <- struct{}{}:
			default:
			}
		},
	})
	defer link.Stop()
	w.setLink(link)
	defer w.setLink(nil)

	var parts sync.WaitGroup
	f := w.follower(link)
	if f != nil {
		parts.Go(func() { f.run(ctx) })
	}
	report := time.NewTicker(max(heartbeat, minHeartbeat))
	defer report.Stop()
	for {
		select {
		case <-ctx.Done():
			parts.Wait()
			return
		case <-met:
			// A worker that is heard, and cannot be told what to give back, is no
			// better than one that is not heard.
			if f != nil {
				w.Guard.Contact()
			}
		case <-report.C:
			w.say()
		}
	}
}

// follower returns what follows offers; nil if this host cannot verify any.
func (w *worker) follower(link *uplink.Link) *follower {
	if !w.Guard.Guarded() {
		w.Log.Warn("offers are not followed: there is no guard to give them to")
		return nil
	}
	trust, err := tuf.NewClient(tuf.ClientConfig{
		Domain: tuf.Domain(w.Config.Domain), Roots: tuf.Roots{Image: w.identity.Roots["image"], Director: w.identity.Roots["director"]},
		URL: w.identity.Server + "/tuf", HTTP: link.HTTP(), Dir: filepath.Join(w.Config.State, "trust"), Host: w.identity.Host,
	})
	if err != nil {
		w.Log.Error("this host can verify no content, and keeps what it has", "err", err)
		return nil
	}
	keys, err := w.Config.Consent.keys()
	if err != nil {
		w.Log.Error("this host cannot verify its organisation's decisions, and keeps what it has", "err", err)
		return nil
	}
	l, err := loader.New(loader.Config{
		Consent: loader.Consent{Org: w.identity.Org, Keys: keys, Attributes: w.attr, File: w.Config.Consent.File},
		Host:    w.identity.Host, Domain: tuf.Domain(w.Config.Domain), Build: w.attr.Build, Trust: trust,
		Content: filepath.Join(w.Config.State, "content"), State: w.Config.State, URL: w.identity.Server, HTTP: link.HTTP(),
		TestLoad: testLoader(w.Config, w.Generation),
		Renew:    func(ctx context.Context, lease string) error { _, err := link.Renew(ctx, lease); return err },
	})
	if err != nil {
		w.Log.Error("this host can load no content, and keeps what it has", "err", err)
		return nil
	}
	return &follower{
		loader: l, guard: w.Guard, state: w.state, offers: link.Offers(), heartbeat: time.Duration(w.Config.Heartbeat), log: w.Log,
	}
}
