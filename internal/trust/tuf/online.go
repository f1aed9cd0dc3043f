package tuf

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/holdfast-security/holdfast"
)

// Validity says for how long online signatures are good. A host whose newest
// timestamp ran out takes nothing new, so Timestamp is how long a replay of old
// metadata can work, and how long the server may be away before releases wait.
type Validity struct {
	Timestamp time.Duration // 24 h if zero
	Snapshot  time.Duration // of snapshots and ring roles; 7 days if zero
}

// Online is the server's half of trust: it approves content for rings, stamps both
// repositories, and publishes them as static files. It can vouch for nothing that
// the publishers did not sign.
//
// Its directory is all it keeps. It is published in the order that makes every
// moment whole: files under new names first, timestamp.json, by rename, last. A
// crash in between leaves files that nothing refers to. One Online may write to a
// directory; it is safe for concurrent use.
type Online struct {
	dir      string
	keys     map[string]Key // by role: "image", "director", "ring-<name>"
	validity Validity

	mu    sync.Mutex
	repos map[string]*stamped
}

// stamped is one repository as it is published.
type stamped struct {
	*signed
	rings     map[string]*targetsMeta // the director's, by role name
	snapshot  *snapshotMeta           // nil before the first publication
	raw       []byte                  // of the snapshot, as published
	timestamp *timestampMeta
	offline   Files // what was signed offline
	// floor is the highest version of each online role that was found in the
	// directory, whether or not it can be believed: hosts may have seen it.
	floor map[string]int64
}

// OpenOnline opens the published directory dir, and reads the online keys of the
// ceremony from the directory keys. An empty directory needs Accept first; a
// damaged one is repaired by Accept and Approve, with versions that hosts take.
func OpenOnline(dir, keys string, v Validity) (*Online, error) {
	if v.Timestamp == 0 {
		v.Timestamp = 24 * time.Hour
	}
	if v.Snapshot == 0 {
		v.Snapshot = 7 * 24 * time.Hour
	}
	o := &Online{dir: dir, keys: map[string]Key{}, validity: v, repos: map[string]*stamped{}}
	paths, err := filepath.Glob(filepath.Join(keys, "*"+keySuffix))
	if err != nil {
		return nil, err
	}
	for _, p := range paths {
		k, err := LoadKey(p)
		if err != nil {
			return nil, err
		}
		o.keys[k.Name] = k
	}
	for _, name := range []string{imageRepo, directorRepo} {
		if _, ok := o.keys[name]; !ok {
			return nil, &holdfast.Error{Kind: holdfast.NotFound, What: "the online key is missing", Where: filepath.Join(keys, name+keySuffix), Do: "bring the online keys of the ceremony"}
		}
	}
	files, err := ReadFiles(dir)
	if err != nil || len(files) == 0 {
		return o, err
	}
	for _, repo := range []string{imageRepo, directorRepo} {
		s, err := files.parseAndVerify(repo, nil)
		if err != nil {
			return nil, err
		}
		if o.repos[repo], err = o.restore(s, files); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// restore finds what timestamp.json refers to. What does not hold together is
// left out, to be made anew.
func (o *Online) restore(s *signed, files Files) (*stamped, error) {
	st := &stamped{signed: s, rings: map[string]*targetsMeta{}, offline: files.offline(s), floor: map[string]int64{metadata.SNAPSHOT: files.latest(s.repo, metadata.SNAPSHOT)}}
	for _, role := range delegated(s.targets) {
		st.floor[role] = files.latest(s.repo, role)
	}
	raw, err := readBounded(filepath.Join(o.dir, s.repo, "timestamp.json"), maxMetadata)
	if holdfast.KindOf(err) == holdfast.NotFound {
		return st, o.fits(s)
	} else if err != nil {
		return nil, err
	}
	ts, err := metadata.Timestamp().FromBytes(raw)
	if err == nil {
		st.floor[metadata.TIMESTAMP] = ts.Signed.Version
	}
	if err != nil || check(s.root, metadata.TIMESTAMP, ts, s.repo) != nil {
		return st, o.fits(s)
	}
	st.timestamp = ts
	version := ts.Signed.Meta["snapshot.json"]
	if version == nil {
		return st, o.fits(s)
	}
	st.raw = files.get(s.repo, metadata.SNAPSHOT, version.Version)
	sn, err := metadata.Snapshot().FromBytes(st.raw)
	if err != nil || check(s.root, metadata.SNAPSHOT, sn, s.repo) != nil {
		return st, o.fits(s)
	}
	st.snapshot = sn
	if s.repo == directorRepo {
		for _, role := range delegated(s.targets) {
			meta := sn.Signed.Meta[role+".json"]
			if meta == nil {
				continue
			}
			m, err := metadata.Targets().FromBytes(files.get(s.repo, role, meta.Version))
			if err == nil && check(s.targets, role, m, s.repo) == nil {
				st.rings[role] = m
			}
		}
	}
	return st, o.fits(s)
}

// fits checks that the online keys are the ones that the officers named.
func (o *Online) fits(s *signed) error {
	wrong := func(key, role string) error {
		return &holdfast.Error{Kind: holdfast.Denied, What: "the online key is not the one that the officers named", Where: s.repo + "/" + role, Do: "bring the right " + key + keySuffix + ", or have the officers sign a root with this one"}
	}
	for _, role := range []string{metadata.SNAPSHOT, metadata.TIMESTAMP} {
		if !slices.Contains(s.root.Signed.Roles[role].KeyIDs, o.keys[s.repo].ID()) {
			return wrong(s.repo, role)
		}
	}
	if s.repo != directorRepo {
		return nil
	}
	for _, r := range s.targets.Signed.Delegations.Roles {
		if k, ok := o.keys[r.Name]; !ok || !slices.Contains(r.KeyIDs, k.ID()) {
			return wrong(r.Name, r.Name)
		}
	}
	return nil
}

// offline picks what was signed offline: all roots, and the newest of the rest.
func (f Files) offline(s *signed) Files {
	out := Files{}
	keep := func(role string, version int64) {
		if b := f.get(s.repo, role, version); b != nil {
			out[s.repo+"/"+fileName(role, version)] = b
		}
	}
	for v := int64(1); v <= s.root.Signed.Version; v++ {
		keep(metadata.ROOT, v)
	}
	keep(metadata.TARGETS, s.targets.Signed.Version)
	for role, m := range s.roles {
		keep(role, m.Signed.Version)
	}
	return out
}

// Accept takes over metadata that was signed offline (Desk.Complete, Desk.Files)
// and publishes it. The first root is believed; from then on every root must
// follow from the one before, and thresholds hold all the way down. Accepting the
// same twice changes nothing. If it fails nothing was published.
func (o *Online) Accept(files Files, now time.Time) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	next := map[string]*stamped{}
	var domain Domain
	for _, repo := range []string{imageRepo, directorRepo} {
		old := o.repos[repo]
		all, before := Files{}, Files{}
		maps.Copy(all, files)
		st := &stamped{rings: map[string]*targetsMeta{}, floor: map[string]int64{}}
		if old != nil {
			before = old.offline
			for name, b := range before {
				if f, ok := files[name]; ok && string(f) != string(b) && strings.HasSuffix(name, ".root.json") {
					return &holdfast.Error{Kind: holdfast.Conflict, What: "there is another root of that version", Where: name, Do: "this metadata belongs to another ceremony"}
				}
			}
			maps.Copy(all, before)
			*st = *old
		}
		s, err := all.parseAndVerify(repo, before)
		if err != nil {
			return err
		}
		if err := o.fits(s); err != nil {
			return err
		}
		if domain == "" {
			domain = domainOf(s.root)
		}
		if domainOf(s.root) != domain || domain == "" {
			return &holdfast.Error{Kind: holdfast.Denied, What: "the two repositories are of different trust domains", Where: repo + "/root"}
		}
		st.signed, st.offline = s, all.offline(s)
		next[repo] = st
	}
	for repo, st := range next {
		if err := st.offline.Write(o.dir); err != nil {
			return err
		}
		o.repos[repo] = st
	}
	if err := o.stamp(imageRepo, now); err != nil {
		return err
	}
	if o.repos[directorRepo].snapshot == nil {
		return nil // nothing to say before the first Approve
	}
	return o.stamp(directorRepo, now)
}

// Approve publishes what each ring may run. It replaces what was approved before;
// rings that approvals leaves out keep what they have. Approving the same twice
// changes nothing. Content without publishers' signatures is refused.
func (o *Online) Approve(approvals map[string][]Approval, now time.Time) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	director, image := o.repos[directorRepo], o.repos[imageRepo]
	if director == nil {
		return errNoRepository
	}
	known := map[string]*metadata.TargetFiles{}
	for _, m := range image.roles {
		maps.Copy(known, m.Signed.Targets)
	}
	for ring := range approvals {
		if !slices.Contains(delegated(director.targets), ringRole(ring)) {
			return &holdfast.Error{Kind: holdfast.NotFound, What: "the director has no such ring", Where: "ring " + ring}
		}
	}
	next := maps.Clone(director.rings)
	for _, role := range delegated(director.targets) {
		ring := strings.TrimPrefix(role, "ring-")
		list, given := approvals[ring]
		if !given && next[role] != nil {
			continue
		}
		m, err := o.ring(role, list, known, next[role], director.floor[role], now)
		if err != nil {
			return err
		}
		next[role] = m
	}
	director.rings = next
	return o.stamp(directorRepo, now)
}

// ring returns the role with list as its targets: was itself, if it says so
// already and is fresh.
func (o *Online) ring(role string, list []Approval, known map[string]*metadata.TargetFiles, was *targetsMeta, floor int64, now time.Time) (*targetsMeta, error) {
	m := metadata.Targets(instant(now).Add(o.validity.Snapshot))
	if len(list) > maxLive {
		return nil, &holdfast.Error{Kind: holdfast.Invalid, What: fmt.Sprintf("%d approvals in one ring; the limit is %d", len(list), maxLive), Where: role}
	}
	for _, a := range list {
		path := targetPath(a.Channel, a.Digest)
		signed := known[path]
		if signed == nil {
			return nil, &holdfast.Error{Kind: holdfast.Denied, What: "the publishers have not signed this", Where: path, Do: "publish the signed release first"}
		}
		if a.State != Current && a.State != Previous && a.State != Pinnable {
			return nil, &holdfast.Error{Kind: holdfast.Invalid, What: fmt.Sprintf("%q is not a state", a.State), Where: path}
		}
		t := metadata.TargetFile()
		t.Length, t.Hashes = signed.Length, signed.Hashes
		if err := putTarget(m, path, t, stateCustom{a.State}); err != nil {
			return nil, err
		}
	}
	m.Signed.Version = next(floor, now)
	if was != nil {
		if same(was, m) && !stale(was.Signed.Expires, o.validity.Snapshot, now) {
			return was, nil
		}
		m.Signed.Version = next(was.Signed.Version, now)
	}
	return m, sign(m, o.keys[role])
}

type stateCustom struct {
	State State `json:"state"`
}

func same(a, b *targetsMeta) bool {
	x, errx := json.Marshal(a.Signed.Targets)
	y, erry := json.Marshal(b.Signed.Targets)
	return errx == nil && erry == nil && string(x) == string(y)
}

// Approvals returns what is published, by ring name.
func (o *Online) Approvals() map[string][]Approval {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := map[string][]Approval{}
	if d := o.repos[directorRepo]; d != nil {
		for role, m := range d.rings {
			if list, err := approvals(m); err == nil {
				all[strings.TrimPrefix(role, "ring-")] = list
			}
		}
	}
	return all
}

// Refresh signs again what is half-way to its expiry. Call it now and then; it
// does nothing if nothing is due.
func (o *Online) Refresh(now time.Time) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.repos[directorRepo] == nil {
		return errNoRepository
	}
	if err := o.stamp(imageRepo, now); err != nil {
		return err
	}
	d := o.repos[directorRepo]
	if d.snapshot == nil {
		return nil
	}
	for role, m := range d.rings {
		if !stale(m.Signed.Expires, o.validity.Snapshot, now) {
			continue
		}
		m.ClearSignatures()
		m.Signed.Version, m.Signed.Expires = next(m.Signed.Version, now), instant(now).Add(o.validity.Snapshot)
		if err := sign(m, o.keys[role]); err != nil {
			return err
		}
	}
	return o.stamp(directorRepo, now)
}

var errNoRepository = &holdfast.Error{Kind: holdfast.Unavailable, What: "no trust root has been published here yet", Do: "hold the ceremony, and bring its metadata to the server"}
