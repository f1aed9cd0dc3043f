package tuf

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/holdfast-security/holdfast"
)

type (
	rootMeta      = metadata.Metadata[metadata.RootType]
	targetsMeta   = metadata.Metadata[metadata.TargetsType]
	snapshotMeta  = metadata.Metadata[metadata.SnapshotType]
	timestampMeta = metadata.Metadata[metadata.TimestampType]
)

// The two repositories, which are also the names of their directories.
const (
	imageRepo    = "image"
	directorRepo = "director"
)

const (
	// domainField is where a root's signed part says which domain it is of.
	domainField = "x-holdfast-domain"
	// policyTarget and minimumTarget are targets without a file: only their
	// signed custom part counts.
	policyTarget  = "policy.json"
	minimumTarget = "minimum.json" // below the channel's name

	maxMetadata = 4 << 20 // bytes in one metadata file
	// maxLive bounds the releases that one channel keeps: hosts decode them all.
	maxLive = 200
)

// Files is metadata by path: "image/1.root.json" and so on. Names carry the
// version, so that a set can only be added to.
type Files map[string][]byte

// ReadFiles reads the metadata below dir.
func ReadFiles(dir string) (Files, error) {
	files := Files{}
	for _, repo := range []string{imageRepo, directorRepo} {
		entries, err := os.ReadDir(filepath.Join(dir, repo))
		if err != nil && !os.IsNotExist(err) {
			return nil, err
		}
		for _, e := range entries {
			if _, _, ok := parseName(e.Name()); !ok || !e.Type().IsRegular() {
				continue
			}
			if files[repo+"/"+e.Name()], err = readBounded(filepath.Join(dir, repo, e.Name()), maxMetadata); err != nil {
				return nil, err
			}
		}
	}
	return files, nil
}

// Write puts those files below dir that are not there yet, or are different. All
// are durable when it returns.
func (f Files) Write(dir string) error {
	touched := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(f)) {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if old, err := readBounded(path, maxMetadata); err == nil && bytes.Equal(old, f[name]) {
			continue
		}
		if err := replaceFile(path, f[name]); err != nil {
			return err
		}
		touched[filepath.Dir(path)] = true
	}
	for d := range touched {
		if err := syncDir(d); err != nil {
			return err
		}
	}
	return nil
}

// latest returns the highest version of a role that is there; 0 if none is.
func (f Files) latest(repo, role string) int64 {
	var best int64
	for name := range f {
		if r, file, ok := strings.Cut(name, "/"); ok && r == repo {
			if v, rl, ok := parseName(file); ok && rl == role && v > best {
				best = v
			}
		}
	}
	return best
}

func (f Files) get(repo, role string, version int64) []byte {
	return f[repo+"/"+fileName(role, version)]
}

func fileName(role string, version int64) string {
	return strconv.FormatInt(version, 10) + "." + role + ".json"
}

// parseName splits "3.rules.json".
func parseName(name string) (version int64, role string, ok bool) {
	stem, ok := strings.CutSuffix(name, ".json")
	if !ok {
		return 0, "", false
	}
	number, role, ok := strings.Cut(stem, ".")
	version, err := strconv.ParseInt(number, 10, 64)
	return version, role, ok && err == nil && version > 0 && role != "" && !strings.ContainsAny(role, "./\\")
}

// signed is the metadata of one repository that is signed offline: for the image
// repository root, targets and one role per channel; for the director root, and
// targets, which only delegates to the rings.
type signed struct {
	repo    string
	root    *rootMeta
	targets *targetsMeta
	roles   map[string]*targetsMeta
}

// parse decodes the latest version of each role. It verifies nothing.
func (f Files) parse(repo string) (*signed, error) {
	s := &signed{repo: repo, roles: map[string]*targetsMeta{}}
	var err error
	if s.root, err = decodeRoot(f.get(repo, metadata.ROOT, f.latest(repo, metadata.ROOT)), repo); err != nil {
		return nil, err
	}
	if s.targets, err = f.parseTargets(repo, metadata.TARGETS); err != nil {
		return nil, err
	}
	if repo == imageRepo {
		for _, role := range delegated(s.targets) {
			if s.roles[role], err = f.parseTargets(repo, role); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

func (f Files) parseTargets(repo, role string) (*targetsMeta, error) {
	version := f.latest(repo, role)
	m, err := metadata.Targets().FromBytes(f.get(repo, role, version))
	if err != nil {
		return nil, unreadable(repo, role, err)
	}
	return m, nil
}

func decodeRoot(b []byte, repo string) (*rootMeta, error) {
	m, err := metadata.Root().FromBytes(b)
	if err != nil {
		return nil, unreadable(repo, metadata.ROOT, err)
	}
	return m, nil
}

func unreadable(repo, role string, err error) error {
	return &holdfast.Error{Kind: holdfast.Invalid, What: "the metadata is missing or cannot be read", Where: repo + "/" + role, Err: err}
}

// verify checks thresholds from the root down, and that all is of one domain.
func (s *signed) verify() error {
	if err := check(s.root, metadata.ROOT, s.root, s.repo); err != nil {
		return err
	}
	if err := check(s.root, metadata.TARGETS, s.targets, s.repo); err != nil {
		return err
	}
	for role, m := range s.roles {
		if err := check(s.targets, role, m, s.repo); err != nil {
			return err
		}
	}
	return nil
}

// check verifies that a threshold of the keys that by names for role signed m.
func check[B, M metadata.Roles](by *metadata.Metadata[B], role string, m *metadata.Metadata[M], repo string) error {
	if err := by.VerifyDelegate(role, m); err != nil {
		return &holdfast.Error{Kind: holdfast.Denied, What: "not signed by the threshold of its keys", Where: repo + "/" + role, Err: err}
	}
	return nil
}

func delegated(m *targetsMeta) []string {
	var roles []string
	if m.Signed.Delegations != nil {
		for _, r := range m.Signed.Delegations.Roles {
			roles = append(roles, r.Name)
		}
	}
	return roles
}

func domainOf(root *rootMeta) Domain {
	d, _ := root.Signed.UnrecognizedFields[domainField].(string)
	return Domain(d)
}

// setCustom makes path a target of m without a file, with v as its custom part.
func setCustom(m *targetsMeta, path string, v any) error {
	t, err := metadata.TargetFile().FromBytes(path, nil, "sha256")
	if err != nil {
		return err
	}
	return putTarget(m, path, t, v)
}

func putTarget(m *targetsMeta, path string, t *metadata.TargetFiles, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	t.Path, t.Custom = path, (*json.RawMessage)(&raw)
	m.Signed.Targets[path] = t
	return nil
}

// custom decodes the custom part of a target; false if there is none.
func custom(m *targetsMeta, path string, v any) (bool, error) {
	t, ok := m.Signed.Targets[path]
	if !ok || t == nil || t.Custom == nil {
		return false, nil
	}
	if err := json.Unmarshal(*t.Custom, v); err != nil {
		return false, &holdfast.Error{Kind: holdfast.Invalid, What: "the custom part of a target cannot be read", Where: path, Err: err}
	}
	return true, nil
}

type minimum struct {
	Sequence int64 `json:"sequence"`
}

// release reads the signed facts of the target at path.
func release(m *targetsMeta, channel holdfast.Channel, path string) (Release, error) {
	var r Release
	bad := func(what string) (Release, error) {
		return Release{}, &holdfast.Error{Kind: holdfast.Invalid, What: what, Where: "target " + path}
	}
	if ok, err := custom(m, path, &r); err != nil {
		return Release{}, err
	} else if !ok {
		return bad("has no custom part")
	}
	if _, err := holdfast.ParseDigest(string(r.Digest)); err != nil {
		return bad("has no digest")
	}
	t := m.Signed.Targets[path]
	switch sum := t.Hashes["sha256"]; {
	case path != targetPath(r.Channel, r.Digest) || r.Channel != channel:
		return bad("is not named after its channel and digest")
	case fmt.Sprintf("%x", []byte(sum)) != r.Digest.Hex() || t.Length != r.Size:
		return bad("disagrees with itself about its digest or size")
	case r.Sequence < 1 || r.Size < 1 || r.Signed.IsZero():
		return bad("lacks its sequence, size or time of signature")
	}
	if err := r.Rings.Validate(); err != nil {
		return bad("has a bad ring plan: " + err.Error())
	}
	return r, nil
}

// releases reads all releases of a channel's role, and its signed minimum.
func releases(m *targetsMeta, channel holdfast.Channel) (all []Release, least int64, err error) {
	if len(m.Signed.Targets) > 4*maxLive {
		return nil, 0, &holdfast.Error{Kind: holdfast.Invalid, What: fmt.Sprintf("has %d targets; the limit is %d", len(m.Signed.Targets), 4*maxLive), Where: string(channel)}
	}
	var floor minimum
	if _, err := custom(m, string(channel)+"/"+minimumTarget, &floor); err != nil {
		return nil, 0, err
	}
	for path := range m.Signed.Targets {
		if path == string(channel)+"/"+minimumTarget {
			continue
		}
		r, err := release(m, channel, path)
		if err != nil {
			return nil, 0, err
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b Release) int { return int(a.Sequence - b.Sequence) })
	return all, floor.Sequence, nil
}

func targetPath(c holdfast.Channel, d holdfast.Digest) string { return string(c) + "/" + d.Hex() }

// instant drops what metadata does not keep.
func instant(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }
