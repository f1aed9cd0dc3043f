package tuf

import (
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

// Roots returns the first root of each repository: what new hosts pin. NotFound
// before the first Accept.
func (o *Online) Roots() (map[string][]byte, error) {
	if _, err := o.image(); err != nil {
		return nil, err
	}
	roots := map[string][]byte{}
	files, err := ReadFiles(o.dir)
	if err != nil {
		return nil, err
	}
	for _, repo := range []string{imageRepo, directorRepo} {
		roots[repo] = files.get(repo, "root", 1)
	}
	return roots, nil
}
