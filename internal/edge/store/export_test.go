package store

import "context"

// Exec runs a statement outside a transaction.
func (s *Store) Exec(ctx context.Context, query string) error {
	_, err := s.db.ExecContext(ctx, query)
	return err
}
