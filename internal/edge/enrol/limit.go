package enrol

import (
	"net/netip"
	"sync"
	"time"
)

// limit slows down whoever fails: each source may fail ten times in a row, and
// then once every six seconds. Success costs nothing, so that a fleet
// behind one address can enrol as fast as it likes.
type limit struct {
	mu sync.Mutex
	// sources holds for each the moment when its failures are all forgiven.
	sources map[netip.Prefix]time.Time
}

const (
	patience  = 10
	forgive   = 6 * time.Second // one failure
	maxSource = 10_000
)

func newLimit() *limit { return &limit{sources: map[netip.Prefix]time.Time{}} }

// sourceOf returns what one attacker is assumed to hold: an IPv4 address, or
// an IPv6 network of 64 bits.
func sourceOf(remote string) netip.Prefix {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	addr, bits := ap.Addr().Unmap(), 32
	if addr.Is6() {
		bits = 64
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// wait returns how long a source has to wait before its next attempt.
func (l *limit) wait(from netip.Prefix, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(0, later(l.sources[from], now).Sub(now)-(patience-1)*forgive)
}

// failed books one failure. When too many sources fail at once the forgiven
// ones are forgotten first; if none is, the newcomer is not remembered, which
// bounds memory at the price of its patience starting anew.
func (l *limit) failed(from netip.Prefix, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	until, known := l.sources[from]
	if !known && len(l.sources) >= maxSource {
		for p, t := range l.sources {
			if !now.Before(t) {
				delete(l.sources, p)
			}
		}
		if len(l.sources) >= maxSource {
			return
		}
	}
	l.sources[from] = later(until, now).Add(forgive)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
