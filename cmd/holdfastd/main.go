// Command holdfastd is the server of Holdfast: control plane, console and API in
// one process.
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
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/rollout"
)

var version = "dev" // set by the linker

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "holdfastd:", err)
		os.Exit(holdfast.KindOf(err).ExitCode())
	}
}

// options is how a server is started.
type options struct {
	state     string // folder of everything this server keeps
	keys      string // folder of the online keys, from the ceremony
	store     string // where the database is; empty means a file in state
	hosts     string // address hosts connect to (TLS)
	console   string // address of console and API
	public    string // URL hosts reach hosts under; empty means https://hosts
	heartbeat time.Duration
	signals   []holdfast.HarmKind // kinds of harm that count; nil: by the size of the fleet
	https     bool                // people reach the console over HTTPS, through a proxy
	demo      bool                // say on every page that releases approve themselves
	logLevel  slog.Level
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	f := flag.NewFlagSet("holdfastd", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.state, "state", "/var/lib/holdfastd", "folder of everything the server keeps")
	f.StringVar(&o.keys, "keys", "/etc/holdfastd/online", "folder of the online keys: what the ceremony wrote to online/")
	f.StringVar(&o.store, "store", "", "database: a file, or postgres://… (default: holdfast.db in the state folder)")
	f.StringVar(&o.hosts, "hosts", ":8443", "address that hosts connect to (TLS with client certificates)")
	f.StringVar(&o.console, "console", "127.0.0.1:8480", "address of the console and the API; put a TLS proxy before any other than loopback")
	f.StringVar(&o.public, "public", "", "URL under which hosts reach this server (default: https:// and the address of --hosts)")
	f.DurationVar(&o.heartbeat, "heartbeat", time.Minute, "how often hosts speak; every window of the halting procedure scales with it")
	f.Func("signals", "kinds of harm that count, as a list: crash,reboot,silence,cpu,memory (default: all of them; the first three below 1,000 hosts)", func(list string) error {
		for _, k := range strings.Split(list, ",") {
			o.signals = append(o.signals, holdfast.HarmKind(k))
		}
		if i := rollout.BadSignal(o.signals); i >= 0 {
			return fmt.Errorf("%q is no kind of harm, or named twice", o.signals[i])
		}
		return nil
	})
	f.BoolVar(&o.https, "console-https", false, "people reach the console over HTTPS, through a proxy: cookies are for HTTPS alone")
	f.BoolVar(&o.demo, "demo", false, "say on every page that a demo approves its own releases")
	f.TextVar(&o.logLevel, "log", slog.LevelInfo, "log level: debug, info, warn or error")
	show := f.Bool("version", false, "print the version")
	f.Usage = func() {
		fmt.Fprintln(stderr, "holdfastd runs the server of Holdfast: control plane, console and API.\n\nFlags:")
		f.PrintDefaults()
	}
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, err
		}
		return o, &holdfast.Error{Kind: holdfast.Invalid, Err: err}
	}
	if *show {
		fmt.Println(version)
		return o, flag.ErrHelp
	}
	if f.NArg() > 0 {
		return o, &holdfast.Error{Kind: holdfast.Invalid, What: "unexpected argument " + f.Arg(0), Do: "see: holdfastd --help"}
	}
	if o.heartbeat < time.Second || o.heartbeat > 10*time.Minute || o.heartbeat%time.Second != 0 {
		return o, &holdfast.Error{Kind: holdfast.Invalid, What: "the heartbeat must be whole seconds, from 1 s to 10 m", Where: "--heartbeat"}
	}
	return o, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		// Nearly all of the heap is connections, which live long: letting garbage
		// grow to half of it instead of all of it costs little, and is a quarter of
		// what each connection holds.
		debug.SetGCPercent(50)
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: o.logLevel}))
	s, err := open(ctx, o, log)
	if err != nil {
		return err
	}
	defer s.close()
	return s.serve(ctx, stdout)
}
