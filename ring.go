package holdfast

import (
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// Ring is one step of a release's way through the fleet.
type Ring struct {
	Name string `json:"name"`
	// Through is the cumulative share of the fleet, in parts per million, that
	// this ring and those before it hold.
	Through uint32 `json:"through_ppm"`
	// Soak is how long after the publishers' signature a host of this ring must
	// wait. Only the publishers can shorten it.
	Soak time.Duration `json:"soak_ns"`
}

// RingPlan is the ordered list of rings the publishers signed with a release.
type RingPlan []Ring

const ringScale = 1_000_000

// DefaultRings is the plan used when a release names none: one in a hundred
// hosts first, then one in ten, then everybody.
var DefaultRings = RingPlan{
	{Name: "internal", Through: 10_000},
	{Name: "early", Through: 100_000, Soak: time.Hour},
	{Name: "general", Through: ringScale, Soak: 4 * time.Hour},
}

// Validate reports the first thing wrong with the plan: names must be present
// and distinct, shares must grow and end at the whole fleet, and soaks must
// not shrink.
func (p RingPlan) Validate() error {
	bad := func(what string) error {
		return &Error{Kind: Invalid, What: what, Where: "ring plan"}
	}
	if len(p) == 0 {
		return bad("has no rings")
	}
	if len(p) > 16 {
		return bad("has more than 16 rings")
	}
	seen := map[string]bool{}
	var last Ring
	for _, r := range p {
		switch {
		case r.Name == "" || seen[r.Name]:
			return bad("every ring needs a name of its own, and " + r.Name + " is empty or used twice")
		case r.Through <= last.Through || r.Through > ringScale:
			return bad("ring " + r.Name + ": cumulative shares must grow, up to 1,000,000 ppm")
		case r.Soak < last.Soak || r.Soak < 0:
			return bad("ring " + r.Name + ": a later ring cannot soak for less time than an earlier one")
		}
		seen[r.Name], last = true, r
	}
	if last.Through != ringScale {
		return bad("the last ring must reach 1,000,000 ppm, or some hosts would never be updated")
	}
	return nil
}

// Of returns the index of the ring that host id is in. It depends only on the
// id and the publishers' fractions, so that a host derives it for itself and a
// server can move nobody earlier.
func (p RingPlan) Of(id HostID) int {
	sum := sha256.Sum256([]byte("holdfast ring v1\n" + string(id)))
	position := uint32(binary.BigEndian.Uint64(sum[:8]) % ringScale)
	for i, r := range p {
		if position < r.Through {
			return i
		}
	}
	return len(p) - 1
}

// Opens returns the moment from which ring i may activate content that the
// publishers signed at signed.
func (p RingPlan) Opens(i int, signed time.Time) time.Time { return signed.Add(p[i].Soak) }
