package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/consent"
	"github.com/holdfast-security/holdfast/internal/trust/dsse"
)

const acmePolicy = `organisation: acme
version: 4
groups:
  - name: floor
    channels:
      rules: {track: delay, delay: 4h}
`

// TestAPolicyIsSignedAsItIsRead: what a host gets is the file, byte for byte,
// under the key that keygen printed.
func TestAPolicyIsSignedAsItIsRead(t *testing.T) {
	t.Chdir(t.TempDir())
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	hf := func(args ...string) (int, string, string) {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), args, &stdout, &stderr)
		return code, stdout.String(), stderr.String()
	}
	must(os.WriteFile("acme.yaml", []byte(acmePolicy), 0o600))
	code, out, _ := hf("consent", "keygen", "acme", "--json")
	var key struct{ Public []byte }
	must(json.Unmarshal([]byte(out), &key))
	if info, err := os.Stat("acme.key"); code != 0 || err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("exit %d, %v", code, err)
	}
	if code, _, stderr := hf("consent", "keygen", "acme"); code != holdfast.Conflict.ExitCode() {
		t.Errorf("a key is overwritten: exit %d, %s", code, stderr)
	}
	if code, _, stderr := hf("consent", "sign", "acme.yaml", "--key", "acme"); code != 0 {
		t.Fatal(stderr)
	}
	env, err := os.ReadFile("acme.consent.json")
	must(err)
	payload, err := dsse.Open(env, consent.PayloadType, consent.MaxEnvelope, []ed25519.PublicKey{key.Public}, 1)
	if err != nil || string(payload) != acmePolicy {
		t.Errorf("%q, %v", payload, err)
	}

	must(os.WriteFile("bad.yaml", []byte(strings.Replace(acmePolicy, "track: delay", "track: pause", 1)), 0o600))
	for _, args := range [][]string{{"check", "bad.yaml"}, {"sign", "bad.yaml", "--key", "acme"}} {
		code, _, stderr := hf(append([]string{"consent"}, args...)...)
		if code != holdfast.Invalid.ExitCode() || !strings.Contains(stderr, "bad.yaml:6: a delay on pause means nothing") {
			t.Errorf("%s: exit %d, %s", args, code, stderr)
		}
	}
	if _, err := os.Stat("bad.consent.json"); err == nil {
		t.Error("an impossible policy was signed")
	}
}
