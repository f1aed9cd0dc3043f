package guard

import (
	"flag"
	"os"
	"testing"
)

// TestMain is also the worker of the tests that need a real one: the guard
// starts this very program, as it would start the agent.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "run" {
		os.Exit(actor(os.Args[2:]))
	}
	if os.Getenv("RAPID_CHECKS") == "" {
		_ = flag.Set("rapid.checks", "150")
	}
	os.Exit(m.Run())
}
