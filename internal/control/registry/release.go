package registry

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast"
)

// Ask is what somebody wants released.
type Ask struct {
	Org     holdfast.OrgID // empty: DefaultOrg, whose releases are for every organisation
	Bundle  holdfast.Digest
	Profile holdfast.Profile // empty: Standard
	Note    string
}

// Release creates a release, which waits for a second person. Rings, soaks and
// the time they count from are what the publishers signed; nothing here can
// change them.
func (r *Registry) Release(ctx context.Context, a Ask, by string) (holdfast.Release, error) {
	if a.Org == "" {
		a.Org = holdfast.DefaultOrg
	}
	if a.Profile == "" {
		a.Profile = holdfast.Standard
	}
	var rel holdfast.Release
	switch {
	case by == "":
		return rel, holdfast.Errorf(holdfast.Denied, "a decision needs a name")
	case a.Profile != holdfast.Standard && a.Profile != holdfast.Urgent && a.Profile != holdfast.Emergency:
		return rel, &holdfast.Error{Kind: holdfast.Invalid, What: fmt.Sprintf("%q is not a profile", a.Profile), Where: "profile", Do: "use standard, urgent or emergency"}
	}
	bundle, err := r.Store.Bundle(ctx, a.Bundle)
	if err != nil {
		return rel, err
	}
	signed, err := r.Trust.Released(a.Bundle)
	if err != nil {
		return rel, unsigned(a.Bundle, err)
	}
	now := r.Now()
	rel = holdfast.Release{
		ID: newID(now, bundle.Channel), Org: a.Org, Bundle: bundle, Profile: a.Profile, Rings: signed.Rings, Signed: signed.Signed,
		Created: now, By: by, Note: a.Note,
	}
	if err := r.Admissible(ctx, rel); err != nil {
		return rel, err
	}
	return rel, r.Store.Tx(ctx, func(tx Tx) error {
		if err := free(ctx, tx, rel); err != nil {
			return err
		}
		if err := tx.CreateRelease(ctx, rel); err != nil {
			return err
		}
		if err := tx.CreateRollout(ctx, holdfast.Rollout{Release: rel.ID, Phase: holdfast.Waiting, Updated: now}); err != nil {
			return err
		}
		text := fmt.Sprintf("%s asks for the release of %s %s, %s", by, bundle.Channel, bundle.Version, a.Profile)
		if a.Note != "" {
			text += ": " + a.Note
		}
		_, err := tx.Append(ctx, holdfast.Entry{At: now, Kind: "release", Org: a.Org, By: by, Release: rel.ID, Bundle: bundle.Digest, Text: text})
		return err
	})
}

// free refuses a release while another of its channel is under way, and one of
// content that was recalled.
func free(ctx context.Context, tx Tx, rel holdfast.Release) error {
	releases, err := tx.Releases(ctx, "")
	if err != nil {
		return err
	}
	for _, o := range releases {
		together := o.Org == rel.Org || o.Org == holdfast.DefaultOrg || rel.Org == holdfast.DefaultOrg
		if o.ID == rel.ID || o.Bundle.Channel != rel.Bundle.Channel || !together {
			continue
		}
		ro, err := tx.Rollout(ctx, o.ID)
		if err != nil {
			return err
		}
		switch {
		case ro.Phase.Recalling() && o.Bundle.Digest == rel.Bundle.Digest:
			return &holdfast.Error{
				Kind: holdfast.Denied, What: fmt.Sprintf("this content was recalled by release %s", o.ID), Where: rel.Bundle.Digest.Short(),
				Do: "publish a corrected version, or have two people override the recall",
			}
		case !ro.Phase.Done():
			return &holdfast.Error{
				Kind: holdfast.Conflict, What: fmt.Sprintf("release %s of the same channel is %s", o.ID, ro.Phase),
				Do: "wait until it is complete, or halt it; if it only waits for hosts whose organisations delay it, finish it: holdfast rollout finish",
			}
		}
	}
	return nil
}

// Admissible reports whether a release may begin: a threshold of publishers
// signed it, as it is; every sensor build in the fleet is registered; the
// static check found nothing on them; and a signed verdict says that each of
// them ran it well. A worker binary is a build of its own: it must have been
// rehearsed by itself, and with the content that hosts run. Hosts check the
// same again.
func (r *Registry) Admissible(ctx context.Context, rel holdfast.Release) error {
	d := rel.Bundle.Digest
	signed, err := r.Trust.Released(d)
	if err != nil {
		return unsigned(d, err)
	}
	if signed.Channel != rel.Bundle.Channel || !signed.Signed.Equal(rel.Signed) || !slices.Equal(signed.Rings, rel.Rings) {
		return &holdfast.Error{Kind: holdfast.Denied, What: "the release is not what the publishers signed", Where: d.Short(), Do: "ask for a new release"}
	}
	if err := rel.Rings.Validate(); err != nil {
		return err
	}
	policy, err := r.Trust.Policy()
	if err != nil {
		return err
	}
	for _, ring := range rel.Rings {
		if !slices.Contains(policy.Rings, ring.Name) {
			return &holdfast.Error{
				Kind: holdfast.Denied, What: fmt.Sprintf("the director has no role for ring %q", ring.Name), Where: d.Short(),
				Do: fmt.Sprintf("sign the release with a plan of the rings %v", policy.Rings),
			}
		}
	}
	builds, err := r.Store.Builds(ctx)
	if err != nil {
		return err
	}
	if rel.Bundle.Channel == holdfast.Agent {
		return r.workerAdmissible(ctx, d, builds)
	}
	inUse, err := r.Store.BuildsInUse(ctx)
	if err != nil {
		return err
	}
	version := map[holdfast.Digest]string{}
	for _, b := range builds {
		version[b.Digest] = b.Manifest.Version
	}
	for _, b := range slices.Sorted(maps.Keys(inUse)) {
		if _, ok := version[b]; !ok {
			return &holdfast.Error{
				Kind: holdfast.Denied, What: fmt.Sprintf("%d hosts run sensor build %s, which is not registered", inUse[b], b.Short()),
				Where: d.Short(), Do: "register the build, and rehearse the bundle on it",
			}
		}
	}
	checks, err := r.Store.Checks(ctx, d)
	if err != nil {
		return err
	}
	// Without hosts, the registered builds are the fleet to come.
	need := slices.Sorted(maps.Keys(inUse))
	if len(need) == 0 {
		need = slices.Sorted(maps.Keys(version))
	}
	for _, b := range need {
		problems, checked := checks[b]
		if len(problems) > 0 {
			p := problems[0]
			return &holdfast.Error{
				Kind: holdfast.Denied, What: fmt.Sprintf("the static check refuses it on sensor build %s: rule %s, field %s: %s", version[b], p.Rule, p.Field, p.Reason),
				Where: p.File, Do: "correct the rule, or retire the build",
			}
		}
		if r.Check != nil && !checked && rel.Bundle.Channel == holdfast.Rules {
			return &holdfast.Error{Kind: holdfast.Denied, What: "it was not checked against sensor build " + version[b], Where: d.Short(), Do: "register the content again"}
		}
	}
	return r.rehearsed(ctx, d, need, version)
}

// workerAdmissible is Admissible for a worker binary.
func (r *Registry) workerAdmissible(ctx context.Context, worker holdfast.Digest, builds []holdfast.Build) error {
	i := slices.IndexFunc(builds, func(b holdfast.Build) bool { return b.Digest == worker })
	if i < 0 {
		return &holdfast.Error{Kind: holdfast.Denied, What: "this worker is not registered as a sensor build", Where: worker.Short(), Do: "register the build with its manifest"}
	}
	version := map[holdfast.Digest]string{worker: builds[i].Manifest.Version}
	if err := r.rehearsed(ctx, worker, []holdfast.Digest{worker}, version); err != nil {
		return err
	}
	releases, err := r.Store.Releases(ctx, "")
	if err != nil {
		return err
	}
	seen := map[holdfast.Channel]bool{holdfast.Agent: true}
	for _, o := range releases { // newest first: of each channel, what hosts run or are about to
		if seen[o.Bundle.Channel] {
			continue
		}
		ro, err := r.Store.Rollout(ctx, o.ID)
		if err != nil {
			return err
		}
		if ro.Phase.Recalling() || ro.Phase == holdfast.Waiting {
			continue
		}
		seen[o.Bundle.Channel] = ro.Phase == holdfast.Complete
		if err := r.rehearsed(ctx, o.Bundle.Digest, []holdfast.Digest{worker}, version); err != nil {
			return fmt.Errorf("%s %s, which hosts run: %w", o.Bundle.Channel, o.Bundle.Version, err)
		}
	}
	return nil
}

// rehearsed reports whether the verdict passes for every build that is needed.
func (r *Registry) rehearsed(ctx context.Context, d holdfast.Digest, need []holdfast.Digest, version map[holdfast.Digest]string) error {
	_, envelope, err := r.Store.Verdict(ctx, d)
	if holdfast.KindOf(err) == holdfast.NotFound {
		return &holdfast.Error{Kind: holdfast.Denied, What: "it was never rehearsed", Where: d.Short(), Do: "run holdfast content rehearse"}
	}
	if err != nil {
		return err
	}
	// The envelope, not the row: keys may have been revoked since.
	v, err := r.verdict(envelope, d)
	if err != nil {
		return err
	}
	if !v.Passed() {
		return &holdfast.Error{Kind: holdfast.Denied, What: "the rehearsal " + outcome(v), Where: d.Short(), Do: "correct what it names, and rehearse again"}
	}
	for _, b := range need {
		if _, ok := v.For(b); !ok {
			return &holdfast.Error{Kind: holdfast.Denied, What: fmt.Sprintf("it was not rehearsed on sensor build %s (%s)", version[b], b.Short()), Where: d.Short(), Do: "rehearse it on every build in the fleet"}
		}
	}
	return nil
}

func unsigned(d holdfast.Digest, err error) error {
	if holdfast.KindOf(err) != holdfast.NotFound {
		return err
	}
	return &holdfast.Error{Kind: holdfast.Denied, What: "the publishers have not signed it", Where: d.Short(), Do: "have a threshold of publishers sign it, and upload the metadata"}
}

// newID names a release after its day and channel, with 40 random bits.
func newID(now time.Time, c holdfast.Channel) holdfast.ReleaseID {
	return holdfast.ReleaseID(fmt.Sprintf("%s-%s-%s", c, now.UTC().Format("20060102"), strings.ToLower(rand.Text()[:8])))
}
