package main

import (
	"context"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/registry"
	"github.com/holdfast-security/holdfast/internal/language/ruletest"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
	"github.com/holdfast-security/holdfast/internal/wire/apiv1"
)

// publishing is the registry as the API sees it.
type publishing struct{ *registry.Registry }

// PutContent implements api.Publishing.
func (p publishing) PutContent(ctx context.Context, b holdfast.Bundle, data []byte, by string) error {
	return p.Registry.PutContent(ctx, holdfast.DefaultOrg, b, data, by)
}

// PutVerdict implements api.Publishing.
func (p publishing) PutVerdict(ctx context.Context, bundle holdfast.Digest, envelope []byte, by string) error {
	_, err := p.Registry.PutVerdict(ctx, bundle, envelope, by)
	return err
}

// PutMetadata implements api.Publishing.
func (p publishing) PutMetadata(ctx context.Context, files tuf.Files, by string) error {
	return p.Registry.PutMetadata(ctx, files, by)
}

// Release implements api.Publishing.
func (p publishing) Release(ctx context.Context, r apiv1.ReleaseRequest, by string) (holdfast.Release, error) {
	return p.Registry.Release(ctx, registry.Ask{Org: holdfast.DefaultOrg, Bundle: r.Bundle, Profile: r.Profile, Note: r.Note}, by)
}

// staticCheck lists what a bundle asks of a build that its manifest does not
// promise. Content of other channels has no static check.
func staticCheck(b holdfast.Bundle, data []byte, m holdfast.Manifest) []holdfast.RuleProblem {
	if b.Channel != holdfast.Rules {
		return nil
	}
	return ruletest.Static(data, m)
}
