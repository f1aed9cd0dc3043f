// Package tlog is the record: an append-only Merkle tree of decisions that
// outsiders can verify without trusting whoever keeps it.
//
// Entries and hashes are rows of the caller's store, appended in the transaction
// that makes the decision (Tx): a decision without its entry, or an entry without
// its decision, cannot be committed. A checkpoint is the tree's size and root,
// signed. Export writes checkpoint, tiles and entry bundles as static files;
// VerifyExport believes none of it.
//
// Sources: RFC 6962 §2.1 (the tree); C2SP tlog-checkpoint, signed-note and
// tlog-tiles (the files).
package tlog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-security/holdfast"
)

// Hash is a node of the tree.
type Hash = tlog.Hash

// MaxEntry bounds one entry, in bytes: an entry bundle writes lengths in 16 bits.
const MaxEntry = 1<<16 - 1

// Hashes reads stored hashes. The index of a hash is its place in the dense
// order of tlog.StoredHashIndex: a row number.
type Hashes interface {
	// ReadHashes returns one hash for each index, in the same order, or an error.
	ReadHashes(indexes []int64) ([]Hash, error)
}

// Tx is the log as one open transaction of the caller sees it. The transaction
// must exclude every other writer of the log from Size to its end.
type Tx interface {
	Hashes
	// Size is the number of entries.
	Size() (int64, error)
	// Append stores the entry with number seq, and hashes from index first on.
	// Nothing is durable before the caller commits.
	Append(seq int64, entry []byte, first int64, hashes []Hash) error
}

// Append puts e on the record and returns it with its number. The number that e
// came with is ignored.
func Append(tx Tx, e holdfast.Entry) (holdfast.Entry, error) {
	n, err := tx.Size()
	if err != nil {
		return e, err
	}
	e.Seq = n
	data, err := Encode(e)
	if err != nil {
		return e, err
	}
	hashes, err := tlog.StoredHashes(n, data, tx)
	if err != nil {
		return e, fmt.Errorf("record: entry %d: %w", n, err)
	}
	return e, tx.Append(n, data, tlog.StoredHashIndex(0, n), hashes)
}

// Root returns the root of the tree with size entries.
func Root(size int64, r Hashes) (Hash, error) { return tlog.TreeHash(size, r) }

// Encode returns the bytes of an entry: those that are hashed.
func Encode(e holdfast.Entry) ([]byte, error) {
	if e.Kind == "" || e.At.IsZero() || e.Seq < 0 {
		return nil, holdfast.Errorf(holdfast.Invalid, "record: an entry needs a number, a kind and a time")
	}
	b, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	if len(b) > MaxEntry {
		return nil, holdfast.Errorf(holdfast.Invalid, "record: an entry of kind %q is %d bytes long; the limit is %d", e.Kind, len(b), MaxEntry)
	}
	return b, nil
}

// Decode reads an entry. Fields it does not know are passed over: they are of a
// newer version, and hashed all the same.
func Decode(b []byte) (holdfast.Entry, error) {
	var e holdfast.Entry
	if len(b) > MaxEntry {
		return e, holdfast.Errorf(holdfast.Invalid, "longer than %d bytes", MaxEntry)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&e); err != nil {
		return e, holdfast.Errorf(holdfast.Invalid, "not an entry: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return e, holdfast.Errorf(holdfast.Invalid, "something follows the entry")
	}
	if e.Kind == "" || e.At.IsZero() || e.Seq < 0 {
		return e, holdfast.Errorf(holdfast.Invalid, "an entry needs a number, a kind and a time")
	}
	return e, nil
}

// Inclusion proves to whoever holds a checkpoint of size entries that entry n is
// in it.
func Inclusion(size, n int64, r Hashes) ([]Hash, error) { return tlog.ProveRecord(size, n, r) }

// CheckInclusion verifies what Inclusion made, for the bytes of entry n.
func CheckInclusion(c Checkpoint, n int64, entry []byte, proof []Hash) error {
	if err := tlog.CheckRecord(proof, c.Size, c.Root, n, tlog.RecordHash(entry)); err != nil {
		return holdfast.Errorf(holdfast.Denied, "record: entry %d is not in the checkpoint of %d entries", n, c.Size)
	}
	return nil
}

// Consistency proves that the tree of size entries begins with the one of old.
func Consistency(size, old int64, r Hashes) ([]Hash, error) { return tlog.ProveTree(size, old, r) }

// CheckConsistency verifies what Consistency made.
func CheckConsistency(newer, older Checkpoint, proof []Hash) error {
	if older.Size == 0 || older == newer {
		return nil
	}
	if newer.Size < older.Size || tlog.CheckTree(proof, newer.Size, newer.Root, older.Size, older.Root) != nil {
		return holdfast.Errorf(holdfast.Denied, "record: the checkpoint of %d entries does not continue the one of %d: history was rewritten", newer.Size, older.Size)
	}
	return nil
}
