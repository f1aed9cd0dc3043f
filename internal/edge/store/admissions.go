package store

import (
	"context"

	"github.com/holdfast-security/holdfast"
)

const admissionColumns = `release, host, block, arm, org, stratum, cell, ring, at, lease, before, boot, crashes, rss, cpu, activated, clean, gone, why, returned`

// AddAdmissions stores admissions, all or none; Conflict if a host already
// takes part in the same block.
func (s *Store) AddAdmissions(ctx context.Context, all []holdfast.Admission) error {
	rows := make([][]any, 0, len(all))
	for _, a := range all {
		rows = append(rows, []any{
			string(a.Release), string(a.Host), int64(a.Block), string(a.Arm), string(a.Org), string(a.Stratum), string(a.Cell), int64(a.Ring), nanos(a.At), a.Lease,
			string(a.Before), a.Boot, int64(a.Crashes), int64(a.RSS), int64(a.CPU), nanos(a.Activated), nanos(a.Clean), nanos(a.Left), a.Why, nanos(a.Returned),
		})
	}
	_, err := s.insert(ctx, `INSERT INTO admissions (`+admissionColumns+`) VALUES `, ``, rows)
	return err
}

// MarkAdmissions stores what became of admissions: Activated, Clean, Left with
// Why, and Returned. A moment that is stored stands; a zero one changes
// nothing.
func (s *Store) MarkAdmissions(ctx context.Context, all []holdfast.Admission) error {
	rows := make([][]any, 0, len(all))
	for _, a := range all {
		rows = append(rows, []any{nanos(a.Activated), nanos(a.Clean), a.Why, nanos(a.Left), nanos(a.Returned), string(a.Release), string(a.Host), int64(a.Block)})
	}
	return s.each(ctx, `UPDATE admissions SET
		activated = CASE WHEN activated = 0 THEN $1 ELSE activated END,
		clean = CASE WHEN clean = 0 THEN $2 ELSE clean END,
		why = CASE WHEN gone = 0 THEN $3 ELSE why END,
		gone = CASE WHEN gone = 0 THEN $4 ELSE gone END,
		returned = CASE WHEN returned = 0 THEN $5 ELSE returned END
		WHERE release = $6 AND host = $7 AND block = $8`, rows)
}

// AdmissionFilter selects admissions; a zero field selects all.
type AdmissionFilter struct {
	Release holdfast.ReleaseID
	Host    holdfast.HostID
	Arm     holdfast.Arm
}

// Admissions calls each for every admission that f selects, in the order they
// were made. A rollout may have millions: they are never all in memory here.
// each must not use the store.
func (s *Store) Admissions(ctx context.Context, f AdmissionFilter, each func(holdfast.Admission) error) error {
	w := where{}
	w.equal("release", string(f.Release))
	w.equal("host", string(f.Host))
	w.equal("arm", string(f.Arm))
	return s.rows(ctx, `SELECT `+admissionColumns+` FROM admissions`+w.sql()+` ORDER BY at, release, host, block`, w.args, func(scan func(...any) error) error {
		var a holdfast.Admission
		var at, activated, clean, gone, returned int64
		if err := scan(&a.Release, &a.Host, &a.Block, &a.Arm, &a.Org, &a.Stratum, &a.Cell, &a.Ring, &at, &a.Lease, &a.Before, &a.Boot, &a.Crashes, &a.RSS, &a.CPU, &activated, &clean, &gone, &a.Why, &returned); err != nil {
			return err
		}
		a.At, a.Activated, a.Clean, a.Left, a.Returned = moment(at), moment(activated), moment(clean), moment(gone), moment(returned)
		return each(a)
	})
}

// ArmCounts says how many admissions of a release stand where.
type ArmCounts struct {
	Admitted  int `json:"admitted"`
	Activated int `json:"activated"`
	Clean     int `json:"clean"`
	Returned  int `json:"returned"`
}

// CountAdmissions counts the admissions of a release by ring and arm. A host that
// is offered the release again is the same host: it is counted once, and as clean
// if it was so at last.
func (s *Store) CountAdmissions(ctx context.Context, id holdfast.ReleaseID) (map[int]map[holdfast.Arm]ArmCounts, error) {
	all := map[int]map[holdfast.Arm]ArmCounts{}
	err := s.rows(ctx, `SELECT ring, arm, SUM(CASE WHEN block >= -1 THEN 1 ELSE 0 END),
			SUM(CASE WHEN block >= -1 AND activated > 0 THEN 1 ELSE 0 END),
			SUM(CASE WHEN clean > 0 AND (block >= -1 OR NOT EXISTS (SELECT 1 FROM admissions b
				WHERE b.release = a.release AND b.host = a.host AND b.arm = a.arm AND b.block > a.block AND b.clean > 0)) THEN 1 ELSE 0 END),
			SUM(CASE WHEN block >= -1 AND returned > 0 THEN 1 ELSE 0 END)
		FROM admissions a WHERE release = $1 GROUP BY ring, arm`, []any{string(id)}, func(scan func(...any) error) error {
		var ring int
		var arm holdfast.Arm
		var c ArmCounts
		if err := scan(&ring, &arm, &c.Admitted, &c.Activated, &c.Clean, &c.Returned); err != nil {
			return err
		}
		if all[ring] == nil {
			all[ring] = map[holdfast.Arm]ArmCounts{}
		}
		all[ring][arm] = c
		return nil
	})
	return all, err
}

const harmColumns = `seq, release, host, org, stratum, block, arm, kind, at, detail, ring, cell, after, first`

// AddHarms stores harm events and returns those that are new, with their
// sequence numbers. An event of a kind that the host already had in the block
// is dropped: only the first counts. Seq and First are the store's to say.
func (s *Store) AddHarms(ctx context.Context, all []holdfast.Harm) (added []holdfast.Harm, err error) {
	err = s.Tx(ctx, func(tx *Store) error {
		added = nil
		for _, h := range all {
			var before int
			if err := tx.row(ctx, "count", `SELECT COUNT(*) FROM harms WHERE release = $1 AND host = $2 AND block = $3`,
				[]any{string(h.Release), string(h.Host), int64(h.Block)}, &before); err != nil {
				return err
			}
			h.First = before == 0
			if h.Seq, err = tx.next(ctx, "harm", 1); err != nil {
				return err
			}
			n, err := tx.exec(ctx, `INSERT INTO harms (`+harmColumns+`)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) ON CONFLICT (release, host, block, kind) DO NOTHING`,
				h.Seq, string(h.Release), string(h.Host), string(h.Org), string(h.Stratum), int64(h.Block), string(h.Arm), string(h.Kind), nanos(h.At), h.Detail,
				int64(h.Ring), string(h.Cell), int64(h.After), h.First)
			if err != nil {
				return err
			}
			if n == 1 {
				added = append(added, h)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return added, nil
}

// Harms lists the harm events of a release (of all, if it is empty) with a
// sequence number above after, in order, at most limit (0 means 100).
func (s *Store) Harms(ctx context.Context, id holdfast.ReleaseID, after int64, most int) ([]holdfast.Harm, error) {
	w := where{}
	w.equal("release", string(id))
	w.add("seq > ?", after)
	var all []holdfast.Harm
	err := s.rows(ctx, `SELECT `+harmColumns+` FROM harms`+w.sql()+` ORDER BY seq LIMIT `+w.arg(int64(limit(most))), w.args, func(scan func(...any) error) error {
		var h holdfast.Harm
		var at int64
		err := scan(&h.Seq, &h.Release, &h.Host, &h.Org, &h.Stratum, &h.Block, &h.Arm, &h.Kind, &at, &h.Detail, &h.Ring, &h.Cell, &h.After, &h.First)
		h.At = moment(at)
		all = append(all, h)
		return err
	})
	return all, err
}

// EachAdmission calls each for every admission of a release, in the order they
// were made. each must not use the store.
func (s *Store) EachAdmission(ctx context.Context, id holdfast.ReleaseID, each func(holdfast.Admission) error) error {
	return s.Admissions(ctx, AdmissionFilter{Release: id}, each)
}
