package exact

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/consent"
	"github.com/holdfast-security/holdfast/internal/sim"
)

// anyConsents lets a world's organisations sign policies at random, before and
// while the release is under way, by every road.
func anyConsents(r *rand.Rand, w *sim.World) {
	pick := func(of ...float64) float64 { return of[r.IntN(len(of))] }
	w.Until = max(w.Until, time.Duration(40+r.IntN(50))*time.Second)
	if r.IntN(2) == 0 { // little else happens, so that much is taken
		w.Faults, w.Outage, w.Hostile, w.StoreFails, w.Takeover = nil, nil, nil, 0, 0
	}
	w.Halt = time.Duration(pick(0, 15, 35) * float64(time.Second))
	w.Critical = r.IntN(3) == 0
	w.Signed = time.Duration(pick(0, 0, 5, 72*3600-15) * float64(time.Second))
	// Twenty seconds before midnight, before clocks are put forward, or back.
	w.Begins = []time.Time{epoch, epoch, time.Date(2026, 3, 29, 0, 59, 40, 0, time.UTC), time.Date(2026, 10, 25, 0, 59, 40, 0, time.UTC), time.Date(2026, 9, 6, 3, 59, 40, 0, time.UTC)}[r.IntN(5)]
	orgs := map[holdfast.OrgID]bool{}
	for _, k := range w.Kinds {
		if orgs[k.Org] {
			continue
		}
		orgs[k.Org] = true
		at, version := time.Duration(0), int64(0)
		for range 1 + r.IntN(4) {
			c := sim.Consent{At: at, Road: []sim.Road{sim.ByServer, sim.ByServer, sim.ByFile, sim.ByFile, sim.Stolen, sim.Forged}[r.IntN(6)]}
			version += int64(1 + r.IntN(2))
			c.Policy = consent.Policy{Org: k.Org, Version: version}
			if c.Road == sim.Stolen {
				c.Policy.Version = 1 + int64(r.IntN(int(version)))
			}
			for n := range r.IntN(4) {
				if version < 3 && r.IntN(3) == 0 {
					// Hosts must have it before anybody can hold them.
					c.Policy.Groups = []consent.Group{{Name: "all", Rules: map[holdfast.Channel]consent.Rule{holdfast.Rules: {Track: consent.Early}}}}
					break
				}
				c.Policy.Groups = append(c.Policy.Groups, anyGroup(r, n, w.Begins))
			}
			w.Consents = append(w.Consents, c)
			at += time.Duration(pick(1, 3, 8, 20) * float64(time.Second))
		}
	}
}

func anyGroup(r *rand.Rand, n int, begins time.Time) consent.Group {
	g := consent.Group{Name: fmt.Sprintf("group-%d", n), Rules: map[holdfast.Channel]consent.Rule{}, Critical: map[holdfast.Channel]consent.Rule{}}
	switch r.IntN(7) {
	case 0:
		g.Where.Kernel = []string{"6.1", "6.8"}[r.IntN(2)]
	case 1:
		g.Where.Role = []string{"server", "laptop"}[r.IntN(2)]
	case 2:
		for i := range 40 {
			if r.IntN(2) == 0 {
				g.Where.Hosts = append(g.Where.Hosts, holdfast.HostID(fmt.Sprintf("host-%05d", i)))
			}
		}
	}
	late := time.Duration([]int{4, 12, 20, 40, 72 * 3600}[r.IntN(5)]) * time.Second
	g.Rules[holdfast.Rules] = []consent.Rule{
		{},
		{Track: consent.Early},
		{Track: consent.Early},
		{Track: consent.General},
		{Track: consent.Delay, Delay: late},
		{Track: consent.Delay, Delay: late},
		{Track: consent.Before},
		{Track: consent.Pin, Pin: []string{"1", "2"}[r.IntN(2)]},
		{Track: consent.Pause},
	}[r.IntN(9)]
	g.Critical[holdfast.Rules] = []consent.Rule{{}, {Track: consent.Early}, {Track: consent.General}, {Track: consent.Delay, Delay: late}}[r.IntN(4)]
	if r.IntN(3) == 0 {
		for range 1 + r.IntN(2) {
			g.Windows = append(g.Windows, anyWindow(r, begins))
		}
	}
	return g
}

// anyWindow opens or closes twenty seconds after a world begins, or around
// then, or is open all the while, or not at all.
func anyWindow(r *rand.Rand, begins time.Time) consent.Window {
	zone, err := time.LoadLocation([]string{"UTC", "Europe/Berlin", "Asia/Kolkata", "America/New_York", "America/Santiago"}[r.IntN(5)])
	if err != nil {
		panic(err)
	}
	from := begins.Add(20 * time.Second).Add([]time.Duration{0, -30 * time.Minute, -time.Hour, 5 * time.Hour}[r.IntN(4)]).In(zone)
	to := from.Add([]time.Duration{time.Hour, 23 * time.Hour}[r.IntN(2)])
	w := consent.Window{Zone: zone, From: sinceMidnight(from), To: sinceMidnight(to)}
	if w.To == w.From { // a day of 23 hours
		w.To = (w.To + time.Hour) % (24 * time.Hour)
	}
	w.Days[from.Weekday()] = true
	return w
}

func sinceMidnight(t time.Time) time.Duration {
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute
}

// TestBrokenConsentIsFound: hosts that forget what their organisation signed,
// keep to what it did not sign, or do what it forbids, break the promise.
func TestBrokenConsentIsFound(t *testing.T) {
	policy := func(version int64, road sim.Road, at time.Duration, rule consent.Rule) sim.Consent {
		return sim.Consent{At: at, Road: road, Policy: consent.Policy{Org: holdfast.DefaultOrg, Version: version, Groups: []consent.Group{{
			Name: "all", Rules: map[holdfast.Channel]consent.Rule{holdfast.Rules: rule},
		}}}}
	}
	paused, early := consent.Rule{Track: consent.Pause}, consent.Rule{Track: consent.Early}
	forget := func(w *world) {
		for _, h := range w.hosts {
			h.consent = nil
		}
	}
	for _, c := range []struct {
		name, want string
		consents   []sim.Consent
		inject     func(*world)
	}{
		{"they forget a pause", "took the release, though all is paused", []sim.Consent{policy(1, sim.ByFile, 0, paused)}, forget},
		{"they forget a delay", "took the release, though all is delayed by 30s", []sim.Consent{policy(1, sim.ByFile, 0, consent.Rule{Track: consent.Delay, Delay: 30 * time.Second})}, forget},
		{"they keep to a forgery", "refused what its organisation allows", []sim.Consent{policy(1, sim.ByServer, 0, early)}, func(w *world) {
			for _, h := range w.hosts {
				p := policy(9, sim.Forged, 0, paused).Policy
				h.consent = &p
			}
		}},
		{"they keep to what was replaced", "refused what its organisation allows", []sim.Consent{policy(1, sim.ByFile, 0, paused), policy(2, sim.ByServer, 2*time.Second, early)}, func(w *world) {
			for _, h := range w.hosts {
				if h.consent != nil && h.consent.Version == 2 {
					p := policy(2, sim.ByFile, 0, paused).Policy
					h.consent = &p
				}
			}
		}},
	} {
		p, w := drill(12, 5)
		w.Until, w.Consents = 40*time.Second, c.consents
		_, err := run(t.Context(), p, w, c.inject)
		var v *sim.Violation
		if !errors.As(err, &v) || v.Promise != sim.Control || !strings.Contains(v.What, c.want) {
			t.Errorf("%s: %v; want …%s…", c.name, err, c.want)
		}
	}
}

// TestHeldHostsAreRecalled: hosts that took a release, and whose organisation
// then pauses them, pins them to it, or closes their windows, give it back.
func TestHeldHostsAreRecalled(t *testing.T) {
	all := func(version int64, at time.Duration, g consent.Group) sim.Consent {
		g.Name = "all"
		return sim.Consent{At: at, Road: sim.ByServer, Policy: consent.Policy{Org: holdfast.DefaultOrg, Version: version, Groups: []consent.Group{g}}}
	}
	rule := func(r consent.Rule) map[holdfast.Channel]consent.Rule {
		return map[holdfast.Channel]consent.Rule{holdfast.Rules: r}
	}
	early := rule(consent.Rule{Track: consent.Early})
	friday := consent.Window{Zone: time.UTC, From: time.Hour, To: 2 * time.Hour, Days: [7]bool{time.Friday: true}}
	for name, held := range map[string]consent.Group{
		"paused": {Rules: rule(consent.Rule{Track: consent.Pause})},
		"pinned": {Rules: rule(consent.Rule{Track: consent.Pin, Pin: "1"})},
		"closed": {Rules: early, Windows: []consent.Window{friday}},
	} {
		p, w := drill(40, 4)
		w.Until, w.Halt = time.Minute, 8*time.Second
		w.Consents = []sim.Consent{all(1, 0, consent.Group{Rules: early}), all(2, 5*time.Second, held)}
		o := play(t, p, w)
		if !o.Phase.Recalling() || o.Exposed == 0 || o.Control["recalled although held"] < o.Exposed || o.Hands > 0 {
			t.Errorf("%s: %s (%s), %d exposed, %v", name, o.Phase, o.Why, o.Exposed, o.Control)
		}
	}
}

// TestComparisonsWaitForTheWindow of hosts whose organisation brought them a
// policy that the server has never seen.
func TestComparisonsWaitForTheWindow(t *testing.T) {
	p, w := drill(40, 6)
	w.Until = 2 * time.Minute
	friday := consent.Window{Zone: time.UTC, From: time.Hour, To: 2 * time.Hour, Days: [7]bool{time.Friday: true}}
	w.Consents = []sim.Consent{{Road: sim.ByFile, Policy: consent.Policy{Org: holdfast.DefaultOrg, Version: 1, Groups: []consent.Group{{
		Name: "all", Rules: map[holdfast.Channel]consent.Rule{holdfast.Rules: {Track: consent.Early}}, Windows: []consent.Window{friday},
	}}}}}
	if o := play(t, p, w); o.Exposed > 0 || o.Control["comparisons that waited"] == 0 || o.Control["held back"] == 0 {
		t.Errorf("%d exposed, %v", o.Exposed, o.Control)
	}
}
