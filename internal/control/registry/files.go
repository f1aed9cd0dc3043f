package registry

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/holdfast-security/holdfast"
)

// Files is a directory of content, named by the hexadecimal digits of its
// digest, and of verdicts, named by those of their bundle with ".json". Both
// subdirectories may be served as they are.
type Files struct{ Dir string }

// ContentDir is what is served as /content.
func (f Files) ContentDir() string { return filepath.Join(f.Dir, "content") }

// VerdictDir is what is served as /verdicts.
func (f Files) VerdictDir() string { return filepath.Join(f.Dir, "verdicts") }

func (f Files) path(d holdfast.Digest) (string, error) {
	if _, err := holdfast.ParseDigest(string(d)); err != nil {
		return "", err
	}
	return filepath.Join(f.ContentDir(), d.Hex()), nil
}

// Put writes content whose digest is d. When it returns nil the content is on
// the disk whole; a crash leaves it whole or absent.
func (f Files) Put(d holdfast.Digest, data []byte) error {
	path, err := f.path(d)
	if err != nil {
		return err
	}
	if known, err := os.ReadFile(path); err == nil && holdfast.DigestOf(known) == d {
		return nil
	}
	return write(path, data)
}

// Read returns the content of a digest. Content that does not have its digest
// any more is an Internal error: the disk or somebody changed it.
func (f Files) Read(d holdfast.Digest) ([]byte, error) {
	path, err := f.path(d)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, holdfast.Errorf(holdfast.NotFound, "there is no content %s", d.Short())
	}
	if err != nil {
		return nil, err
	}
	if holdfast.DigestOf(data) != d {
		return nil, &holdfast.Error{Kind: holdfast.Internal, What: "the stored content is damaged", Where: path, Do: "register it again"}
	}
	return data, nil
}

// PutVerdict writes the verdict on a bundle, replacing an earlier one.
func (f Files) PutVerdict(bundle holdfast.Digest, envelope []byte) error {
	if _, err := holdfast.ParseDigest(string(bundle)); err != nil {
		return err
	}
	return write(filepath.Join(f.VerdictDir(), bundle.Hex()+".json"), envelope)
}

// write replaces a file atomically and durably: a temporary file in the same
// directory, synced, renamed, and the directory synced.
func write(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	t, err := os.CreateTemp(dir, ".tmp-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			t.Close()
			os.Remove(t.Name())
		}
	}()
	if _, err = t.Write(data); err != nil {
		return err
	}
	if err = t.Chmod(0o644); err != nil { // what is signed may be read by everybody
		return err
	}
	if err = t.Sync(); err != nil {
		return err
	}
	if err = t.Close(); err != nil {
		return err
	}
	if err = os.Rename(t.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
