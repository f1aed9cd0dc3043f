// Command holdfast is the command line of Holdfast: content as code, releases,
// the fleet, findings, the record, and drills.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/holdfast-security/holdfast"
)

var version = "dev" // set by the linker

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run executes one command line and returns the exit code: 0, or the code of
// the error's kind.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	begun := false
	root := newRootCommand()
	root.PersistentPreRun = func(*cobra.Command, []string) { begun = true }
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var quiet exitCode
	if errors.As(err, &quiet) {
		return int(quiet)
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		fmt.Fprintln(stderr, "holdfast: stopped")
		return interrupted
	}
	// What cobra refuses before a command begins, or for a flag that is missing,
	// is how it was typed.
	if !begun || strings.HasPrefix(err.Error(), "required flag") {
		cmd, _, _ := root.Find(args)
		err = &holdfast.Error{Kind: holdfast.Invalid, Err: err, Do: "see: " + cmd.CommandPath() + " --help"}
	}
	fmt.Fprintln(stderr, "holdfast:", err)
	return holdfast.KindOf(err).ExitCode()
}

// interrupted is what shells expect of a program that Ctrl-C ended.
const interrupted = 130

// exitCode is an error that has said all it had to say already.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

func newRootCommand() *cobra.Command {
	a := &app{}
	root := &cobra.Command{
		Use:   "holdfast",
		Short: "Endpoint protection that cannot take down the fleet it protects",
		Long: `Endpoint protection that cannot take down the fleet it protects.

The usual road of a rule, from a folder to the fleet:

  holdfast content new my-rules        make a content repository
  holdfast content test my-rules       run every rule's own tests
  holdfast content build my-rules      one canonical bundle, one digest
  holdfast rehearse my-rules.bundle …  run it on every sensor build of the fleet
  holdfast release my-rules.bundle …   sign it and ask for a release
  holdfast approve RELEASE             the second person
  holdfast rollout watch RELEASE       rings, evidence, harm; live
  holdfast halt RELEASE                stop it, and bring every host back

Exit codes: 0 done, 1 internal error, 2 invalid input, 3 not found,
4 conflict, 5 denied, 6 unavailable.`,
		Version:           version,
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{},
	}
	f := root.PersistentFlags()
	f.StringVar(&a.server, "server", os.Getenv("HOLDFAST_SERVER"), "address of the server's API (default: from cli.json, see --help of 'status')")
	f.StringVar(&a.tokenFile, "token-file", os.Getenv("HOLDFAST_TOKEN_FILE"), "file that holds the API token")
	f.BoolVar(&a.json, "json", false, "print JSON instead of text")
	root.AddGroup(
		&cobra.Group{ID: "content", Title: "Content, from a folder to a release:"},
		&cobra.Group{ID: "fleet", Title: "The fleet and what it found:"},
		&cobra.Group{ID: "proof", Title: "Proof:"},
		&cobra.Group{ID: "setup", Title: "Setting up:"},
	)
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("content", newContentCommand(a), newRehearseCommand(a), newReleaseCommand(a), newRolloutCommand(a), newScanCommand(a))
	add("content", newDecisionCommands(a)...)
	add("fleet", newStatusCommand(a), newHostsCommand(a), newFindingsCommand(a))
	add("proof", newSimCommand(a), newLogCommand(a), newDrillCommand(a))
	add("setup", newDemoCommand(), newTrustCommand(a), newEnrolTokenCommand(a), newConsentCommand(a))
	return root
}

// app is what the commands share: how to reach the server, and how to print.
type app struct {
	server, tokenFile string
	json              bool
}

// print writes v as JSON if --json was given, else calls text.
func (a *app) print(cmd *cobra.Command, v any, text func(io.Writer)) error {
	if !a.json {
		text(cmd.OutOrStdout())
		return nil
	}
	e := json.NewEncoder(cmd.OutOrStdout())
	e.SetIndent("", "  ")
	return e.Encode(v)
}
