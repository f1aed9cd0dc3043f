// Package dsse writes and reads envelopes that are signed with Ed25519: what a
// rehearsal found, what an organisation allows.
//
// The bytes that were signed are the bytes that are verified and handed out:
// nothing is encoded a second time. The type of the payload is part of what is
// signed, so that no signature can be used for something else.
//
// Source: DSSE protocol 1.0.2. It is written here rather than imported because
// the agent's closure pays for every dependency; a test in package attest holds
// it against go-securesystemslib's reader.
package dsse

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

// KeyID names a key: the hexadecimal SHA-256 of its 32 bytes. It only helps to
// find the key; nothing is believed because of it.
func KeyID(pub ed25519.PublicKey) string {
	sum := sha256.Sum256(pub)
	return hex.EncodeToString(sum[:])
}

// Sign returns the envelope of a payload, signed once by each key.
func Sign(payloadType string, payload []byte, keys ...ed25519.PrivateKey) ([]byte, error) {
	e := envelope{PayloadType: payloadType, Payload: base64.StdEncoding.EncodeToString(payload)}
	for _, k := range keys {
		e.Signatures = append(e.Signatures, signature{
			KeyID: KeyID(k.Public().(ed25519.PublicKey)),
			Sig:   base64.StdEncoding.EncodeToString(ed25519.Sign(k, pae(payloadType, payload))),
		})
	}
	return json.Marshal(e)
}

// Open verifies an envelope of at most most bytes and returns its payload: at
// least threshold different keys signed it as a payloadType. Every error is of
// kind Denied.
func Open(env []byte, payloadType string, most int, keys []ed25519.PublicKey, threshold int) ([]byte, error) {
	if threshold < 1 || threshold > len(keys) {
		return nil, denied("%d signatures of %d keys are asked for, which cannot be met", threshold, len(keys))
	}
	if len(env) > most {
		return nil, denied("the envelope is %d bytes long; the limit is %d", len(env), most)
	}
	var e envelope
	if err := Decode(env, &e, "envelope"); err != nil {
		return nil, err
	}
	if e.PayloadType != payloadType {
		return nil, denied("the payload is a %.60q, not a %q", e.PayloadType, payloadType)
	}
	payload, err := base64.StdEncoding.DecodeString(e.Payload)
	if err != nil {
		return nil, denied("the payload is not base64: %w", err)
	}
	if len(e.Signatures) > maxSignatures {
		return nil, denied("the envelope has %d signatures; the limit is %d", len(e.Signatures), maxSignatures)
	}
	if n := signers(e.Signatures, pae(e.PayloadType, payload), keys); n < threshold {
		return nil, denied("%d of the %d signatures that are asked for", n, threshold)
	}
	return payload, nil
}

// Decode reads exactly one JSON value; what names it in the error.
func Decode(b []byte, v any, what string) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(v); err != nil {
		return denied("the %s cannot be read: %w", what, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return denied("the %s has something behind its end", what)
	}
	return nil
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

func denied(format string, args ...any) error {
	return holdfast.Errorf(holdfast.Denied, format, args...)
}
