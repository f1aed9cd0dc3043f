package loader_test

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/loader"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

func nothing(context.Context, holdfast.Channel, string) error { return nil }

func always(context.Context, string) error { return nil }

func TestAcceptedContentIsOnDiskProvenAndTestLoaded(t *testing.T) {
	w := newWorld(t, tuf.Production, inInternal)
	d := w.release(bundle)
	w.approve("internal", d)
	got := w.consider(offer(d))
	w.want(got, loader.Propose, loader.OK, "")
	if got.Digest != d || got.Lease != "lease-1" || got.Channel != holdfast.Rules {
		t.Errorf("proposed %+v", got)
	}
	b, err := os.ReadFile(w.at("host/content/" + d.Hex()))
	if err != nil || string(b) != bundle {
		t.Errorf("on disk: %q, %v", b, err)
	}
	if !slices.Equal(w.loads, []string{d.Hex()}) {
		t.Errorf("test-loaded %v", w.loads)
	}
}

func TestSoakOpensAtItsMoment(t *testing.T) {
	w := newWorld(t, tuf.Production, inGeneral)
	d := w.release(bundle)
	w.approve("general", d)
	got := w.consider(offer(d))
	w.want(got, loader.Wait, loader.Soaking, "")
	if opens := start.Add(4 * time.Hour); !got.Until.Equal(opens) {
		t.Errorf("until %v, not %v", got.Until, opens)
	}
	w.now = got.Until
	w.want(w.consider(offer(d)), loader.Propose, loader.OK, "")
}

// The placebo does the same work, and runs what runs.
func TestPlaceboReactivatesWhatRuns(t *testing.T) {
	w := newWorld(t, tuf.Production, inInternal)
	d := w.release(bundle)
	w.approve("internal", d)
	w.want(w.consider(offer(d)), loader.Propose, loader.OK, "")
	w.activate(d)
	w.loads = nil
	o := offer("")
	o.Arm = holdfast.Placebo
	got := w.consider(o)
	w.want(got, loader.Reactivate, loader.OK, "")
	if got.Digest != d || !slices.Equal(w.loads, []string{d.Hex()}) {
		t.Errorf("reactivates %s, test-loaded %v", got.Digest, w.loads)
	}
	w.leases["lease-1"] = holdfast.Errorf(holdfast.Denied, "halted")
	w.want(w.consider(o), loader.Refuse, loader.NoLease, "halted")
}

// Whatever is left of an earlier download, only the signed bytes are proposed.
func TestSpoiltContentIsFetchedAgain(t *testing.T) {
	w := newWorld(t, tuf.Production, inInternal)
	d := w.release(bundle)
	w.approve("internal", d)
	w.write("host/content/"+d.Hex(), []byte("half a bund"))
	w.want(w.consider(offer(d)), loader.Propose, loader.OK, "")
	if b, _ := os.ReadFile(w.at("host/content/" + d.Hex())); string(b) != bundle {
		t.Errorf("on disk: %q", b)
	}
}

// A new worker must have been rehearsed by itself, and with the rules that it
// would find.
func TestAgentTravelsTheSameRoad(t *testing.T) {
	w := newWorld(t, tuf.Production, inInternal)
	rules := w.release(bundle)
	w.approve("internal", rules)
	w.want(w.consider(offer(rules)), loader.Propose, loader.OK, "")
	w.activate(rules)

	agent := w.upload("worker 2")
	w.sign(two, newRelease(holdfast.Agent, "worker 2"))
	w.must(w.online.Approve(map[string][]tuf.Approval{"internal": append(w.list([]holdfast.Digest{rules}), tuf.Approval{Channel: holdfast.Agent, Digest: agent, State: tuf.Current})}, w.now))
	o := offer(agent)
	o.Channel = holdfast.Agent
	w.want(w.consider(o), loader.Refuse, loader.NoVerdict, "no rehearsal verdict on "+agent.Short())
	w.rehearse(holdfast.Agent, agent, "rehearsal-1", passed(agent))
	w.want(w.consider(o), loader.Refuse, loader.NoVerdict, "no verdict for sensor build "+agent.Short())
	w.rehearse(holdfast.Rules, rules, "rehearsal-1", passed(w.build, agent))
	w.want(w.consider(o), loader.Propose, loader.OK, "")
	info, err := os.Stat(w.at("host/content/" + agent.Hex()))
	if err != nil || info.Mode().Perm()&0o111 == 0 {
		t.Errorf("the worker cannot be started: %v, %v", info.Mode(), err)
	}
}

// running brings the host to a and then to b.
func running(t *testing.T) (w *world, a, b holdfast.Digest) {
	w = newWorld(t, tuf.Production, inInternal)
	a = w.release("rules, first version")
	w.approve("internal", a)
	w.want(w.consider(offer(a)), loader.Propose, loader.OK, "")
	w.activate(a)
	b = w.release(bundle)
	w.approve("internal", b, a)
	w.want(w.consider(offer(b)), loader.Propose, loader.OK, "")
	w.activate(b)
	if o := w.poll(); len(o.Returns)+len(o.Final)+len(o.Retry) != 0 {
		t.Fatalf("with nothing wrong, the poll orders %+v", o)
	}
	return w, a, b
}

func (w *world) wantReturn(action loader.Action, from, to holdfast.Digest) {
	w.Helper()
	o := w.poll()
	if len(o.Returns) != 1 || o.Returns[0].Action != action || o.Returns[0].From != from || o.Returns[0].Digest != to || o.Returns[0].Lease == "" {
		w.Errorf("the poll orders %+v; want %s from %s to %s", o.Returns, action, from.Short(), to.Short())
	}
}

// The named property of the way back: no offer, no connection to the server but
// its static files.
func TestPollReturnsFromWhatIsNoLongerApproved(t *testing.T) {
	w, a, b := running(t)
	w.approve("internal", a)
	w.wantReturn(loader.Recall, b, a)
}

// A host whose own previous content is gone or unfit goes to older approved
// content, with everything checked.
func TestPollReturnsToOlderApprovedContent(t *testing.T) {
	w, a, b := running(t)
	w.state.Previous = holdfast.Generation{}
	w.approve("internal", a)
	w.must(os.Remove(w.at("host/content/" + a.Hex())))
	w.wantReturn(loader.Propose, b, a)
	if _, err := os.Stat(w.at("host/content/" + a.Hex())); err != nil {
		t.Error("the content to return to is not on disk")
	}
}

// New content comes at the rollout's pace, never by the way back.
func TestPollNeverGoesForward(t *testing.T) {
	w, _, b := running(t)
	c := w.release("rules, third version")
	w.approve("internal", c)
	if o := w.poll(); len(o.Returns) != 0 {
		t.Errorf("the poll orders %+v, but %s is only older than %s", o.Returns, b.Short(), c.Short())
	}
}

// What was taken back untried comes again without an offer, with everything
// checked, and only while it is approved.
func TestPollProposesWhatIsOwed(t *testing.T) {
	w, a, b := running(t)
	c := w.release("rules, third version")
	w.state.Owed = loader.Owed{Lease: "lease-3", Channel: holdfast.Rules, Digest: c, After: w.now.Add(time.Minute)}
	w.approve("internal", c, b, a)
	if o := w.poll(); o.Owed.Action == loader.Propose {
		t.Errorf("too early: %+v", o.Owed)
	}
	w.state.Owed.After = w.now
	w.want(w.poll().Owed, loader.Propose, loader.OK, "")
	if o := w.poll(); o.Owed.Lease != "lease-3" || o.Owed.Digest != c || len(o.Returns) > 0 {
		t.Errorf("%+v", o)
	}
	w.approve("internal", b, a) // it is halted
	if o := w.poll(); o.Owed.Action == loader.Propose || len(o.Returns) > 0 {
		t.Errorf("halted, and the poll orders %+v", o)
	}
	w.approve("internal", c, a) // what runs is recalled: that comes first
	if o := w.poll(); o.Owed.Action == loader.Propose || len(o.Returns) != 1 {
		t.Errorf("what runs is recalled, and the poll orders %+v", o)
	}
	w.state.Shunned = []holdfast.Digest{c}
	w.approve("internal", c, b, a)
	if o := w.poll(); o.Owed.Action == loader.Propose {
		t.Errorf("what is shunned is proposed: %+v", o.Owed)
	}
}

// Whoever holds the server cannot take a host's protection by approving nothing.
func TestApprovingNothingStripsNobody(t *testing.T) {
	w, _, b := running(t)
	for _, previous := range []holdfast.Generation{w.state.Previous, {}} {
		w.state.Previous = previous
		w.approve("internal")
		if o := w.poll(); len(o.Returns) != 0 {
			t.Errorf("with nothing approved the host gives %s back: %+v", b.Short(), o.Returns)
		}
	}
}

// The very first release can be recalled: to nothing, as it was before.
func TestFirstReleaseIsRecalledToNothing(t *testing.T) {
	w := newWorld(t, tuf.Production, inInternal)
	a := w.release("rules, first version")
	w.approve("internal", a)
	w.activate(a)
	w.approve("internal")
	w.wantReturn(loader.Recall, a, "")
}

// What the image repository has dropped is remembered well enough to be given
// back, over a restart.
func TestDroppedReleaseIsStillRecalled(t *testing.T) {
	w, a, b := running(t)
	w.approve("internal", a)
	w.sign(two, tuf.Remove(holdfast.Rules, b))
	w.restart()
	w.wantReturn(loader.Recall, b, a)
}

// A packaged worker that never came by this road is left alone.
func TestPollLeavesForeignContentAlone(t *testing.T) {
	w, _, _ := running(t)
	w.state.Current = w.state.Current.With(holdfast.Agent, w.build)
	if o := w.poll(); len(o.Returns) != 0 {
		t.Errorf("the poll orders %+v", o.Returns)
	}
}

func TestRecallOfferReturnsAtOnceWithoutALease(t *testing.T) {
	w, a, b := running(t)
	o := holdfast.Offer{Channel: holdfast.Rules, Recall: b}
	got := w.consider(o)
	w.want(got, loader.Recall, loader.Unapproved, "is recalled")
	if got.Digest != a || got.From != b {
		t.Errorf("recalls %+v", got)
	}
	w.server.Close()
	got = w.consider(o)
	w.want(got, loader.Recall, loader.Unreachable, "back to what ran before")
	o.Recall = a
	w.want(w.consider(o), loader.Nothing, loader.OK, "does not run")
}

func TestMarksArePassedOnOnce(t *testing.T) {
	w, a, b := running(t)
	w.state.Shunned = []holdfast.Digest{a}
	w.sign(two, tuf.AllowRetry(holdfast.Rules, a), tuf.MarkFinal(holdfast.Rules, b))
	o := w.poll()
	if !slices.Equal(o.Retry, []holdfast.Digest{a}) || !slices.Equal(o.Final, []holdfast.Digest{b}) {
		t.Errorf("first poll: %+v", o)
	}
	w.restart()
	if o := w.poll(); len(o.Retry) != 0 {
		t.Errorf("the retry was passed on twice: %+v", o)
	}
	w.sign(two, tuf.AllowRetry(holdfast.Rules, a))
	if o := w.poll(); !slices.Equal(o.Retry, []holdfast.Digest{a}) {
		t.Errorf("a second retry: %+v", o)
	}
}

func TestSweepKeepsWhatIsNeeded(t *testing.T) {
	w, a, b := running(t)
	w.write("host/content/.tmp-old", []byte("half"))
	w.must(os.Chtimes(w.at("host/content/.tmp-old"), start, start))
	w.must(w.loader.Sweep([]holdfast.Digest{b}, time.Now()))
	entries, err := os.ReadDir(w.at("host/content"))
	w.must(err)
	if len(entries) != 1 || entries[0].Name() != b.Hex() {
		t.Errorf("left %v, and %s should be gone", entries, a.Short())
	}
}
