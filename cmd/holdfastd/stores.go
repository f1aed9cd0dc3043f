package main

import (
	"context"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/reconcile"
	"github.com/holdfast-security/holdfast/internal/control/registry"
	"github.com/holdfast-security/holdfast/internal/edge/store"
	"github.com/holdfast-security/holdfast/internal/language/bundle"
	"github.com/holdfast-security/holdfast/internal/language/detect"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
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

// staticCheck lists what a bundle's rules ask of a build that its manifest does
// not promise.
func staticCheck(b holdfast.Bundle, data []byte, m holdfast.Manifest) []holdfast.RuleProblem {
	open, err := bundle.Open(data)
	if err != nil {
		return []holdfast.RuleProblem{{Stage: "static", Reason: err.Error()}}
	}
	var problems []holdfast.RuleProblem
	if int64(len(data)) > m.Limits.BundleBytes {
		problems = append(problems, holdfast.RuleProblem{Stage: "static", Reason: "the bundle is larger than the build loads"})
	}
	var set sigma.Set
	for _, p := range open.Paths("rules") {
		if len(open.Files[p]) > m.Limits.RuleBytes {
			problems = append(problems, holdfast.RuleProblem{File: p, Stage: "static", Reason: "the rule is larger than the build loads"})
			continue
		}
		one, bad := sigma.Parse(p, open.Files[p])
		for _, b := range bad {
			problems = append(problems, b.RuleProblem("static"))
		}
		set.Add(one)
	}
	if n := len(set.Rules); n > m.Limits.Rules {
		problems = append(problems, holdfast.RuleProblem{Stage: "static", Reason: "more rules than the build loads"})
	}
	return append(problems, detect.Check(set, m, nil)...)
}
