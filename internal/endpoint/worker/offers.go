package worker

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/lifeline"
	"github.com/holdfast-security/holdfast/internal/endpoint/loader"
)

// pollEvery is how many heartbeats pass between two looks at the signed
// metadata without an offer. A recall comes as an offer too; this is for hosts
// whom the server does not tell.
const pollEvery = 5

// decider is what the follower asks: *loader.Loader.
type decider interface {
	Consider(ctx context.Context, host loader.State, o holdfast.Offer, now time.Time) (loader.Decision, error)
	Poll(ctx context.Context, host loader.State, now time.Time) (loader.Orders, error)
	Sweep(keep []holdfast.Digest, now time.Time) error
	Policy() (version int64, trouble string)
}

// follower carries out what offers and signed metadata ask, one thing at a time:
// the loader decides, the guard acts.
type follower struct {
	loader    decider
	guard     *lifeline.Worker
	state     *state
	offers    <-chan holdfast.Offer
	heartbeat time.Duration
	log       *slog.Logger

	// proposed is what the guard was given and may not have answered yet: its
	// status does not name it, and it must not be swept away under the guard's
	// feet.
	proposed holdfast.Digest
	swept    time.Time
	trouble  string // with the organisation's policy, as last logged
}

// sweepEvery is how often content that nothing needs is removed.
const sweepEvery = 10 * time.Minute

// run follows until ctx ends.
func (f *follower) run(ctx context.Context) {
	poll := time.NewTimer(f.pause())
	defer poll.Stop()
	retry := time.NewTimer(time.Hour)
	retry.Stop()
	defer retry.Stop()
	f.policy()
	var waiting holdfast.Offer
	for {
		select {
		case <-ctx.Done():
			return
		case waiting = <-f.offers:
		case <-retry.C:
		case <-poll.C:
			f.poll(ctx)
			poll.Reset(f.pause())
			continue
		}
		// What must wait (for a soak, for the network) is considered again as
		// long as its lease lasts. Then the server offers anew.
		retry.Stop()
		if f.consider(ctx, waiting) == loader.Wait && (waiting.Recall != "" || time.Now().Before(waiting.Expires)) {
			retry.Reset(max(f.heartbeat/2, 100*time.Millisecond))
		}
	}
}

// pause spreads the hosts' polls.
func (f *follower) pause() time.Duration {
	return time.Duration(float64(pollEvery*f.heartbeat) * (0.8 + 0.4*rand.Float64()))
}

func (f *follower) consider(ctx context.Context, o holdfast.Offer) loader.Action {
	host, ok := f.host()
	if !ok {
		return loader.Wait
	}
	d, err := f.loader.Consider(ctx, host, o, time.Now())
	f.policy()
	if err != nil {
		if ctx.Err() == nil {
			f.log.Error("the offer could not be considered", "channel", o.Channel, "digest", o.Digest.Short(), "err", err)
			f.state.refuse(err.Error())
		}
		return loader.Wait
	}
	f.act(d)
	return d.Action
}

func (f *follower) poll(ctx context.Context) {
	host, ok := f.host()
	if !ok {
		return
	}
	now := time.Now()
	orders, err := f.loader.Poll(ctx, host, now)
	f.policy()
	if err != nil {
		if ctx.Err() == nil {
			f.log.Warn("the signed metadata could not be asked; this host keeps what it has", "err", err)
		}
		return
	}
	for _, d := range orders.Retry {
		f.tell("retry", f.guard.Retry(d))
	}
	for _, d := range orders.Final {
		f.tell("final", f.guard.Final(d))
	}
	for _, d := range orders.Returns {
		f.act(d)
	}
	if orders.Owed.Action == loader.Propose {
		f.act(orders.Owed)
	}
	f.sweep(now)
}

// policy says which of its organisation's policies this host keeps to.
func (f *follower) policy() {
	version, trouble := f.loader.Policy()
	f.state.consent.Store(version)
	if trouble != f.trouble {
		f.trouble = trouble
		if trouble != "" {
			f.log.Warn("this host keeps to the policy it has", "version", version, "why", trouble)
		}
	}
}

// sweep removes content that no way forward or back needs.
func (f *follower) sweep(now time.Time) {
	keep, ok := f.state.keep()
	if !ok || now.Sub(f.swept) < sweepEvery {
		return
	}
	f.swept = now
	if f.proposed != "" {
		keep = append(keep, f.proposed)
	}
	if err := f.loader.Sweep(keep, now); err != nil {
		f.log.Warn("old content could not be removed", "err", err)
	}
}

// host is what the guard said, if it has said anything.
func (f *follower) host() (loader.State, bool) {
	s, ok := f.state.guardStatus()
	host := loader.State{Current: s.Running, Previous: s.Previous, Shunned: s.Shunned}
	if x := s.Owed; x != nil {
		host.Owed = loader.Owed{Lease: x.ID, Channel: x.Channel, Digest: x.Digest, After: x.After}
	}
	return host, ok
}

func (f *follower) act(d loader.Decision) {
	log := f.log.With("channel", d.Channel, "digest", d.Digest.Short(), "lease", d.Lease)
	id := d.Lease
	if id == "" {
		id = "return-" + d.Digest.Short()
	}
	switch d.Action {
	case loader.Propose:
		log.Info("proposing to the guard")
		f.proposed = d.Digest
		f.tell("propose", f.guard.Propose(id, d.Channel, d.Digest))
	case loader.Reactivate:
		log.Info("reactivating what runs")
		f.tell("reactivate", f.guard.Reactivate(id))
	case loader.Recall:
		log.Warn("giving content back", "from", d.From.Short(), "reason", d.Reason)
		f.tell("recall", f.guard.Recall(d.From))
	case loader.Wait:
		log.Info("waiting", "cause", string(d.Cause), "reason", d.Reason)
	case loader.Refuse:
		log.Warn("refused", "cause", string(d.Cause), "reason", d.Reason)
		why := "refused " + d.Digest.Short() + ": " + d.Reason
		if d.Cause == loader.NoLease {
			// The server took the offer back. That is its word, not this host's,
			// which would never be offered the release again.
			f.state.refuse(why)
			return
		}
		f.state.decline(d.Lease, why)
	}
}

func (f *follower) tell(what string, err error) {
	if err != nil {
		f.log.Error("the guard could not be told", "what", what, "err", err)
	}
}

// childTime bounds a throw-away child.
const childTime = 30 * time.Second

// testLoader returns the loader's way to try content in a throw-away child: a
// bundle by this program, a program by itself, on the rules that run now.
func testLoader(config Config, g holdfast.Generation) func(context.Context, holdfast.Channel, string) error {
	return func(ctx context.Context, channel holdfast.Channel, path string) error {
		ctx, cancel := context.WithTimeout(ctx, childTime)
		defer cancel()
		switch channel {
		case holdfast.Rules:
			self, err := os.Executable()
			if err != nil {
				return err
			}
			if runtime.GOOS == "linux" {
				self = "/proc/self/exe" // this very program, even if its file is gone
			}
			_, err = child(ctx, self, "testload", "--bundle", path)
			return err
		case holdfast.Agent:
			if err := os.Chmod(path, 0o500); err != nil {
				return err
			}
			out, err := child(ctx, path, "manifest")
			if err != nil {
				return err
			}
			var m holdfast.Manifest
			if err := json.Unmarshal(out, &m); err != nil {
				return holdfast.Errorf(holdfast.Invalid, "its manifest cannot be read: %w", err)
			}
			if here := runtime.GOOS + "/" + runtime.GOARCH; m.Platform != here {
				return holdfast.Errorf(holdfast.Invalid, "it is for %s, and this host is %s", m.Platform, here)
			}
			if rules := g[holdfast.Rules]; rules != "" {
				_, err = child(ctx, path, "testload", "--bundle", contentFile(config.State, rules))
			}
			return err
		}
		return holdfast.Errorf(holdfast.Invalid, "channel %q holds nothing this build can load", channel)
	}
}

// child runs a program to its end and returns what it wrote. Its error carries
// the last line it wrote on standard error.
func child(ctx context.Context, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.WaitDelay = time.Second
	var out, trouble bounded
	cmd.Stdout, cmd.Stderr = &out, &trouble
	err := cmd.Run()
	if ctx.Err() != nil {
		return nil, errors.New("it took longer than " + childTime.String())
	}
	if err != nil {
		if last := trouble.lastLine(); last != "" {
			return nil, errors.New(last)
		}
		return nil, err
	}
	return out.b, nil
}

// bounded keeps the first of what a child writes.
type bounded struct{ b []byte }

func (w *bounded) Write(p []byte) (int, error) {
	const limit = 1 << 20
	w.b = append(w.b, p[:min(len(p), limit-len(w.b))]...)
	return len(p), nil
}

func (w *bounded) lastLine() string {
	s := strings.TrimSpace(string(w.b))
	return printable(s[strings.LastIndexByte(s, '\n')+1:])
}
