package worker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/lifeline"
	"github.com/holdfast-security/holdfast/internal/endpoint/loader"
)

// ruling is a loader that has made up its mind.
type ruling struct {
	mu      sync.Mutex
	answers []loader.Decision // one after the other; the last again and again
	orders  loader.Orders
	asked   int
	kept    []holdfast.Digest
	trouble error
}

func (r *ruling) Consider(context.Context, loader.State, holdfast.Offer, time.Time) (loader.Decision, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.answers[min(r.asked, len(r.answers)-1)]
	r.asked++
	return d, r.trouble
}

func (r *ruling) Poll(_ context.Context, host loader.State, _ time.Time) (loader.Orders, error) {
	orders := r.orders
	if o := host.Owed; o.Digest != "" {
		orders.Owed = loader.Decision{Action: loader.Propose, Channel: o.Channel, Digest: o.Digest, Lease: o.Lease}
	}
	return orders, nil
}

func (r *ruling) Sweep(keep []holdfast.Digest, _ time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept = keep
	return nil
}

func (r *ruling) Policy() (int64, string) { return 7, "" }

func follow(t *testing.T, l decider) (*follower, guardEnd, chan holdfast.Offer) {
	t.Helper()
	worker, guard := lifelines(t)
	offers := make(chan holdfast.Offer, 1)
	s := &state{counters: &Counters{}, queue: func() uint64 { return 0 }}
	s.tell(lifeline.Status{Running: holdfast.Generation{}})
	f := &follower{loader: l, guard: worker, state: s, offers: offers, heartbeat: 20 * time.Millisecond, log: quiet}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		f.run(ctx)
		close(done)
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	return f, guard, offers
}

var wanted = holdfast.DigestOf([]byte("wanted"))

func offer() holdfast.Offer {
	return holdfast.Offer{Lease: "l1", Expires: time.Now().Add(time.Minute), Channel: holdfast.Rules, Digest: wanted, Arm: holdfast.New}
}

func TestWhatMustWaitIsConsideredAgain(t *testing.T) {
	l := &ruling{answers: []loader.Decision{
		{Action: loader.Wait, Cause: loader.Soaking},
		{Action: loader.Wait, Cause: loader.Unreachable},
		{Action: loader.Propose, Channel: holdfast.Rules, Digest: wanted, Lease: "l1"},
	}}
	_, guard, offers := follow(t, l)
	offers <- offer()
	r := guard.await(t, lifeline.Propose)
	if r.ID != "l1" || r.Digest != wanted || r.Channel != holdfast.Rules {
		t.Errorf("%+v", r)
	}
}

func TestDecisionsReachTheGuard(t *testing.T) {
	from := holdfast.DigestOf([]byte("from"))
	for kind, d := range map[lifeline.ReportKind]loader.Decision{
		lifeline.Reactivate: {Action: loader.Reactivate, Channel: holdfast.Rules, Digest: wanted, Lease: "l1"},
		lifeline.Recall:     {Action: loader.Recall, Channel: holdfast.Rules, From: from, Digest: wanted, Lease: "l1"},
	} {
		_, guard, offers := follow(t, &ruling{answers: []loader.Decision{d}})
		offers <- offer()
		r := guard.await(t, kind)
		if kind == lifeline.Recall && r.Digest != from || kind == lifeline.Reactivate && r.ID != "l1" {
			t.Errorf("%s: %+v", kind, r)
		}
	}
}

func TestARefusalIsReported(t *testing.T) {
	l := &ruling{answers: []loader.Decision{{Action: loader.Refuse, Cause: loader.TestLoad, Digest: wanted, Reason: "why"}, {Action: loader.Propose, Channel: holdfast.Rules, Digest: wanted, Lease: "l2"}}}
	f, guard, offers := follow(t, l)
	offers <- offer()
	offers <- offer() // taken only when the first was dealt with
	guard.await(t, lifeline.Propose)
	if r := f.state.report(time.Now()); r.Reason != "refused "+wanted.Short()+": why" || r.Consent != 7 {
		t.Errorf("reason %q, policy %d", r.Reason, r.Consent)
	}
}

// A lease that the server does not renew is the server's word. This host would
// take the release if it were offered again, and must not say otherwise.
func TestALeaseThatWasTakenBackIsNotDeclined(t *testing.T) {
	for cause, declined := range map[loader.Cause]string{loader.NoLease: "", loader.TestLoad: "l1"} {
		l := &ruling{answers: []loader.Decision{{Action: loader.Refuse, Cause: cause, Digest: wanted, Lease: "l1", Reason: "why"}, {Action: loader.Propose, Channel: holdfast.Rules, Digest: wanted, Lease: "l2"}}}
		f, guard, offers := follow(t, l)
		offers <- offer()
		offers <- offer()
		guard.await(t, lifeline.Propose)
		if r := f.state.report(time.Now()); r.Declined != declined || r.Reason == "" {
			t.Errorf("%s: declined %q because %q", cause, r.Declined, r.Reason)
		}
	}
}

func TestMetadataIsFollowedWithoutOffers(t *testing.T) {
	again := holdfast.DigestOf([]byte("again"))
	_, guard, _ := follow(t, &ruling{orders: loader.Orders{
		Returns: []loader.Decision{{Action: loader.Recall, Channel: holdfast.Rules, From: wanted}}, Retry: []holdfast.Digest{again}, Final: []holdfast.Digest{wanted},
	}})
	if r := guard.await(t, lifeline.Retry); r.Digest != again {
		t.Errorf("%+v", r)
	}
	if r := guard.await(t, lifeline.Final); r.Digest != wanted {
		t.Errorf("%+v", r)
	}
	if r := guard.await(t, lifeline.Recall); r.Digest != wanted {
		t.Errorf("%+v", r)
	}
}

func TestWhatIsOwedIsProposedAgain(t *testing.T) {
	f, guard, _ := follow(t, &ruling{})
	f.state.tell(lifeline.Status{Owed: &lifeline.Owed{ID: "l1", Channel: holdfast.Agent, Digest: wanted}})
	if r := guard.await(t, lifeline.Propose); r.ID != "l1" || r.Channel != holdfast.Agent || r.Digest != wanted {
		t.Errorf("%+v", r)
	}
}

func TestWhatWasProposedIsNotSwept(t *testing.T) {
	l := &ruling{}
	worker, guard := lifelines(t)
	s := &state{}
	s.tell(lifeline.Status{Running: holdfast.Generation{}})
	f := &follower{loader: l, guard: worker, state: s, log: quiet}
	f.act(loader.Decision{Action: loader.Propose, Channel: holdfast.Rules, Digest: wanted, Lease: "l1"})
	guard.await(t, lifeline.Propose)
	f.sweep(time.Unix(1e9, 0)) // the guard has not answered yet
	if !slices.Contains(l.kept, wanted) {
		t.Errorf("kept %v", l.kept)
	}
}

func TestThrowAwayChild(t *testing.T) {
	script := func(text string) string {
		file := filepath.Join(t.TempDir(), "agent")
		if err := os.WriteFile(file, []byte("#!/bin/sh\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	load := testLoader(Config{}, nil)
	for name, c := range map[string]struct{ text, want string }{
		"dies":           {"echo first >&2; echo 'it is broken' >&2; exit 7", "it is broken"},
		"dies silently":  {"exit 7", "exit status 7"},
		"no manifest":    {"echo hello", "manifest"},
		"other platform": {`echo '{"platform":"plan9/mips"}'`, "it is for plan9/mips"},
		"talks too much": {"while :; do echo 0123456789012345678901234567890123456789; done | head -c 3000000", "manifest"},
	} {
		err := load(t.Context(), holdfast.Agent, script(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, stop := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer stop()
	if err := load(ctx, holdfast.Agent, script("sleep 60")); err == nil {
		t.Error("a child that hangs passes")
	}
	if err := load(t.Context(), "policy", "/dev/null"); holdfast.KindOf(err) != holdfast.Invalid {
		t.Errorf("a channel nobody knows: %v", err)
	}
}

func TestTroubleOfThisHostIsReported(t *testing.T) {
	l := &ruling{answers: []loader.Decision{{}}, trouble: errors.New("no space left on device")}
	f, _, offers := follow(t, l)
	offers <- offer()
	for range 1000 {
		if f.state.report(time.Now()).Reason == "no space left on device" {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Error("a full disk is not reported")
}
