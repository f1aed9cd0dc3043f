package guard

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// directory is a disk in the real file system.
type directory string

func (d directory) at(name string) string { return filepath.Join(string(d), name) }

func (d directory) Read(name string, limit int64) ([]byte, error) {
	f, err := os.Open(d.at(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", d.at(name), limit)
	}
	return data, err
}

func (d directory) Write(name string, data []byte) error {
	f, err := os.OpenFile(d.at(name), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

func (d directory) Rename(from, to string) error { return os.Rename(d.at(from), d.at(to)) }

func (d directory) Link(from, to string) error { return os.Link(d.at(from), d.at(to)) }

func (d directory) Remove(name string) error { return os.Remove(d.at(name)) }
