package live

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"

	modtlog "golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/edge/store"
	"github.com/holdfast-security/holdfast/internal/trust/tlog"
	"github.com/holdfast-security/holdfast/internal/view"
)

// entry is a leaf of the record as people see it.
func entry(l store.Leaf) view.Entry {
	hash := modtlog.RecordHash(l.Bytes)
	var body bytes.Buffer
	if json.Indent(&body, l.Bytes, "", "  ") != nil {
		body.Write(l.Bytes)
	}
	return view.Entry{
		Index: l.Seq, At: l.At, Kind: l.Kind, By: l.By, Release: l.Release, Summary: l.Text,
		Hash: hex.EncodeToString(hash[:]), Body: body.String(),
	}
}

// Record returns a page of the record, newest first.
func (s *Source) Record(ctx context.Context, q view.RecordQuery) (p view.RecordPage, err error) {
	if p.Size, err = s.Store.RecordSize(ctx); err != nil {
		return p, err
	}
	if p.Kinds, err = s.Store.RecordKinds(ctx); err != nil {
		return p, err
	}
	leaves, err := s.Store.Record(ctx, store.RecordFilter{Before: q.Before, Kind: q.Kind, Limit: q.Size})
	if err != nil {
		return p, err
	}
	for _, l := range leaves {
		p.Entries = append(p.Entries, entry(l))
	}
	c, err := s.checkpoint(ctx)
	if err != nil && holdfast.KindOf(err) != holdfast.NotFound {
		return p, err
	}
	p.Checkpoint = string(c)
	return p, nil
}

func (s *Source) checkpoint(ctx context.Context) ([]byte, error) {
	if s.Checkpoint != nil {
		return s.Checkpoint(ctx)
	}
	return s.Store.Checkpoint(ctx)
}

// ExportRecord archives the record with a checkpoint.
func (s *Source) ExportRecord(ctx context.Context) ([]byte, error) {
	signed, err := s.checkpoint(ctx)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	if err := tlog.Export(s.Store.RecordReader(ctx), signed, s.LogKey, tlog.ToZip(z)); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
