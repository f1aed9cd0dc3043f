package enrol

import (
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestSources(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.7:1234":          "192.0.2.7/32",
		"[::ffff:192.0.2.7]:1234": "192.0.2.7/32",
		"[2001:db8:1:2:3::4]:99":  "2001:db8:1:2::/64",
		"@":                       "invalid Prefix",
	} {
		if got := sourceOf(remote); got.String() != want {
			t.Errorf("%s: %s, want %s", remote, got, want)
		}
	}
}

// However a source times its attempts, it fails at most patience times plus
// once per forgive.
func TestGuessingIsSlow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLimit()
		from := netip.MustParsePrefix("192.0.2.1/32")
		start := time.Unix(1e9, 0)
		now, failures := start, 0
		for range rapid.IntRange(0, 400).Draw(t, "attempts") {
			now = now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(t, "pause")) * time.Millisecond)
			if l.wait(from, now) == 0 {
				failures++
				l.failed(from, now)
			}
		}
		if most := patience + int(now.Sub(start)/forgive) + 1; failures > most {
			t.Fatalf("%d failures in %v; at most %d", failures, now.Sub(start), most)
		}
		if wait := l.wait(from, now); l.wait(from, now.Add(wait)) != 0 {
			t.Fatal("after the wait it was told, it still has to wait")
		}
		if l.wait(netip.MustParsePrefix("192.0.2.2/32"), now) != 0 {
			t.Fatal("another source has to wait too")
		}
	})
}

func TestManySourcesDoNotFillMemory(t *testing.T) {
	l := newLimit()
	now := time.Unix(1e9, 0)
	for i := range 3 * maxSource {
		now = now.Add(time.Millisecond)
		l.failed(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32), now)
	}
	if len(l.sources) > maxSource {
		t.Errorf("%d sources are remembered", len(l.sources))
	}
}
