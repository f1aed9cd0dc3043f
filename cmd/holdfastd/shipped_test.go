package main

import (
	"bytes"
	"debug/buildinfo"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestShippedProgramsContainNoBypass reads the programs that make build left:
// none was built with a drill's tag, and the code that gives a release to
// everybody at once is in the drill's server alone.
func TestShippedProgramsContainNoBypass(t *testing.T) {
	bin := os.Getenv("HOLDFAST_BIN")
	if bin == "" {
		t.Skip("HOLDFAST_BIN does not name the folder with the programs; run it through make test")
	}
	everybody := []byte("rollout.(*decision).everybody")
	for _, c := range []struct {
		program string
		drill   bool
	}{
		{"holdfast", false},
		{"holdfastd", false},
		{"holdfast-agent", false},
		{"holdfast-guard", false},
		{"drill/holdfastd-unhalted", true},
		{"drill/agent-twin", true},
		{"drill/agent-slow", true},
	} {
		file := filepath.Join(bin, c.program)
		info, err := buildinfo.ReadFile(file)
		if err != nil {
			t.Fatalf("%s: %v; run make build twins", c.program, err)
		}
		tags := ""
		for _, s := range info.Settings {
			if s.Key == "-tags" {
				tags = s.Value
			}
		}
		if strings.Contains(tags, "holdfast_") != c.drill {
			t.Errorf("%s was built with tags %q", c.program, tags)
		}
		if !strings.HasPrefix(filepath.Base(c.program), "holdfastd") {
			continue
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(raw, everybody) != c.drill {
			t.Errorf("%s contains the code of the rule without halting: %t", c.program, !c.drill)
		}
	}
}
