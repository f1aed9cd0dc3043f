package fleet

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/holdfast-security/holdfast"
)

var (
	start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	pace  = Clock{Heartbeat: time.Second, Lease: 2 * time.Second}
)

const (
	oldContent holdfast.Digest = "sha256:old"
	newContent holdfast.Digest = "sha256:new"
)

func hostNumber(i int) holdfast.Host {
	return holdfast.Host{
		ID: holdfast.HostID(fmt.Sprintf("h%03d", i)), Org: holdfast.DefaultOrg,
		Attributes: holdfast.Attributes{OS: "linux", Arch: "amd64", Kernel: []string{"6.1", "6.12"}[i%2], Distro: "debian", Role: "server", Version: "1"},
		Report:     holdfast.HostReport{Boot: "b1", Running: holdfast.Generation{holdfast.Rules: oldContent}, RSS: 1 << 20, CPU: 10},
	}
}

func oneRing(id holdfast.ReleaseID) Release {
	return Release{
		ID: id, Org: holdfast.DefaultOrg, Channel: holdfast.Rules, Digest: newContent, Version: "2", Rings: holdfast.RingPlan{{Name: "all", Through: 1_000_000}},
		Signed: start, Created: start, Fast: 10 * time.Second, Slow: time.Minute, Phase: holdfast.Running, Approved: map[int]bool{0: true},
	}
}

// listened returns a fleet of n hosts that has heard them long enough to be
// past its start.
func listened(n int, seed uint64) *Fleet {
	f := New(pace, rand.New(rand.NewPCG(seed, 0)), time.Time{}, start)
	for i := range n {
		f.SetHost(hostNumber(i))
		f.Reported(hostNumber(i).ID, hostNumber(i).Report, start)
	}
	for now := start; now.Before(start.Add(5 * time.Second)); now = now.Add(time.Second) {
		for i := range n {
			f.Beat(hostNumber(i).ID, now)
		}
		f.Advance(now)
	}
	return f
}

func stratum(i int) holdfast.Stratum { return hostNumber(i).Attributes.Stratum() }

func opened(block, treat, placebo int, s holdfast.Stratum, until time.Time) Opening {
	return Opening{Block: block, Org: holdfast.DefaultOrg, Stratum: s, Treat: treat, Placebo: placebo, Until: until}
}

func TestStartIsAnOutageForThreeHeartbeats(t *testing.T) {
	f := New(pace, rand.New(rand.NewPCG(1, 0)), start.Add(-time.Hour), start)
	if !f.Outage() {
		t.Fatal("a fleet that has just started hears nobody")
	}
	f.Advance(start.Add(2 * time.Second))
	if !f.Outage() {
		t.Fatal("hosts have not had three heartbeats to be heard in")
	}
	f.Advance(start.Add(3 * time.Second))
	if f.Outage() {
		t.Fatal("three heartbeats have passed")
	}
	want := []Span{{start.Add(-time.Hour), start.Add(3 * time.Second)}}
	if d := cmp.Diff(want, f.Outages()); d != "" {
		t.Error(d)
	}
	if got := f.Observed(start.Add(-time.Hour-time.Minute), start.Add(4*time.Second)); got != time.Minute+time.Second {
		t.Errorf("observed for %s, want 1m1s", got)
	}
}

// Silence: three missed heartbeats after a draw, in either arm, and nothing
// before.
func TestSilenceIsThreeMissedHeartbeats(t *testing.T) {
	f := listened(4, 1)
	f.SetRelease(oneRing("r"))
	now := start.Add(5 * time.Second)
	f.Open("r", []Opening{opened(0, 1, 0, stratum(0), now.Add(2*time.Second))})
	f.Beat("h000", now)
	f.Stored(f.Take())
	for d := time.Duration(0); d < 4*time.Second; d += 250 * time.Millisecond {
		for _, other := range []holdfast.HostID{"h001", "h002", "h003"} {
			f.Beat(other, now.Add(d))
		}
		f.Advance(now.Add(d))
		harms := f.Take().Harms
		if d < 3*time.Second && len(harms) > 0 {
			t.Fatalf("harm %s after the last heartbeat: %+v", d, harms)
		}
		if len(harms) == 1 {
			if h := harms[0]; h.Kind != holdfast.Silence || h.After != 3*time.Second || h.Host != "h000" || h.Arm != holdfast.New {
				t.Errorf("harm %+v", h)
			}
			return
		}
	}
	t.Fatal("a host that fell silent is no harm")
}

// Most untreated hosts vanishing at once is our outage; treated hosts
// vanishing is what a bad release looks like.
func TestOnlyUntreatedHostsMakeAnOutage(t *testing.T) {
	for _, c := range []struct {
		name   string
		silent func(treated bool) bool
		outage bool
	}{
		{"everybody", func(bool) bool { return true }, true},
		{"the untreated", func(treated bool) bool { return !treated }, true},
		{"the treated", func(treated bool) bool { return treated }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := listened(40, 2)
			f.SetRelease(oneRing("r"))
			now := start.Add(5 * time.Second)
			f.Open("r", []Opening{opened(0, 12, 0, stratum(0), now.Add(2*time.Second)), opened(0, 12, 0, stratum(1), now.Add(2*time.Second))})
			treated := map[holdfast.HostID]bool{}
			for i := range 40 {
				f.Beat(hostNumber(i).ID, now)
			}
			drawn := f.Take()
			for _, a := range drawn.Drawn {
				treated[a.Host] = true
			}
			f.Stored(drawn)
			if len(treated) != 24 {
				t.Fatalf("%d drawn", len(treated))
			}
			seen, harms := false, 0
			for d := time.Second; d <= 8*time.Second; d += time.Second {
				for i := range 40 {
					if id := hostNumber(i).ID; !c.silent(treated[id]) {
						f.Beat(id, now.Add(d))
					}
				}
				f.Advance(now.Add(d))
				seen = seen || f.Outage()
				harms += len(f.Take().Harms)
			}
			if seen != c.outage {
				t.Errorf("outage %v, want %v", seen, c.outage)
			}
			if c.outage && harms > 0 {
				t.Errorf("%d harm events in an outage", harms)
			}
			if !c.outage && harms != 24 {
				t.Errorf("%d harm events, want 24", harms)
			}
		})
	}
}

func TestRegressionsAreMeasuredAgainstTheFrozenPercentile(t *testing.T) {
	f := listened(2, 3)
	r := oneRing("r")
	r.Baseline.Limits = map[holdfast.Stratum]Limits{stratum(0): {RSS: 1000, CPU: 5}}
	f.SetRelease(r)
	now := start.Add(5 * time.Second)
	f.Open("r", []Opening{opened(0, 1, 0, stratum(0), now.Add(time.Second))})
	f.Beat("h000", now)
	c := f.Take()
	f.Stored(c)
	rep := hostNumber(0).Report
	rep.Activation = c.Drawn[0].Lease
	rep.Running = holdfast.Generation{holdfast.Rules: newContent}
	rep.RSS, rep.CPU = 1<<20+1001, 15
	f.Reported("h000", rep, now.Add(time.Second)) // too early to tell
	if n := len(f.Take().Harms); n != 0 {
		t.Fatalf("%d harm events while the worker starts", n)
	}
	f.Reported("h000", rep, now.Add(6*time.Second))
	harms := f.Take().Harms
	if len(harms) != 1 || harms[0].Kind != holdfast.Memory {
		t.Errorf("harms %+v, want memory alone: 15 is not above 10 + 5", harms)
	}
}

func TestPercentile(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.Uint64().Draw(t, "v")
		b := bucket(v)
		if v > upper(b) || b > 0 && v <= upper(b-1) {
			t.Fatalf("%d is in bucket %d, which ends at %d", v, b, upper(b))
		}
	})
	var h histogram
	for i := range uint64(1000) {
		h.add(i)
	}
	if p := h.p99(); p < 989 || p > 989*5/4+1 {
		t.Errorf("99th percentile of 0…999 is given as %d", p)
	}
}

// A host that refuses an offer leaves the comparison; it is not asked again.
func TestDeclinedIsNoHarm(t *testing.T) {
	f := listened(1, 4)
	f.SetRelease(oneRing("r"))
	now := start.Add(5 * time.Second)
	f.Open("r", []Opening{opened(0, 1, 0, stratum(0), now.Add(time.Second))})
	f.Beat("h000", now)
	c := f.Take()
	f.Stored(c)
	rep := hostNumber(0).Report
	rep.Declined, rep.Reason = c.Drawn[0].Lease, "no verdict for this build"
	f.Reported("h000", rep, now.Add(time.Second))
	if _, ok := f.Desired("h000", now.Add(time.Second)); ok {
		t.Error("offered again what it declined")
	}
	c = f.Take()
	f.Stored(c)
	if len(c.Harms) != 0 {
		t.Errorf("harm %+v", c.Harms)
	}
	want := []Cell{{Org: holdfast.DefaultOrg, Stratum: stratum(0), Treated: Arm{Drawn: 1, Left: 1}}}
	if d := cmp.Diff(want, f.Snapshot("r").Cells); d != "" {
		t.Error(d)
	}
}

// An offer that its host does not take up is withdrawn after three windows, and
// the host may be drawn again.
func TestOfferNotTakenUpLapses(t *testing.T) {
	f := listened(1, 6)
	r := oneRing("r")
	f.SetRelease(r)
	now := start.Add(5 * time.Second)
	f.Open("r", []Opening{opened(0, 1, 0, stratum(0), now.Add(time.Second)), opened(1, 1, 0, stratum(0), now.Add(time.Hour))})
	f.Beat("h000", now)
	first := f.Take()
	f.Stored(first)
	for d := time.Second; d < 3*r.Fast; d += time.Second {
		f.Beat("h000", now.Add(d))
		f.Advance(now.Add(d))
	}
	if c := f.Take(); len(c.Marks)+len(c.Harms)+len(c.Drawn) > 0 {
		t.Fatalf("too early: %+v", c)
	}
	f.Beat("h000", now.Add(3*r.Fast))
	c := f.Take()
	if len(c.Marks) != 1 || c.Marks[0].Why != notCarriedOut || len(c.Drawn) != 1 || c.Drawn[0].Block != 1 {
		t.Fatalf("%+v", c)
	}
	if _, err := f.Renew("h000", first.Drawn[0].Lease, now.Add(3*r.Fast)); err == nil {
		t.Error("the offer that lapsed can still be carried out")
	}
}

// A host that keeps changing what it says it is costs no memory.
func TestGroupsDoNotPileUp(t *testing.T) {
	f := listened(2, 7)
	f.SetRelease(oneRing("r"))
	for i := range 1000 {
		a := hostNumber(0).Attributes
		a.Kernel = fmt.Sprint(i)
		f.Described("h000", a, start.Add(5*time.Second))
	}
	if n := len(f.release("r").groups); n > 3 {
		t.Errorf("%d groups for two hosts", n)
	}
}

// What is stored of a host may be old: it is drawn once it has reported, so that
// what happened while nobody listened is not counted as harm.
func TestDrawnOnlyAfterItReported(t *testing.T) {
	f := listened(1, 8)
	f.SetRelease(oneRing("r"))
	now := start.Add(5 * time.Second)
	f.Open("r", []Opening{opened(0, 1, 0, stratum(0), now.Add(time.Hour))})
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(f.Connected("h000", now))
	f.Beat("h000", now)
	if n := len(f.Take().Drawn); n != 0 {
		t.Fatal("drawn before it reported")
	}
	rep := hostNumber(0).Report
	rep.Boot, rep.Crashes = "b2", 7
	f.Reported("h000", rep, now)
	f.Beat("h000", now)
	c := f.Take()
	if len(c.Drawn) != 1 || c.Drawn[0].Boot != "b2" || c.Drawn[0].Crashes != 7 {
		t.Fatalf("drawn %+v", c.Drawn)
	}
}

// One experiment at a time: a host in the open window of one release is not
// drawn for another.
func TestOneExperimentAtATime(t *testing.T) {
	f := listened(1, 5)
	f.SetRelease(oneRing("r"))
	other := oneRing("s")
	other.Channel, other.Digest, other.Created = holdfast.Agent, "sha256:agent", start.Add(time.Second)
	f.SetRelease(other)
	now := start.Add(5 * time.Second)
	until := now.Add(time.Hour)
	f.Open("r", []Opening{opened(0, 1, 0, stratum(0), until)})
	f.Beat("h000", now)
	f.Open("s", []Opening{opened(0, 1, 0, stratum(0), until)})
	for d := time.Second; d < 10*time.Second; d += time.Second {
		f.Beat("h000", now.Add(d))
	}
	if n := len(f.Take().Drawn); n != 1 {
		t.Fatalf("drawn %d times within one window", n)
	}
	f.Beat("h000", now.Add(11*time.Second))
	if n := len(f.Take().Drawn); n != 1 {
		t.Errorf("not drawn after the window closed")
	}
}

// The draws of an opening are a random order: over many runs each host is as
// likely as any other to be treated.
func TestDrawsAreFair(t *testing.T) {
	const hosts, runs, treat = 10, 4000, 3
	got := map[holdfast.HostID]int{}
	random := rand.New(rand.NewPCG(1, 1))
	for range runs {
		f := New(pace, random, time.Time{}, start)
		f.outages.open = false
		for i := range hosts {
			h := hostNumber(2 * i) // of one stratum
			f.SetHost(h)
			f.Reported(h.ID, h.Report, start)
		}
		f.SetRelease(oneRing("r"))
		f.Open("r", []Opening{opened(0, treat, hosts-treat, stratum(0), start.Add(time.Second))})
		for i := range hosts {
			f.Beat(hostNumber(2*i).ID, start)
		}
		for _, a := range f.Take().Drawn {
			if a.Arm == holdfast.New {
				got[a.Host]++
			}
		}
	}
	// χ² with 9 degrees of freedom exceeds 39.4 once in 100,000 seeds.
	want, chi := float64(runs*treat)/hosts, 0.0
	for i := range hosts {
		d := float64(got[hostNumber(2*i).ID]) - want
		chi += d * d / (want * (1 - float64(treat)/hosts))
	}
	if chi > 39.4 {
		t.Errorf("χ² = %.1f for %v", chi, got)
	}
}

func BenchmarkBeat(b *testing.B) {
	for _, releases := range []int{0, 2} {
		b.Run(fmt.Sprintf("releases=%d", releases), func(b *testing.B) {
			const hosts = 20_000
			f := New(pace, rand.New(rand.NewPCG(1, 1)), time.Time{}, start)
			ids := make([]holdfast.HostID, hosts)
			for i := range hosts {
				h := hostNumber(i)
				f.SetHost(h)
				ids[i] = h.ID
			}
			for r := range releases {
				rel := oneRing(holdfast.ReleaseID(fmt.Sprint("r", r)))
				rel.Digest = holdfast.Digest(fmt.Sprint("sha256:", r))
				f.SetRelease(rel)
			}
			now := start
			for _, id := range ids {
				f.Beat(id, now)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%hosts == 0 {
					now = now.Add(pace.Heartbeat)
					f.Advance(now)
				}
				f.Beat(ids[i%hosts], now)
			}
		})
	}
}

// The end of an old connection may be told after the new one began: who beats
// is connected.
func TestALateGoodbyeOfAnOlderConnection(t *testing.T) {
	f := listened(1, 1)
	now := start.Add(5 * time.Second)
	if err := f.Connected("h000", now); err != nil {
		t.Fatal(err)
	}
	f.Disconnected("h000", now)
	f.Beat("h000", now.Add(time.Second))
	if h, ok := f.Host("h000"); !ok || !h.Connected {
		t.Errorf("a host that beats is shown as gone: %+v", h)
	}
}
