// Package registry keeps content and says what may be released: bundles,
// sensor builds with their manifests, the static check of each against the
// other, rehearsal verdicts, releases, and what organisations allow.
//
// Content lies in files named by digest, which any web server or CDN can
// serve. Everything here is idempotent: the same call twice is the same as
// once. Every decision is on the record, in the transaction that makes it.
package registry

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/trust/attest"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

// Store keeps the registry's rows. What f does in Tx is durable together.
type Store interface {
	Tx(ctx context.Context, f func(tx Tx) error) error
	Tx
}

// Tx is what can be done in a transaction or, each as one of its own, outside.
type Tx interface {
	// PutBuild, PutBundle, PutCheck and PutVerdict change nothing if the same
	// is stored already.
	PutBuild(ctx context.Context, b holdfast.Build, at time.Time) error
	Builds(ctx context.Context) ([]holdfast.Build, error)
	// BuildsInUse counts the hosts of each build that some host runs,
	// registered or not.
	BuildsInUse(ctx context.Context) (map[holdfast.Digest]int, error)
	PutBundle(ctx context.Context, org holdfast.OrgID, b holdfast.Bundle, by string) error
	Bundle(ctx context.Context, d holdfast.Digest) (holdfast.Bundle, error)
	Bundles(ctx context.Context, c holdfast.Channel) ([]holdfast.Bundle, error)
	PutCheck(ctx context.Context, bundle, build holdfast.Digest, problems []holdfast.RuleProblem, at time.Time) error
	Checks(ctx context.Context, bundle holdfast.Digest) (map[holdfast.Digest][]holdfast.RuleProblem, error)
	PutVerdict(ctx context.Context, v holdfast.Verdict, envelope []byte) error
	Verdict(ctx context.Context, bundle holdfast.Digest) (holdfast.Verdict, []byte, error)

	CreateRelease(ctx context.Context, r holdfast.Release) error
	Releases(ctx context.Context, org holdfast.OrgID) ([]holdfast.Release, error)
	CreateRollout(ctx context.Context, r holdfast.Rollout) error
	Rollouts(ctx context.Context, unsettled bool) ([]holdfast.Rollout, error)
	Rollout(ctx context.Context, id holdfast.ReleaseID) (holdfast.Rollout, error)

	// Consent is an organisation's policy, or NotFound; PutConsent puts one in
	// the place of an older one, or returns Conflict.
	Consent(ctx context.Context, org holdfast.OrgID) (holdfast.Consent, error)
	PutConsent(ctx context.Context, c holdfast.Consent) error

	Append(ctx context.Context, entries ...holdfast.Entry) ([]holdfast.Entry, error)
}

// Trust is what officers and publishers signed, verified.
type Trust interface {
	// Accept takes over metadata that was signed offline; Denied if it does
	// not hold.
	Accept(files tuf.Files, now time.Time) error
	// Policy is what the officers signed; NotFound before the first Accept.
	Policy() (tuf.Policy, error)
	// Released is what a threshold of publishers signed about a digest;
	// NotFound if they did not.
	Released(d holdfast.Digest) (tuf.Release, error)
}

// Check lists what a bundle's rules ask of a build that its manifest does not
// promise. It must not trust data.
type Check func(b holdfast.Bundle, data []byte, m holdfast.Manifest) []holdfast.RuleProblem

// Registry is safe for concurrent use.
type Registry struct {
	Store Store
	Files Files
	Trust Trust
	Check Check // nil: channels have no static check
	Now   func() time.Time
}

// PutBuild registers a sensor build, and checks every rules bundle against it.
func (r *Registry) PutBuild(ctx context.Context, b holdfast.Build, by string) error {
	if _, err := holdfast.ParseDigest(string(b.Digest)); err != nil {
		return err
	}
	if b.Manifest.Schema != 1 || b.Manifest.Platform == "" || b.Manifest.Version == "" {
		return &holdfast.Error{Kind: holdfast.Invalid, What: "the manifest needs schema 1, a version and a platform", Where: "build " + b.Digest.Short(), Do: "export it with holdfast-agent manifest"}
	}
	now := r.Now()
	err := r.Store.Tx(ctx, func(tx Tx) error {
		known, err := tx.Builds(ctx)
		if err != nil {
			return err
		}
		if err := tx.PutBuild(ctx, b, now); err != nil {
			return err
		}
		if slices.ContainsFunc(known, func(k holdfast.Build) bool { return k.Digest == b.Digest }) {
			return nil
		}
		_, err = tx.Append(ctx, holdfast.Entry{
			At: now, Kind: "build", Org: holdfast.DefaultOrg, By: by, Bundle: b.Digest,
			Text: fmt.Sprintf("sensor build %s for %s is registered", b.Manifest.Version, b.Manifest.Platform),
		})
		return err
	})
	if err != nil {
		return err
	}
	bundles, err := r.Store.Bundles(ctx, holdfast.Rules)
	if err != nil {
		return err
	}
	for _, bundle := range bundles {
		data, err := r.Files.Read(bundle.Digest)
		if err != nil {
			return err
		}
		if err := r.check(ctx, bundle, data, b, now); err != nil {
			return err
		}
	}
	return nil
}

// PutContent registers content under its digest and checks it against every
// build. A static problem does not refuse it: it refuses its release.
func (r *Registry) PutContent(ctx context.Context, org holdfast.OrgID, b holdfast.Bundle, data []byte, by string) error {
	switch {
	case holdfast.DigestOf(data) != b.Digest:
		return &holdfast.Error{Kind: holdfast.Invalid, What: "the content is not what its digest says", Where: b.Digest.Short(), Do: "send it again"}
	case b.Version == "" || !slices.Contains(holdfast.Channels, b.Channel):
		return &holdfast.Error{Kind: holdfast.Invalid, What: fmt.Sprintf("content needs a version and one of the channels %v", holdfast.Channels), Where: b.Digest.Short()}
	}
	b.Size = int64(len(data))
	now := r.Now()
	// The file first: a row never names content that is not there.
	if err := r.Files.Put(b.Digest, data); err != nil {
		return err
	}
	err := r.Store.Tx(ctx, func(tx Tx) error {
		known, err := tx.Bundle(ctx, b.Digest)
		switch {
		case err == nil && known.Channel != b.Channel:
			return &holdfast.Error{Kind: holdfast.Conflict, What: "this content is registered in channel " + string(known.Channel), Where: b.Digest.Short()}
		case err == nil:
			b = known
			return nil
		case holdfast.KindOf(err) != holdfast.NotFound:
			return err
		}
		if err := tx.PutBundle(ctx, org, b, by); err != nil {
			return err
		}
		_, err = tx.Append(ctx, holdfast.Entry{
			At: now, Kind: "publish", Org: org, By: by, Bundle: b.Digest,
			Text: fmt.Sprintf("%s %s is registered: %d bytes", b.Channel, b.Version, b.Size),
		})
		return err
	})
	if err != nil || b.Channel != holdfast.Rules {
		return err
	}
	builds, err := r.Store.Builds(ctx)
	if err != nil {
		return err
	}
	for _, build := range builds {
		if err := r.check(ctx, b, data, build, now); err != nil {
			return err
		}
	}
	return nil
}

func (r *Registry) check(ctx context.Context, b holdfast.Bundle, data []byte, build holdfast.Build, now time.Time) error {
	if r.Check == nil {
		return nil
	}
	return r.Store.PutCheck(ctx, b.Digest, build.Digest, r.Check(b, data, build.Manifest), now)
}

// PutVerdict registers a rehearsal verdict: an envelope signed by as many
// rehearsal keys as the officers ask for. A failing verdict is registered too.
func (r *Registry) PutVerdict(ctx context.Context, bundle holdfast.Digest, envelope []byte, by string) (holdfast.Verdict, error) {
	v, err := r.verdict(envelope, bundle)
	if err != nil {
		return v, err
	}
	now := r.Now()
	// Hosts fetch the verdict with the content.
	if err := r.Files.PutVerdict(bundle, envelope); err != nil {
		return v, err
	}
	err = r.Store.Tx(ctx, func(tx Tx) error {
		b, err := tx.Bundle(ctx, bundle)
		if err != nil {
			return err
		}
		if known, _, err := tx.Verdict(ctx, bundle); err == nil && known.Finished.Equal(v.Finished) {
			return nil
		}
		if err := tx.PutVerdict(ctx, v, envelope); err != nil {
			return err
		}
		_, err = tx.Append(ctx, holdfast.Entry{
			At: now, Kind: "verdict", Org: holdfast.DefaultOrg, By: by, Bundle: bundle,
			Text: fmt.Sprintf("rehearsal of %s %s on %d sensor builds: %s", b.Channel, b.Version, len(v.Builds), outcome(v)),
		})
		return err
	})
	return v, err
}

func (r *Registry) verdict(envelope []byte, bundle holdfast.Digest) (holdfast.Verdict, error) {
	p, err := r.Trust.Policy()
	if err != nil {
		return holdfast.Verdict{}, err
	}
	return attest.Open(envelope, p.Rehearsal, p.RehearsalThreshold, bundle)
}

func outcome(v holdfast.Verdict) string {
	for _, b := range v.Builds {
		if b.Passed {
			continue
		}
		s := "failed on " + b.Version
		if len(b.Failures) > 0 {
			f := b.Failures[0]
			s += fmt.Sprintf(", rule %s, field %s: %s", cmp.Or(f.Rule, "–"), cmp.Or(f.Field, "–"), f.Reason)
		}
		return s
	}
	return "passed"
}

// PutMetadata takes over what publishers and officers signed offline.
func (r *Registry) PutMetadata(ctx context.Context, files tuf.Files, by string) error {
	now := r.Now()
	if err := r.Trust.Accept(files, now); err != nil {
		return err
	}
	_, err := r.Store.Append(ctx, holdfast.Entry{At: now, Kind: "metadata", Org: holdfast.DefaultOrg, By: by, Text: fmt.Sprintf("%d files of signed metadata were accepted", len(files))})
	return err
}
