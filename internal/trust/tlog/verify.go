package tlog

import (
	"bytes"
	"errors"
	"io"
	"io/fs"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-security/holdfast"
)

// Verified is what VerifyExport found to be true.
type Verified struct {
	Checkpoint Checkpoint
	// Older is the checkpoint that the record was found to continue; zero if none
	// was given.
	Older Checkpoint
}

// Against says what an export is held against, besides itself.
type Against struct {
	// Public is the log's public key. It must come from elsewhere than the export.
	Public string
	// Older is a signed checkpoint that was seen before; nil if there is none.
	Older []byte
	// OlderExport lets a rewritten history be named by its first false entry; nil
	// if only the checkpoint was kept.
	OlderExport fs.FS
}

// VerifyExport verifies a directory or archive that Export wrote, offline: the
// checkpoint's signature; that each entry can be read, has its own number and is
// the one its tile commits to; that the tree of all entries is the one that was
// signed; every tile; and that an older checkpoint is of the same history. each is
// called with every entry in order, before the whole is known to be true; it may
// be nil. An error names the file or the entry.
func VerifyExport(export fs.FS, a Against, each func(holdfast.Entry) error) (Verified, error) {
	var v Verified
	signed, err := readFile(export, "checkpoint", maxCheckpoint)
	if err != nil {
		return v, err
	}
	if v.Checkpoint, err = Open(signed, a.Public); err != nil {
		return v, err
	}
	tree, err := rebuild(export, v.Checkpoint.Size, each)
	if err != nil {
		return v, err
	}
	for _, t := range tlog.NewTiles(tileHeight, 0, v.Checkpoint.Size) {
		if t.L == 0 {
			continue // held against each entry already
		}
		want, err := tlog.ReadTileData(t, tree)
		if err != nil {
			return v, err
		}
		got, err := readFile(export, tilePath(t), tileWidth*tlog.HashSize)
		if err != nil {
			return v, err
		}
		if !bytes.Equal(want, got) {
			first := t.N << (tileHeight * (t.L + 1))
			return v, denied(tilePath(t), "is not what the entries from %d on hash to", first)
		}
	}
	root, err := tlog.TreeHash(v.Checkpoint.Size, tree)
	if err != nil {
		return v, err
	}
	if v.Checkpoint.Size > 0 && root != v.Checkpoint.Root {
		return v, denied("checkpoint", "signs another history than the %d entries beside it, of which the last is entry %d", v.Checkpoint.Size, v.Checkpoint.Size-1)
	}
	if a.Older == nil {
		return v, nil
	}
	if v.Older, err = Open(a.Older, a.Public); err != nil {
		return v, err
	}
	return v, continues(export, tree, v, a)
}

// continues checks that the record of v begins with what v.Older signed.
func continues(export fs.FS, tree *memory, v Verified, a Against) error {
	if v.Older.Size > v.Checkpoint.Size {
		return denied("checkpoint", "has %d entries, but an older one had %d: entry %d was taken away", v.Checkpoint.Size, v.Older.Size, v.Checkpoint.Size)
	}
	if v.Older.Size == 0 {
		return nil
	}
	root, err := tlog.TreeHash(v.Older.Size, tree)
	if err != nil {
		return err
	}
	if root == v.Older.Root {
		return nil
	}
	if a.OlderExport == nil {
		return denied("checkpoint", "history was rewritten: the first %d entries are not those that the older checkpoint signed; one of entry 0 to entry %d is false", v.Older.Size, v.Older.Size-1)
	}
	n, err := firstDifference(a.OlderExport, export, v.Older.Size)
	if err != nil {
		return err
	}
	return denied("checkpoint", "history was rewritten: entry %d is not the one that the older export has", n)
}

// rebuild reads all entries and returns the hashes of their tree.
func rebuild(export fs.FS, size int64, each func(holdfast.Entry) error) (*memory, error) {
	tree := &memory{}
	for from := int64(0); from < size; from += tileWidth {
		width := int(min(tileWidth, size-from))
		entries, err := readBundle(export, from, width)
		if err != nil {
			return nil, err
		}
		leaves, err := readLeaves(export, from, width)
		if err != nil {
			return nil, err
		}
		for i, data := range entries {
			n := from + int64(i)
			if h := tlog.RecordHash(data); !bytes.Equal(h[:], leaves[i*tlog.HashSize:(i+1)*tlog.HashSize]) {
				return nil, denied(bundlePath(from/tileWidth, width), "entry %d is not the one its tile commits to: it was changed, or another was put in its place", n)
			}
			e, err := Decode(data)
			if err != nil {
				return nil, denied(bundlePath(from/tileWidth, width), "entry %d: %w", n, err)
			}
			if e.Seq != n {
				return nil, denied(bundlePath(from/tileWidth, width), "entry %d says that it is entry %d", n, e.Seq)
			}
			hashes, err := tlog.StoredHashes(n, data, tree)
			if err != nil {
				return nil, err
			}
			*tree = append(*tree, hashes...)
			if each != nil {
				if err := each(e); err != nil {
					return nil, err
				}
			}
		}
	}
	return tree, nil
}

// firstDifference finds the first of the first size entries in which two exports
// differ.
func firstDifference(a, b fs.FS, size int64) (int64, error) {
	for from := int64(0); from < size; from += tileWidth {
		ea, err := readWidest(a, from, size)
		if err != nil {
			return 0, err
		}
		eb, err := readWidest(b, from, size)
		if err != nil {
			return 0, err
		}
		for i := range min(len(ea), len(eb)) {
			if !bytes.Equal(ea[i], eb[i]) {
				return from + int64(i), nil
			}
		}
	}
	return 0, denied("checkpoint", "the older export holds the same %d entries, but its checkpoint signs others", size)
}

// readWidest reads the bundle that starts at from, in whichever width the export
// has it.
func readWidest(export fs.FS, from, size int64) ([][]byte, error) {
	var err error
	for width := tileWidth; width >= int(min(tileWidth, size-from)); width-- {
		var entries [][]byte
		if entries, err = readBundle(export, from, width); err == nil || !errors.Is(err, fs.ErrNotExist) {
			return entries, err
		}
	}
	return nil, err
}

func readBundle(export fs.FS, from int64, width int) ([][]byte, error) {
	path := bundlePath(from/tileWidth, width)
	data, err := readFile(export, path, int64(width)*(MaxEntry+2))
	if err != nil {
		return nil, err
	}
	entries, err := unbundle(data, width)
	if err != nil {
		return nil, denied(path, "ends or breaks in entry %d: %w", from+int64(len(entries)), err)
	}
	return entries, nil
}

func readLeaves(export fs.FS, from int64, width int) ([]byte, error) {
	path := tilePath(tlog.Tile{H: tileHeight, L: 0, N: from / tileWidth, W: width})
	leaves, err := readFile(export, path, int64(width)*tlog.HashSize)
	if err == nil && len(leaves) != width*tlog.HashSize {
		err = denied(path, "is truncated: the hash of entry %d is missing", from+int64(len(leaves)/tlog.HashSize))
	}
	return leaves, err
}

func readFile(export fs.FS, path string, limit int64) ([]byte, error) {
	f, err := export.Open(path)
	if err != nil {
		return nil, denied(path, "is missing: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, denied(path, "cannot be read: %w", err)
	}
	if int64(len(data)) > limit {
		return nil, denied(path, "is longer than the %d bytes it may have", limit)
	}
	return data, nil
}

// memory holds stored hashes in their dense order.
type memory []Hash

func (m *memory) ReadHashes(indexes []int64) ([]Hash, error) {
	out := make([]Hash, len(indexes))
	for i, x := range indexes {
		if x < 0 || x >= int64(len(*m)) {
			return nil, holdfast.Errorf(holdfast.Internal, "record: no hash with index %d", x)
		}
		out[i] = (*m)[x]
	}
	return out, nil
}
