package store

import (
	"context"
	"time"
)

// AcquireLease makes holder the holder of a named lease until expires, if
// nobody else holds it at now; the holder itself renews it so. held says who
// has it. The term grows whenever the holder changes.
func (s *Store) AcquireLease(ctx context.Context, name, holder string, now, expires time.Time) (held bool, term int64, err error) {
	err = s.Tx(ctx, func(tx *Store) error {
		_, err := tx.exec(ctx, `INSERT INTO leases (name, holder, term, expires) VALUES ($1, $2, 1, $3)
			ON CONFLICT (name) DO UPDATE SET term = CASE WHEN leases.holder = excluded.holder THEN leases.term ELSE leases.term + 1 END,
				holder = excluded.holder, expires = excluded.expires
			WHERE leases.holder = excluded.holder OR leases.expires <= $4`, name, holder, nanos(expires), nanos(now))
		if err != nil {
			return err
		}
		var has string
		err = tx.row(ctx, "lease "+name, `SELECT holder, term FROM leases WHERE name = $1`, []any{name}, &has, &term)
		held = has == holder
		return err
	})
	return held && err == nil, term, err
}

// ReleaseLease gives a lease up, so that another need not wait for it to
// expire.
func (s *Store) ReleaseLease(ctx context.Context, name, holder string) error {
	_, err := s.exec(ctx, `UPDATE leases SET expires = 0 WHERE name = $1 AND holder = $2`, name, holder)
	return err
}

// Setting returns a named setting, or NotFound.
func (s *Store) Setting(ctx context.Context, name string) (string, error) {
	var v string
	err := s.row(ctx, "setting "+name, `SELECT value FROM settings WHERE name = $1`, []any{name}, &v)
	return v, err
}

// PutSetting creates or replaces a setting.
func (s *Store) PutSetting(ctx context.Context, name, value string) error {
	_, err := s.exec(ctx, `INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, value)
	return err
}

// InitSetting stores a setting unless it exists, and returns what is stored.
func (s *Store) InitSetting(ctx context.Context, name, value string) (stored string, err error) {
	err = s.Tx(ctx, func(tx *Store) error {
		if _, err := tx.exec(ctx, `INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING`, name, value); err != nil {
			return err
		}
		stored, err = tx.Setting(ctx, name)
		return err
	})
	return stored, err
}
