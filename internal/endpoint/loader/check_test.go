package loader_test

import (
	"crypto/ed25519"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/loader"
	"github.com/holdfast-security/holdfast/internal/trust/attest"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

// TestMain asks the properties more often than rapid's default, so that each
// outcome is met; -rapid.checks on the command line still decides.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "holdfast-loader-*")
	if err == nil && os.Getenv("RAPID_CHECKS") == "" {
		err = flag.Set("rapid.checks", "1000")
	}
	if err != nil {
		panic(err)
	}
	founding.dir = dir
	m.Run()
	os.RemoveAll(dir)
}

// A small world in which everything meets: few digests, few builds, few rings.
var (
	rehearsal = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	digests   = []holdfast.Digest{"", numbered(1), numbered(2), numbered(3), numbered(4), numbered(5)}
	builds    = digests[4:] // workers are content too
)

func numbered(i int) holdfast.Digest { return holdfast.DigestOf([]byte{byte(i)}) }

// verdicts holds, for each bundle and each set of passing builds, an envelope.
var verdicts = func() map[string][]byte {
	all := map[string][]byte{}
	for _, d := range digests[1:] {
		for set := range 1 << len(builds) {
			var list []holdfast.BuildVerdict
			for i, b := range builds {
				list = append(list, holdfast.BuildVerdict{Build: b, Passed: set>>i&1 == 1})
			}
			env, err := attest.Sign(holdfast.Verdict{Bundle: d, Builds: list}, rehearsal)
			if err != nil {
				panic(err)
			}
			all[fmt.Sprint(d, set)] = env
		}
	}
	return all
}()

// genFacts draws facts in which most things are well, and any may be wrong.
func genFacts() *rapid.Generator[loader.Facts] {
	return rapid.Custom(func(t *rapid.T) loader.Facts {
		rarely := func(what string) bool { return rapid.IntRange(0, 11).Draw(t, what) == 0 }
		some := rapid.SampledFrom(digests[1:])
		maybe := rapid.SampledFrom(digests)
		v := &tuf.View{
			Policy:    tuf.Policy{Domain: tuf.Production, Rehearsal: []ed25519.PublicKey{rehearsal.Public().(ed25519.PublicKey)}, RehearsalThreshold: 1},
			Releases:  map[holdfast.Digest]tuf.Release{},
			Approvals: map[string][]tuf.Approval{},
			Minimum:   map[holdfast.Channel]int64{},
			Expires:   start.Add(20 * time.Hour),
		}
		if rarely("drill policy") {
			v.Policy.Domain = tuf.Drill
		}
		if rarely("minimum") {
			v.Minimum[holdfast.Rules] = rapid.Int64Range(0, 5).Draw(t, "least")
		}
		for i, d := range rapid.Permutation(digests[1:]).Draw(t, "releases") {
			if rarely("unsigned") {
				continue
			}
			r := tuf.Release{
				Channel: holdfast.Rules, Digest: d, Sequence: int64(i + 1), Size: 10, Rings: holdfast.DefaultRings, Domain: tuf.Production, Final: rarely("final"),
				Signed: start.Add(-time.Duration(rapid.IntRange(0, 9).Draw(t, "age")) * time.Hour),
			}
			if rapid.IntRange(0, 4).Draw(t, "agent") == 0 {
				r.Channel = holdfast.Agent
			}
			if rarely("too large") {
				r.Size = 11
			}
			if rarely("drill release") {
				r.Domain = tuf.Drill
			}
			v.Releases[d] = r
		}
		for _, ring := range holdfast.DefaultRings {
			list := []tuf.Approval{}
			for _, d := range digests[1:] {
				if rapid.IntRange(0, 2).Draw(t, "approved in "+ring.Name) > 0 {
					list = append(list, tuf.Approval{Channel: v.Releases[d].Channel, Digest: d, State: tuf.Current})
				}
			}
			v.Approvals[ring.Name] = list
		}
		f := loader.Facts{
			Host: rapid.SampledFrom([]holdfast.HostID{inInternal, inGeneral}).Draw(t, "host"), Domain: tuf.Production, Build: rapid.SampledFrom(builds).Draw(t, "build"),
			State: loader.State{
				Current:  holdfast.Generation{}.With(holdfast.Rules, maybe.Draw(t, "current")).With(holdfast.Agent, maybe.Draw(t, "worker")),
				Previous: holdfast.Generation{}.With(holdfast.Rules, maybe.Draw(t, "previous")),
			},
			View: v, Digest: some.Draw(t, "offered"), MaxBytes: 10, Verdicts: map[holdfast.Digest][]byte{},
		}
		if rarely("shunning") {
			f.State.Shunned = []holdfast.Digest{some.Draw(t, "shunned")}
		}
		if f.Channel = v.Releases[f.Digest].Channel; rarely("another channel") {
			f.Channel = rapid.SampledFrom([]holdfast.Channel{holdfast.Rules, holdfast.Agent, "drivers"}).Draw(t, "channel")
		}
		for _, d := range digests[1:] {
			if !rarely("no verdict") {
				f.Verdicts[d] = verdicts[fmt.Sprint(d, 1<<len(builds)-1&^rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(t, "fails"))]
			}
		}
		return f
	})
}

func TestPropertyNothingUnprovenIsProposed(t *testing.T) {
	proposed := 0
	rapid.Check(t, func(t *rapid.T) {
		f := genFacts().Draw(t, "facts")
		now := start.Add(time.Duration(rapid.IntRange(-2, 25).Draw(t, "hours")) * time.Hour)
		if d := loader.Check(f, now); d.Action != loader.Propose {
			if d.Cause == loader.OK && d.Action != loader.Nothing {
				t.Fatalf("%s without a cause", d.Action)
			}
			return
		}
		proposed++
		r, signed := f.View.Releases[f.Digest]
		ring := holdfast.DefaultRings[holdfast.DefaultRings.Of(f.Host)]
		switch {
		case !signed || r.Channel != f.Channel || r.Domain != f.Domain:
			t.Fatal("not signed by the publishers, for this channel and domain")
		case !slices.ContainsFunc(f.View.Approvals[ring.Name], func(a tuf.Approval) bool { return a.Channel == f.Channel && a.Digest == f.Digest }):
			t.Fatal("not approved for the host's own ring")
		case now.Before(r.Signed.Add(ring.Soak)):
			t.Fatal("before the soak was over")
		case slices.Contains(f.State.Shunned, f.Digest):
			t.Fatal("although it is shunned")
		case r.Sequence < f.View.Minimum[f.Channel] || r.Size > f.MaxBytes || !now.Before(f.View.Expires):
			t.Fatal("below the minimum, too large, or by expired metadata")
		}
		// What would run together must have been rehearsed together.
		after := f.State.Current.With(f.Channel, f.Digest)
		build := f.Build
		if f.Channel == holdfast.Agent {
			build = f.Digest
		}
		for c, d := range after {
			if c != f.Channel && f.Channel != holdfast.Agent || c == "drivers" {
				continue
			}
			if _, err := attest.Verify(f.Verdicts[d], f.View.Policy.Rehearsal, 1, d, build); err != nil {
				t.Fatalf("%s with worker %s: %v", d.Short(), build.Short(), err)
			}
		}
	})
	if proposed == 0 {
		t.Error("nothing was ever proposed: the generator proves nothing")
	}
	t.Logf("%d proposed", proposed)
}

// Whatever the director says of other rings, nothing changes for this host: the
// server can move no host earlier, nor later by confusing it.
func TestPropertyOnlyTheHostsOwnRingCounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := genFacts().Draw(t, "facts")
		before := loader.Check(f, start)
		own := holdfast.DefaultRings[holdfast.DefaultRings.Of(f.Host)].Name
		v := *f.View
		v.Approvals = maps.Clone(v.Approvals)
		for _, r := range holdfast.DefaultRings {
			if r.Name != own {
				v.Approvals[r.Name] = []tuf.Approval{{Channel: f.Channel, Digest: f.Digest, State: tuf.Current}}
			}
		}
		f.View = &v
		if after := loader.Check(f, start); after != before {
			t.Fatalf("from %+v to %+v", before, after)
		}
	})
}

func TestPropertyTheWayBackGoesBack(t *testing.T) {
	returned := map[loader.Action]int{}
	rapid.Check(t, func(t *rapid.T) {
		f := genFacts().Draw(t, "facts")
		d := loader.Return(f, nil, start)
		returned[d.Action]++
		if d.Action != loader.Recall && d.Action != loader.Propose {
			return
		}
		from := f.State.Current[f.Channel]
		r := f.View.Releases[from]
		if d.From != from || r.Sequence == 0 {
			t.Fatalf("gives back %s, which is not what runs by this road", d.From.Short())
		}
		ring := holdfast.DefaultRings[holdfast.DefaultRings.Of(f.Host)].Name
		approved := func(d holdfast.Digest) bool {
			return slices.ContainsFunc(f.View.Approvals[ring], func(a tuf.Approval) bool { return a.Channel == f.Channel && a.Digest == d })
		}
		switch to := f.View.Releases[d.Digest]; {
		case d.Digest == "":
			for _, o := range f.View.Releases {
				if o.Channel == f.Channel && o.Sequence < r.Sequence {
					t.Fatal("to nothing, although there was something before it")
				}
			}
			if f.State.Previous[f.Channel] != "" || r.Final {
				t.Fatal("to nothing, although it had something, or need not keep a way back")
			}
		case d.Digest == from:
			t.Fatal("to what it gives back")
		case !approved(d.Digest) || slices.Contains(f.State.Shunned, d.Digest):
			t.Fatal("to what may not run here")
		case d.Action == loader.Propose && to.Sequence >= r.Sequence:
			t.Fatal("forward")
		case d.Action == loader.Recall && d.Digest != f.State.Previous[f.Channel]:
			t.Fatal("by the guard, to what the guard does not have")
		}
	})
	t.Logf("%v", returned)
	if returned[loader.Recall] == 0 || returned[loader.Propose] == 0 || returned[loader.Refuse] == 0 {
		t.Errorf("the generator never met a case: %v", returned)
	}
}
