package store_test

import (
	"github.com/holdfast-security/holdfast/internal/control/reconcile"
	"github.com/holdfast-security/holdfast/internal/control/registry"
	"github.com/holdfast-security/holdfast/internal/edge/api"
	"github.com/holdfast-security/holdfast/internal/edge/enrol"
	"github.com/holdfast-security/holdfast/internal/edge/opamp"
	"github.com/holdfast-security/holdfast/internal/edge/otlp"
	"github.com/holdfast-security/holdfast/internal/edge/store"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
	"github.com/holdfast-security/holdfast/internal/view"
)

// What fits together without an adapter, checked by the compiler.
var (
	_ enrol.Store        = (*store.Store)(nil)
	_ otlp.Sink          = (*store.Store)(nil)
	_ api.Tokens         = (*store.Store)(nil)
	_ opamp.Control      = (*reconcile.Service)(nil)
	_ view.Actions       = (*reconcile.Service)(nil)
	_ reconcile.Director = (*tuf.Online)(nil)
	_ registry.Trust     = (*tuf.Online)(nil)
)
