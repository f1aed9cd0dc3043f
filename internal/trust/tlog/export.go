package tlog

import (
	"archive/zip"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-security/holdfast"
)

// Tiles are 8 levels high, and an entry bundle holds as many entries as a tile
// of the lowest level holds hashes.
const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
)

// Reader is the log for whoever exports it. What it returned once never changes.
type Reader interface {
	Hashes
	// ReadEntries returns the bytes of the entries from (included) to to
	// (excluded).
	ReadEntries(from, to int64) ([][]byte, error)
}

// Export writes the record as a signed checkpoint saw it: tiles and entry bundles,
// and the checkpoint after them, so that a directory that is being served is never
// ahead of its files. A write must be atomic, and may be repeated.
func Export(r Reader, signed []byte, public string, write func(path string, data []byte) error) error {
	c, err := Open(signed, public)
	if err != nil {
		return err
	}
	for from := int64(0); from < c.Size; from += tileWidth {
		to := min(from+tileWidth, c.Size)
		entries, err := r.ReadEntries(from, to)
		if err != nil {
			return err
		}
		if int64(len(entries)) != to-from {
			return holdfast.Errorf(holdfast.Internal, "record: the store has %d of the entries %d to %d", len(entries), from, to-1)
		}
		if err := write(bundlePath(from/tileWidth, int(to-from)), bundle(entries)); err != nil {
			return err
		}
	}
	for _, t := range tlog.NewTiles(tileHeight, 0, c.Size) {
		data, err := tlog.ReadTileData(t, r)
		if err != nil {
			return err
		}
		if err := write(tilePath(t), data); err != nil {
			return err
		}
	}
	return write("checkpoint", signed)
}

// ToDir writes files below dir, each by rename.
func ToDir(dir string) func(path string, data []byte) error {
	return func(path string, data []byte) error {
		name := filepath.Join(dir, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		f, err := os.CreateTemp(filepath.Dir(name), ".tmp-*")
		if err != nil {
			return err
		}
		defer os.Remove(f.Name())
		_, err = f.Write(data)
		if err == nil {
			err = f.Chmod(0o644)
		}
		if err == nil {
			err = f.Sync()
		}
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
		return os.Rename(f.Name(), name)
	}
}

// ToZip writes files into an archive. The caller closes it.
func ToZip(z *zip.Writer) func(path string, data []byte) error {
	return func(path string, data []byte) error {
		w, err := z.Create(path)
		if err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	}
}

// bundle is an entry bundle: each entry behind its length in 16 bits.
func bundle(entries [][]byte) []byte {
	var b []byte
	for _, e := range entries {
		b = binary.BigEndian.AppendUint16(b, uint16(len(e)))
		b = append(b, e...)
	}
	return b
}

// unbundle splits an entry bundle of exactly n entries. On an error it returns
// the entries before it.
func unbundle(b []byte, n int) ([][]byte, error) {
	var entries [][]byte
	for len(entries) < n {
		if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
			return entries, io.ErrUnexpectedEOF
		}
		size := int(binary.BigEndian.Uint16(b))
		entries = append(entries, b[2:2+size])
		b = b[2+size:]
	}
	if len(b) > 0 {
		return entries, holdfast.Errorf(holdfast.Invalid, "%d bytes too many", len(b))
	}
	return entries, nil
}

// tilePath is the C2SP form of a tile's path, which leaves the height out.
func tilePath(t tlog.Tile) string {
	return "tile/" + strings.TrimPrefix(t.Path(), "tile/8/")
}

func bundlePath(n int64, width int) string {
	t := tlog.Tile{H: tileHeight, L: 0, N: n, W: width}
	return "tile/entries/" + strings.TrimPrefix(t.Path(), "tile/8/0/")
}
