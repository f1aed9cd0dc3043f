package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-security/holdfast"
)

func TestSimConnectSaysWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"no address", []string{"--hosts", "5"}, "--connect"},
		{"another scheme", []string{"--connect", "http://127.0.0.1:8443"}, "--connect"},
		{"a path", []string{"--connect", "https://127.0.0.1:8443/v1/opamp"}, "--connect"},
		{"no host", []string{"--connect", ":8443"}, "--connect"},
		{"too many hosts", []string{"--connect", "127.0.0.1:1", "--hosts", "1000000"}, "--hosts"},
		{"no agent", []string{"--connect", "127.0.0.1:1", "--agent", "nowhere"}, "--agent"},
		{"no such command", []string{"hots"}, "hots"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			args := append([]string{"sim"}, c.args...)
			if c.args[0] != "hots" {
				args = append(args, "--state", filepath.Join(t.TempDir(), "fleet"))
			}
			if code := run(t.Context(), args, &out, &errs); code != holdfast.Invalid.ExitCode() || !strings.Contains(errs.String(), c.want) {
				t.Errorf("exit code %d\n%s", code, errs.String())
			}
		})
	}
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"sim"}, &out, &errs); code != 0 || !strings.Contains(out.String(), "july19") {
		t.Errorf("sim alone: exit code %d\n%s%s", code, out.String(), errs.String())
	}
}
