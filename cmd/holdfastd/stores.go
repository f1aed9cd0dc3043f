package main

import (
	"context"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/reconcile"
	"github.com/holdfast-security/holdfast/internal/control/registry"
	"github.com/holdfast-security/holdfast/internal/edge/store"
	"github.com/holdfast-security/holdfast/internal/language/ruletest"
)

// rolloutStore is the store as rollouts see it.
type rolloutStore struct{ *store.Store }

// Tx implements reconcile.Store.
func (s rolloutStore) Tx(ctx context.Context, f func(reconcile.Tx) error) error {
	return s.Store.Tx(ctx, func(tx *store.Store) error { return f(rolloutStore{tx}) })
}

// registryStore is the store as the registry sees it.
type registryStore struct{ *store.Store }

// Tx implements registry.Store.
func (s registryStore) Tx(ctx context.Context, f func(registry.Tx) error) error {
	return s.Store.Tx(ctx, func(tx *store.Store) error { return f(registryStore{tx}) })
}

// staticCheck lists what a bundle asks of a build that its manifest does not
// promise. Content of other channels has no static check.
func staticCheck(b holdfast.Bundle, data []byte, m holdfast.Manifest) []holdfast.RuleProblem {
	if b.Channel != holdfast.Rules {
		return nil
	}
	return ruletest.Static(data, m)
}
