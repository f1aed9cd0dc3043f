package fleet

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/consent"
)

// tester is a test, or a case of a property.
type tester interface {
	Helper()
	Fatal(...any)
}

func policy(t tester, groups string) map[holdfast.OrgID]*consent.Policy {
	t.Helper()
	p, err := consent.Parse("policy", []byte("organisation: default\nversion: 1\ngroups:"+groups))
	if err != nil {
		t.Fatal(err)
	}
	return map[holdfast.OrgID]*consent.Policy{holdfast.DefaultOrg: &p}
}

// two rings, of which the second soaks for ten seconds.
func twoRings(id holdfast.ReleaseID) Release {
	r := oneRing(id)
	r.Rings = holdfast.RingPlan{{Name: "first", Through: 999_999}, {Name: "last", Through: 1_000_000, Soak: 10 * time.Second}}
	r.Approved = map[int]bool{0: true, 1: true}
	return r
}

// counts sums a release's groups.
func counts(f *Fleet, id holdfast.ReleaseID) (c Group) {
	for _, g := range f.Snapshot(id).Groups {
		c.Eligible += g.Eligible
		c.Waiting += g.Waiting
		c.Last += g.Last
		c.Later += g.Later
		c.Ring = g.Ring
	}
	return c
}

func beat(f *Fleet, n int, now time.Time) {
	for i := range n {
		f.Beat(hostNumber(i).ID, now)
	}
	f.Advance(now)
}

func TestWhoMayNotIsNotEligibleAndWhoGoesLastIsLast(t *testing.T) {
	now := start.Add(5 * time.Second) // 03:04:10 on a Friday
	for _, c := range []struct {
		name, groups string
		want         Group
	}{
		{"nobody says anything", "", Group{Eligible: 10, Waiting: 10}},
		{"early", ` [{name: g, channels: {rules: {track: early}}}]`, Group{Eligible: 10, Waiting: 10}},
		{"half are paused", ` [{name: g, channels: {rules: {track: early}}}, {name: p, where: {kernel: "6.1"}, channels: {rules: {track: pause}}}]`, Group{Eligible: 5, Waiting: 5}},
		{"pinned to another version", ` [{name: g, channels: {rules: {track: pin, pin: "1"}}}]`, Group{}},
		{"pinned to this one", ` [{name: g, channels: {rules: {track: pin, pin: "2"}}}]`, Group{Eligible: 10, Waiting: 10}},
		{"one behind the newest", ` [{name: g, channels: {rules: {track: n-1}}}]`, Group{}},
		{"delayed", ` [{name: g, channels: {rules: {track: delay, delay: 1h}}}]`, Group{Eligible: 10, Later: 10}},
		{"the window is open", ` [{name: g, channels: {rules: {track: early}}, windows: [{days: [fri], from: "03:00", to: "04:00", zone: UTC}]}]`, Group{Eligible: 10, Waiting: 10}},
		{"the window is closed", ` [{name: g, channels: {rules: {track: early}}, windows: [{days: [fri], from: "04:00", to: "05:00", zone: UTC}]}]`, Group{Eligible: 10, Later: 10}},
		{"general", ` [{name: g}]`, Group{Ring: 1, Eligible: 10}}, // of the last ring, which is not open
		{"in no group", ` [{name: g, where: {role: laptop}}]`, Group{Ring: 1, Eligible: 10}},
	} {
		f := listened(10, 1)
		if c.groups != "" {
			f.SetConsent(policy(t, c.groups))
		}
		f.SetRelease(twoRings("r"))
		beat(f, 10, now)
		if got := counts(f, "r"); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestInNoGroupGoesLast(t *testing.T) {
	f := listened(10, 1)
	f.SetConsent(policy(t, ` [{name: g, where: {kernel: "6.1"}, channels: {rules: {track: early}}}]`))
	f.SetRelease(twoRings("r"))
	now := start.Add(12 * time.Second)
	beat(f, 10, now)
	if got := counts(f, "r"); got.Waiting != 5 || got.Last != 5 {
		t.Errorf("%+v", got)
	}
}

// TestADelayEnds at its moment, a window closes at its own: nobody has to say
// so, and nobody is drawn outside of it.
func TestADelayEndsAndAWindowCloses(t *testing.T) {
	f := listened(4, 1)
	f.SetConsent(policy(t, ` [{name: g, channels: {rules: {track: delay, delay: 1m}}, windows: [{days: [fri], from: "03:00", to: "03:06", zone: UTC}]}]`))
	f.SetRelease(oneRing("r"))
	for now := start.Add(6 * time.Second); now.Before(start.Add(3 * time.Minute)); now = now.Add(time.Second) {
		beat(f, 4, now)
		c := counts(f, "r")
		open := !now.Before(start.Add(time.Minute)) && now.Before(time.Date(2026, 1, 2, 3, 6, 0, 0, time.UTC))
		if c.Eligible != 4 || open && c.Waiting != 4 || !open && c.Later != 4 {
			t.Fatalf("at %s: %+v", now, c)
		}
	}
}

// TestAPauseWithdrawsOffers that are not carried out, and keeps no recall away.
func TestAPauseWithdrawsOffersAndNotRecalls(t *testing.T) {
	f := listened(2, 1)
	r := oneRing("r")
	f.SetRelease(r)
	now := start.Add(6 * time.Second)
	f.Open("r", []Opening{opened(0, 1, 0, stratum(0), now.Add(2*time.Second))})
	f.Beat("h000", now)
	f.Stored(f.Take())
	o, ok := f.Desired("h000", now)
	if !ok || o.Digest != newContent {
		t.Fatalf("%+v", o)
	}
	f.SetConsent(policy(t, ` [{name: g, channels: {rules: {track: pause}}}]`))
	if o, ok := f.Desired("h000", now); ok {
		t.Errorf("a paused host is offered %+v", o)
	}
	if _, err := f.Renew("h000", o.Lease, now); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("the lease is renewed: %v", err)
	}
	// It had activated already when its organisation paused it.
	h, _ := f.Host("h000")
	h.Report.Running, h.Report.Activation = h.Report.Running.With(holdfast.Rules, newContent), o.Lease
	f.Reported("h000", h.Report, now)
	r.Phase, r.Recalled, r.RecalledAt = holdfast.Halted, []holdfast.OrgID{""}, now
	f.SetRelease(r)
	if o, ok := f.Desired("h000", now); !ok || o.Recall != newContent || o.Digest != oldContent {
		t.Errorf("a paused host that has what was halted is told %+v", o)
	}
}

// TestADeclinedReleaseIsOfferedUnderAnotherPolicy: a host refused by a policy
// that only it knew, and keeps to a newer one now.
func TestADeclinedReleaseIsOfferedUnderAnotherPolicy(t *testing.T) {
	f := listened(2, 1)
	f.SetRelease(oneRing("r"))
	now := start.Add(6 * time.Second)
	f.Open("r", []Opening{opened(0, 1, 0, stratum(0), now.Add(2*time.Second))})
	f.Beat("h000", now)
	f.Stored(f.Take())
	o, _ := f.Desired("h000", now)
	h, _ := f.Host("h000")
	h.Report.Declined, h.Report.Reason, h.Report.Consent = o.Lease, "paused", 1
	f.Reported("h000", h.Report, now)
	beat(f, 2, now.Add(time.Second))
	if c := counts(f, "r"); c.Waiting != 1 {
		t.Fatalf("it refused, and %d wait", c.Waiting)
	}
	f.Stored(f.Take())
	h.Report.Consent = 2
	f.Reported("h000", h.Report, now.Add(2*time.Second))
	beat(f, 2, now.Add(2*time.Second))
	if c := counts(f, "r"); c.Waiting != 2 {
		t.Errorf("under another policy %d wait", c.Waiting)
	}

	// What is stored of it counts once after a restart.
	first := holdfast.Admission{Release: "r", Host: "h000", Org: holdfast.DefaultOrg, Stratum: stratum(0), Arm: holdfast.New, At: start, Left: now, Why: declinedBecause + "paused"}
	again := first
	again.Block, again.Left, again.Why = 1, time.Time{}, ""
	f = listened(2, 1)
	r := oneRing("r")
	f.SetRelease(r)
	f.RestoreAdmission(first, nil)
	f.RestoreAdmission(again, nil)
	r.Phase, r.Recalled, r.RecalledAt = holdfast.Halted, []holdfast.OrgID{""}, now
	f.SetRelease(r)
	if n := f.Outstanding("r"); n != 1 {
		t.Errorf("%d hosts may have it", n)
	}
}

// TestOneBehindFollowsTheOneBefore: complete for the others, it is given to
// those who stay one behind when the next one is out.
func TestOneBehindFollowsTheOneBefore(t *testing.T) {
	f := listened(2, 1)
	f.SetConsent(policy(t, ` [{name: g, channels: {rules: {track: n-1}}}]`))
	first := oneRing("r1")
	first.Sequence, first.Phase = 1, holdfast.Complete
	f.SetRelease(first)
	now := start.Add(6 * time.Second)
	beat(f, 2, now)
	if got := f.Take().Drawn; len(got) > 0 {
		t.Fatalf("the newest: %+v", got)
	}
	second := first
	second.ID, second.Digest, second.Sequence, second.Created = "r2", "sha256:newer", 2, start.Add(time.Second)
	f.SetRelease(second)
	beat(f, 2, now.Add(time.Second))
	got := f.Take().Drawn
	if len(got) != 2 || got[0].Release != "r1" || got[1].Release != "r1" {
		t.Errorf("%+v", got)
	}
}

// TestTheLateComeInGrowingSteps after a release is complete, whether they were
// delayed or away: if it kills them, five have it and no more.
func TestTheLateComeInGrowingSteps(t *testing.T) {
	const n = 60
	for i := range 4 {
		lethal, delayed := i%2 == 1, i < 2
		f := listened(n, 1)
		if delayed {
			f.SetConsent(policy(t, ` [{name: g, channels: {rules: {track: delay, delay: 10s}}}]`))
		}
		r := oneRing("r")
		r.Phase = holdfast.Complete
		f.SetRelease(r)
		drawn, most := 0, 0
		for now := start.Add(5 * time.Second); now.Before(start.Add(2 * time.Minute)); now = now.Add(time.Second) {
			before := drawn
			for i := range n {
				f.Beat(hostNumber(i).ID, now)
			}
			f.Advance(now)
			c := f.Take()
			drawn += len(c.Drawn)
			f.Stored(c)
			for _, a := range c.Drawn {
				h, _ := f.Host(a.Host)
				if lethal {
					h.Report.Failed, h.Report.Crashes = holdfast.Generation{holdfast.Rules: newContent}, 1
				} else {
					h.Report.Running, h.Report.Activation = holdfast.Generation{holdfast.Rules: newContent}, a.Lease
				}
				f.Reported(a.Host, h.Report, now)
			}
			if delayed && now.Before(start.Add(10*time.Second)) && drawn > 0 {
				t.Fatalf("%d before the delay is over", drawn)
			}
			most = max(most, drawn-before)
		}
		if lethal && drawn != lateFirst || !lethal && (drawn != n || most > lateFirst+lateGrowth*lateFirst) {
			t.Errorf("delayed %t, lethal %t: %d drawn, at most %d at once", delayed, lethal, drawn, most)
		}
	}
}

// TestPropertyNobodyIsDrawnWhoWouldRefuse, whatever the policy and however it
// changes.
func TestPropertyNobodyIsDrawnWhoWouldRefuse(t *testing.T) {
	groups := []string{
		` [{name: g, channels: {rules: {track: early}}}]`,
		` [{name: g, channels: {rules: {track: pause}}}]`,
		` [{name: g, where: {kernel: "6.1"}, channels: {rules: {track: pause}}}]`,
		` [{name: g, channels: {rules: {track: delay, delay: 20s}}}]`,
		` [{name: g, where: {kernel: "6.12"}, channels: {rules: {track: early}}, windows: [{days: [fri], from: "03:04", to: "03:05", zone: UTC}]}]`,
		` [{name: g, channels: {rules: {track: n-1}}}, {name: h, where: {kernel: "6.1"}, channels: {rules: {track: pin, pin: "2"}}}]`,
	}
	total := 0
	rapid.Check(t, func(t *rapid.T) {
		const n = 8
		f := listened(n, rapid.Uint64().Draw(t, "seed"))
		r := twoRings("r")
		f.SetRelease(r)
		var now time.Time
		var in map[holdfast.OrgID]*consent.Policy
		for second := 5; second < 70; second++ {
			now = start.Add(time.Duration(second) * time.Second)
			if rapid.IntRange(0, 9).Draw(t, "change") == 0 {
				in = policy(t, rapid.SampledFrom(groups).Draw(t, "policy"))
				f.SetConsent(in)
			}
			if second%3 == 0 {
				for i := range 2 {
					o := opened(second, 1, 1, stratum(i), now.Add(2*time.Second))
					o.Through, o.Last = 1, true
					f.Open("r", []Opening{o})
				}
			}
			beat(f, n, now)
			c := f.Take()
			for _, a := range c.Drawn {
				total++
				if in == nil {
					continue
				}
				h, _ := f.Host(a.Host)
				asked := consent.Release{
					Channel: r.Channel, Version: r.Version, Signed: r.Signed, Newest: true,
					Opens: r.Rings.Opens(r.Rings.Of(h.ID), r.Signed), General: r.Rings.Opens(1, r.Signed),
				}
				if ans := in[h.Org].Ask(h.ID, &h.Attributes, asked, now); !ans.Allows(now) {
					t.Fatalf("%s is drawn at %s although %+v", a.Host, now, ans)
				}
			}
			f.Stored(c)
			recount(t, f, f.release("r"))
		}
	})
	if total == 0 {
		t.Error("nobody was ever drawn: the property proves nothing")
	}
}

func TestPreviewCountsWhoWillGetItWhen(t *testing.T) {
	f := listened(10, 1)
	f.SetConsent(policy(t, ` [{name: floor, where: {kernel: "6.1"}, channels: {rules: {track: delay, delay: 1h}}}, {name: lab, where: {kernel: "6.12"}, channels: {rules: {track: pause}}}]`))
	h, _ := f.Host("h000")
	h.Report.Running = h.Report.Running.With(holdfast.Rules, newContent)
	f.Reported("h000", h.Report, start.Add(5*time.Second))
	rows, have := f.Preview(twoRings("r"), start.Add(5*time.Second))
	if have != 1 || len(rows) != 2 || rows[0].Group != "floor" || rows[0].State != consent.Delayed || rows[0].Hosts != 4 || !rows[0].From.Equal(start.Add(time.Hour)) ||
		rows[1].Group != "lab" || rows[1].State != consent.Paused || !rows[1].Never || rows[1].Hosts != 5 {
		t.Errorf("%d have it; %+v", have, rows)
	}
	f.SetConsent(nil)
	if rows, _ = f.Preview(twoRings("r"), start.Add(5*time.Second)); len(rows) != 1 || rows[0].State != consent.Free || rows[0].Hosts != 9 {
		t.Errorf("%+v", rows)
	}
}
