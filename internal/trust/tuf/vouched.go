package tuf

import (
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/holdfast-security/holdfast"
)

var errNothingAccepted = &holdfast.Error{
	Kind: holdfast.NotFound, What: "no trust metadata has been published here yet", Do: "publish it from the publishers' desk: holdfast trust publish",
}

// image returns the image repository as accepted. Its metadata is replaced, never
// changed, so it may be read after the lock is gone.
func (o *Online) image() (*stamped, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if st := o.repos[imageRepo]; st != nil {
		return st, nil
	}
	return nil, errNothingAccepted
}

// Policy returns what the officers signed; NotFound before the first Accept.
func (o *Online) Policy() (p Policy, err error) {
	st, err := o.image()
	if err != nil {
		return p, err
	}
	_, err = custom(st.targets, policyTarget, &p)
	return p, err
}

// Released returns what a threshold of publishers signed about a digest;
// NotFound if they did not.
func (o *Online) Released(d holdfast.Digest) (Release, error) {
	st, err := o.image()
	if err != nil {
		return Release{}, err
	}
	for role, m := range st.roles {
		all, _, err := releases(m, holdfast.Channel(role))
		if err != nil {
			return Release{}, err
		}
		for _, r := range all {
			if r.Digest == d {
				return r, nil
			}
		}
	}
	return Release{}, &holdfast.Error{Kind: holdfast.NotFound, What: "the publishers did not sign this content", Where: d.Short(), Do: "sign it at the desk, and publish: holdfast trust publish"}
}

// Roots returns the newest root of each repository, by its name: what new hosts
// pin, so that a key which the officers have revoked means nothing to them.
// NotFound before the first Accept.
func (o *Online) Roots() (map[string][]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	roots := map[string][]byte{}
	for repo, st := range o.repos {
		roots[repo] = st.offline.get(repo, metadata.ROOT, st.root.Signed.Version)
	}
	if len(roots) == 0 {
		return nil, errNothingAccepted
	}
	return roots, nil
}
