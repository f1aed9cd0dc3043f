package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/sim/hosts"
)

// newSimHostsCommand is "holdfast sim hosts", which "holdfast sim --connect"
// is another name of.
func newSimHostsCommand() *cobra.Command {
	var cfg hosts.Config
	var tokenFile, scriptFile, logLevel string
	cmd := &cobra.Command{
		Use:   "hosts",
		Short: "Play hosts that speak the real protocol to a real server",
		Long: `Play hosts that speak the real protocol to a real server.

Each host enrols, keeps a mutually authenticated OpAMP connection of its own,
verifies what it is offered (TUF, verdicts, soak, ring), and lets the guard's
own code decide. Only the machine below the guard is played. The server shows
these hosts as simulated.

A script makes hosts fail under some content:

  [{"digest": "sha256:…", "fault": "crash", "after": "2s", "share": 0.5,
    "kernel": "6.1", "distro": "debian-12", "role": "server"}]

Faults: crash, stall, reboot, silence, cpu, memory. "share" and the three
attributes may be left out. Identities and states are kept in the folder given
with --state; a second run goes on where the first was.`,
		Example: `  holdfast sim hosts --hosts 200 --state sim --agent bin/holdfast-agent --token-file token`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if tokenFile != "" {
				b, err := os.ReadFile(tokenFile)
				if err != nil {
					return &holdfast.Error{Kind: holdfast.Invalid, What: "the enrolment token cannot be read", Where: "--token-file", Err: err}
				}
				cfg.Token = strings.TrimSpace(string(b))
			}
			if scriptFile != "" {
				b, err := os.ReadFile(scriptFile)
				if err == nil {
					cfg.Script, err = hosts.ParseScript(b)
				}
				if err != nil {
					return &holdfast.Error{Kind: holdfast.Invalid, Where: scriptFile, Err: err}
				}
			}
			var level slog.Level
			if err := level.UnmarshalText([]byte(logLevel)); err != nil {
				return &holdfast.Error{Kind: holdfast.Invalid, What: fmt.Sprintf("%q is no level", logLevel), Where: "--log", Do: "use debug, info, warn or error"}
			}
			cfg.Log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
			return playHosts(cmd, cfg)
		},
	}
	f := cmd.Flags()
	f.IntVar(&cfg.Hosts, "hosts", 200, "how many hosts")
	f.StringVar(&cfg.State, "state", "", "folder for identities and states (required)")
	f.StringVar(&cfg.Agent, "agent", "", "agent binary: the sensor build that the hosts run (required)")
	f.StringVar(&tokenFile, "token-file", "", "file with an enrolment token, for hosts that are not enrolled yet")
	f.StringVar(&scriptFile, "script", "", "file that says which hosts fail under which content")
	f.StringVar(&cfg.Domain, "domain", "production", "trust domain: production or drill")
	f.DurationVar(&cfg.Heartbeat, "heartbeat", time.Second, "how often hosts speak, until the server says how often")
	f.DurationVar(&cfg.Probation, "probation", 0, "how long new content must hold (default: three heartbeats)")
	f.Uint64Var(&cfg.Seed, "seed", 1, "draws what the hosts are")
	f.StringVar(&logLevel, "log", "error", "least level to log: debug, info, warn or error")
	return cmd
}

func playHosts(cmd *cobra.Command, cfg hosts.Config) error {
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "%d simulated hosts, seed %d, a heartbeat every %v\n", cfg.Hosts, cfg.Seed, cfg.Heartbeat)
	began := time.Now()
	fleet, err := hosts.Open(cmd.Context(), cfg)
	if err != nil {
		return err
	}
	return fleet.Run(cmd.Context(), func(connected int) { sayConnected(out, connected, cfg.Hosts, time.Since(began)) })
}

func sayConnected(w io.Writer, connected, all int, after time.Duration) {
	fmt.Fprintf(w, "connected %d of %d after %.1f s\n", connected, all, after.Seconds())
}
