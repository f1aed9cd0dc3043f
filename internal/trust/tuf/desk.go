package tuf

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/holdfast-security/holdfast"
)

// Desk is the offline half of trust: a directory with the signed metadata of both
// repositories, and at most one staged change that waits for signatures. It holds
// no key. Whoever has one carries the directory over, reads what is staged
// (Pending), and signs; Complete refuses until the thresholds are met.
//
//	image/  director/    what is in force: <version>.<role>.json
//	staged/              the same, one version on, not yet in force
//
// One process at a time may use a desk.
type Desk struct{ dir string }

// OpenDesk opens the desk at dir. If a Complete was cut off, it is finished first.
func OpenDesk(dir string) (*Desk, error) {
	d := &Desk{dir: dir}
	if err := d.finish(); err != nil {
		return nil, err
	}
	live, err := d.live()
	if err != nil {
		return nil, err
	}
	for _, s := range live {
		if err := s.verify(); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// finish ends a Complete that was cut off: part of what is staged is in force, so
// all of it was verified.
func (d *Desk) finish() error {
	staged, err := ReadFiles(d.staged())
	if err != nil {
		return err
	}
	live, err := ReadFiles(d.dir)
	if err != nil {
		return err
	}
	for name, b := range staged {
		if bytes.Equal(live[name], b) {
			if err := staged.Write(d.dir); err != nil {
				return err
			}
			return d.Discard()
		}
	}
	return nil
}

// Roots are the trusted roots to install a host with.
type Roots struct {
	Image    []byte
	Director []byte
}

// Roots returns the newest root of each repository.
func (d *Desk) Roots() (Roots, error) {
	f, err := ReadFiles(d.dir)
	if err != nil {
		return Roots{}, err
	}
	return Roots{
		Image:    f.get(imageRepo, metadata.ROOT, f.latest(imageRepo, metadata.ROOT)),
		Director: f.get(directorRepo, metadata.ROOT, f.latest(directorRepo, metadata.ROOT)),
	}, nil
}

// Files returns everything that is in force: what Online.Accept takes.
func (d *Desk) Files() (Files, error) { return ReadFiles(d.dir) }

// Contents says what the publishers vouch for at present.
func (d *Desk) Contents() (Policy, []Release, error) {
	live, err := d.live()
	if err != nil {
		return Policy{}, nil, err
	}
	var all []Release
	for _, c := range slices.Sorted(maps.Keys(live[imageRepo].roles)) {
		rs, _, err := releases(live[imageRepo].roles[c], holdfast.Channel(c))
		if err != nil {
			return Policy{}, nil, err
		}
		all = append(all, rs...)
	}
	var p Policy
	_, err = custom(live[imageRepo].targets, policyTarget, &p)
	return p, all, err
}

// Stage prepares changes for signing. Nothing changes for anybody before Complete.
func (d *Desk) Stage(now time.Time, changes ...Change) error {
	if staged, err := ReadFiles(d.staged()); err != nil {
		return err
	} else if len(staged) > 0 {
		return &holdfast.Error{Kind: holdfast.Conflict, What: "a change is staged already", Where: d.staged(), Do: "complete it, or discard it"}
	}
	live, err := d.live()
	if err != nil {
		return err
	}
	draft := &draft{image: live[imageRepo], director: live[directorRepo], now: instant(now), touched: map[string]bool{}}
	if err := Changes(changes...)(draft); err != nil {
		return err
	}
	files, err := draft.encode()
	if err != nil {
		return err
	}
	return files.Write(d.staged())
}

// Sign adds k's signature wherever the staged change needs it, and returns the
// roles that it signed ("image/rules"). It is an error if the key has no part in
// the change.
func (d *Desk) Sign(k Key) ([]string, error) {
	pending, err := d.Pending()
	if err != nil {
		return nil, err
	}
	files, err := ReadFiles(d.staged())
	if err != nil {
		return nil, err
	}
	var roles []string
	for _, p := range pending {
		if !slices.Contains(p.Keys, k.ID()) {
			continue
		}
		if files[p.file], err = countersign(files[p.file], p.root, k); err != nil {
			return nil, err
		}
		roles = append(roles, p.Role)
	}
	if len(roles) == 0 {
		return nil, &holdfast.Error{Kind: holdfast.Denied, What: "the key " + k.Name + " has no part in the staged change", Do: "see which keys are asked for with the pending list"}
	}
	return roles, files.Write(d.staged())
}

func countersign(b []byte, root bool, k Key) ([]byte, error) {
	if root {
		m, err := metadata.Root().FromBytes(b)
		if err == nil {
			err = sign(m, k)
		}
		if err != nil {
			return nil, err
		}
		return m.ToBytes(false)
	}
	m, err := metadata.Targets().FromBytes(b)
	if err == nil {
		err = sign(m, k)
	}
	if err != nil {
		return nil, err
	}
	return m.ToBytes(false)
}

// Complete verifies every threshold and puts the staged change in force. It
// returns all files in force, for Online.Accept. If it fails nothing changed.
func (d *Desk) Complete() (Files, error) {
	staged, err := ReadFiles(d.staged())
	if err != nil {
		return nil, err
	}
	if len(staged) == 0 {
		return nil, errNothingStaged
	}
	old, err := ReadFiles(d.dir)
	if err != nil {
		return nil, err
	}
	all := maps.Clone(old)
	maps.Copy(all, staged)
	for _, repo := range []string{imageRepo, directorRepo} {
		if _, err := all.parseAndVerify(repo, old); err != nil {
			return nil, err
		}
	}
	// Names carry versions, so what is in force is only added to. If this is cut
	// off half-way, OpenDesk finishes it.
	if err := staged.Write(d.dir); err != nil {
		return nil, err
	}
	return all, d.Discard()
}

// Discard forgets the staged change.
func (d *Desk) Discard() error { return os.RemoveAll(d.staged()) }

// parseAndVerify decodes a repository and verifies it, and that its root follows
// from each root of before, step by step.
func (f Files) parseAndVerify(repo string, before Files) (*signed, error) {
	s, err := f.parse(repo)
	if err != nil {
		return nil, err
	}
	last := f.latest(repo, metadata.ROOT)
	for v := max(before.latest(repo, metadata.ROOT), 1); v < last; v++ {
		older, err := decodeRoot(f.get(repo, metadata.ROOT, v), repo)
		if err != nil {
			return nil, err
		}
		newer, err := decodeRoot(f.get(repo, metadata.ROOT, v+1), repo)
		if err != nil {
			return nil, err
		}
		if err := check(older, metadata.ROOT, newer, repo); err != nil {
			return nil, err
		}
		if newer.Signed.Version != v+1 || domainOf(newer) != domainOf(older) {
			return nil, &holdfast.Error{Kind: holdfast.Denied, What: "a root changed its number or its domain", Where: repo + "/root"}
		}
	}
	return s, s.verify()
}

var errNothingStaged = &holdfast.Error{Kind: holdfast.NotFound, What: "nothing is staged"}

func (d *Desk) staged() string { return filepath.Join(d.dir, "staged") }

func (d *Desk) live() (map[string]*signed, error) {
	f, err := ReadFiles(d.dir)
	if err != nil {
		return nil, err
	}
	if len(f) == 0 {
		return nil, &holdfast.Error{Kind: holdfast.NotFound, What: "no trust root here", Where: d.dir, Do: "hold the ceremony first"}
	}
	live := map[string]*signed{}
	for _, repo := range []string{imageRepo, directorRepo} {
		if live[repo], err = f.parse(repo); err != nil {
			return nil, err
		}
	}
	return live, nil
}

// NothingStaged reports whether err says that no change waits for signatures.
func NothingStaged(err error) bool { return errors.Is(err, errNothingStaged) }
