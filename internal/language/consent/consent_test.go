package consent

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-security/holdfast"
)

const good = `organisation: acme
version: 3
groups:
  - name: trading floor
    where: {role: server, distro: rhel-9}
    channels:
      rules: {track: delay, delay: 24h}
      agent: {track: n-1}
    critical:
      rules: {track: delay, delay: 4h}
    windows:
      - {days: [sat, sun], from: "22:00", to: "02:00", zone: Europe/Berlin}
  - name: laboratory
    where: {role: laptop}
    channels:
      rules: {track: early}
      agent: {track: pin, pin: 1.4.2}
  - name: frozen
    where: {hosts: [h-9]}
    channels:
      rules: {track: pause}
`

func policy(t testing.TB) *Policy {
	t.Helper()
	p, err := Parse("acme.yaml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	return &p
}

// a Wednesday
var signed = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

func rules(critical bool) Release {
	return Release{Channel: holdfast.Rules, Version: "7", Critical: critical, Signed: signed, Opens: signed, General: signed.Add(4 * time.Hour), Newest: true}
}

func TestTracks(t *testing.T) {
	p := policy(t)
	floor := &holdfast.Attributes{Role: "server", Distro: "rhel-9"}
	lab := &holdfast.Attributes{Role: "laptop"}
	agent := rules(false)
	agent.Channel, agent.Version = holdfast.Agent, "1.5.0"
	older := agent
	older.Newest, older.Version = false, "1.4.2"
	saturday := time.Date(2026, 7, 4, 20, 0, 0, 0, time.UTC) // 22:00 in Berlin
	for _, c := range []struct {
		name  string
		id    holdfast.HostID
		a     *holdfast.Attributes
		r     Release
		never bool
		from  time.Time
	}{
		{"a delayed group waits for its window too", "h-1", floor, rules(false), false, saturday},
		{"a critical release waits for the window, but no longer than 72 hours", "h-1", floor, rules(true), false, signed.Add(MostDelay)},
		{"early", "h-2", lab, rules(false), false, signed},
		{"in no group: last", "h-3", &holdfast.Attributes{Role: "kiosk"}, rules(false), false, signed.Add(4 * time.Hour)},
		{"n-1 refuses the newest", "h-1", floor, agent, true, time.Time{}},
		{"n-1 takes the one before", "h-1", floor, older, false, saturday},
		{"a pin refuses others", "h-2", lab, agent, true, time.Time{}},
		{"a pin takes its version", "h-2", lab, older, false, signed},
		{"paused", "h-9", lab, rules(false), true, time.Time{}},
		{"a pause does not hold what is critical", "h-9", lab, rules(true), false, signed},
	} {
		got := p.Ask(c.id, c.a, c.r, signed)
		if got.Never != c.never || !c.never && !got.From.Equal(c.from) {
			t.Errorf("%s: %+v, want never=%t from %s", c.name, got, c.never, c.from)
		}
	}
}

// TestWindowsAcrossMidnightAndClockChange by the wall clock of the place.
func TestWindowsAcrossMidnightAndClockChange(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip("no time zones on this machine: ", err)
	}
	w := []Window{{From: 22 * time.Hour, To: 2 * time.Hour, Zone: berlin, Days: [7]bool{6: true}}}
	inside := time.Date(2026, 3, 29, 0, 30, 0, 0, berlin) // the night in which the clock jumps
	if at, _, ok := nextOpen([][]Window{w}, inside); !ok || !at.Equal(inside) {
		t.Errorf("Saturday's window is closed at half past midnight: %s", at)
	}
	after := time.Date(2026, 3, 29, 3, 0, 0, 0, berlin)
	want := time.Date(2026, 4, 4, 22, 0, 0, 0, berlin)
	if at, _, ok := nextOpen([][]Window{w}, after); !ok || !at.Equal(want) {
		t.Errorf("the next window opens at %s, want %s", at, want)
	}
	monday := []Window{{From: 8 * time.Hour, To: 9 * time.Hour, Zone: time.UTC, Days: [7]bool{1: true}}}
	if at, _, ok := nextOpen([][]Window{w, monday}, after); ok {
		t.Errorf("windows that never meet are open together at %s", at)
	}
}

// TestWindowsWhereTheClockJumps: a window begins when a clock on the wall first
// shows its beginning or a later time, and ends so too, wherever and whenever
// clocks are changed.
func TestWindowsWhereTheClockJumps(t *testing.T) {
	for _, c := range []struct{ name, zone, day, from, to, opens, closes string }{
		{"on a day without midnight", "America/Santiago", "2026-09-06", "10:00", "12:00", "2026-09-06T13:00:00Z", "2026-09-06T15:00:00Z"},
		{"from a midnight that is jumped over", "America/Santiago", "2026-09-06", "00:00", "02:00", "2026-09-06T04:00:00Z", "2026-09-06T05:00:00Z"},
		{"to it", "America/Santiago", "2026-09-05", "22:00", "00:00", "2026-09-06T02:00:00Z", "2026-09-06T04:00:00Z"},
		{"from within the hour that is jumped over", "Europe/Berlin", "2026-03-29", "02:30", "04:00", "2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z"},
		{"to within it", "Europe/Berlin", "2026-03-29", "01:00", "02:30", "2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z"},
		{"from within the hour that is shown twice", "Europe/Berlin", "2026-10-25", "02:30", "04:00", "2026-10-25T00:30:00Z", "2026-10-25T03:00:00Z"},
		{"to within it", "Europe/Berlin", "2026-10-25", "01:00", "02:30", "2026-10-24T23:00:00Z", "2026-10-25T00:30:00Z"},
		{"from within it, west of Greenwich", "America/New_York", "2026-11-01", "01:30", "02:30", "2026-11-01T05:30:00Z", "2026-11-01T07:30:00Z"},
		{"half an hour's jump", "Australia/Lord_Howe", "2026-10-04", "02:15", "03:00", "2026-10-03T15:30:00Z", "2026-10-03T16:00:00Z"},
		{"nothing jumps", "Asia/Kolkata", "2026-10-04", "02:15", "24:00", "2026-10-03T20:45:00Z", "2026-10-04T18:30:00Z"},
	} {
		zone, err := time.LoadLocation(c.zone)
		if err != nil {
			t.Fatal(err)
		}
		noon, err := time.ParseInLocation("2006-01-02 15:04", c.day+" 12:00", zone)
		if err != nil {
			t.Fatal(err)
		}
		w := Window{Zone: zone}
		w.Days[noon.Weekday()] = true
		if w.From, err = clock(c.from); err != nil {
			t.Fatal(err)
		}
		if w.To, err = clock(c.to); err != nil {
			t.Fatal(err)
		}
		at, until, ok := nextOpen([][]Window{{w}}, noon.Add(-48*time.Hour))
		if opens, closes := at.UTC().Format(time.RFC3339), until.UTC().Format(time.RFC3339); !ok || opens != c.opens || closes != c.closes {
			t.Errorf("%s: %s is open from %s to %s, want %s to %s", c.name, &w, opens, closes, c.opens, c.closes)
		}
	}
}

// TestPropertyAWindowIsWhatTheClockOnTheWallShows at every moment of a year. In an
// hour that is shown for the second time a window stays as it was at the end of
// the first.
func TestPropertyAWindowIsWhatTheClockOnTheWallShows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zone, err := time.LoadLocation(rapid.SampledFrom([]string{"UTC", "Europe/Berlin", "America/Santiago", "Australia/Lord_Howe", "America/Havana", "Asia/Kolkata"}).Draw(t, "zone"))
		if err != nil {
			t.Fatal(err)
		}
		quarter := func(name string) time.Duration {
			return time.Duration(rapid.IntRange(0, 95).Draw(t, name)) * 15 * time.Minute
		}
		w := Window{Zone: zone, From: quarter("from"), To: quarter("to")}
		w.Days[rapid.IntRange(0, 6).Draw(t, "day")], w.Days[rapid.IntRange(0, 6).Draw(t, "another")] = true, true
		if w.From == w.To {
			t.Skip("it never opens")
		}
		at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(rapid.IntRange(0, 365*96).Draw(t, "at")) * 15 * time.Minute)
		if rapid.Bool().Draw(t, "near a change") {
			if _, change := at.In(zone).ZoneBounds(); !change.IsZero() {
				at = change.Add(time.Duration(rapid.IntRange(-120, 120).Draw(t, "quarters")) * 15 * time.Minute)
			}
		}
		shown := at.In(zone)
		if start, _ := shown.ZoneBounds(); !start.IsZero() {
			_, before := start.Add(-1).Zone()
			_, now := shown.Zone()
			if at.Before(start.Add(time.Duration(before-now) * time.Second)) {
				shown = start.Add(-1).In(zone)
			}
		}
		clock := time.Duration(shown.Hour())*time.Hour + time.Duration(shown.Minute())*time.Minute
		today, yesterday := w.Days[shown.Weekday()], w.Days[(shown.Weekday()+6)%7]
		want := today && clock >= w.From && clock < w.To
		if w.To < w.From {
			want = today && clock >= w.From || yesterday && clock < w.To
		}
		if from, _, ok := open([]Window{w}, at); ok && from.Equal(at) != want {
			t.Fatalf("%s at %s: open is %t, the clock says %t", &w, at.In(zone), from.Equal(at), want)
		}
	})
}

// TestStrictestWins: another group can only make a host later, and an answer
// keeps its word at the time it names.
func TestStrictestWins(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) Group {
			g := Group{Name: name, Rules: map[holdfast.Channel]Rule{}}
			r := Rule{Track: rapid.SampledFrom([]Track{Early, General, Delay, Before, Pin, Pause}).Draw(t, "track"), Pin: "7"}
			r.Delay = time.Duration(rapid.IntRange(0, 72).Draw(t, "hours")) * time.Hour
			g.Rules[holdfast.Rules] = r
			if rapid.Bool().Draw(t, "window") {
				from := rapid.IntRange(0, 23).Draw(t, "from")
				w := Window{From: time.Duration(from) * time.Hour, To: time.Duration((from+rapid.IntRange(1, 23).Draw(t, "hours open"))%24) * time.Hour, Zone: time.UTC}
				w.Days[rapid.IntRange(0, 6).Draw(t, "day")] = true
				w.Days[rapid.IntRange(0, 6).Draw(t, "day")] = true
				g.Windows = []Window{w}
			}
			return g
		}
		one, two := draw("one"), draw("two")
		now := signed.Add(time.Duration(rapid.IntRange(0, 200).Draw(t, "now")) * time.Hour)
		r := rules(false)
		r.Newest = rapid.Bool().Draw(t, "newest")
		a := (&Policy{Groups: []Group{one}}).Ask("h", &holdfast.Attributes{}, r, now)
		p := &Policy{Groups: []Group{one, two}}
		both := p.Ask("h", &holdfast.Attributes{}, r, now)
		if a.Never && !both.Never {
			t.Fatalf("a second group lifted the first one's refusal: %+v, %+v", a, both)
		}
		if both.Never {
			return
		}
		if both.From.Before(a.From) || both.From.Before(r.Opens) {
			t.Fatalf("a second group made the host earlier: %+v, %+v", a, both)
		}
		if then := p.Ask("h", &holdfast.Attributes{}, r, both.From); both.From.After(now) && !then.Allows(both.From) {
			t.Fatalf("promised %s, and then said %+v", both.From, then)
		}
	})
}

func TestImpossiblePoliciesAreRefused(t *testing.T) {
	for _, c := range []struct{ name, old, new, want string }{
		{"a delay on a pause", "rules: {track: pause}", "rules: {track: pause, delay: 4h}", "acme.yaml:21: a delay on pause means nothing"},
		{"an unknown time zone", "Europe/Berlin", "Europe/Atlantis", `acme.yaml:12: "Europe/Atlantis" is not a time zone`},
		{"a window that never opens", `to: "02:00"`, `to: "22:00"`, "acme.yaml:12: a window that ends when it begins never opens"},
		{"no days", "days: [sat, sun]", "days: []", "acme.yaml:12: a window without days never opens"},
		{"too long", "delay: 24h", "delay: 100h", `acme.yaml:7: a delay of "100h"`},
		{"paused critical", "rules: {track: delay, delay: 4h}", "rules: {track: pause}", "acme.yaml:10: critical releases may be delayed"},
		{"unknown track", "track: early", "track: soon", `acme.yaml:16: "soon" is not a track`},
		{"unknown channel", "rules: {track: early}", "rulez: {track: early}", `acme.yaml:16: there is no channel "rulez"`},
		{"unknown field", "track: early", "tract: early", "acme.yaml:16: there is no field"},
		{"unknown field below a comment and an empty line", "  - name: laboratory\n", "  - name: laboratory\n\n    # theirs\n    whom: all\n", `acme.yaml:16: there is no field "whom"`},
		{"unknown field of a selection", "where: {role: laptop}", "where:\n\n      rôle: laptop", `acme.yaml:16: there is no field "rôle"`},
		{"unknown field of a window", "zone: Europe/Berlin", "place: Berlin", `acme.yaml:12: there is no field "place"`},
		{"a second document", "version: 3\n", "version: 3\n---\nversion: 4\n", "acme.yaml:3: there is more behind the policy's end"},
		{"a role that is a list", "where: {role: laptop}", "where: {role: [laptop]}", "acme.yaml:14: cannot unmarshal"},
		{"two groups of a name", "name: frozen", "name: laboratory", "acme.yaml:18: every group needs a name of its own"},
		{"no version", "version: 3\n", "", "acme.yaml:1: version must be a number"},
		{"version zero", "version: 3", "version: 0", "acme.yaml:2: version must be a number"},
		{"pin without version", "{track: pin, pin: 1.4.2}", "{track: pin}", "acme.yaml:17: a pin needs"},
	} {
		in := strings.Replace(good, c.old, c.new, 1)
		if in == good {
			t.Fatalf("%s: the test changes nothing", c.name)
		}
		_, err := Parse("acme.yaml", []byte(in))
		if err == nil || !strings.HasPrefix(err.Error(), c.want) || holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%s: %v, want %s…", c.name, err, c.want)
		}
	}
}

// TestPropertyCriticalIsDelayedAndNotHeld: whatever the groups say, a critical
// release is allowed 72 hours after its signature, if its ring is open by then.
func TestPropertyCriticalIsDelayedAndNotHeld(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := &Policy{}
		for i := range rapid.IntRange(0, 3).Draw(t, "groups") {
			day := rapid.IntRange(0, 6).Draw(t, "day")
			g := Group{Name: string(rune('a' + i)), Critical: map[holdfast.Channel]Rule{}}
			g.Rules = map[holdfast.Channel]Rule{holdfast.Rules: {Track: rapid.SampledFrom([]Track{Pause, Pin, Before}).Draw(t, "track"), Pin: "1"}}
			if rapid.Bool().Draw(t, "delayed") {
				g.Critical[holdfast.Rules] = Rule{Track: Delay, Delay: time.Duration(rapid.IntRange(0, 72).Draw(t, "hours")) * time.Hour}
			}
			if rapid.Bool().Draw(t, "window") {
				g.Windows = []Window{{From: 8 * time.Hour, To: 9 * time.Hour, Zone: time.UTC}}
				g.Windows[0].Days[day] = true
			}
			p.Groups = append(p.Groups, g)
		}
		r := rules(true)
		if now := signed.Add(MostDelay); !p.Ask("h", &holdfast.Attributes{}, r, now).Allows(now) {
			t.Fatalf("held: %+v", p.Ask("h", &holdfast.Attributes{}, r, now))
		}
		early := signed.Add(-time.Hour)
		if a := p.Ask("h", &holdfast.Attributes{}, r, early); a.Allows(early) {
			t.Fatalf("before its ring opened: %+v", a)
		}
	})
}

// TestPropertyAnAnswerHoldsUntilItSays: asked at any moment before Until, the
// answer to "now?" is the same, so that it need not be asked every heartbeat.
func TestPropertyAnAnswerHoldsUntilItSays(t *testing.T) {
	p := policy(t)
	floor := &holdfast.Attributes{Role: "server", Distro: "rhel-9"}
	met := map[bool]int{}
	rapid.Check(t, func(t *rapid.T) {
		r := rules(rapid.Bool().Draw(t, "critical"))
		now := signed.Add(time.Duration(rapid.IntRange(-60, 20_000).Draw(t, "minutes")) * time.Minute)
		a := p.Ask("h", floor, r, now)
		met[a.Allows(now)]++
		span := 14 * 24 * time.Hour
		if !a.Until.IsZero() {
			span = a.Until.Sub(now)
		}
		if span <= 0 {
			t.Fatalf("at %s the answer is over already: %+v", now, a)
		}
		then := now.Add(time.Duration(rapid.Int64Range(0, int64(span)-1).Draw(t, "later")))
		if p.Ask("h", floor, r, then).Allows(then) != a.Allows(now) {
			t.Fatalf("at %s %+v; at %s %+v", now, a, then, p.Ask("h", floor, r, then))
		}
	})
	if met[true] == 0 || met[false] == 0 {
		t.Errorf("the generator never met a case: %v", met)
	}
}

func TestOnlyANewerPolicyOfTheSameOrganisationIsAccepted(t *testing.T) {
	for _, c := range []struct {
		org   holdfast.OrgID
		after int64
		want  string
	}{
		{"acme", 2, ""},
		{"acme", 3, "the policy has version 3, and version 3 is in force"},
		{"acme", 4, "version 4 is in force"},
		{"emca", 0, `of organisation "acme", not of "emca"`},
	} {
		_, err := Accept("acme.yaml", []byte(good), c.org, c.after)
		if c.want == "" && err == nil {
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s after %d: %v, want %s", c.org, c.after, err, c.want)
		}
	}
}

func TestAPinToAVersionThatNobodyPublished(t *testing.T) {
	p := policy(t)
	if err := p.CheckPins("acme.yaml", func(c holdfast.Channel, v string) bool { return c == holdfast.Agent && v == "1.4.2" }); err != nil {
		t.Error(err)
	}
	err := p.CheckPins("acme.yaml", func(holdfast.Channel, string) bool { return false })
	if err == nil || !strings.HasPrefix(err.Error(), `acme.yaml:17: group "laboratory" is pinned to agent 1.4.2`) {
		t.Error(err)
	}
}

func TestPreviewShowsWhoAndWhen(t *testing.T) {
	p := policy(t)
	var all Previews
	for id, role := range map[holdfast.HostID]string{"h-1": "laptop", "h-2": "laptop", "h-3": "kiosk", "h-9": "kiosk"} {
		a := &holdfast.Attributes{Role: role}
		all.Add(p.Org, p.GroupOf(id, a), p.Ask(id, a, rules(false), signed))
	}
	want := []Preview{
		{Org: "acme", State: NoGroup, Hosts: 1, From: signed.Add(4 * time.Hour), To: signed.Add(4 * time.Hour), Why: "in no group: goes last"},
		{Org: "acme", Group: "frozen", State: Paused, Hosts: 1, Never: true, Why: "frozen: paused"},
		{Org: "acme", Group: "laboratory", State: Free, Hosts: 2, From: signed, To: signed},
	}
	if got := all.Rows(); !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("organisation: a\nversion: 1\ngroups: [{name: x}]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Parse("fuzz.yaml", b)
		if err == nil {
			p.Ask("h", &holdfast.Attributes{}, rules(false), signed)
		}
	})
}
