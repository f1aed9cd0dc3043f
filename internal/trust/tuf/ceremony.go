package tuf

import (
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/holdfast-security/holdfast"
)

// How long offline signatures are good for. A channel's role is signed again with
// each release; when it runs out, hosts keep what they have and take nothing new.
const (
	officerLifetime = 365 * 24 * time.Hour
	channelLifetime = 180 * 24 * time.Hour
)

// Ceremony is what a new trust root is made of. Zero fields take the value in
// parentheses.
type Ceremony struct {
	Domain Domain // required
	// Officers hold the root keys, OfficerThreshold of which (as many as
	// Threshold) sign both roots, the policy, and who the publishers are.
	// (as many as Publishers)
	Officers         int
	OfficerThreshold int
	// Publishers hold the keys that sign content; Threshold of them must. (3, 2)
	Publishers int
	Threshold  int
	// Rehearsals is the number of rehearsal keys, RehearsalThreshold of which
	// sign a verdict. (1, 1)
	Rehearsals         int
	RehearsalThreshold int
	Rings              []string           // (those of holdfast.DefaultRings)
	Channels           []holdfast.Channel // (holdfast.Channels)
	// Keys is the directory that the private keys are written to, each in a file
	// of its own with mode 0600: root-N, publisher-N, rehearsal-N, and below
	// online/ image, director and ring-NAME. Move each to whom it belongs.
	Keys string
}

func (c Ceremony) withDefaults() (Ceremony, error) {
	def := func(n *int, v int) {
		if *n == 0 {
			*n = v
		}
	}
	def(&c.Publishers, 3)
	def(&c.Threshold, min(2, c.Publishers))
	def(&c.Officers, c.Publishers)
	def(&c.OfficerThreshold, min(c.Threshold, c.Officers))
	def(&c.Rehearsals, 1)
	def(&c.RehearsalThreshold, 1)
	if len(c.Rings) == 0 {
		for _, r := range holdfast.DefaultRings {
			c.Rings = append(c.Rings, r.Name)
		}
	}
	if len(c.Channels) == 0 {
		c.Channels = holdfast.Channels
	}
	bad := func(what, where string) error {
		return &holdfast.Error{Kind: holdfast.Invalid, What: what, Where: where}
	}
	if c.Domain != Production && c.Domain != Drill {
		return c, bad(`a trust domain is "production" or "drill"`, "domain")
	}
	if c.Keys == "" {
		return c, bad("name the directory that the private keys go to", "keys")
	}
	for _, p := range []struct {
		who  string
		n, k int
	}{{"officers", c.Officers, c.OfficerThreshold}, {"publishers", c.Publishers, c.Threshold}, {"rehearsal keys", c.Rehearsals, c.RehearsalThreshold}} {
		if p.k < 1 || p.k > p.n || p.n > 32 {
			return c, bad(fmt.Sprintf("%d of %d %s cannot be a threshold", p.k, p.n, p.who), "threshold")
		}
	}
	for i, r := range c.Rings {
		if r == "" || strings.Trim(r, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || slices.Contains(c.Rings[:i], r) {
			return c, bad("ring names are distinct, of lower-case letters, digits and hyphens", "ring "+r)
		}
	}
	return c, nil
}

// ringRole is the director's role for a ring.
func ringRole(ring string) string { return "ring-" + ring }

// Init holds the ceremony: it makes all keys and both repositories, complete and
// signed, in a new desk at dir. The first releases go on top with Stage. If it
// fails nothing of the desk exists, but keys may.
func Init(dir string, c Ceremony, now time.Time) (*Desk, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, imageRepo)); err == nil {
		return nil, &holdfast.Error{Kind: holdfast.Conflict, What: "there is a trust root already", Where: dir, Do: "choose another directory: a second ceremony makes hosts of the first one unreachable"}
	}
	keys, err := c.generate()
	if err != nil {
		return nil, err
	}
	now = instant(now)
	files := Files{}
	if err := c.image(keys, now, files); err != nil {
		return nil, err
	}
	if err := c.director(keys, now, files); err != nil {
		return nil, err
	}
	if err := files.Write(dir); err != nil {
		return nil, err
	}
	return OpenDesk(dir)
}

// ceremonyKeys are all keys of a ceremony, which one person sees once.
type ceremonyKeys struct {
	officers, publishers, rehearsals []Key
	image, director                  Key
	rings                            map[string]Key
}

func (c Ceremony) generate() (k ceremonyKeys, err error) {
	many := func(dir, name string, n int) []Key {
		var keys []Key
		for i := 1; i <= n && err == nil; i++ {
			var key Key
			key, err = GenerateKey(dir, fmt.Sprintf("%s-%d", name, i))
			keys = append(keys, key)
		}
		return keys
	}
	one := func(name string) (key Key) {
		if err == nil {
			key, err = GenerateKey(filepath.Join(c.Keys, "online"), name)
		}
		return key
	}
	k.officers = many(c.Keys, "root", c.Officers)
	k.publishers = many(c.Keys, "publisher", c.Publishers)
	k.rehearsals = many(c.Keys, "rehearsal", c.Rehearsals)
	k.image, k.director, k.rings = one(imageRepo), one(directorRepo), map[string]Key{}
	for _, r := range c.Rings {
		k.rings[r] = one(ringRole(r))
	}
	return k, err
}

func publics(keys ...Key) []ed25519.PublicKey {
	var p []ed25519.PublicKey
	for _, k := range keys {
		p = append(p, k.Public())
	}
	return p
}

func (c Ceremony) image(k ceremonyKeys, now time.Time, files Files) error {
	if err := c.root(imageRepo, k, k.image, now, files); err != nil {
		return err
	}
	top := metadata.Targets(now.Add(officerLifetime))
	delegations := &metadata.Delegations{Keys: map[string]*metadata.Key{}}
	for _, ch := range c.Channels {
		delegate(delegations, string(ch), []string{string(ch) + "/*"}, c.Threshold, publics(k.publishers...))
		m := metadata.Targets(now.Add(channelLifetime))
		if err := setCustom(m, string(ch)+"/"+minimumTarget, minimum{}); err != nil {
			return err
		}
		if err := seal(m, k.publishers, imageRepo, string(ch), files); err != nil {
			return err
		}
	}
	top.Signed.Delegations = delegations
	policy := Policy{Domain: c.Domain, Rehearsal: publics(k.rehearsals...), RehearsalThreshold: c.RehearsalThreshold, Rings: c.Rings}
	if err := setCustom(top, policyTarget, policy); err != nil {
		return err
	}
	return seal(top, k.officers, imageRepo, metadata.TARGETS, files)
}

func (c Ceremony) director(k ceremonyKeys, now time.Time, files Files) error {
	if err := c.root(directorRepo, k, k.director, now, files); err != nil {
		return err
	}
	top := metadata.Targets(now.Add(officerLifetime))
	top.Signed.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{}}
	var paths []string
	for _, ch := range c.Channels {
		paths = append(paths, string(ch)+"/*")
	}
	for _, r := range c.Rings {
		delegate(top.Signed.Delegations, ringRole(r), paths, 1, publics(k.rings[r]))
	}
	return seal(top, k.officers, directorRepo, metadata.TARGETS, files)
}

func (c Ceremony) root(repo string, k ceremonyKeys, online Key, now time.Time, files Files) error {
	root := metadata.Root(now.Add(officerLifetime))
	root.Signed.UnrecognizedFields = map[string]any{domainField: string(c.Domain)}
	for _, role := range []string{metadata.ROOT, metadata.TARGETS} {
		for _, key := range k.officers {
			if err := root.Signed.AddKey(tufKey(key.Public()).Key, role); err != nil {
				return err
			}
		}
		root.Signed.Roles[role].Threshold = c.OfficerThreshold
	}
	for _, role := range []string{metadata.SNAPSHOT, metadata.TIMESTAMP} {
		if err := root.Signed.AddKey(tufKey(online.Public()).Key, role); err != nil {
			return err
		}
	}
	return seal(root, k.officers, repo, metadata.ROOT, files)
}

// delegate adds a terminating delegation.
func delegate(d *metadata.Delegations, role string, paths []string, threshold int, keys []ed25519.PublicKey) {
	r := metadata.DelegatedRole{Name: role, Threshold: threshold, Terminating: true, Paths: paths}
	for _, k := range keys {
		t := tufKey(k)
		d.Keys[t.mustID()] = t.Key
		r.KeyIDs = append(r.KeyIDs, t.mustID())
	}
	d.Roles = append(d.Roles, r)
}

// seal signs m with every key and puts it into files as its version.
func seal[T metadata.Roles](m *metadata.Metadata[T], keys []Key, repo, role string, files Files) error {
	for _, k := range keys {
		if err := sign(m, k); err != nil {
			return err
		}
	}
	return encode(m, repo, role, files)
}

func encode[T metadata.Roles](m *metadata.Metadata[T], repo, role string, files Files) error {
	b, err := m.ToBytes(false)
	if err != nil {
		return err
	}
	files[repo+"/"+fileName(role, versionOf(m))] = b
	return nil
}

func versionOf[T metadata.Roles](m *metadata.Metadata[T]) int64 {
	switch s := any(&m.Signed).(type) {
	case *metadata.RootType:
		return s.Version
	case *metadata.TargetsType:
		return s.Version
	case *metadata.SnapshotType:
		return s.Version
	case *metadata.TimestampType:
		return s.Version
	}
	return 0
}
