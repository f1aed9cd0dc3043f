package tuf

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/holdfast-security/holdfast"
)

// stale reports whether less than half of a lifetime is left.
func stale(expires time.Time, lifetime time.Duration, now time.Time) bool {
	return expires.Sub(now) < lifetime/2
}

// next is the version after v. It follows the clock, so that a server that lost
// its directory continues above what hosts have seen.
func next(v int64, now time.Time) int64 { return max(v+1, now.Unix()) }

// stamp publishes the repository if its snapshot or timestamp has to change.
func (o *Online) stamp(repo string, now time.Time) error {
	st := o.repos[repo]
	metas, files, err := st.contents()
	if err != nil {
		return err
	}
	now = instant(now)
	fresh := st.snapshot != nil && sameMetas(st.snapshot.Signed.Meta, metas) && !stale(st.snapshot.Signed.Expires, o.validity.Snapshot, now)
	if !fresh {
		sn := metadata.Snapshot(now.Add(o.validity.Snapshot))
		sn.Signed.Version, sn.Signed.Meta = next(st.floor[metadata.SNAPSHOT], now), metas
		if st.snapshot != nil {
			sn.Signed.Version = next(st.snapshot.Signed.Version, now)
		}
		if err := seal(sn, []Key{o.keys[repo]}, repo, metadata.SNAPSHOT, files); err != nil {
			return err
		}
		if err := files.Write(o.dir); err != nil {
			return err
		}
		st.snapshot, st.raw = sn, files.get(repo, metadata.SNAPSHOT, sn.Signed.Version)
	}
	want := describe(st.snapshot.Signed.Version, st.raw)
	if st.timestamp != nil && sameMetas(st.timestamp.Signed.Meta, map[string]*metadata.MetaFiles{"snapshot.json": want}) && !stale(st.timestamp.Signed.Expires, o.validity.Timestamp, now) {
		return nil
	}
	ts := metadata.Timestamp(now.Add(o.validity.Timestamp))
	ts.Signed.Version, ts.Signed.Meta["snapshot.json"] = next(st.floor[metadata.TIMESTAMP], now), want
	if st.timestamp != nil {
		ts.Signed.Version = next(st.timestamp.Signed.Version, now)
	}
	if err := sign(ts, o.keys[repo]); err != nil {
		return err
	}
	raw, err := ts.ToBytes(false)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(o.dir, repo, "timestamp.json"), raw); err != nil {
		return err
	}
	st.timestamp = ts
	return o.sweep(st, now)
}

// contents lists what a snapshot has to name, and the files of the ring roles.
func (st *stamped) contents() (map[string]*metadata.MetaFiles, Files, error) {
	metas, files := map[string]*metadata.MetaFiles{}, Files{}
	for role, m := range st.rings {
		if err := encode(m, st.repo, role, files); err != nil {
			return nil, nil, err
		}
		metas[role+".json"] = describe(m.Signed.Version, files.get(st.repo, role, m.Signed.Version))
	}
	named := map[string]int64{metadata.TARGETS: st.targets.Signed.Version}
	for role, m := range st.roles {
		named[role] = m.Signed.Version
	}
	for role, v := range named {
		metas[role+".json"] = describe(v, st.offline.get(st.repo, role, v))
	}
	// A snapshot may lose no file that an earlier one named.
	if st.snapshot != nil {
		for name, meta := range st.snapshot.Signed.Meta {
			if metas[name] == nil {
				metas[name] = meta
			}
		}
	}
	return metas, files, nil
}

func describe(version int64, b []byte) *metadata.MetaFiles {
	t, err := metadata.TargetFile().FromBytes("", b, "sha256")
	if err != nil {
		panic("tuf: sha256 is not known: " + err.Error())
	}
	return &metadata.MetaFiles{Length: t.Length, Hashes: t.Hashes, Version: version}
}

func sameMetas(a, b map[string]*metadata.MetaFiles) bool {
	return maps.EqualFunc(a, b, func(x, y *metadata.MetaFiles) bool {
		return x.Version == y.Version && x.Length == y.Length && x.Hashes.Equal(y.Hashes)
	})
}

// sweep removes what was replaced more than an hour ago: nobody is half-way
// through reading it.
func (o *Online) sweep(st *stamped, now time.Time) error {
	entries, err := os.ReadDir(filepath.Join(o.dir, st.repo))
	if err != nil {
		return err
	}
	keep := map[string]bool{fileName(metadata.SNAPSHOT, st.snapshot.Signed.Version): true}
	for name, meta := range st.snapshot.Signed.Meta {
		keep[fmt.Sprintf("%d.%s", meta.Version, name)] = true
	}
	for _, e := range entries {
		_, role, ok := parseName(e.Name())
		if !ok || role == metadata.ROOT || keep[e.Name()] {
			continue
		}
		info, err := e.Info()
		if err != nil || now.Sub(info.ModTime()) < time.Hour {
			continue
		}
		if err := os.Remove(filepath.Join(o.dir, st.repo, e.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// approvals reads a ring role, in the order of states, channels and digests.
func approvals(m *targetsMeta) ([]Approval, error) {
	if len(m.Signed.Targets) > 4*maxLive {
		return nil, holdfast.Errorf(holdfast.Invalid, "a ring with %d targets; the limit is %d", len(m.Signed.Targets), 4*maxLive)
	}
	var list []Approval
	for _, path := range slices.Sorted(maps.Keys(m.Signed.Targets)) {
		var c stateCustom
		if ok, err := custom(m, path, &c); err != nil || !ok {
			return nil, &holdfast.Error{Kind: holdfast.Invalid, What: "an approval without a state", Where: "target " + path, Err: err}
		}
		i := strings.LastIndexByte(path, '/')
		digest, err := holdfast.ParseDigest("sha256:" + path[i+1:])
		if err != nil || i < 1 {
			return nil, &holdfast.Error{Kind: holdfast.Invalid, What: "an approval of something that is not content", Where: "target " + path}
		}
		list = append(list, Approval{Channel: holdfast.Channel(path[:i]), Digest: digest, State: c.State})
	}
	slices.SortStableFunc(list, func(a, b Approval) int { return strings.Compare(string(a.State), string(b.State)) })
	return list, nil
}
