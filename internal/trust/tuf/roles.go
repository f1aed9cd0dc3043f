package tuf

import (
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Role is one role that is signed offline: who may sign, and until when what
// they signed counts.
type Role struct {
	Name      string    `json:"name"` // as Renew takes it: "image/rules"; "image/root"
	Expires   time.Time `json:"expires"`
	Threshold int       `json:"threshold"`
	Keys      []string  `json:"keys"` // identifiers, see KeyID
}

// Roles lists the roles in force, and the director's rings, which are signed
// online and have no expiry here.
func (d *Desk) Roles() ([]Role, error) {
	live, err := d.live()
	if err != nil {
		return nil, err
	}
	var all []Role
	for _, repo := range []string{imageRepo, directorRepo} {
		s := live[repo]
		add := func(name string, keys []string, threshold int, expires time.Time) {
			all = append(all, Role{Name: repo + "/" + name, Expires: expires, Threshold: threshold, Keys: keys})
		}
		root := s.root.Signed.Roles
		add(metadata.ROOT, root[metadata.ROOT].KeyIDs, root[metadata.ROOT].Threshold, s.root.Signed.Expires)
		add(metadata.TARGETS, root[metadata.TARGETS].KeyIDs, root[metadata.TARGETS].Threshold, s.targets.Signed.Expires)
		for _, r := range s.targets.Signed.Delegations.Roles {
			var expires time.Time
			if m := s.roles[r.Name]; m != nil {
				expires = m.Signed.Expires
			}
			add(r.Name, r.KeyIDs, r.Threshold, expires)
		}
	}
	return all, nil
}
