// Package attest writes and reads rehearsal verdicts: in-toto statements in DSSE
// envelopes, signed with Ed25519 by the rehearsal keys, which no publisher holds.
//
// The statement's subject is the bundle, its predicate the holdfast.Verdict.
//
// Source: in-toto Attestation Framework, Statement v1; package dsse has the
// envelope.
package attest

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/trust/dsse"
)

// The types that name what is signed.
const (
	PayloadType   = "application/vnd.in-toto+json"
	StatementType = "https://in-toto.io/Statement/v1"
	PredicateType = "https://holdfast.security/rehearsal/v1"
)

// MaxEnvelope bounds an envelope, in bytes. A verdict on fifty builds with their
// failures stays far below it.
const MaxEnvelope = 4 << 20

type statement struct {
	Type          string          `json:"_type"`
	Subject       []subject       `json:"subject"`
	PredicateType string          `json:"predicateType"`
	Predicate     json.RawMessage `json:"predicate"`
}

type subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"`
}

// Sign returns the envelope of v, signed once by each key.
func Sign(v holdfast.Verdict, keys ...ed25519.PrivateKey) ([]byte, error) {
	if _, err := holdfast.ParseDigest(string(v.Bundle)); err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		return nil, holdfast.Errorf(holdfast.Invalid, "a verdict needs at least one rehearsal key to sign it")
	}
	predicate, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	payload, err := json.Marshal(statement{
		Type:          StatementType,
		Subject:       []subject{{Name: string(v.Channel), Digest: map[string]string{"sha256": v.Bundle.Hex()}}},
		PredicateType: PredicateType,
		Predicate:     predicate,
	})
	if err != nil {
		return nil, err
	}
	return dsse.Sign(PayloadType, payload, keys...)
}

// Open verifies an envelope and returns the verdict in it. At least threshold
// different keys must have signed it, and its subject must be bundle. The verdict
// may be a failing one: see Verify.
func Open(env []byte, keys []ed25519.PublicKey, threshold int, bundle holdfast.Digest) (holdfast.Verdict, error) {
	var none holdfast.Verdict
	payload, err := dsse.Open(env, PayloadType, MaxEnvelope, keys, threshold)
	if err != nil {
		return none, bad("%w", err)
	}
	var s statement
	if err := dsse.Decode(payload, &s, "statement"); err != nil {
		return none, bad("%w", err)
	}
	switch {
	case s.Type != StatementType:
		return none, bad("the statement is a %.60q, not a %q", s.Type, StatementType)
	case s.PredicateType != PredicateType:
		return none, bad("the predicate is a %.60q, not a %q", s.PredicateType, PredicateType)
	case len(s.Subject) != 1 || len(s.Subject[0].Digest) != 1:
		return none, bad("the statement must have one subject with one digest")
	case s.Subject[0].Digest["sha256"] != bundle.Hex() || bundle == "":
		return none, bad("the verdict is about bundle %.12s, not about %s", s.Subject[0].Digest["sha256"], bundle.Short())
	}
	var v holdfast.Verdict
	if err := dsse.Decode(s.Predicate, &v, "predicate"); err != nil {
		return none, bad("%w", err)
	}
	if v.Bundle != bundle {
		return none, bad("the predicate is about bundle %.12s, its subject about %s", v.Bundle.Hex(), bundle.Short())
	}
	return v, nil
}

// Verify is Open, and then what the verdict says about build. It is an error if
// the verdict does not speak of build, or says that it failed.
func Verify(env []byte, keys []ed25519.PublicKey, threshold int, bundle, build holdfast.Digest) (holdfast.BuildVerdict, error) {
	v, err := Open(env, keys, threshold, bundle)
	if err != nil {
		return holdfast.BuildVerdict{}, err
	}
	return For(v, build)
}

// For is what v says about build; an error if it says nothing, or that the build
// failed.
func For(v holdfast.Verdict, build holdfast.Digest) (holdfast.BuildVerdict, error) {
	b, ok := v.For(build)
	if !ok {
		return b, &holdfast.Error{
			Kind: holdfast.Denied, What: fmt.Sprintf("no verdict for sensor build %s", build.Short()),
			Where: "verdict on " + v.Bundle.Short(), Do: "rehearse the bundle on this build",
		}
	}
	if !b.Passed {
		what := "sensor build " + b.Version + " failed the rehearsal"
		if len(b.Failures) > 0 {
			f := b.Failures[0]
			what += fmt.Sprintf(" at %s, rule %q, field %q: %s", f.Stage, f.Rule, f.Field, f.Reason)
		}
		return b, &holdfast.Error{Kind: holdfast.Denied, What: what, Where: "verdict on " + v.Bundle.Short()}
	}
	return b, nil
}

func bad(format string, args ...any) error {
	return holdfast.Errorf(holdfast.Denied, "rehearsal verdict: "+format, args...)
}
