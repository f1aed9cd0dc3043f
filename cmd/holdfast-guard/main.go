// Command holdfast-guard keeps a host protected: it starts the worker
// (holdfast-agent), watches it, and puts back what held when new content does
// not. Package guard says how it decides.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/guard"
)

func main() {
	// A page of state and two pipes: the collector may take its time to keep
	// the guard small.
	debug.SetGCPercent(20)
	debug.SetMemoryLimit(6 << 20)
	if err := run(os.Args[1:], os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "holdfast-guard:", err)
		os.Exit(holdfast.KindOf(err).ExitCode())
	}
}

func run(args []string, out *os.File) error {
	o := guard.Default()
	o.Output = out
	var level slog.Level
	memory := o.Memory >> 20
	f := flag.NewFlagSet("holdfast-guard", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&o.State, "state", "/var/lib/holdfast", "`directory` of the host's state")
	f.StringVar(&o.Worker, "worker", "/usr/lib/holdfast/holdfast-agent", "the packaged worker, a `program`")
	f.StringVar(&o.Config, "config", "/etc/holdfast/agent.json", "the worker's configuration `file`, passed on unread")
	f.DurationVar(&o.Policy.Probation, "probation", o.Policy.Probation, "how long new content must hold")
	f.Uint64Var(&o.Policy.ProbationEvents, "probation-events", o.Policy.ProbationEvents, "and how many events it must evaluate meanwhile")
	f.DurationVar(&o.Stall, "stall", o.Stall, "kill a worker whose evaluation loop stands still for this long")
	f.DurationVar(&o.Start, "start", o.Start, "kill a worker that is not ready after this long")
	f.DurationVar(&o.Drain, "drain", o.Drain, "kill a worker that takes this long to finish")
	f.Uint64Var(&memory, "memory-max", memory, "`MiB` resident that a worker may have")
	f.Uint64Var(&o.CPU, "cpu-max", o.CPU, "`thousandths` of a core that a worker may use")
	f.DurationVar(&o.CPUFor, "cpu-for", o.CPUFor, "… on average over this long")
	f.StringVar(&o.Cgroup, "cgroup", o.Cgroup, `where workers get control groups: "auto", a version 2 `+"`directory`"+`, or "" for none`)
	f.StringVar(&o.BootID, "boot-id", o.BootID, "`file` that holds the kernel's boot id")
	f.TextVar(&level, "log", slog.LevelInfo, "`level` of the log on standard error: debug, info, warn, error")
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(out, "holdfast-guard starts the worker, watches it, and puts back what held.\n\nFlags:")
		f.SetOutput(out)
		f.PrintDefaults()
		return nil
	case err != nil:
		return &holdfast.Error{Kind: holdfast.Invalid, Err: err, Do: "see holdfast-guard --help"}
	case f.NArg() > 0:
		return &holdfast.Error{Kind: holdfast.Invalid, What: "no argument is expected", Where: f.Arg(0), Do: "see holdfast-guard --help"}
	}
	o.Memory = memory << 20
	o.Log = slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: level, ReplaceAttr: utc}))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	return guard.Run(ctx, o)
}

func utc(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		a.Value = slog.StringValue(a.Value.Time().UTC().Format(time.RFC3339Nano))
	}
	return a
}
