package tuf

import (
	"crypto/ed25519"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/holdfast-security/holdfast"
)

// Change is one thing to change about what is signed offline.
type Change func(*draft) error

// draft is the metadata being changed. touched names the roles ("image/rules")
// that get a new version without signatures.
type draft struct {
	image, director *signed
	now             time.Time
	touched         map[string]bool
}

// Changes makes one change of several; the first that fails decides.
func Changes(all ...Change) Change {
	return func(d *draft) error {
		for _, c := range all {
			if err := c(d); err != nil {
				return err
			}
		}
		return nil
	}
}

// NewRelease is a release before anybody signed it.
type NewRelease struct {
	Channel holdfast.Channel
	Digest  holdfast.Digest
	Size    int64
	Version string
	Rings   holdfast.RingPlan // empty means holdfast.DefaultRings
	// Critical: customers may delay it by MostDelay of package consent at
	// most, and not pause it.
	Critical bool
}

// AddRelease adds a release, signed as of the time of Stage. Of a channel's
// releases only the newest few hundred are kept.
func AddRelease(n NewRelease) Change {
	return func(d *draft) error {
		m, err := d.channel(n.Channel)
		if err != nil {
			return err
		}
		if _, err := holdfast.ParseDigest(string(n.Digest)); err != nil {
			return err
		}
		if len(n.Rings) == 0 {
			n.Rings = holdfast.DefaultRings
		}
		if err := n.Rings.Validate(); err != nil {
			return err
		}
		policy, err := d.policy()
		if err != nil {
			return err
		}
		for _, r := range n.Rings {
			if !slices.Contains(policy.Rings, r.Name) {
				return &holdfast.Error{Kind: holdfast.Invalid, What: "the director has no ring " + r.Name, Where: "ring plan", Do: "use the rings of the ceremony: " + strings.Join(policy.Rings, ", ")}
			}
		}
		path := targetPath(n.Channel, n.Digest)
		if n.Size < 1 || n.Size > 1<<40 {
			return &holdfast.Error{Kind: holdfast.Invalid, What: fmt.Sprintf("a size of %d bytes cannot be", n.Size), Where: path}
		}
		if _, ok := m.Signed.Targets[path]; ok {
			return &holdfast.Error{Kind: holdfast.Conflict, What: "this content is released already", Where: path, Do: "to let hosts try it again, sign a retry"}
		}
		all, _, err := releases(m, n.Channel)
		if err != nil {
			return err
		}
		r := Release{Channel: n.Channel, Digest: n.Digest, Size: n.Size, Version: n.Version, Sequence: 1, Rings: n.Rings, Signed: d.now, Domain: policy.Domain, Critical: n.Critical}
		if len(all) > 0 {
			r.Sequence = all[len(all)-1].Sequence + 1
		}
		for ; len(all) >= maxLive; all = all[1:] {
			delete(m.Signed.Targets, targetPath(all[0].Channel, all[0].Digest))
		}
		return putRelease(m, r)
	}
}

// AllowRetry lets every host that shuns digest try it once more.
func AllowRetry(c holdfast.Channel, digest holdfast.Digest) Change {
	return amend(c, digest, func(r *Release) { r.Retry++ })
}

// MarkFinal says that hosts which run digest need not keep what ran before it.
func MarkFinal(c holdfast.Channel, digest holdfast.Digest) Change {
	return amend(c, digest, func(r *Release) { r.Final = true })
}

func amend(c holdfast.Channel, digest holdfast.Digest, f func(*Release)) Change {
	return func(d *draft) error {
		m, err := d.channel(c)
		if err != nil {
			return err
		}
		path := targetPath(c, digest)
		if m.Signed.Targets[path] == nil {
			return &holdfast.Error{Kind: holdfast.NotFound, What: "no such release", Where: path}
		}
		r, err := release(m, c, path)
		if err != nil {
			return err
		}
		f(&r)
		return putRelease(m, r)
	}
}

// Remove takes a release out of the image repository. Hosts that run it keep it,
// unless the director returns them.
func Remove(c holdfast.Channel, digest holdfast.Digest) Change {
	return func(d *draft) error {
		m, err := d.channel(c)
		if err != nil {
			return err
		}
		path := targetPath(c, digest)
		if m.Signed.Targets[path] == nil {
			return &holdfast.Error{Kind: holdfast.NotFound, What: "no such release", Where: path}
		}
		delete(m.Signed.Targets, path)
		return nil
	}
}

// SetMinimum makes releases of the channel below sequence unfit to run, whatever
// a server says. It can only be raised.
func SetMinimum(c holdfast.Channel, sequence int64) Change {
	return func(d *draft) error {
		m, err := d.channel(c)
		if err != nil {
			return err
		}
		all, least, err := releases(m, c)
		if err != nil {
			return err
		}
		if sequence <= least || len(all) == 0 || sequence > all[len(all)-1].Sequence {
			return &holdfast.Error{Kind: holdfast.Invalid, What: fmt.Sprintf("the minimum of %s is %d and can only be raised, up to its newest release", c, least), Where: fmt.Sprintf("minimum %d", sequence)}
		}
		return setCustom(m, string(c)+"/"+minimumTarget, minimum{Sequence: sequence})
	}
}

// SetRehearsal names the keys that sign verdicts, and how many must.
func SetRehearsal(threshold int, keys ...ed25519.PublicKey) Change {
	return func(d *draft) error {
		if threshold < 1 || threshold > len(keys) {
			return holdfast.Errorf(holdfast.Invalid, "%d of %d rehearsal keys cannot be a threshold", threshold, len(keys))
		}
		p, err := d.policy()
		if err != nil {
			return err
		}
		p.Rehearsal, p.RehearsalThreshold = keys, threshold
		d.touched[imageRepo+"/"+metadata.TARGETS] = true
		return setCustom(d.image.targets, policyTarget, p)
	}
}

// Renew signs a role's metadata again with new expiry: "image/targets",
// "image/rules", "director/targets" or, for both roots, "root".
func Renew(role string) Change {
	return func(d *draft) error {
		switch {
		case role == metadata.ROOT:
			d.touched[imageRepo+"/"+role], d.touched[directorRepo+"/"+role] = true, true
		case role == imageRepo+"/"+metadata.TARGETS, role == directorRepo+"/"+metadata.TARGETS, strings.HasPrefix(role, imageRepo+"/") && d.image.roles[role[len(imageRepo)+1:]] != nil:
			d.touched[role] = true
		default:
			return &holdfast.Error{Kind: holdfast.NotFound, What: "no such role", Where: role}
		}
		return nil
	}
}

// Whose keys ReplaceKey replaces.
const (
	Officers       = "root"       // of both roots, the policy and all delegations
	Publishers     = "publisher"  // of every channel
	ImageOnline    = imageRepo    // snapshot and timestamp of the image repository
	DirectorOnline = directorRepo // the same of the director
)

// ReplaceKey revokes a key by identifier and puts another in its place. Either may
// be left out, but not both, and never so that a threshold cannot be met. holder
// is Officers, Publishers, ImageOnline, DirectorOnline, or a ring's role
// ("ring-early").
//
// What the revoked key signed is signed again in the same change: its signature
// stops counting everywhere at once.
func ReplaceKey(holder, revoke string, add ed25519.PublicKey) Change {
	return func(d *draft) error {
		if revoke == "" && add == nil {
			return holdfast.Errorf(holdfast.Invalid, "name a key to revoke, one to add, or both")
		}
		switch {
		case holder == Officers:
			for _, s := range []*signed{d.image, d.director} {
				for _, role := range []string{metadata.ROOT, metadata.TARGETS} {
					if err := replaceInRoot(s.root, role, revoke, add); err != nil {
						return err
					}
					d.touched[s.repo+"/"+role] = true
				}
			}
			return nil
		case holder == Publishers:
			for _, name := range slices.Sorted(maps.Keys(d.image.roles)) {
				if err := replaceDelegated(d.image.targets, name, revoke, add); err != nil {
					return err
				}
				d.touched[imageRepo+"/"+name] = true
			}
			d.touched[imageRepo+"/"+metadata.TARGETS] = true
			return nil
		case holder == imageRepo || holder == directorRepo:
			s := d.image
			if holder == directorRepo {
				s = d.director
			}
			for _, role := range []string{metadata.SNAPSHOT, metadata.TIMESTAMP} {
				if err := replaceInRoot(s.root, role, revoke, add); err != nil {
					return err
				}
			}
			d.touched[holder+"/"+metadata.ROOT] = true
			return nil
		default:
			d.touched[directorRepo+"/"+metadata.TARGETS] = true
			return replaceDelegated(d.director.targets, holder, revoke, add)
		}
	}
}

func replaceInRoot(root *rootMeta, role, revoke string, add ed25519.PublicKey) error {
	if add != nil {
		if err := root.Signed.AddKey(tufKey(add).Key, role); err != nil {
			return err
		}
	}
	if revoke != "" {
		if err := root.Signed.RevokeKey(revoke, role); err != nil {
			return noSuchKey(revoke, role)
		}
	}
	r := root.Signed.Roles[role]
	return enough(len(r.KeyIDs), r.Threshold, role)
}

func replaceDelegated(m *targetsMeta, role, revoke string, add ed25519.PublicKey) error {
	i := slices.IndexFunc(m.Signed.Delegations.Roles, func(r metadata.DelegatedRole) bool { return r.Name == role })
	if i < 0 {
		return &holdfast.Error{Kind: holdfast.NotFound, What: "nobody is called that", Where: role}
	}
	if add != nil {
		if err := m.Signed.AddKey(tufKey(add).Key, role); err != nil {
			return err
		}
	}
	if revoke != "" {
		if err := m.Signed.RevokeKey(revoke, role); err != nil {
			return noSuchKey(revoke, role)
		}
	}
	r := m.Signed.Delegations.Roles[i]
	return enough(len(r.KeyIDs), r.Threshold, role)
}

func noSuchKey(id, role string) error {
	return &holdfast.Error{Kind: holdfast.NotFound, What: fmt.Sprintf("%.12s is not a key of %s", id, role), Do: "name the whole identifier, as the pending list and the metadata show it"}
}

func enough(n, threshold int, role string) error {
	if n < threshold {
		return &holdfast.Error{Kind: holdfast.Invalid, What: fmt.Sprintf("%s would have %d keys for a threshold of %d", role, n, threshold), Do: "add a key in the same change"}
	}
	return nil
}

func (d *draft) channel(c holdfast.Channel) (*targetsMeta, error) {
	m := d.image.roles[string(c)]
	if m == nil {
		return nil, &holdfast.Error{Kind: holdfast.NotFound, What: fmt.Sprintf("no channel %q has publishers", c), Do: "use one of the ceremony's channels"}
	}
	d.touched[imageRepo+"/"+string(c)] = true
	return m, nil
}

func (d *draft) policy() (Policy, error) {
	var p Policy
	ok, err := custom(d.image.targets, policyTarget, &p)
	if err == nil && !ok {
		err = &holdfast.Error{Kind: holdfast.Invalid, What: "the image repository has no policy", Where: policyTarget}
	}
	return p, err
}

func putRelease(m *targetsMeta, r Release) error {
	sum := make([]byte, 0, 32)
	if _, err := fmt.Sscanf(r.Digest.Hex(), "%x", &sum); err != nil {
		return err
	}
	t := metadata.TargetFile()
	t.Length, t.Hashes = r.Size, metadata.Hashes{"sha256": sum}
	return putTarget(m, targetPath(r.Channel, r.Digest), t, r)
}

// encode gives every touched role its next version and a new expiry, without
// signatures.
func (d *draft) encode() (Files, error) {
	files := Files{}
	if len(d.touched) == 0 {
		return nil, holdfast.Errorf(holdfast.Invalid, "nothing to change")
	}
	for _, s := range []*signed{d.image, d.director} {
		if d.touched[s.repo+"/"+metadata.ROOT] {
			s.root.ClearSignatures()
			s.root.Signed.Version, s.root.Signed.Expires = s.root.Signed.Version+1, d.now.Add(officerLifetime)
			if err := encode(s.root, s.repo, metadata.ROOT, files); err != nil {
				return nil, err
			}
		}
		if err := d.bump(s, metadata.TARGETS, s.targets, officerLifetime, files); err != nil {
			return nil, err
		}
		for name, m := range s.roles {
			if err := d.bump(s, name, m, channelLifetime, files); err != nil {
				return nil, err
			}
		}
	}
	return files, nil
}

func (d *draft) bump(s *signed, role string, m *targetsMeta, lifetime time.Duration, files Files) error {
	if !d.touched[s.repo+"/"+role] {
		return nil
	}
	m.ClearSignatures()
	m.Signed.Version, m.Signed.Expires = m.Signed.Version+1, d.now.Add(lifetime)
	return encode(m, s.repo, role, files)
}
