package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/holdfast-security/holdfast"
)

// Numbered is a finding with its place in the order of acceptance, which is
// the cursor of every list of findings.
type Numbered struct {
	Seq int64 `json:"seq"`
	holdfast.Finding
}

// AddFindings stores the findings of a host and says how many were not known
// before: a delivery repeated changes nothing. When it returns without error
// all of them are durable, so the sender may forget them. The organisation is
// the host's; Denied if there is no such host, or it was revoked.
func (s *Store) AddFindings(ctx context.Context, host holdfast.HostID, found []holdfast.Finding) (added int, err error) {
	if len(found) == 0 {
		return 0, nil
	}
	err = s.Tx(ctx, func(tx *Store) error {
		added = 0
		var org holdfast.OrgID
		var revoked bool
		err := tx.row(ctx, "host", `SELECT org, revoked FROM hosts WHERE id = $1`, []any{string(host)}, &org, &revoked)
		if holdfast.KindOf(err) == holdfast.NotFound || revoked {
			return holdfast.Errorf(holdfast.Denied, "host %s is not enrolled, or was revoked", host)
		}
		if err != nil {
			return err
		}
		first, err := tx.next(ctx, "finding", len(found)) // duplicates leave gaps
		if err != nil {
			return err
		}
		rows := make([][]any, 0, len(found))
		for i, f := range found {
			f.Org, f.Host = org, host
			j, err := json.Marshal(f)
			if err != nil {
				return err
			}
			rows = append(rows, []any{first + int64(i), f.ID, string(f.Org), string(f.Host), f.Rule, string(f.Severity), string(f.Bundle), nanos(f.At), nanos(f.Received), string(j)})
		}
		n, err := tx.insert(ctx, `INSERT INTO findings (seq, id, org, host, rule, severity, bundle, at, received, finding) VALUES `, ` ON CONFLICT (id) DO NOTHING`, rows)
		added = int(n)
		return err
	})
	if err != nil {
		return 0, err
	}
	return added, nil
}

// FindingFilter selects findings; a zero field selects all.
type FindingFilter struct {
	Org      holdfast.OrgID
	Host     holdfast.HostID
	Rule     string
	Severity holdfast.Severity
	Since    time.Time // received at or after
	Before   int64     // cursor for older pages: sequence numbers below
	After    int64     // cursor for following: sequence numbers above, oldest first
	Limit    int       // 0 means 100; at most 10,000
}

// Findings lists findings: newest first, or oldest first if After is set
// (to -1, to follow from the start).
func (s *Store) Findings(ctx context.Context, f FindingFilter) ([]Numbered, error) {
	w := f.where()
	order := "DESC"
	if f.After != 0 {
		w.add("seq > ?", f.After)
		order = "ASC"
	}
	if f.Before != 0 {
		w.add("seq < ?", f.Before)
	}
	var all []Numbered
	err := s.rows(ctx, `SELECT seq, finding FROM findings`+w.sql()+` ORDER BY seq `+order+` LIMIT `+w.arg(int64(limit(f.Limit))), w.args, func(scan func(...any) error) error {
		var n Numbered
		var j string
		if err := scan(&n.Seq, &j); err != nil {
			return err
		}
		err := json.Unmarshal([]byte(j), &n.Finding)
		all = append(all, n)
		return err
	})
	return all, err
}

func (f FindingFilter) where() where {
	w := where{}
	w.equal("org", string(f.Org))
	w.equal("host", string(f.Host))
	w.equal("rule", f.Rule)
	w.equal("severity", string(f.Severity))
	if !f.Since.IsZero() {
		w.add("received >= ?", nanos(f.Since))
	}
	return w
}

// CountFindings counts what f selects, by severity; cursors are ignored.
func (s *Store) CountFindings(ctx context.Context, f FindingFilter) (map[holdfast.Severity]int, error) {
	w := f.where()
	all := map[holdfast.Severity]int{}
	err := s.rows(ctx, `SELECT severity, COUNT(*) FROM findings`+w.sql()+` GROUP BY severity`, w.args, func(scan func(...any) error) error {
		var v holdfast.Severity
		var n int
		err := scan(&v, &n)
		all[v] = n
		return err
	})
	return all, err
}

// Finding returns a finding by id.
func (s *Store) Finding(ctx context.Context, id string) (Numbered, error) {
	var n Numbered
	var j string
	err := s.row(ctx, "finding "+id, `SELECT seq, finding FROM findings WHERE id = $1`, []any{id}, &n.Seq, &j)
	if err == nil {
		err = json.Unmarshal([]byte(j), &n.Finding)
	}
	return n, err
}
