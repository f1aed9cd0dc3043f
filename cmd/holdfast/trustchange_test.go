package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

// TestTrustChangesByCommand replaces a publisher, raises a minimum, allows a
// retry and renews, as the people would type it, each signed by those who must.
func TestTrustChangesByCommand(t *testing.T) {
	dir := t.TempDir()
	desk, keys := filepath.Join(dir, "desk"), filepath.Join(dir, "keys")
	run := func(args ...string) (string, error) {
		var out bytes.Buffer
		cmd := newRootCommand()
		cmd.SetOut(&out)
		cmd.SetErr(&out)
		cmd.SetArgs(append(append([]string{"trust"}, args...), "--json"))
		err := cmd.Execute()
		return out.String(), err
	}
	must := func(args ...string) string {
		t.Helper()
		out, err := run(args...)
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return out
	}
	complete := func() {
		t.Helper()
		d, err := tuf.OpenDesk(desk)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Complete(); err != nil {
			t.Fatal(err)
		}
	}
	key := func(name string) string { return filepath.Join(keys, name+".key") }

	must("init", "--desk", desk, "--keys", keys)
	d, err := tuf.OpenDesk(desk)
	if err != nil {
		t.Fatal(err)
	}
	digests := []holdfast.Digest{holdfast.DigestOf([]byte("one")), holdfast.DigestOf([]byte("two"))}
	for i, digest := range digests {
		err := d.Stage(time.Now(), tuf.AddRelease(tuf.NewRelease{Channel: holdfast.Rules, Digest: digest, Size: 3, Version: string(rune('1' + i)), Rings: holdfast.RingPlan{{Name: "internal", Through: 10_000}, {Name: "early", Through: 100_000}, {Name: "general", Through: 1_000_000}}}))
		if err != nil {
			t.Fatal(err)
		}
		if err := signAll(d, []string{key("publisher-1"), key("publisher-2")}); err != nil {
			t.Fatal(err)
		}
		complete()
	}

	var shown struct{ ID, Public string }
	if err := json.Unmarshal([]byte(must("key", "make", key("publisher-4"))), &shown); err != nil || strings.Contains(shown.Public, "PRIVATE") {
		t.Fatalf("%v: %+v", err, shown)
	}
	public := filepath.Join(dir, "publisher-4.pem")
	if err := os.WriteFile(public, []byte(shown.Public), 0o600); err != nil {
		t.Fatal(err)
	}
	old, err := tuf.LoadPublic(key("publisher-3"))
	if err != nil {
		t.Fatal(err)
	}
	must("replace", "publisher", "--desk", desk, "--revoke", tuf.KeyID(old)[:12], "--add", public,
		"--key", key("root-1"), "--key", key("root-2"), "--key", key("publisher-1"), "--key", key("publisher-2"))
	complete()
	if show := must("show", "--desk", desk); strings.Contains(show, tuf.KeyID(old)) || !strings.Contains(show, shown.ID) {
		t.Errorf("the publisher was not replaced:\n%s", show)
	}

	signers := []string{"--desk", desk, "--key", key("publisher-4"), "--key", key("publisher-1")}
	for _, change := range [][]string{
		{"retry", "rules", string(digests[1])[:20]},
		{"final", "rules", digests[1].Short()},
		{"minimum", "rules", "2"},
		{"renew", "image/rules"},
	} {
		must(append(change, signers...)...)
		complete()
	}
	_, all, err := d.Contents()
	if err != nil || len(all) != 2 || all[1].Retry != 1 || !all[1].Final {
		t.Errorf("%v: %+v", err, all)
	}

	missing := filepath.Join(dir, "nothing.pem")
	if _, err := run("replace", "publisher", "--add", missing, "--desk", desk); err == nil || err.Error() != missing+": no such file" {
		t.Errorf("a key file that is not there: %v", err)
	}
	for name, args := range map[string][]string{
		"cannot be lowered":   {"minimum", "rules", "1", "--desk", desk},
		"no such release":     {"retry", "rules", "ffff", "--desk", desk},
		"no such key":         {"replace", "publisher", "--revoke", "zz", "--desk", desk},
		"neither":             {"replace", "publisher", "--desk", desk},
		"no such role":        {"renew", "image/nothing", "--desk", desk},
		"not a key":           {"rehearsals", filepath.Join(desk, "image/1.root.json"), "--desk", desk},
		"not for this signer": {"remove", "rules", digests[0].Short(), "--key", key("root-1"), "--desk", desk},
	} {
		if out, err := run(args...); err == nil {
			t.Errorf("%s: %v went through: %s", name, args, out)
		}
	}
}
