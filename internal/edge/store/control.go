package store

import (
	"context"

	"github.com/holdfast-security/holdfast/internal/control/reconcile"
)

// Reconcile is the store as package reconcile takes it.
func (s *Store) Reconcile() reconcile.Store { return forReconcile{s} }

type forReconcile struct{ *Store }

func (f forReconcile) Tx(ctx context.Context, do func(tx reconcile.Tx) error) error {
	return f.Store.Tx(ctx, func(tx *Store) error { return do(tx) })
}
