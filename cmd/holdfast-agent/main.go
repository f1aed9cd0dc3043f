// Holdfast-agent is the worker on a host: it verifies content, senses, evaluates
// and delivers findings. holdfast-guard starts and watches it; people use it to
// enrol a host and to ask a build what it can do.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/lifeline"
	"github.com/holdfast-security/holdfast/internal/endpoint/uplink"
	"github.com/holdfast-security/holdfast/internal/endpoint/worker"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
)

// version is set when a release is built (-ldflags "-X main.version=…").
var version = "0.0.0-dev"

type command struct {
	name, synopsis string
	run            func(ctx context.Context, args []string) error
}

var commands []command

func init() {
	commands = []command{
		{"run", "protect this host (the guard calls this)", run},
		{"enrol", "give this host an identity, with a token from the server", enrol},
		{"manifest", "say what this build can do, as JSON", manifest},
		{"testload", "load a bundle and say what is wrong with it", testload},
		{"rehearse", "evaluate events of rehearsal's (holdfast rehearse calls this)", rehearseCommand},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := dispatch(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "holdfast-agent:", err)
		os.Exit(holdfast.KindOf(err).ExitCode())
	}
}

func dispatch(ctx context.Context, args []string) error {
	name := ""
	if len(args) > 0 {
		name = args[0]
	}
	switch name {
	case "", "help", "-h", "--help":
		usage(os.Stdout)
		return nil
	case "version", "--version":
		fmt.Println(version, runtime.GOOS+"/"+runtime.GOARCH)
		return nil
	}
	for _, c := range commands {
		if c.name == name {
			return c.run(ctx, args[1:])
		}
	}
	return &holdfast.Error{Kind: holdfast.Invalid, What: fmt.Sprintf("no command is called %q", name), Do: "see holdfast-agent help"}
}

func usage(w io.Writer) {
	fmt.Fprintln(w, "holdfast-agent is the worker on a host.\n\nCommands (each takes --help):")
	for _, c := range commands {
		fmt.Fprintf(w, "  %-10s %s\n", c.name, c.synopsis)
	}
}

// parse reads a command's flags. False means that help was asked for and given.
func parse(f *flag.FlagSet, args []string) (bool, error) {
	f.SetOutput(io.Discard)
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Printf("Usage: holdfast-agent %s [flags]\n", f.Name())
		f.SetOutput(os.Stdout)
		f.PrintDefaults()
		return false, nil
	case err != nil:
		return false, &holdfast.Error{Kind: holdfast.Invalid, Err: err, Do: "see holdfast-agent " + f.Name() + " --help"}
	case f.NArg() > 0:
		return false, &holdfast.Error{Kind: holdfast.Invalid, What: "no argument is expected", Where: f.Arg(0), Do: "see holdfast-agent " + f.Name() + " --help"}
	}
	return true, nil
}

const configUsage = "the host's configuration `file`"

func run(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("run", flag.ContinueOnError)
	config := f.String("config", "/etc/holdfast/agent.json", configUsage)
	generation := f.String("generation", "", "the content to run: `channel=digest,…`")
	safe := f.Bool("safe", false, "safe mode: no content and no sensor, only the connection to the server")
	var level slog.Level
	f.TextVar(&level, "log", slog.LevelInfo, "`level` of the log on standard error: debug, info, warn, error")
	if ok, err := parse(f, args); !ok {
		return err
	}
	c, err := worker.ReadConfig(*config)
	if err != nil {
		return err
	}
	g, err := worker.ParseGeneration(*generation)
	if err != nil {
		return err
	}
	guard, err := lifeline.Open()
	if err != nil {
		return err
	}
	return worker.Run(ctx, worker.Options{
		Config: c, Version: version, Generation: g, Safe: *safe, Guard: guard,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level, ReplaceAttr: utc})),
	})
}

func utc(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		a.Value = slog.StringValue(a.Value.Time().UTC().Format(time.RFC3339Nano))
	}
	return a
}

// maxToken bounds the file of a token.
const maxToken = 16 << 10

func enrol(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("enrol", flag.ContinueOnError)
	config := f.String("config", "/etc/holdfast/agent.json", configUsage)
	file := f.String("token-file", "-", "`file` that holds the token; - is standard input")
	if ok, err := parse(f, args); !ok {
		return err
	}
	c, err := worker.ReadConfig(*config)
	if err != nil {
		return err
	}
	in := os.Stdin
	if *file != "-" {
		if in, err = os.Open(*file); err != nil {
			return &holdfast.Error{Kind: holdfast.Invalid, What: "the token cannot be read", Err: err}
		}
		defer in.Close()
	}
	token, err := io.ReadAll(io.LimitReader(in, maxToken))
	if err != nil {
		return &holdfast.Error{Kind: holdfast.Invalid, What: "the token cannot be read", Err: err}
	}
	attributes, err := worker.Attributes(c, version, "")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.State, 0o700); err != nil {
		return &holdfast.Error{Kind: holdfast.Internal, What: "the state directory cannot be made", Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	id, err := uplink.Enrol(ctx, uplink.Enrolment{
		Dir: filepath.Join(c.State, "identity"), Token: strings.TrimSpace(string(token)), Attributes: attributes,
	})
	if err != nil {
		return err
	}
	fmt.Printf("enrolled as %s in %s, with %s\n", id.Host, id.Org, id.Server)
	return nil
}

func manifest(_ context.Context, args []string) error {
	if ok, err := parse(flag.NewFlagSet("manifest", flag.ContinueOnError), args); !ok {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	return out.Encode(ocsf.Manifest(version, runtime.GOOS+"/"+runtime.GOARCH))
}

func testload(_ context.Context, args []string) error {
	f := flag.NewFlagSet("testload", flag.ContinueOnError)
	bundle := f.String("bundle", "", "the bundle's `file`")
	if ok, err := parse(f, args); !ok {
		return err
	}
	if *bundle == "" {
		return &holdfast.Error{Kind: holdfast.Invalid, What: "no bundle is named", Do: "name it with --bundle FILE"}
	}
	return worker.TestLoad(*bundle)
}
