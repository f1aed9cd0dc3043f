package tuf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"github.com/holdfast-security/holdfast"
)

// Bounds of one refresh. TUF leaves them to the client.
const (
	maxRoot      = 512 << 10
	maxTimestamp = 16 << 10
	maxRotations = 64 // new roots in one refresh; more come with the next
	maxRoles     = 32

	timestampFile = "timestamp.json"
)

// repository is the client's side of one repository: where it is, and the newest
// metadata that was verified, by role.
type repository struct {
	name    string
	url     string
	dir     string
	domain  Domain
	http    *http.Client
	timeout time.Duration

	local map[string][]byte
	// last is the outcome that local verifies to, for use while nothing changes.
	last *verified
	// asked holds the answers of one refresh, so that nothing is asked twice.
	asked map[string]answer
}

type answer struct {
	body []byte
	err  error
}

func openRepository(cfg ClientConfig, name string, root []byte) (*repository, error) {
	r := &repository{
		name: name, url: strings.TrimSuffix(cfg.URL, "/") + "/" + name + "/", domain: cfg.Domain,
		http: cfg.HTTP, timeout: cfg.Timeout, local: map[string][]byte{},
	}
	first, err := decodeRoot(root, name)
	if err != nil {
		return nil, err
	}
	if d := domainOf(first); d != cfg.Domain {
		return nil, r.wrong(metadata.ROOT, wrongDomain(d, cfg.Domain))
	}
	r.local[metadata.ROOT] = root
	if cfg.Dir == "" {
		return r, nil
	}
	r.dir = filepath.Join(cfg.Dir, name)
	paths, err := filepath.Glob(filepath.Join(r.dir, "*.json"))
	if err != nil {
		return nil, err
	}
	for _, p := range paths {
		b, err := readBounded(p, maxMetadata)
		if err != nil {
			return nil, err
		}
		r.local[strings.TrimSuffix(filepath.Base(p), ".json")] = b
	}
	// A kept root is used only if it is of our domain and not older than the one
	// the host was installed with, which a package may renew.
	if kept, err := decodeRoot(r.local[metadata.ROOT], name); err != nil || kept.Signed.Version < first.Signed.Version || domainOf(kept) != cfg.Domain {
		r.local[metadata.ROOT] = root
	}
	return r, nil
}

// refresh brings the repository up to date and verifies it. wanted chooses the
// delegated roles from the top one. While nothing changes, the same outcome is
// returned again.
func (r *repository) refresh(ctx context.Context, now time.Time, wanted func(*targetsMeta) []string) (out *verified, err error) {
	// go-tuf panics on some malformed keys. Only its signer can cause that, but a
	// host must outlive even a signer.
	defer func() {
		if p := recover(); p != nil {
			out, err = nil, r.wrong("", holdfast.Errorf(holdfast.Denied, "malformed: %v", p))
		}
	}()
	r.asked = map[string]answer{}
	if r.last != nil && now.Before(r.last.expires) && r.covers(wanted) && r.unchanged(ctx) {
		return r.last, nil
	}
	trusted, err := trustedmetadata.New(r.local[metadata.ROOT])
	if err != nil {
		return nil, r.wrong(metadata.ROOT, explain(err))
	}
	trusted.RefTime = now
	if err := r.roots(ctx, trusted); err != nil {
		return nil, err
	}
	if err := r.timestamp(ctx, trusted); err != nil {
		return nil, err
	}
	if err := r.snapshot(ctx, trusted); err != nil {
		return nil, err
	}
	v := &verified{roles: map[string]*targetsMeta{}, version: trusted.Timestamp.Signed.Version, root: trusted.Root.Signed.Version}
	if v.top, err = r.targets(ctx, trusted, metadata.TARGETS, metadata.ROOT); err != nil {
		return nil, err
	}
	roles := wanted(v.top)
	if len(roles) > maxRoles {
		return nil, r.wrong(metadata.TARGETS, holdfast.Errorf(holdfast.Denied, "%d delegated roles; the limit is %d", len(roles), maxRoles))
	}
	for _, role := range roles {
		if v.roles[role], err = r.targets(ctx, trusted, role, metadata.TARGETS); err != nil {
			return nil, err
		}
		v.until(v.roles[role].Signed.Expires)
	}
	v.until(trusted.Root.Signed.Expires)
	v.until(trusted.Timestamp.Signed.Expires)
	v.until(trusted.Snapshot.Signed.Expires)
	v.until(v.top.Signed.Expires)
	r.last = v
	return v, nil
}

// covers reports whether the last outcome has all wanted roles.
func (r *repository) covers(wanted func(*targetsMeta) []string) bool {
	return !slices.ContainsFunc(wanted(r.last.top), func(role string) bool { return r.last.roles[role] == nil })
}

// unchanged reports whether there is no new root, and the timestamp is byte for
// byte the one that was verified.
func (r *repository) unchanged(ctx context.Context) bool {
	if _, err := r.fetch(ctx, fileName(metadata.ROOT, r.last.root+1), maxRoot); !errors.Is(err, errAbsent) {
		return false
	}
	b, err := r.fetch(ctx, timestampFile, maxTimestamp)
	return err == nil && bytes.Equal(b, r.local[metadata.TIMESTAMP])
}

// roots follows the chain of roots to its end.
func (r *repository) roots(ctx context.Context, trusted *trustedmetadata.TrustedMetadata) error {
	for range maxRotations {
		next := fileName(metadata.ROOT, trusted.Root.Signed.Version+1)
		b, err := r.fetch(ctx, next, maxRoot)
		if errors.Is(err, errAbsent) {
			return nil
		} else if err != nil {
			return err
		}
		root, err := trusted.UpdateRoot(b)
		if err != nil {
			return r.wrong(next, explain(err))
		}
		if d := domainOf(root); d != r.domain {
			return r.wrong(next, wrongDomain(d, r.domain))
		}
		if err := r.keep(metadata.ROOT, b); err != nil {
			return err
		}
	}
	return nil
}

func (r *repository) timestamp(ctx context.Context, trusted *trustedmetadata.TrustedMetadata) error {
	if b := r.local[metadata.TIMESTAMP]; b != nil {
		// An expired one still protects from a rollback, and is loaded for that.
		_, _ = trusted.UpdateTimestamp(b)
	}
	b, err := r.fetch(ctx, timestampFile, maxTimestamp)
	if err != nil {
		return gone(err)
	}
	switch _, err = trusted.UpdateTimestamp(b); {
	case errors.Is(err, &metadata.ErrEqualVersionNumber{}):
		return nil
	case err != nil:
		return r.wrong(metadata.TIMESTAMP, explain(err))
	}
	// What was verified before belongs to an older timestamp, and must not be
	// taken for this one's if the rest cannot be fetched.
	r.last = nil
	return r.keep(metadata.TIMESTAMP, b)
}

func (r *repository) snapshot(ctx context.Context, trusted *trustedmetadata.TrustedMetadata) error {
	if b := r.local[metadata.SNAPSHOT]; b != nil {
		if _, err := trusted.UpdateSnapshot(b, true); err == nil {
			return nil
		}
	}
	meta := trusted.Timestamp.Signed.Meta["snapshot.json"]
	if meta == nil {
		return r.wrong(metadata.TIMESTAMP, holdfast.Errorf(holdfast.Denied, "names no snapshot"))
	}
	b, err := r.fetch(ctx, fileName(metadata.SNAPSHOT, meta.Version), bound(meta.Length))
	if err != nil {
		return gone(err)
	}
	if _, err := trusted.UpdateSnapshot(b, false); err != nil {
		return r.wrong(metadata.SNAPSHOT, explain(err))
	}
	return r.keep(metadata.SNAPSHOT, b)
}

func (r *repository) targets(ctx context.Context, trusted *trustedmetadata.TrustedMetadata, role, by string) (*targetsMeta, error) {
	if role == "" || strings.Trim(role, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return nil, r.wrong(metadata.TARGETS, holdfast.Errorf(holdfast.Denied, "delegates to %.60q, which is not a name for a role", role))
	}
	if b := r.local[role]; b != nil {
		if m, err := trusted.UpdateDelegatedTargets(b, role, by); err == nil {
			return m, nil
		}
	}
	meta := trusted.Snapshot.Signed.Meta[role+".json"]
	if meta == nil {
		return nil, r.wrong(metadata.SNAPSHOT, holdfast.Errorf(holdfast.Denied, "does not name %s", role))
	}
	b, err := r.fetch(ctx, fileName(role, meta.Version), bound(meta.Length))
	if err != nil {
		return nil, gone(err)
	}
	m, err := trusted.UpdateDelegatedTargets(b, role, by)
	if err != nil {
		return nil, r.wrong(role, explain(err))
	}
	return m, r.keep(role, b)
}

// bound is how much to read of a file whose length was signed.
func bound(signed int64) int64 {
	if signed > 0 && signed < maxMetadata {
		return signed
	}
	return maxMetadata
}

// keep remembers verified metadata, on disk if there is a directory.
func (r *repository) keep(role string, b []byte) error {
	if r.dir != "" {
		if err := writeFile(filepath.Join(r.dir, role+".json"), b); err != nil {
			return err
		}
	}
	r.local[role] = b
	return nil
}

var errAbsent = errors.New("no such file")

// gone says that a file which must be there is not.
func gone(err error) error {
	if errors.Is(err, errAbsent) {
		return holdfast.Errorf(holdfast.Unavailable, "the repository is not complete: %w", err)
	}
	return err
}

// fetch reads one file of at most limit bytes, in at most the timeout.
func (r *repository) fetch(ctx context.Context, file string, limit int64) ([]byte, error) {
	a, ok := r.asked[file]
	if !ok {
		a.body, a.err = r.get(ctx, file, limit)
		r.asked[file] = a
	}
	return a.body, a.err
}

func (r *repository) get(ctx context.Context, file string, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	away := func(err error) error {
		return &holdfast.Error{Kind: holdfast.Unavailable, What: "cannot be fetched", Where: r.name + "/" + file, Err: err}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+file, nil)
	if err != nil {
		return nil, away(err)
	}
	res, err := r.http.Do(req)
	if err != nil {
		return nil, away(err)
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusForbidden: // object stores say Forbidden for what is not there
		return nil, fmt.Errorf("%s/%s: %w", r.name, file, errAbsent)
	default:
		return nil, away(errors.New(res.Status))
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	if err != nil {
		return nil, away(err)
	}
	if int64(len(b)) > limit {
		return nil, r.wrong(file, holdfast.Errorf(holdfast.Denied, "longer than the %d bytes it may have; stopped reading", limit))
	}
	return b, nil
}

// wrong says which file of which repository is not to be believed.
func (r *repository) wrong(file string, err error) error {
	return &holdfast.Error{Kind: holdfast.Denied, Where: strings.TrimSuffix(r.name+"/"+file, "/"), Err: err}
}
