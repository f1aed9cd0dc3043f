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
	mu      sync.Mutex
	sources map[netip.Prefix]bucket
}

type bucket struct {
	debt float64 // failures not yet forgiven
	at   time.Time
}

const (
	patience  = 10
	forgive   = 6 * time.Second // one failure
	maxSource = 10_000
)

func newLimit() *limit { return &limit{sources: map[netip.Prefix]bucket{}} }

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

func (b bucket) debtAt(now time.Time) float64 {
	return max(0, b.debt-float64(now.Sub(b.at))/float64(forgive))
}

// wait returns how long a source has to wait before its next attempt.
func (l *limit) wait(from netip.Prefix, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	over := l.sources[from].debtAt(now) - (patience - 1)
	return max(0, time.Duration(over*float64(forgive)))
}

// failed books one failure. When too many sources fail at once the forgiven
// ones are forgotten first; if none is, the newcomer is not remembered, which
// bounds memory at the price of its patience starting anew.
func (l *limit) failed(from netip.Prefix, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old, known := l.sources[from]
	if !known && len(l.sources) >= maxSource {
		for p, b := range l.sources {
			if b.debtAt(now) == 0 {
				delete(l.sources, p)
			}
		}
		if len(l.sources) >= maxSource {
			return
		}
	}
	l.sources[from] = bucket{debt: old.debtAt(now) + 1, at: now}
}
