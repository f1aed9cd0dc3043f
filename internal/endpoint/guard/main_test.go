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
	flag.Parse()
	asked := false
	flag.Visit(func(f *flag.Flag) { asked = asked || f.Name == "rapid.checks" })
	if !asked {
		_ = flag.Set("rapid.checks", "150")
	}
	os.Exit(m.Run())
}
