package rollout

import (
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
)

// TestAStormWaitsForAPerson: rules that hosts stop by themselves pause the
// release when three have, and after a person went on, when twice as many have.
func TestAStormWaitsForAPerson(t *testing.T) {
	p, in := plain(60)
	s, as := Decide(&p, State{}, in, begin)
	in = drawn(in, admits(as))
	now := begin.Add(time.Second)
	suspending := func(n int) (stormed bool) {
		in.Suspending = []Suspending{{Org: "a", Hosts: n}}
		s, as = Decide(&p, s, in, now)
		_, stormed = find[Storm](as)
		return stormed
	}
	if suspending(2) || s.Phase != holdfast.Running {
		t.Fatalf("two hosts: %s", s.Phase)
	}
	if !suspending(3) || s.Phase != holdfast.Paused || s.Why == "" || s.Evidence[0].E != 1 {
		t.Fatalf("three hosts: %s %q, E = %g", s.Phase, s.Why, s.Evidence[0].E)
	}
	if suspending(4) || len(admits(as)) > 0 {
		t.Fatal("paused twice, or admitted while it was paused")
	}
	in.Commands = []Command{{Seq: 1, Kind: Continue, By: "ada"}}
	if suspending(4) || s.Phase != holdfast.Running {
		t.Fatalf("a person went on: %s", s.Phase)
	}
	if suspending(5) || !suspending(6) {
		t.Fatal("after a person went on, it takes twice as many")
	}
}

// TestFewStormsInALargeReleaseGoOn: hosts stop rules one by one, and only a
// share of those drawn is a storm.
func TestFewStormsInALargeReleaseGoOn(t *testing.T) {
	p, in := plain(10_000)
	s, as := Decide(&p, State{}, in, begin)
	in = drawn(in, admits(as))
	in.Cells[0].Treated = Arm{Drawn: 200, Clean: 195}
	for n, want := range map[int]holdfast.Phase{9: holdfast.Running, 10: holdfast.Paused} {
		in.Suspending = []Suspending{{Org: "a", Hosts: n}}
		if got, _ := Decide(&p, s, in, begin.Add(time.Second)); got.Phase != want {
			t.Errorf("%d of 200: %s", n, got.Phase)
		}
	}
}

// TestOneOrganisationsStormIsItsOwn: the others go on.
func TestOneOrganisationsStormIsItsOwn(t *testing.T) {
	p, in := plain(60)
	other := in.Groups[0]
	other.Org = "b"
	in.Groups = append(in.Groups, other)
	s, as := Decide(&p, State{}, in, begin)
	in = drawn(in, admits(as))
	in.Suspending = []Suspending{{Org: "a", Hosts: 5}, {Org: "b", Hosts: 1}}
	s, as = Decide(&p, s, in, begin.Add(time.Second))
	if a, ok := find[Storm](as); !ok || a.Org != "a" || s.Phase != holdfast.Running || len(s.Paused) != 1 || s.Paused[0].Org != "a" {
		t.Fatalf("%s, paused %v", s.Phase, s.Paused)
	}
}
