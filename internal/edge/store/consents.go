package store

import (
	"context"

	"github.com/holdfast-security/holdfast"
)

// PutConsent puts an organisation's policy in the place of an older one;
// Conflict if the one stored is not older.
func (s *Store) PutConsent(ctx context.Context, c holdfast.Consent) error {
	n, err := s.exec(ctx, `INSERT INTO consents (org, version, key, envelope, by_name, at) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (org) DO UPDATE SET version = excluded.version, key = excluded.key, envelope = excluded.envelope, by_name = excluded.by_name, at = excluded.at
		WHERE consents.version < excluded.version`, string(c.Org), c.Version, c.Key, c.Envelope, c.By, nanos(c.At))
	if err == nil && n == 0 {
		err = holdfast.Errorf(holdfast.Conflict, "a policy of organisation %s that is no older than version %d is in force", c.Org, c.Version)
	}
	return err
}

// Consent returns an organisation's policy, or NotFound.
func (s *Store) Consent(ctx context.Context, org holdfast.OrgID) (holdfast.Consent, error) {
	c := holdfast.Consent{Org: org}
	var at int64
	err := s.row(ctx, "policy of organisation "+string(org), `SELECT version, key, envelope, by_name, at FROM consents WHERE org = $1`,
		[]any{string(org)}, &c.Version, &c.Key, &c.Envelope, &c.By, &at)
	c.At = moment(at)
	return c, err
}

// ConsentVersions lists the versions in force, by organisation; 0 for one that
// is no number.
func (s *Store) ConsentVersions(ctx context.Context) (map[holdfast.OrgID]int64, error) {
	all := map[holdfast.OrgID]int64{}
	err := s.rows(ctx, `SELECT org, version FROM consents`, nil, func(scan func(...any) error) error {
		var org holdfast.OrgID
		var version any // SQLite keeps what it is given
		err := scan(&org, &version)
		all[org], _ = version.(int64)
		return err
	})
	return all, err
}
