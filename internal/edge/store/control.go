package store

import (
	"context"

	"github.com/holdfast-security/holdfast/internal/control/reconcile"
	"github.com/holdfast-security/holdfast/internal/control/registry"
)

// Reconcile is the store as package reconcile takes it.
func (s *Store) Reconcile() reconcile.Store { return forReconcile{s} }

type forReconcile struct{ *Store }

func (f forReconcile) Tx(ctx context.Context, do func(tx reconcile.Tx) error) error {
	return f.Store.Tx(ctx, func(tx *Store) error { return do(tx) })
}

// Registry is the store as package registry takes it.
func (s *Store) Registry() registry.Store { return forRegistry{s} }

type forRegistry struct{ *Store }

func (f forRegistry) Tx(ctx context.Context, do func(tx registry.Tx) error) error {
	return f.Store.Tx(ctx, func(tx *Store) error { return do(tx) })
}
