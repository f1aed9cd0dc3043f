package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/reconcile"
)

// CreateRelease stores a release; Conflict if its id exists.
func (s *Store) CreateRelease(ctx context.Context, r holdfast.Release) error {
	rings, err := json.Marshal(r.Rings)
	if err != nil {
		return err
	}
	_, err = s.exec(ctx, `INSERT INTO releases (id, org, channel, digest, profile, rings, signed, created, by_name, approved, note)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
		string(r.ID), string(r.Org), string(r.Bundle.Channel), string(r.Bundle.Digest), string(r.Profile), string(rings), nanos(r.Signed), nanos(r.Created), r.By, r.Approved, r.Note)
	return err
}

const releaseColumns = `releases.id, releases.org, releases.profile, releases.rings, releases.signed, releases.created, releases.by_name, releases.approved, releases.note, ` + bundleColumns

func scanRelease(scan func(...any) error, r *holdfast.Release, more ...any) error {
	var rings string
	var signed, created, bundled int64
	into := []any{&r.ID, &r.Org, &r.Profile, &rings, &signed, &created, &r.By, &r.Approved, &r.Note}
	into = append(into, bundleInto(&r.Bundle, &bundled)...)
	if err := scan(append(into, more...)...); err != nil {
		return err
	}
	r.Signed, r.Created, r.Bundle.Created = moment(signed), moment(created), moment(bundled)
	return json.Unmarshal([]byte(rings), &r.Rings)
}

// Release returns a release by id.
func (s *Store) Release(ctx context.Context, id holdfast.ReleaseID) (holdfast.Release, error) {
	var r holdfast.Release
	err := scanRelease(func(into ...any) error {
		return s.row(ctx, "release "+string(id), `SELECT `+releaseColumns+` FROM releases JOIN bundles ON bundles.digest = releases.digest WHERE releases.id = $1`,
			[]any{string(id)}, into...)
	}, &r)
	return r, err
}

// Releases lists releases, newest first; those of one organisation if org is
// not empty.
func (s *Store) Releases(ctx context.Context, org holdfast.OrgID) ([]holdfast.Release, error) {
	w := where{}
	w.equal("releases.org", string(org))
	var all []holdfast.Release
	err := s.rows(ctx, `SELECT `+releaseColumns+` FROM releases JOIN bundles ON bundles.digest = releases.digest`+w.sql()+
		` ORDER BY releases.created DESC, releases.id LIMIT 1000`, w.args, func(scan func(...any) error) error {
		var r holdfast.Release
		err := scanRelease(scan, &r)
		all = append(all, r)
		return err
	})
	return all, err
}

// ApproveRelease records the second person. Conflict if somebody already did.
func (s *Store) ApproveRelease(ctx context.Context, id holdfast.ReleaseID, by string) error {
	n, err := s.exec(ctx, `UPDATE releases SET approved = $1 WHERE id = $2 AND approved = ''`, by, string(id))
	if err == nil && n == 0 {
		err = holdfast.Errorf(holdfast.Conflict, "release %s does not exist, or was approved before", id)
	}
	return err
}

// CreateRollout stores the first version, 1, of a release's rollout.
func (s *Store) CreateRollout(ctx context.Context, r holdfast.Rollout) error {
	_, err := s.exec(ctx, `INSERT INTO rollouts (release, version, phase, done, state, policy, baseline, updated) VALUES ($1, 1, $2, $3, $4, $5, $6, $7)`,
		string(r.Release), string(r.Phase), false, string(r.State), string(r.Policy), string(r.Baseline), nanos(r.Updated))
	return err
}

// SwapRollout stores r as version r.Version+1 if the stored version is
// r.Version, else Conflict: reload and decide again. settled says that nothing
// is left to drive.
func (s *Store) SwapRollout(ctx context.Context, r holdfast.Rollout, settled bool) error {
	n, err := s.exec(ctx, `UPDATE rollouts SET version = version + 1, phase = $1, done = $2, state = $3, policy = $4, baseline = $5, updated = $6 WHERE release = $7 AND version = $8`,
		string(r.Phase), settled, string(r.State), string(r.Policy), string(r.Baseline), nanos(r.Updated), string(r.Release), r.Version)
	if err == nil && n == 0 {
		err = holdfast.Errorf(holdfast.Conflict, "rollout %s moved on from version %d", r.Release, r.Version)
	}
	return err
}

func scanRollout(scan func(...any) error, r *holdfast.Rollout) error {
	var state, policy, baseline string
	var updated int64
	err := scan(&r.Release, &r.Version, &r.Phase, &state, &policy, &baseline, &updated)
	r.State, r.Policy, r.Baseline, r.Updated = raw(state), raw(policy), raw(baseline), moment(updated)
	return err
}

const rolloutColumns = `release, version, phase, state, policy, baseline, updated`

// Rollout returns the rollout of a release.
func (s *Store) Rollout(ctx context.Context, id holdfast.ReleaseID) (holdfast.Rollout, error) {
	var r holdfast.Rollout
	err := scanRollout(func(into ...any) error {
		return s.row(ctx, "rollout of release "+string(id), `SELECT `+rolloutColumns+` FROM rollouts WHERE release = $1`, []any{string(id)}, into...)
	}, &r)
	return r, err
}

// UnsettledVersions is the version of every rollout with something left to
// drive: what tells cheaply whether anything changed.
func (s *Store) UnsettledVersions(ctx context.Context) (map[holdfast.ReleaseID]int64, error) {
	all := map[holdfast.ReleaseID]int64{}
	err := s.rows(ctx, `SELECT release, version FROM rollouts WHERE done = FALSE`, nil, func(scan func(...any) error) error {
		var id holdfast.ReleaseID
		var version int64
		err := scan(&id, &version)
		all[id] = version
		return err
	})
	return all, err
}

// Rollouts lists the rollouts, newest release first: all of them, or only
// those with something left to drive.
func (s *Store) Rollouts(ctx context.Context, unsettled bool) ([]holdfast.Rollout, error) {
	w := where{}
	if unsettled {
		w.add("done = FALSE")
	}
	var all []holdfast.Rollout
	err := s.rows(ctx, `SELECT `+rolloutColumns+` FROM rollouts`+w.sql()+` ORDER BY (SELECT created FROM releases WHERE id = release) DESC, release LIMIT 1000`, w.args, func(scan func(...any) error) error {
		var r holdfast.Rollout
		err := scanRollout(scan, &r)
		all = append(all, r)
		return err
	})
	return all, err
}

func raw(j string) json.RawMessage {
	if j == "" {
		return nil
	}
	return json.RawMessage(j)
}

// AddOrder stores an order and returns its number.
func (s *Store) AddOrder(ctx context.Context, o reconcile.Order) (seq int64, err error) {
	err = s.Tx(ctx, func(tx *Store) error {
		if seq, err = tx.next(ctx, "command", 1); err != nil {
			return err
		}
		_, err = tx.exec(ctx, `INSERT INTO orders (seq, release, kind, by_name, at, command) VALUES ($1, $2, $3, $4, $5, $6)`,
			seq, string(o.Release), o.Kind, o.By, nanos(o.At), string(o.Command))
		return err
	})
	return seq, err
}

// Orders lists the orders of a release with numbers above after, in order.
func (s *Store) Orders(ctx context.Context, id holdfast.ReleaseID, after int64) ([]reconcile.Order, error) {
	var all []reconcile.Order
	err := s.rows(ctx, `SELECT seq, release, kind, by_name, at, command FROM orders WHERE release = $1 AND seq > $2 ORDER BY seq LIMIT 1000`,
		[]any{string(id), after}, func(scan func(...any) error) error {
			var o reconcile.Order
			var at int64
			var command string
			err := scan(&o.Seq, &o.Release, &o.Kind, &o.By, &at, &command)
			o.At, o.Command = moment(at), raw(command)
			all = append(all, o)
			return err
		})
	return all, err
}

// PutOpenings stores openings; one that is stored stands.
func (s *Store) PutOpenings(ctx context.Context, all []reconcile.Opening) error {
	rows := make([][]any, 0, len(all))
	for _, o := range all {
		rows = append(rows, []any{string(o.Release), int64(o.Block), int64(o.Number), nanos(o.Until), string(o.Opening)})
	}
	_, err := s.insert(ctx, `INSERT INTO openings (release, block, number, until, opening) VALUES `, ` ON CONFLICT (release, block, number) DO NOTHING`, rows)
	return err
}

// Openings lists the openings of a release that are still open at now.
func (s *Store) Openings(ctx context.Context, id holdfast.ReleaseID, now time.Time) ([]reconcile.Opening, error) {
	var all []reconcile.Opening
	err := s.rows(ctx, `SELECT release, block, number, until, opening FROM openings WHERE release = $1 AND until > $2 ORDER BY block, number`,
		[]any{string(id), nanos(now)}, func(scan func(...any) error) error {
			var o reconcile.Opening
			var until int64
			var j string
			err := scan(&o.Release, &o.Block, &o.Number, &until, &j)
			o.Until, o.Opening = moment(until), raw(j)
			all = append(all, o)
			return err
		})
	return all, err
}
