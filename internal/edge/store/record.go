package store

import (
	"context"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/trust/tlog"
)

// Append puts decisions on the record, in order, and returns them with their
// numbers. Call it in the transaction that makes the decision.
func (s *Store) Append(ctx context.Context, entries ...holdfast.Entry) (numbered []holdfast.Entry, err error) {
	err = s.Tx(ctx, func(tx *Store) error {
		numbered = nil
		// Locks the log against every other writer until the transaction ends.
		if _, err := tx.exec(ctx, `UPDATE counters SET value = value WHERE name = 'record'`); err != nil {
			return err
		}
		log := recordTx{ctx, tx}
		for _, e := range entries {
			e.At = e.At.UTC()
			e, err := tlog.Append(&log, e)
			if err != nil {
				return err
			}
			numbered = append(numbered, e)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return numbered, nil
}

// recordTx is the log as one transaction sees it: a tlog.Tx.
type recordTx struct {
	ctx context.Context
	*Store
}

func (t *recordTx) Size() (int64, error) { return t.RecordSize(t.ctx) }

func (t *recordTx) Append(seq int64, entry []byte, first int64, hashes []tlog.Hash) error {
	e, err := tlog.Decode(entry)
	if err != nil {
		return err
	}
	if _, err := t.exec(t.ctx, `INSERT INTO record (seq, at, kind, org, by_name, release, bundle, leaf) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		seq, nanos(e.At), e.Kind, string(e.Org), e.By, string(e.Release), string(e.Bundle), entry); err != nil {
		return err
	}
	if _, err := t.exec(t.ctx, `UPDATE counters SET value = $1 WHERE name = 'record'`, seq+1); err != nil {
		return err
	}
	rows := make([][]any, 0, len(hashes))
	for i, h := range hashes {
		rows = append(rows, []any{first + int64(i), h[:]})
	}
	_, err = t.insert(t.ctx, `INSERT INTO record_hashes (position, hash) VALUES `, ``, rows)
	return err
}

func (t *recordTx) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	all := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		var h []byte
		if err := t.row(t.ctx, "hash of the record", `SELECT hash FROM record_hashes WHERE position = $1`, []any{x}, &h); err != nil {
			return nil, err
		}
		copy(all[i][:], h)
	}
	return all, nil
}

func (t *recordTx) ReadEntries(from, to int64) ([][]byte, error) {
	var all [][]byte
	err := t.rows(t.ctx, `SELECT leaf FROM record WHERE seq >= $1 AND seq < $2 ORDER BY seq`, []any{from, to}, func(scan func(...any) error) error {
		var leaf []byte
		err := scan(&leaf)
		all = append(all, leaf)
		return err
	})
	return all, err
}

// RecordReader is the record as tlog.Export and tlog.Root read it.
func (s *Store) RecordReader(ctx context.Context) tlog.Reader { return &recordTx{ctx, s} }

// RecordSize is how many entries are on the record.
func (s *Store) RecordSize(ctx context.Context) (int64, error) {
	var n int64
	err := s.row(ctx, "record", `SELECT value FROM counters WHERE name = 'record'`, nil, &n)
	return n, err
}

// RecordFilter selects entries; a zero field selects all.
type RecordFilter struct {
	Release holdfast.ReleaseID
	Kind    string
	Org     holdfast.OrgID
	Before  int64 // cursor for older pages: numbers below; 0 for the newest
	After   int64 // for following, oldest first: numbers from After on
	Ascend  bool  // oldest first
	Limit   int   // 0 means 100; at most 10,000
}

// Leaf is an entry with the bytes that are hashed.
type Leaf struct {
	holdfast.Entry
	Bytes []byte
}

// Record lists entries, newest first unless f.Ascend.
func (s *Store) Record(ctx context.Context, f RecordFilter) ([]Leaf, error) {
	w := where{}
	w.equal("release", string(f.Release))
	w.equal("kind", f.Kind)
	w.equal("org", string(f.Org))
	if f.Before > 0 {
		w.add("seq < ?", f.Before)
	}
	if f.After > 0 {
		w.add("seq >= ?", f.After)
	}
	order := "DESC"
	if f.Ascend {
		order = "ASC"
	}
	var all []Leaf
	err := s.rows(ctx, `SELECT leaf FROM record`+w.sql()+` ORDER BY seq `+order+` LIMIT `+w.arg(int64(limit(f.Limit))), w.args, func(scan func(...any) error) error {
		var l Leaf
		err := scan(&l.Bytes)
		if err == nil {
			l.Entry, err = tlog.Decode(l.Bytes)
		}
		all = append(all, l)
		return err
	})
	return all, err
}

// RecordKinds lists the kinds of entries on the record.
func (s *Store) RecordKinds(ctx context.Context) ([]string, error) {
	var all []string
	err := s.rows(ctx, `SELECT DISTINCT kind FROM record ORDER BY kind`, nil, func(scan func(...any) error) error {
		var k string
		err := scan(&k)
		all = append(all, k)
		return err
	})
	return all, err
}

// SignRecord signs a checkpoint of the record as it stands with a log key
// (tlog.GenerateKey) and stores it. If nothing was added since the last one,
// it returns that one.
func (s *Store) SignRecord(ctx context.Context, secret string, now time.Time) (checkpoint []byte, err error) {
	err = s.Tx(ctx, func(tx *Store) error {
		log := recordTx{ctx, tx}
		size, err := log.Size()
		if err != nil {
			return err
		}
		err = tx.row(ctx, "checkpoint", `SELECT checkpoint FROM record_heads WHERE size = $1`, []any{size}, &checkpoint)
		if holdfast.KindOf(err) != holdfast.NotFound {
			return err
		}
		root, err := tlog.Root(size, &log)
		if err != nil {
			return err
		}
		if checkpoint, err = tlog.Sign(size, root, secret); err != nil {
			return err
		}
		_, err = tx.exec(ctx, `INSERT INTO record_heads (size, checkpoint, at) VALUES ($1, $2, $3)`, size, checkpoint, nanos(now))
		return err
	})
	return checkpoint, err
}

// Checkpoint returns the latest signed checkpoint, or NotFound.
func (s *Store) Checkpoint(ctx context.Context) ([]byte, error) {
	var c []byte
	err := s.row(ctx, "checkpoint", `SELECT checkpoint FROM record_heads ORDER BY size DESC LIMIT 1`, nil, &c)
	return c, err
}
