package main

import (
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-security/holdfast/content"
	"github.com/holdfast-security/holdfast/internal/stage"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

func newDemoCommand() *cobra.Command {
	var d stage.Demo
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "A whole Holdfast on this machine, to look at: server, this host, simulated hosts",
		Long: `A whole Holdfast on this machine, to look at.

Starts the server, protects this host, adds simulated hosts that speak the real
protocol, and brings the default content through the rings. As root the sensor
really watches this host; otherwise it replays recorded events. Everything is
kept in one folder, and a second run goes on where the first was. Ctrl-C stops
all of it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if d.State, err = filepath.Abs(d.State); err != nil {
				return err
			}
			if d.Bin, err = ownFolder(); err != nil {
				return err
			}
			d.Domain, d.Content, d.Paste = string(tuf.Production), content.Default, content.Paste
			d.Root, d.Out = os.Geteuid() == 0, cmd.OutOrStdout()
			return d.Run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&d.State, "state", ".holdfast", "folder for everything")
	f.StringVar(&d.ConsoleAt, "console", "127.0.0.1:8480", "address of the console and the API")
	f.StringVar(&d.HostsAt, "hosts-address", "127.0.0.1:8443", "address that hosts connect to")
	f.IntVar(&d.Simulated, "simulated", 200, "how many simulated hosts")
	f.DurationVar(&d.Heartbeat, "heartbeat", time.Second, "the clock: every window scales with it (production: 1m)")
	f.BoolVar(&d.Once, "once", false, "end when ready")
	return cmd
}

// ownFolder is where this program stands, and so the three others.
func ownFolder() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	self, err = filepath.EvalSymlinks(self)
	return filepath.Dir(self), err
}
