package outbox

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// disk is the directory that a queue lives in. Tests put one in its place that
// fails and crashes at any step.
type disk interface {
	// List returns the names of the segments, in any order.
	List() ([]string, error)
	// Create makes a new, empty segment. Its name is durable after its first
	// Sync.
	Create(name string) (segment, error)
	Read(name string) ([]byte, error)
	Remove(name string) error
}

// segment is a file being appended to. After a failed Write any part of it may
// have been written.
type segment interface {
	Write(b []byte) (int, error)
	Sync() error
	Close() error
}

const suffix = ".findings"

// directory is a disk on the operating system's.
type directory string

func (d directory) List() ([]string, error) {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() && strings.HasSuffix(e.Name(), suffix) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (d directory) Create(name string) (segment, error) {
	f, err := os.OpenFile(filepath.Join(string(d), name), os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return &file{File: f, dir: string(d)}, nil
}

func (d directory) Read(name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(string(d), name))
}

func (d directory) Remove(name string) error {
	err := os.Remove(filepath.Join(string(d), name))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

type file struct {
	*os.File
	dir   string
	named bool // its name is durable
}

func (f *file) Sync() error {
	if err := f.File.Sync(); err != nil {
		return err
	}
	if !f.named {
		if err := syncDir(f.dir); err != nil {
			return err
		}
		f.named = true
	}
	return nil
}
