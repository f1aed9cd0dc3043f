package loader

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/consent"
	"github.com/holdfast-security/holdfast/internal/trust/attest"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

// Facts is all that Check decides from.
type Facts struct {
	Host    holdfast.HostID
	Domain  tuf.Domain
	Build   holdfast.Digest // the worker binary that runs
	State   State
	View    *tuf.View
	Channel holdfast.Channel
	Digest  holdfast.Digest // the candidate
	// MaxBytes bounds the content, whatever was signed.
	MaxBytes int64
	// Verdicts holds envelopes by the bundle that they are about. What is missing
	// is a reason to refuse.
	Verdicts map[holdfast.Digest][]byte
	// Consent is what the host's organisation decided, nil if nothing;
	// Attributes say which of its groups the host is in.
	Consent    *consent.Policy
	Attributes holdfast.Attributes
}

// Proof is one pair that must have been rehearsed together.
type Proof struct{ Bundle, Build holdfast.Digest }

// Proofs lists what must have been rehearsed before the candidate may run here:
// content on the worker that runs; a worker by itself, and with the content that
// it would find.
func (f Facts) Proofs() []Proof {
	if f.Channel != holdfast.Agent {
		return []Proof{{f.Digest, f.Build}}
	}
	proofs := []Proof{{f.Digest, f.Digest}}
	for _, c := range holdfast.Channels {
		if d := f.State.Current[c]; d != "" && c != holdfast.Agent {
			proofs = append(proofs, Proof{d, f.Digest})
		}
	}
	return proofs
}

// Check decides whether the candidate may be activated now: Propose, Wait, Refuse
// or Nothing. It is pure. The checks go from what cannot be cured to what time or
// the next download may cure; a missing verdict is found last, so that it is only
// fetched for content that passes everything else.
func Check(f Facts, now time.Time) Decision {
	d := Decision{Action: Refuse, Channel: f.Channel, Digest: f.Digest}
	refuse := func(c Cause, format string, args ...any) Decision {
		d.Cause, d.Reason = c, fmt.Sprintf(format, args...)
		return d
	}
	if !slices.Contains(holdfast.Channels, f.Channel) {
		return refuse(WrongTarget, "this version knows no channel %q", f.Channel)
	}
	if f.State.Current[f.Channel] == f.Digest {
		d.Action, d.Reason = Nothing, "it runs already"
		return d
	}
	if slices.Contains(f.State.Shunned, f.Digest) {
		return refuse(Shunned, "this host shuns %s: it failed here before, or was recalled", f.Digest.Short())
	}
	r, ok := f.View.Releases[f.Digest]
	if !ok {
		return refuse(Unsigned, "the publishers have signed no content %s", f.Digest.Short())
	}
	ring := f.ring(r)
	switch {
	case r.Channel != f.Channel:
		return refuse(WrongTarget, "%s is signed for channel %s, not for %s", f.Digest.Short(), r.Channel, f.Channel)
	case r.Domain != f.Domain || f.View.Policy.Domain != f.Domain:
		return refuse(WrongDomain, "%s is signed for domain %s, and this host is of %s", f.Digest.Short(), r.Domain, f.Domain)
	case r.Sequence < f.View.Minimum[r.Channel]:
		return refuse(TooOld, "%s %s is number %d; the publishers' minimum is %d", r.Channel, r.Version, r.Sequence, f.View.Minimum[r.Channel])
	case r.Size > f.MaxBytes:
		return refuse(TooLarge, "%s %s is %d bytes; this host loads at most %d", r.Channel, r.Version, r.Size, f.MaxBytes)
	case !f.approved(r):
		// The director's word may be a moment behind the offer, in what this
		// host has read; for how long to wait is the lease's to say.
		d.Action = Wait
		return refuse(NotApproved, "the director does not approve %s %s for ring %s, which this host is in", r.Channel, r.Version, ring.Name)
	}
	if !now.Before(f.View.Expires) {
		d.Action = Wait
		return refuse(BadMetadata, "the metadata expired at %s", f.View.Expires.Format(time.RFC3339))
	}
	if opens := r.Signed.Add(ring.Soak); now.Before(opens) {
		d.Action, d.Until = Wait, opens
		return refuse(Soaking, "ring %s may have %s %s from %s on", ring.Name, r.Channel, r.Version, opens.Format(time.RFC3339))
	}
	if a := f.allowed(r, now); !a.Allows(now) {
		if a.Never {
			return refuse(Forbidden, "organisation %s does not allow %s %s here: %s (its policy, version %d)", f.Consent.Org, r.Channel, r.Version, a.Why, f.Consent.Version)
		}
		d.Action, d.Until = Wait, a.From
		return refuse(Forbidden, "organisation %s allows %s %s here from %s on: %s (its policy, version %d)",
			f.Consent.Org, r.Channel, r.Version, a.From.UTC().Format(time.RFC3339), a.Why, f.Consent.Version)
	}
	for _, p := range f.Proofs() {
		if err := f.prove(p); err != nil {
			return refuse(NoVerdict, "%v", err)
		}
	}
	d.Action = Propose
	return d
}

// ring is where the host stands in a release's plan, by its own reckoning.
func (f Facts) ring(r tuf.Release) holdfast.Ring { return r.Rings[r.Rings.Of(f.Host)] }

// allowed is what the host's organisation says about r.
func (f Facts) allowed(r tuf.Release, now time.Time) consent.Answer {
	if f.Consent == nil {
		return consent.Answer{}
	}
	newest := true // of what the host could have
	for _, o := range f.View.Releases {
		newest = newest && (o.Channel != r.Channel || o.Sequence <= r.Sequence || !f.approved(o))
	}
	last := len(r.Rings) - 1
	return f.Consent.Ask(f.Host, &f.Attributes, consent.Release{
		Channel: r.Channel, Version: r.Version, Critical: r.Critical, Signed: r.Signed,
		Opens: r.Signed.Add(f.ring(r).Soak), General: r.Rings.Opens(last, r.Signed), Newest: newest,
	}, now)
}

// approved reports whether the director approves r for the host's ring.
func (f Facts) approved(r tuf.Release) bool {
	return slices.ContainsFunc(f.View.Approvals[f.ring(r).Name], func(a tuf.Approval) bool {
		return a.Channel == r.Channel && a.Digest == r.Digest
	})
}

func (f Facts) prove(p Proof) error {
	env, ok := f.Verdicts[p.Bundle]
	if !ok {
		return errors.New("no rehearsal verdict on " + p.Bundle.Short())
	}
	var keys []ed25519.PublicKey = f.View.Policy.Rehearsal
	_, err := attest.Verify(env, keys, f.View.Policy.RehearsalThreshold, p.Bundle, p.Build)
	return err
}

// Return decides what a host does whose running content d the server wants back,
// or the director no longer approves. It is pure; remembered is what was signed
// about d when it was activated, for the case that the image repository has
// dropped it.
//
// A return goes back, never forward: new content only ever comes by an offer, at
// the rollout's pace. It goes to the guard's own previous content if that is
// approved, else to the newest approved content that is older than d. Nothing at
// all is a way back only if there never was anything before: so whoever holds the
// server cannot strip hosts by approving nothing. Nobody's consent is asked: a
// host that is paused or pinned gives back what was recalled like any other.
func Return(f Facts, remembered *tuf.Release, now time.Time) Decision {
	f.Consent = nil
	d := Decision{Action: Refuse, Channel: f.Channel, From: f.State.Current[f.Channel]}
	r, ok := f.View.Releases[d.From]
	if !ok && remembered != nil {
		r, ok = *remembered, true
	}
	if !ok || r.Channel != f.Channel {
		d.Cause, d.Reason = NoWayBack, fmt.Sprintf("%s did not come by this road", d.From.Short())
		return d
	}
	before := f.State.Previous[f.Channel]
	if b, ok := f.View.Releases[before]; ok && before != d.From && f.fit(b) {
		d.Action, d.Cause, d.Digest = Recall, Unapproved, before
		d.Reason = fmt.Sprintf("%s %s is recalled; back to %s", r.Channel, r.Version, b.Version)
		return d
	}
	var best tuf.Release
	first := true // no release of this channel is older than d
	for _, o := range f.View.Releases {
		if o.Channel != f.Channel || o.Sequence >= r.Sequence {
			continue
		}
		first = false
		if o.Sequence > best.Sequence && f.fit(o) {
			best = o
		}
	}
	if best.Sequence > 0 {
		f.Digest = best.Digest
		c := Check(f, now)
		c.From = d.From
		if c.Action == Propose {
			c.Cause, c.Reason = Unapproved, fmt.Sprintf("%s %s is recalled; %s is approved instead", r.Channel, r.Version, best.Version)
		}
		return c
	}
	if before == "" && first && !r.Final {
		d.Action, d.Cause = Recall, Unapproved
		d.Reason = fmt.Sprintf("%s %s is recalled, and nothing was before it", r.Channel, r.Version)
		return d
	}
	d.Cause, d.Reason = NoWayBack, fmt.Sprintf("%s %s is no longer approved, but neither is anything older: it stays", r.Channel, r.Version)
	return d
}

// fit reports whether r may be gone back to.
func (f Facts) fit(r tuf.Release) bool {
	return r.Channel == f.Channel && r.Domain == f.Domain && r.Sequence >= f.View.Minimum[r.Channel] &&
		f.approved(r) && !slices.Contains(f.State.Shunned, r.Digest)
}

// refusal turns an error of a refresh into a decision.
func refusal(d Decision, err error) Decision {
	d.Action, d.Cause, d.Reason = Refuse, BadMetadata, err.Error()
	switch {
	case errors.Is(err, tuf.ErrDomain):
		d.Cause = WrongDomain
	case holdfast.KindOf(err) == holdfast.Unavailable:
		d.Action, d.Cause = Wait, Unreachable
	}
	return d
}
