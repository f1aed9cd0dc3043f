package loader

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

// memory is the little that a loader must not forget: what was signed about the
// content it accepted, in case the image repository drops it, and which of the
// publishers' retries it has passed on.
type memory struct {
	Accepted []tuf.Release           `json:"accepted,omitempty"` // oldest first
	Retried  map[holdfast.Digest]int `json:"retried,omitempty"`

	dirty bool
}

const (
	memoryFile  = "loader.json"
	maxMemory   = 1 << 20
	maxAccepted = 16
	maxRetried  = 256
)

// load reads the memory below dir. What cannot be read is forgotten: it only ever
// adds ways back, and a retry that is passed on twice is decided by the guard.
func (m *memory) load(dir string) error {
	if dir == "" {
		return nil
	}
	path := filepath.Join(dir, memoryFile)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() > maxMemory {
		return nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if json.Unmarshal(b, m) != nil {
		*m = memory{}
	}
	m.Accepted = slices.DeleteFunc(m.Accepted, func(r tuf.Release) bool { return r.Rings.Validate() != nil })
	return nil
}

// save writes the memory by rename, if it changed.
func (m *memory) save(dir string) error {
	if dir == "" || !m.dirty {
		return nil
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	err = replace(filepath.Join(dir, memoryFile), b)
	m.dirty = err != nil
	return err
}

// replace writes a file whole or not at all; it is durable when replace returns.
func replace(path string, b []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, tmpPrefix+"*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it is renamed, as it should
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = syncDir(dir)
	}
	return err
}

// accept remembers r as the newest accepted release.
func (m *memory) accept(r tuf.Release) {
	m.Accepted = append(slices.DeleteFunc(m.Accepted, func(o tuf.Release) bool { return o.Digest == r.Digest }), r)
	if extra := len(m.Accepted) - maxAccepted; extra > 0 {
		m.Accepted = slices.Delete(m.Accepted, 0, extra)
	}
	m.dirty = true
}

func (m *memory) release(d holdfast.Digest) *tuf.Release {
	for _, r := range m.Accepted {
		if r.Digest == d {
			return &r
		}
	}
	return nil
}

func (m *memory) retried(d holdfast.Digest, n int) {
	if m.Retried == nil || len(m.Retried) >= maxRetried {
		m.Retried = map[holdfast.Digest]int{}
	}
	m.Retried[d], m.dirty = n, true
}
