package loader

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

// path is where the content with digest d is kept.
func (l *Loader) path(d holdfast.Digest) string { return filepath.Join(l.cfg.Content, d.Hex()) }

// content makes sure that r's bytes are on disk, whole and durable, and returns
// their path. An error of kind Denied means that the server gave other bytes than
// were signed.
func (l *Loader) content(ctx context.Context, r tuf.Release) (string, error) {
	path := l.path(r.Digest)
	if f, err := os.Open(path); err == nil {
		err = same(f, r)
		f.Close()
		if err == nil {
			return path, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Patience)
	defer cancel()
	body, err := l.open(ctx, "/content/"+r.Digest.Hex())
	if err != nil {
		return "", err
	}
	defer body.Close()
	f, err := os.CreateTemp(l.cfg.Content, tmpPrefix+"*")
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name()) // fails once it is renamed, as it should
	err = l.save(f, body, r)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = syncDir(l.cfg.Content)
	}
	return path, err
}

const tmpPrefix = ".tmp-"

// save copies at most the signed length, and one byte to find out if there is more.
func (l *Loader) save(f *os.File, body io.Reader, r tuf.Release) error {
	h := sha256.New()
	src := &reading{r: io.LimitReader(body, r.Size+1)}
	n, err := io.Copy(io.MultiWriter(f, h), src)
	switch {
	case src.err != nil:
		return holdfast.Errorf(holdfast.Unavailable, "content %s: broken off after %d of %d bytes: %w", r.Digest.Short(), n, r.Size, src.err)
	case err != nil:
		return err
	}
	if err := matches(n, h.Sum(nil), r); err != nil {
		return err
	}
	mode := os.FileMode(0o644)
	if r.Channel == holdfast.Agent {
		mode = 0o755
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	return f.Sync()
}

// reading remembers an error of its reader, to tell it from one of the disk.
type reading struct {
	r   io.Reader
	err error
}

func (r *reading) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

func same(f io.Reader, r tuf.Release) error {
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(f, r.Size+1))
	if err != nil {
		return err
	}
	return matches(n, h.Sum(nil), r)
}

func matches(n int64, sum []byte, r tuf.Release) error {
	denied := func(format string, args ...any) error {
		return holdfast.Errorf(holdfast.Denied, "content "+r.Digest.Short()+": "+format, args...)
	}
	switch {
	case n < r.Size:
		return denied("truncated: %d of the %d bytes that were signed", n, r.Size)
	case n > r.Size:
		return denied("longer than the %d bytes that were signed; stopped reading", r.Size)
	case hex.EncodeToString(sum) != r.Digest.Hex():
		return denied("other bytes than those that were signed")
	}
	return nil
}

// open requests a file of the server. Kinds: NotFound, Unavailable.
func (l *Loader) open(ctx context.Context, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.cfg.URL+path, nil)
	if err != nil {
		return nil, err
	}
	res, err := l.cfg.HTTP.Do(req)
	if err != nil {
		return nil, holdfast.Errorf(holdfast.Unavailable, "%s: %w", path, err)
	}
	switch res.StatusCode {
	case http.StatusOK:
		return res.Body, nil
	case http.StatusNotFound:
		err = holdfast.Errorf(holdfast.NotFound, "%s: the server has no such file", path)
	default:
		err = holdfast.Errorf(holdfast.Unavailable, "%s: %s", path, res.Status)
	}
	res.Body.Close()
	return nil, err
}

// get reads a file of at most limit bytes.
func (l *Loader) get(ctx context.Context, path string, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	body, err := l.open(ctx, path)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	b, err := io.ReadAll(io.LimitReader(body, limit+1))
	if err != nil {
		return nil, holdfast.Errorf(holdfast.Unavailable, "%s: %w", path, err)
	}
	if int64(len(b)) > limit {
		return nil, holdfast.Errorf(holdfast.Denied, "%s: longer than the %d bytes it may have; stopped reading", path, limit)
	}
	return b, nil
}

// Sweep deletes content that no way forward or back needs: everything but keep,
// and what is left of downloads that were broken off more than an hour ago. Only a
// host with a content directory of its own may call it.
func (l *Loader) Sweep(keep []holdfast.Digest, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	entries, err := os.ReadDir(l.cfg.Content)
	if err != nil {
		return err
	}
	var failed []error
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, tmpPrefix) {
			info, err := e.Info()
			if err != nil || now.Sub(info.ModTime()) < time.Hour {
				continue
			}
		} else if _, err := holdfast.ParseDigest("sha256:" + name); err != nil || slices.Contains(keep, holdfast.Digest("sha256:"+name)) {
			continue
		}
		if err := os.Remove(filepath.Join(l.cfg.Content, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			failed = append(failed, fmt.Errorf("content %s: %w", name, err))
		}
	}
	return errors.Join(failed...)
}
