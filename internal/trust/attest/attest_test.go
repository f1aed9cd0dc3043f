package attest_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"pgregory.net/rapid"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/trust/attest"
	ours "github.com/holdfast-security/holdfast/internal/trust/dsse"
)

func key(b byte) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = b
	return ed25519.NewKeyFromSeed(seed)
}

func public(keys ...ed25519.PrivateKey) []ed25519.PublicKey {
	var p []ed25519.PublicKey
	for _, k := range keys {
		p = append(p, k.Public().(ed25519.PublicKey))
	}
	return p
}

var (
	bundle = holdfast.DigestOf([]byte("bundle"))
	good   = holdfast.DigestOf([]byte("build that runs it"))
	twin   = holdfast.DigestOf([]byte("build that dies of it"))
	at     = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

	verdict = holdfast.Verdict{
		Bundle: bundle, Channel: holdfast.Rules, Started: at, Finished: at.Add(20 * time.Second), Seed: 1<<64 - 1,
		Builds: []holdfast.BuildVerdict{
			{Build: good, Version: "1.0", Passed: true, Figures: holdfast.VerdictFigures{Rules: 30, Events: 12_345, NsPerEvent: 812.5}},
			{Build: twin, Version: "1.1", Failures: []holdfast.RuleProblem{{Rule: "r-21", Field: "process.loaded_modules", Stage: "exercise", Reason: "index out of range [20] with length 20"}}},
		},
	}
)

func sign(t *testing.T, v holdfast.Verdict, keys ...ed25519.PrivateKey) []byte {
	t.Helper()
	env, err := attest.Sign(v, keys...)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

func wantDenied(t *testing.T, err error, say string) {
	t.Helper()
	if holdfast.KindOf(err) != holdfast.Denied || !strings.Contains(err.Error(), say) {
		t.Errorf("got %v; want a denial with %q", err, say)
	}
}

func TestVerdictSpeaksOfTheHostsOwnBuild(t *testing.T) {
	env := sign(t, verdict, key(1))
	b, err := attest.Verify(env, public(key(1)), 1, bundle, good)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(verdict.Builds[0], b); diff != "" {
		t.Errorf("build verdict (-signed +read):\n%s", diff)
	}
	_, err = attest.Verify(env, public(key(1)), 1, bundle, twin)
	wantDenied(t, err, `sensor build 1.1 failed the rehearsal at exercise, rule "r-21", field "process.loaded_modules": index out of range [20]`)
	_, err = attest.Verify(env, public(key(1)), 1, bundle, bundle)
	wantDenied(t, err, "no verdict for sensor build")
}

func TestThresholdIsEnforcedWhenVerifying(t *testing.T) {
	keys := public(key(1), key(2), key(3))
	open := func(env []byte, keys []ed25519.PublicKey, k int) error {
		_, err := attest.Open(env, keys, k, bundle)
		return err
	}
	if err := open(sign(t, verdict, key(1), key(3)), keys, 2); err != nil {
		t.Errorf("two of three: %v", err)
	}
	wantDenied(t, open(sign(t, verdict, key(1)), keys, 2), "1 of the 2")
	wantDenied(t, open(sign(t, verdict, key(1), key(1)), keys, 2), "1 of the 2")
	wantDenied(t, open(sign(t, verdict, key(1), key(9)), keys, 2), "1 of the 2")
	wantDenied(t, open(sign(t, verdict, key(1)), public(key(1), key(1)), 2), "1 of the 2") // one key listed twice
	wantDenied(t, open(sign(t, verdict, key(1)), keys, 0), "cannot be met")
	wantDenied(t, open(sign(t, verdict, key(1)), keys, 4), "cannot be met")
	wantDenied(t, open(sign(t, verdict, key(1)), []ed25519.PublicKey{{1, 2, 3}}, 1), "0 of the 1") // no key at all
}

// altered signs what alter made of the statement, with a key that counts.
func altered(t *testing.T, alter func(statement map[string]any)) []byte {
	t.Helper()
	var e dsse.Envelope
	if err := json.Unmarshal(sign(t, verdict, key(1)), &e); err != nil {
		t.Fatal(err)
	}
	payload, err := e.DecodeB64Payload()
	if err != nil {
		t.Fatal(err)
	}
	var statement map[string]any
	d := json.NewDecoder(bytes.NewReader(payload))
	d.UseNumber() // a seed has 64 bits
	if err := d.Decode(&statement); err != nil {
		t.Fatal(err)
	}
	alter(statement)
	if payload, err = json.Marshal(statement); err != nil {
		t.Fatal(err)
	}
	return enclose(t, payload)
}

// enclose signs a payload, whatever it is, with a key that counts.
func enclose(t testing.TB, payload []byte) []byte {
	t.Helper()
	sig := ed25519.Sign(key(1), dsse.PAE(attest.PayloadType, payload))
	env, err := json.Marshal(dsse.Envelope{
		PayloadType: attest.PayloadType, Payload: base64.StdEncoding.EncodeToString(payload),
		Signatures: []dsse.Signature{{Sig: base64.StdEncoding.EncodeToString(sig)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return env
}

func TestStatementMustBeAboutThisBundle(t *testing.T) {
	other := strings.Repeat("0", 64)
	for _, c := range []struct {
		say   string
		alter func(map[string]any)
	}{
		{"the statement is a", func(s map[string]any) { s["_type"] = "https://in-toto.io/Statement/v0.1" }},
		{"the predicate is a", func(s map[string]any) { s["predicateType"] = "https://slsa.dev/provenance/v1" }},
		{"one subject", func(s map[string]any) { s["subject"] = []any{} }},
		{"is about bundle 000000000000", func(s map[string]any) {
			s["subject"].([]any)[0].(map[string]any)["digest"] = map[string]any{"sha256": other}
		}},
		{"the predicate is about bundle", func(s map[string]any) { s["predicate"].(map[string]any)["bundle"] = "sha256:" + other }},
		{"cannot be read", func(s map[string]any) { s["predicate"] = []any{"a list"} }},
	} {
		_, err := attest.Open(altered(t, c.alter), public(key(1)), 1, bundle)
		wantDenied(t, err, c.say)
	}
	_, err := attest.Open(sign(t, verdict, key(1)), public(key(1)), 1, "")
	wantDenied(t, err, "is about bundle")
}

func TestAnyChangedByteIsNoticed(t *testing.T) {
	env := sign(t, verdict, key(1))
	want, err := attest.Open(env, public(key(1)), 1, bundle)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		spoilt := append([]byte(nil), env...)
		i := rapid.IntRange(0, len(env)-1).Draw(t, "byte")
		spoilt[i] ^= byte(rapid.IntRange(1, 255).Draw(t, "flip"))
		got, err := attest.Open(spoilt, public(key(1)), 1, bundle)
		// A changed key id, or the case of a field's name, changes nothing that is
		// believed.
		if err == nil && !cmp.Equal(want, got) {
			t.Fatalf("a changed verdict was believed:\n%s", cmp.Diff(want, got))
		}
	})
}

func TestEnvelopeIsBounded(t *testing.T) {
	_, err := attest.Open(make([]byte, attest.MaxEnvelope+1), public(key(1)), 1, bundle)
	wantDenied(t, err, "the limit is")
	env := sign(t, verdict, key(1))
	_, err = attest.Open(append(env, "{}"...), public(key(1)), 1, bundle)
	wantDenied(t, err, "behind its end")
	var e dsse.Envelope
	if err := json.Unmarshal(env, &e); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		e.Signatures = append(e.Signatures, e.Signatures[0])
	}
	env, _ = json.Marshal(e)
	_, err = attest.Open(env, public(key(1)), 1, bundle)
	wantDenied(t, err, "101 signatures")
}

// verifier lets go-securesystemslib read our envelopes.
type verifier ed25519.PublicKey

func (v verifier) Verify(_ context.Context, data, sig []byte) error {
	if !ed25519.Verify(ed25519.PublicKey(v), data, sig) {
		return context.Canceled // any error will do
	}
	return nil
}
func (v verifier) KeyID() (string, error)   { return ours.KeyID(ed25519.PublicKey(v)), nil }
func (v verifier) Public() crypto.PublicKey { return ed25519.PublicKey(v) }

func TestOthersReadOurEnvelopes(t *testing.T) {
	var e dsse.Envelope
	if err := json.Unmarshal(sign(t, verdict, key(1), key(2)), &e); err != nil {
		t.Fatal(err)
	}
	v, err := dsse.NewMultiEnvelopeVerifier(2, verifier(public(key(1))[0]), verifier(public(key(2))[0]))
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := v.Verify(t.Context(), &e)
	if err != nil || len(accepted) != 2 {
		t.Errorf("go-securesystemslib accepts %d signatures: %v", len(accepted), err)
	}
}

func FuzzOpen(f *testing.F) {
	for _, v := range []holdfast.Verdict{verdict, {Bundle: bundle}} {
		env, err := attest.Sign(v, key(1), key(2))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(env)
	}
	f.Add([]byte(`{"payloadType":"application/vnd.in-toto+json","payload":"e30=","signatures":[{"sig":"AA=="}]}`))
	f.Fuzz(func(t *testing.T, env []byte) {
		v, err := attest.Open(env, public(key(1)), 1, bundle)
		if err == nil && v.Bundle != bundle {
			t.Errorf("believed a verdict about %s", v.Bundle)
		}
	})
}

// FuzzStatement is what a rehearsal machine that went mad can do to a host: the
// signature holds, and the statement is anything.
func FuzzStatement(f *testing.F) {
	var e dsse.Envelope
	env, err := attest.Sign(verdict, key(1))
	if err == nil {
		err = json.Unmarshal(env, &e)
	}
	if err != nil {
		f.Fatal(err)
	}
	payload, err := e.DecodeB64Payload()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(payload)
	f.Add([]byte(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{}}],"predicate":null}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		b, err := attest.Verify(enclose(t, payload), public(key(1)), 1, bundle, good)
		if err == nil && (b.Build != good || !b.Passed) {
			t.Errorf("believed %+v", b)
		}
	})
}
