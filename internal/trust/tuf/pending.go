package tuf

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Pending is one staged file and the signatures it waits for.
type Pending struct {
	Role    string   // "image/rules"
	Keys    []string // identifiers of the keys that may sign
	Signed  []string // those that did
	Want    int      // how many must
	Changes []string // what would change, for the person who signs

	file string
	root bool
}

// Complete reports whether the threshold is met.
func (p Pending) Complete() bool { return len(p.Signed) >= p.Want }

// Pending lists the staged files, each with what would change and who may sign.
// With nothing staged it returns an error that NothingStaged knows.
func (d *Desk) Pending() ([]Pending, error) {
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
	var list []Pending
	for _, repo := range []string{imageRepo, directorRepo} {
		was, err := old.parse(repo)
		if err != nil {
			return nil, err
		}
		is, err := all.parse(repo)
		if err != nil {
			return nil, err
		}
		list = append(list, pendingOf(staged, was, is)...)
	}
	return list, nil
}

func pendingOf(staged Files, was, is *signed) []Pending {
	var list []Pending
	add := func(role string, version int64, keys []string, want int, sigs []metadata.Signature, root bool, changes []string) {
		file := is.repo + "/" + fileName(role, version)
		if _, ok := staged[file]; !ok {
			return
		}
		p := Pending{Role: is.repo + "/" + role, Keys: keys, Want: want, Changes: changes, file: file, root: root}
		for _, s := range sigs {
			if slices.Contains(keys, s.KeyID) {
				p.Signed = append(p.Signed, s.KeyID)
			}
		}
		list = append(list, p)
	}
	roots := func(r *rootMeta) *metadata.Role { return r.Signed.Roles[metadata.ROOT] }
	// A new root needs the thresholds of the old keys and of the new ones. The
	// count is exact when one set contains the other, and Complete decides.
	keys := union(roots(was.root).KeyIDs, roots(is.root).KeyIDs)
	add(metadata.ROOT, is.root.Signed.Version, keys, max(roots(was.root).Threshold, roots(is.root).Threshold), is.root.Signatures, true, rootChanges(was.root, is.root))
	top := is.root.Signed.Roles[metadata.TARGETS]
	add(metadata.TARGETS, is.targets.Signed.Version, top.KeyIDs, top.Threshold, is.targets.Signatures, false, targetChanges(was.targets, is.targets))
	for _, r := range is.targets.Signed.Delegations.Roles {
		if m := is.roles[r.Name]; m != nil {
			add(r.Name, m.Signed.Version, r.KeyIDs, r.Threshold, m.Signatures, false, targetChanges(was.roles[r.Name], m))
		}
	}
	return list
}

func union(a, b []string) []string {
	u := slices.Clone(a)
	for _, s := range b {
		if !slices.Contains(u, s) {
			u = append(u, s)
		}
	}
	return u
}

func rootChanges(was, is *rootMeta) []string {
	var lines []string
	for _, role := range metadata.TOP_LEVEL_ROLE_NAMES {
		a, b := was.Signed.Roles[role], is.Signed.Roles[role]
		if a == nil || b == nil {
			continue
		}
		lines = append(lines, keyChanges(role, a.KeyIDs, b.KeyIDs, a.Threshold, b.Threshold)...)
	}
	return lines
}

func keyChanges(role string, was, is []string, k0, k1 int) []string {
	var lines []string
	for _, id := range was {
		if !slices.Contains(is, id) {
			lines = append(lines, fmt.Sprintf("%s: key %.12s is revoked", role, id))
		}
	}
	for _, id := range is {
		if !slices.Contains(was, id) {
			lines = append(lines, fmt.Sprintf("%s: key %.12s is new", role, id))
		}
	}
	if k0 != k1 {
		lines = append(lines, fmt.Sprintf("%s: threshold %d becomes %d", role, k0, k1))
	}
	return lines
}

func targetChanges(was, is *targetsMeta) []string {
	var lines []string
	before := map[string]*metadata.TargetFiles{}
	if was != nil {
		before = was.Signed.Targets
	}
	for _, path := range slices.Sorted(maps.Keys(is.Signed.Targets)) {
		a, b := before[path], is.Signed.Targets[path]
		if b.Custom == nil || a != nil && a.Custom != nil && bytes.Equal(*a.Custom, *b.Custom) {
			continue
		}
		verb := "add"
		if a != nil {
			verb = "change"
		}
		lines = append(lines, fmt.Sprintf("%s %s (%d bytes): %s", verb, path, b.Length, *b.Custom))
	}
	for _, path := range slices.Sorted(maps.Keys(before)) {
		if is.Signed.Targets[path] == nil {
			lines = append(lines, "remove "+path)
		}
	}
	if was == nil || was.Signed.Delegations == nil || is.Signed.Delegations == nil {
		return lines
	}
	for _, b := range is.Signed.Delegations.Roles {
		for _, a := range was.Signed.Delegations.Roles {
			if a.Name == b.Name {
				lines = append(lines, keyChanges(a.Name, a.KeyIDs, b.KeyIDs, a.Threshold, b.Threshold)...)
			}
		}
	}
	return lines
}
