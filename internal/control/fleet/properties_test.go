package fleet

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/holdfast-security/holdfast"
)

// What the hosts of a group are is counted as things happen, and must equal a
// recount.
func recount(t *rapid.T, f *Fleet, r *release) {
	type count struct {
		eligible int
		by       [classes]int
	}
	want := map[*group]count{}
	for _, h := range f.hosts {
		s := h.seatOf(r)
		c := want[s.group]
		c.by[s.class]++
		if s.counted {
			c.eligible++
		}
		want[s.group] = c
	}
	for g := range want {
		if r.groups[g.key] != g {
			t.Fatalf("group %+v has hosts and is not in the snapshot", g.key)
		}
	}
	for _, g := range r.groups {
		if got := (count{g.eligible, g.by}); got != want[g] {
			t.Fatalf("group %+v counts %+v, a recount %+v", g.key, got, want[g])
		}
	}
	kept := 0
	for _, h := range f.hosts {
		if s := h.seatOf(r); s.settled && s.treated.Returned.IsZero() {
			kept++
		}
	}
	if r.kept != kept || kept > 0 && len(r.Recalled) == 0 {
		t.Fatalf("%d hosts kept what was recalled from %v, counted %d", kept, r.Recalled, r.kept)
	}
	untreated := 0
	for _, h := range f.hosts {
		if h.present && !h.treated {
			untreated++
		}
	}
	idle := 0
	for _, h := range f.hosts {
		if s := h.seatOf(r); s.treated != nil && s.treated.idle {
			idle++
		}
	}
	for of, p := range r.proved {
		if p.taken < p.clean+p.left+p.idle || p.idle < 0 || of == "" && p.idle != idle {
			t.Fatalf("of %q %+v is proved, and %d of all are idle", of, *p, idle)
		}
	}
	if f.outages.untreated != untreated {
		t.Fatalf("%d untreated hosts are present, counted %d", untreated, f.outages.untreated)
	}
}

// machine plays random events on a fleet and keeps what a store would.
type machine struct {
	f          *Fleet
	now        time.Time
	release    Release
	openings   []Opening
	admissions map[[2]string]holdfast.Admission // by host and block
	harms      map[[3]string]holdfast.Harm
	block      int
	revoked    map[holdfast.HostID]int // with how much harm each had come to
}

func (m *machine) harmsOf(id holdfast.HostID) (all []holdfast.Harm) {
	for _, h := range m.harms {
		if h.Host == id {
			all = append(all, h)
		}
	}
	return all
}

func (m *machine) store(t *rapid.T) {
	c := m.f.Take()
	for _, a := range c.Drawn {
		k := [2]string{string(a.Host), fmt.Sprint(a.Block)}
		if _, ok := m.admissions[k]; ok {
			t.Fatalf("host %s is drawn twice in block %d", a.Host, a.Block)
		}
		m.admissions[k] = a
	}
	for _, h := range c.Harms {
		k := [3]string{string(h.Host), fmt.Sprint(h.Block), string(h.Kind)}
		if _, ok := m.harms[k]; ok {
			t.Fatalf("%s of host %s in block %d is reported twice", h.Kind, h.Host, h.Block)
		}
		m.harms[k] = h
		if h.After > m.release.Slow {
			t.Fatalf("harm after the slow window: %+v", h)
		}
	}
	for _, a := range c.Marks {
		m.admissions[[2]string{string(a.Host), fmt.Sprint(a.Block)}] = a
	}
	m.f.Stored(c)
}

// rebuilt is the fleet that a new process makes of what is stored.
func (m *machine) rebuilt(hosts int) *Fleet {
	f := New(pace, rand.New(rand.NewPCG(9, 9)), m.now, m.now)
	f.Restore(m.f.Outages())
	for i := range hosts {
		h, _ := m.f.Host(hostNumber(i).ID)
		f.SetHost(h)
		f.Reported(h.ID, h.Report, m.now)
	}
	f.SetRelease(m.release)
	var all []holdfast.Admission
	for _, a := range m.admissions {
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b holdfast.Admission) int {
		if c := a.At.Compare(b.At); c != 0 {
			return c
		}
		return a.Block - b.Block
	})
	for _, a := range all {
		var kinds []holdfast.HarmKind
		for _, h := range m.harms {
			if h.Host == a.Host && h.Block == a.Block {
				kinds = append(kinds, h.Kind)
			}
		}
		f.RestoreAdmission(a, kinds)
	}
	f.Open(m.release.ID, m.openings)
	return f
}

// wasHad sees that a host is offered again only what it had, went back from, and
// came to no harm by, unless the release is complete.
func (m *machine) wasHad(t *rapid.T, again holdfast.Admission) {
	before := false
	for _, a := range m.admissions {
		if a.Host == again.Host && a.Arm == holdfast.New && a.Block > again.Block && a.At.Before(again.At) && a.Why != notCarriedOut {
			if a.Activated.IsZero() || a.Why != wentBack && a.Why != "recalled" {
				t.Fatalf("%+v is offered again after %+v", again, a)
			}
			before = true
		}
		if a.Host == again.Host && a.Lease == again.Lease && a.Block != again.Block {
			t.Fatalf("%+v has the lease of %+v", again, a)
		}
	}
	if !before {
		t.Fatalf("%+v is offered again what it never had", again)
	}
}

// proved is what all hosts have shown of the release. Who is idle shows that again
// after a restart.
func (m *machine) proved() (p proof) {
	if x := m.f.release(m.release.ID).proved[""]; x != nil {
		p = *x
	}
	p.idle = 0
	return p
}

// undone counts the hosts that went back before they were clean, unharmed, and
// have not proved themselves since.
func (m *machine) undone() (n int) {
	proved := map[holdfast.HostID]bool{}
	for _, a := range m.admissions {
		proved[a.Host] = proved[a.Host] || a.Again() && !a.Clean.IsZero()
	}
	for _, a := range m.admissions {
		harmed := false
		for _, h := range m.harms {
			harmed = harmed || h.Host == a.Host && h.Block == a.Block
		}
		if a.Block >= 0 && a.Why == wentBack && a.Clean.IsZero() && !harmed && !proved[a.Host] {
			n++
		}
	}
	return n
}

// TestProperties plays random hosts, crashes, silences, draws and recalls.
func TestProperties(t *testing.T) {
	const hosts = 12
	rapid.Check(t, func(t *rapid.T) {
		m := &machine{f: listened(hosts, rapid.Uint64().Draw(t, "seed")), now: start.Add(5 * time.Second), release: oneRing("r"), admissions: map[[2]string]holdfast.Admission{}, harms: map[[3]string]holdfast.Harm{}, revoked: map[holdfast.HostID]int{}}
		m.f.SetRelease(m.release)
		m.f.Take()
		recalled := false
		pick := func(t *rapid.T) holdfast.HostID {
			return hostNumber(rapid.IntRange(0, hosts-1).Draw(t, "host")).ID
		}
		report := func(t *rapid.T, change func(*holdfast.HostReport)) {
			id := pick(t)
			h, _ := m.f.Host(id)
			change(&h.Report)
			m.f.Reported(id, h.Report, m.now)
		}
		t.Repeat(map[string]func(*rapid.T){
			"beats": func(t *rapid.T) {
				skip := rapid.SliceOfNDistinct(rapid.IntRange(0, hosts-1), 0, 3, rapid.ID).Draw(t, "silent")
				m.now = m.now.Add(time.Second)
				for i := range hosts {
					if !slices.Contains(skip, i) {
						m.f.Beat(hostNumber(i).ID, m.now)
					}
				}
				m.f.Advance(m.now)
			},
			"open": func(t *rapid.T) {
				o := opened(m.block, rapid.IntRange(0, 3).Draw(t, "treat"), rapid.IntRange(0, 3).Draw(t, "placebo"), stratum(rapid.IntRange(0, 1).Draw(t, "stratum")), m.now.Add(2*time.Second))
				o.Redraw = rapid.Bool().Draw(t, "redraw")
				m.block++
				m.openings = append(m.openings, o)
				m.f.Open("r", []Opening{o})
			},
			"obey": func(t *rapid.T) {
				id := pick(t)
				o, ok := m.f.Desired(id, m.now)
				if !ok {
					return
				}
				if recalled && o.Recall == "" {
					t.Fatalf("%s is offered %+v after the recall", id, o)
				}
				h, _ := m.f.Host(id)
				if o.Recall != "" {
					h.Report.Running = h.Report.Running.With(o.Channel, o.Digest)
				} else {
					if slices.Contains(h.Report.Shunned, o.Digest) {
						t.Fatalf("%s is offered what it shuns", id)
					}
					stored := false
					for _, a := range m.admissions {
						stored = stored || a.Lease == o.Lease && a.Host == id && a.Arm == o.Arm
					}
					if !stored {
						t.Fatalf("offer %+v to %s is not a row", o, id)
					}
					if _, err := m.f.Renew(id, o.Lease, m.now); err != nil {
						t.Fatal(err)
					}
					h.Report.Running = h.Report.Running.With(o.Channel, o.Digest)
					h.Report.Activation = o.Lease
				}
				m.f.Reported(id, h.Report, m.now)
			},
			"crash": func(t *rapid.T) {
				report(t, func(r *holdfast.HostReport) {
					r.Crashes++
					if r.Running[holdfast.Rules] == newContent {
						r.Failed = r.Running
						r.Shunned = []holdfast.Digest{newContent}
						r.Running = holdfast.Generation{holdfast.Rules: oldContent}
					}
				})
			},
			"go back": func(t *rapid.T) { // though nothing failed
				report(t, func(r *holdfast.HostReport) { r.Running = holdfast.Generation{holdfast.Rules: oldContent} })
			},
			"forget": func(t *rapid.T) {
				report(t, func(r *holdfast.HostReport) {
					*r = holdfast.HostReport{Boot: r.Boot, Crashes: r.Crashes, Shunned: r.Shunned, SafeMode: true}
				})
			},
			"a while": func(t *rapid.T) {
				for range 40 {
					m.now = m.now.Add(time.Second)
					for i := range hosts {
						m.f.Beat(hostNumber(i).ID, m.now)
					}
					m.f.Advance(m.now)
					m.store(t)
				}
			},
			"complete": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "rarely") > 0 || recalled {
					return
				}
				m.release.Phase = holdfast.Complete
				m.f.SetRelease(m.release)
			},
			"reboot": func(t *rapid.T) { report(t, func(r *holdfast.HostReport) { r.Boot += "'" }) },
			"move": func(t *rapid.T) {
				id := pick(t)
				h, _ := m.f.Host(id)
				h.Attributes.Kernel = rapid.SampledFrom([]string{"6.1", "6.12"}).Draw(t, "kernel")
				m.f.Described(id, h.Attributes, m.now)
			},
			"revoke": func(t *rapid.T) {
				if rapid.IntRange(0, 4).Draw(t, "rarely") > 0 {
					return
				}
				id := pick(t)
				h, _ := m.f.Host(id)
				if h.Revoked {
					return
				}
				h.Revoked = true
				m.store(t) // what it came to until now
				m.f.SetHost(h)
				m.revoked[id] = len(m.harmsOf(id))
			},
			"store": m.store,
			"gap": func(t *rapid.T) {
				m.now = m.now.Add(time.Duration(rapid.IntRange(1, 60).Draw(t, "seconds")) * time.Second)
				m.f.Advance(m.now)
			},
			"recall": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "rarely") > 0 || recalled {
					return
				}
				recalled = true
				m.release.Phase, m.release.Recalled, m.release.RecalledAt = holdfast.Halted, []holdfast.OrgID{""}, m.now
				m.f.SetRelease(m.release)
			},
			"restart": func(t *rapid.T) {
				m.store(t)
				cells, out, proved := m.f.Snapshot("r").Cells, m.f.Outstanding("r"), m.proved()
				m.f = m.rebuilt(hosts)
				if got := m.proved(); got != proved {
					t.Fatalf("after a restart %+v is proved, and before it was %+v", got, proved)
				}
				drop := func(all []Cell) []Cell { // cells nobody was drawn in may be missing
					return slices.DeleteFunc(all, func(c Cell) bool { return c.Treated.Drawn+c.Control.Drawn == 0 })
				}
				if d := cmp.Diff(drop(cells), drop(m.f.Snapshot("r").Cells)); d != "" {
					t.Fatalf("after a restart the counters differ (-before +after)\n%s", d)
				}
				if got := m.f.Outstanding("r"); got < out {
					t.Fatalf("a restart forgot %d outstanding hosts", out-got)
				}
			},
			"": func(t *rapid.T) {
				r := m.f.release("r")
				recount(t, m.f, r)
				treated := map[holdfast.HostID]int{}
				for _, a := range m.admissions {
					if a.Arm == holdfast.New && a.Why != notCarriedOut && !a.Again() {
						treated[a.Host]++
					}
					if !a.Clean.IsZero() && a.Clean.Sub(a.At) < r.Fast {
						t.Fatalf("%+v is clean before its window closed", a)
					}
					if a.Again() {
						m.wasHad(t, a)
					}
				}
				for id, n := range m.revoked {
					// Who was revoked says nothing, has no part, and is missed by nobody.
					o, offered := m.f.Desired(id, m.now)
					if h, _ := m.f.Host(id); !h.Revoked || h.Connected || offered || len(m.harmsOf(id)) > n {
						t.Fatalf("%s was revoked: %+v, offered %+v, came to %v", id, h, o, m.harmsOf(id))
					}
					if s := m.f.hosts[id].seatOf(r); s.counted || s.class != neither || s.current() != nil && s.current().Left.IsZero() {
						t.Fatalf("%s was revoked and takes part: %+v", id, s)
					}
				}
				for id, n := range treated {
					if n > 1 {
						t.Fatalf("host %s was drawn for the release %d times", id, n)
					}
				}
				undone := m.undone()
				for _, c := range m.f.Snapshot("r").Cells {
					for _, arm := range []Arm{c.Treated, c.Control} {
						if arm.Clean+arm.Left+arm.Undone > arm.Drawn || arm.Ended > arm.Clean || arm.Undone < 0 {
							t.Fatalf("impossible counters %+v", c)
						}
						undone -= arm.Undone
					}
					for _, o := range m.openings {
						if o.Block == c.Block && (c.Treated.Drawn > o.Treat || c.Control.Drawn > o.Placebo) {
							t.Fatalf("more were drawn than opening %+v let: %+v", o, c)
						}
					}
				}
				if undone != 0 && m.f.changes.Empty() {
					t.Fatalf("%d hosts that went back are counted too little", undone)
				}
				if m.f.Outage() {
					for _, h := range m.f.changes.Harms {
						if h.Kind == holdfast.Silence && !h.At.Before(m.f.outages.from.Add(silentAfter*pace.Heartbeat)) {
							t.Fatalf("silence during an outage: %+v", h)
						}
					}
				}
			},
		})
	})
}
