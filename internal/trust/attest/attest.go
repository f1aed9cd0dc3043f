// Package attest writes and reads rehearsal verdicts: in-toto statements in DSSE
// envelopes, signed with Ed25519 by the rehearsal keys, which no publisher holds.
//
// The statement's subject is the bundle, its predicate the holdfast.Verdict. The
// bytes that are signed are the bytes that are verified and then decoded: nothing
// is encoded a second time.
//
// Sources: in-toto Attestation Framework, Statement v1; DSSE protocol 1.0.2. The
// envelope is written here rather than imported because the agent's closure pays
// for every dependency; a test holds it against go-securesystemslib's reader.
package attest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"

	"github.com/holdfast-security/holdfast"
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

const maxSignatures = 32

type envelope struct {
	PayloadType string      `json:"payloadType"`
	Payload     string      `json:"payload"`
	Signatures  []signature `json:"signatures"`
}

type signature struct {
	KeyID string `json:"keyid"`
	Sig   string `json:"sig"`
}

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

// KeyID names a key: the hexadecimal SHA-256 of its 32 bytes. It only helps to
// find the key; nothing is believed because of it.
func KeyID(pub ed25519.PublicKey) string {
	sum := sha256.Sum256(pub)
	return hex.EncodeToString(sum[:])
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
	e := envelope{PayloadType: PayloadType, Payload: base64.StdEncoding.EncodeToString(payload)}
	for _, k := range keys {
		e.Signatures = append(e.Signatures, signature{
			KeyID: KeyID(k.Public().(ed25519.PublicKey)),
			Sig:   base64.StdEncoding.EncodeToString(ed25519.Sign(k, pae(PayloadType, payload))),
		})
	}
	return json.Marshal(e)
}

// Open verifies an envelope and returns the verdict in it. At least threshold
// different keys must have signed it, and its subject must be bundle. The verdict
// may be a failing one: see Verify.
func Open(env []byte, keys []ed25519.PublicKey, threshold int, bundle holdfast.Digest) (holdfast.Verdict, error) {
	var none holdfast.Verdict
	if threshold < 1 || threshold > len(keys) {
		return none, bad("the policy asks for %d rehearsal signatures of %d keys, which cannot be met", threshold, len(keys))
	}
	if len(env) > MaxEnvelope {
		return none, bad("the envelope is %d bytes long; the limit is %d", len(env), MaxEnvelope)
	}
	var e envelope
	if err := decode(env, &e, "envelope"); err != nil {
		return none, err
	}
	if e.PayloadType != PayloadType {
		return none, bad("the payload is a %.60q, not a %q", e.PayloadType, PayloadType)
	}
	payload, err := base64.StdEncoding.DecodeString(e.Payload)
	if err != nil {
		return none, bad("the payload is not base64: %w", err)
	}
	if len(e.Signatures) > maxSignatures {
		return none, bad("the envelope has %d signatures; the limit is %d", len(e.Signatures), maxSignatures)
	}
	if n := signers(e.Signatures, pae(e.PayloadType, payload), keys); n < threshold {
		return none, bad("%d of the %d rehearsal signatures that the policy asks for", n, threshold)
	}
	var s statement
	if err := decode(payload, &s, "statement"); err != nil {
		return none, err
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
	if err := decode(s.Predicate, &v, "predicate"); err != nil {
		return none, err
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

// signers counts the keys that made one of the signatures over message. A key
// that is listed twice, or signs twice, counts once.
func signers(sigs []signature, message []byte, keys []ed25519.PublicKey) int {
	n := 0
	seen := map[string]bool{}
	for _, k := range keys {
		if len(k) != ed25519.PublicKeySize || seen[string(k)] {
			continue
		}
		seen[string(k)] = true
		for _, s := range sigs {
			raw, err := base64.StdEncoding.DecodeString(s.Sig)
			if err == nil && ed25519.Verify(k, message, raw) {
				n++
				break
			}
		}
	}
	return n
}

// pae is DSSE's pre-authentication encoding: what is really signed.
func pae(payloadType string, payload []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload)
}

// decode reads exactly one JSON value.
func decode(b []byte, v any, what string) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(v); err != nil {
		return bad("the %s cannot be read: %w", what, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return bad("the %s has something behind its end", what)
	}
	return nil
}

func bad(format string, args ...any) error {
	return holdfast.Errorf(holdfast.Denied, "rehearsal verdict: "+format, args...)
}
