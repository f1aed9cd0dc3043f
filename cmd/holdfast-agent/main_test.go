package main

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/sensor"
)

// say runs a command line and returns what it writes on standard output.
func say(t *testing.T, args ...string) (string, error) {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	stdout := os.Stdout
	os.Stdout = file
	defer func() { os.Stdout = stdout }()
	problem := dispatch(context.Background(), args)
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(out), problem
}

func TestManifestPromisesWhatTheSensorSupplies(t *testing.T) {
	out, err := say(t, "manifest")
	if err != nil {
		t.Fatal(err)
	}
	var m holdfast.Manifest
	if err := json.Unmarshal([]byte(out), &m); err != nil {
		t.Fatal(err)
	}
	if m.Platform != runtime.GOOS+"/"+runtime.GOARCH || m.Version != version || m.Schema != 1 {
		t.Errorf("%+v", m)
	}
	for _, c := range m.Classes {
		if n := sensor.Supplied()[c.UID]; n != len(c.Inputs) {
			t.Errorf("%s: %d inputs promised, %d supplied", c.Name, len(c.Inputs), n)
		}
	}
}

func TestEveryCommandHelps(t *testing.T) {
	for _, c := range commands {
		if out, err := say(t, c.name, "--help"); err != nil || !strings.Contains(out, "Usage: holdfast-agent "+c.name) {
			t.Errorf("%s --help: %q %v", c.name, out, err)
		}
	}
	for _, args := range [][]string{nil, {"help"}} {
		if out, err := say(t, args...); err != nil || !strings.Contains(out, "enrol") {
			t.Errorf("%v: %q %v", args, out, err)
		}
	}
	if out, err := say(t, "version"); err != nil || !strings.HasPrefix(out, version) {
		t.Errorf("version: %q %v", out, err)
	}
}

func TestWhatIsMistypedIsRefused(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "agent.json")
	if err := os.WriteFile(bad, []byte("{\n\"state\": 7\n}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"rnu"}, `no command is called "rnu"`},
		{[]string{"run", "--confg", "x"}, "confg"},
		{[]string{"run", "extra"}, "no argument is expected"},
		{[]string{"run", "--config", filepath.Join(dir, "missing")}, "--config"},
		{[]string{"run", "--config", bad}, "agent.json:2"},
		{[]string{"enrol", "--config", bad}, "agent.json:2"},
		{[]string{"testload"}, "--bundle"},
		{[]string{"rehearse", "--bundle", filepath.Join(dir, "missing")}, "bundle"},
	} {
		if _, err := say(t, c.args...); holdfast.KindOf(err) != holdfast.Invalid || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v", c.args, err)
		}
	}
}
