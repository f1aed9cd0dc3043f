package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/wire/apiv1"
)

// TestRevokingAHostAsIsTyped: what is sent, what is printed, and how it exits.
func TestRevokingAHostAsIsTyped(t *testing.T) {
	stands := holdfast.Revocation{Host: "h1", At: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC), By: "olga", Reason: "stolen"}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in apiv1.RevokeRequest
		_ = json.NewDecoder(r.Body).Decode(&in)
		var out any = stands
		if r.Method+" "+r.URL.Path != "POST /api/v1/hosts/h1/revoke" || in.Reason != "stolen" {
			w.WriteHeader(http.StatusNotFound)
			out = apiv1.Problem{Kind: holdfast.NotFound.String(), What: "there is no host " + r.URL.Path + " to be " + in.Reason}
		}
		_ = json.NewEncoder(w).Encode(out)
	}))
	defer web.Close()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	typed := func(args ...string) (code int, stdout, stderr string) {
		var out, err bytes.Buffer
		code = run(t.Context(), append([]string{"--server", web.URL, "--token-file", token, "hosts", "revoke"}, args...), &out, &err)
		return code, out.String(), err.String()
	}
	if code, out, _ := typed("h1", "--reason", "stolen"); code != 0 || !strings.HasPrefix(out, "h1 is revoked, since 2026-03-04 ") || !strings.HasSuffix(out, " by olga: stolen\n") {
		t.Errorf("exit %d: %q", code, out)
	}
	code, out, _ := typed("h1", "--reason", "stolen", "--json")
	var printed holdfast.Revocation
	if err := json.Unmarshal([]byte(out), &printed); code != 0 || err != nil || printed != stands {
		t.Errorf("exit %d: %q", code, out)
	}
	for _, c := range []struct {
		args []string
		want holdfast.Kind
		says string
	}{
		{[]string{"h1"}, holdfast.Invalid, `"reason" not set`},
		{[]string{"--reason", "stolen"}, holdfast.Invalid, "holdfast hosts revoke --help"},
		{[]string{"h2", "--reason", "stolen"}, holdfast.NotFound, "h2"},
	} {
		if code, _, stderr := typed(c.args...); code != c.want.ExitCode() || !strings.Contains(stderr, c.says) {
			t.Errorf("%v: exit %d, %q", c.args, code, stderr)
		}
	}
}
