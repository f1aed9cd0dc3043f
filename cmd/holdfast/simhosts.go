package main

import (
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/sim/hosts"
)

// newSimCommand is "holdfast sim": with --connect it plays hosts against a real
// server; below it are the commands that play whole fleets in virtual time.
func newSimCommand(a *app) *cobra.Command {
	var cfg hosts.Config
	var connect, tokenFile, scriptFile, logLevel string
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "Fleets that are played, by the real procedure and the real protocol",
		Long: `Fleets that are played: in virtual time by the procedure that decides in
holdfastd (the commands below), or with --connect against a real holdfastd.

  holdfast sim --connect ADDRESS --hosts N

plays N hosts that speak the real protocol. Each enrols, keeps a mutually
authenticated OpAMP connection of its own, beats, reports, verifies what it is
offered (TUF, verdicts, soak, ring), and lets the guard's own code decide. Only
the machine below the guard is played. The server shows these hosts as
simulated. Hosts connect a few hundred at a time; when the server goes away each
comes back by itself after a random pause, as real ones do.

ADDRESS is where hosts connect to: what holdfastd calls --public, or --hosts.
The first time the hosts need a token:

  holdfast enrol-token --simulated --role "" --uses 18000 > token
  holdfast sim --connect https://127.0.0.1:8443 --hosts 18000 --token-file token

Identities and states are kept in the folder given with --state, and a second
run goes on where the first was. A connection is a file descriptor here and one
at the server: see "ulimit -n". The server says how often hosts speak.

A script makes hosts fail under some content:

  [{"digest": "sha256:…", "fault": "crash", "after": "2s", "share": 0.5,
    "kernel": "6.1", "distro": "debian-12", "role": "server"}]

Faults: crash, stall, reboot, silence, cpu, memory. "share" and the three
attributes may be left out.`,
		Example: `  holdfast sim --connect https://127.0.0.1:8443 --hosts 200 --token-file token
  holdfast sim run scenario.yaml --seed 42
  holdfast sim july19 --picture july19.html`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("connect") {
				if cmd.Flags().NFlag() == 0 {
					return cmd.Help()
				}
				return &holdfast.Error{Kind: holdfast.Invalid, What: "nothing to connect to", Do: "say where holdfastd listens for hosts: --connect https://127.0.0.1:8443"}
			}
			var err error
			if cfg.Server, err = hostsAddress(connect); err != nil {
				return err
			}
			if cfg.Agent == "" {
				bin, err := ownFolder()
				if err != nil {
					return err
				}
				cfg.Agent = filepath.Join(bin, "holdfast-agent")
			}
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
	f.StringVar(&connect, "connect", "", "play hosts against the holdfastd whose hosts' listener is there")
	f.IntVar(&cfg.Hosts, "hosts", 200, "how many hosts")
	f.StringVar(&cfg.State, "state", ".holdfast-sim", "folder for identities and states")
	f.StringVar(&cfg.Agent, "agent", "", "agent binary: the sensor build that the hosts run (default: the one beside this program)")
	f.StringVar(&tokenFile, "token-file", "", "file with an enrolment token, for hosts that are not enrolled yet")
	f.StringVar(&scriptFile, "script", "", "file that says which hosts fail under which content")
	f.StringVar(&cfg.Domain, "domain", "production", "trust domain: production or drill")
	f.DurationVar(&cfg.Heartbeat, "heartbeat", time.Second, "how often hosts speak, until the server says how often")
	f.DurationVar(&cfg.Probation, "probation", 0, "how long new content must hold (default: three heartbeats)")
	f.Uint64Var(&cfg.Seed, "seed", 1, "draws what the hosts are")
	f.StringVar(&logLevel, "log", "error", "least level to log: debug, info, warn or error")
	cmd.AddCommand(newSimRunCommand(a), newSimGoalsCommand(a), newSimJuly19Command(a))
	return cmd
}

// hostsAddress takes a URL, or host and port.
func hostsAddress(s string) (string, error) {
	if !strings.Contains(s, "://") {
		s = "https://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return "", &holdfast.Error{Kind: holdfast.Invalid, What: fmt.Sprintf("%q is no address of a hosts' listener", s), Where: "--connect", Do: "give it as https://HOST:PORT or HOST:PORT"}
	}
	return "https://" + u.Host, nil
}

func playHosts(cmd *cobra.Command, cfg hosts.Config) error {
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "%d simulated hosts at %s, seed %d\n", cfg.Hosts, cfg.Server, cfg.Seed)
	began := time.Now()
	fleet, err := hosts.Open(cmd.Context(), cfg, func(enrolled int) {
		fmt.Fprintf(out, "%d of %d have an identity after %.0f s\n", enrolled, cfg.Hosts, time.Since(began).Seconds())
	})
	if err != nil {
		return err
	}
	began = time.Now()
	return fleet.Run(cmd.Context(), func(connected int) {
		fmt.Fprintf(out, "connected %d of %d after %.1f s\n", connected, cfg.Hosts, time.Since(began).Seconds())
	})
}
