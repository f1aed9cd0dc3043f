package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/stage/drill"
)

func newDrillCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drill",
		Short: "Faults played on purpose, with a trust root that production hosts refuse",
	}
	cmd.AddCommand(newJuly19Command(a))
	return cmd
}

func newJuly19Command(a *app) *cobra.Command {
	var d drill.July19
	var keep bool
	cmd := &cobra.Command{
		Use:   "july19",
		Short: "Replay 19 July 2024 on real processes, and see the three walls hold",
		Long: `Replay 19 July 2024 on real processes on this machine.

A faulty twin of the sensor says 21 inputs in its manifest while its code supplies
20. A new rule is the first to look at the 21st; the static check passes it.

  wall 1  rehearsal runs the fleet's three sensor builds, and refuses
  wall 2  the drill signs a false verdict; the rollout halts after a handful, and
          every host gives it back; a server built without the halting test
          harms them all
  wall 3  a harmed host without network puts the previous generation back, and
          never tries the digest again

Exit code 0 if every wall held, 4 if one did not. Needs the drill's builds: make
drill makes them.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if d.Bin, err = filepath.Abs(d.Bin); err != nil {
				return err
			}
			if _, err := os.Stat(filepath.Join(d.Bin, "drill/agent-twin")); err != nil {
				return &holdfast.Error{Kind: holdfast.NotFound, What: "the drill's builds are missing", Where: d.Bin, Do: "make them: make twins"}
			}
			if d.State == "" {
				if d.State, err = os.MkdirTemp("", "holdfast-drill-"); err != nil {
					return err
				}
				if !keep {
					defer os.RemoveAll(d.State)
				}
			}
			d.Say = func(format string, args ...any) { fmt.Fprintf(cmd.ErrOrStderr(), format+"\n", args...) }
			r, err := d.Play(cmd.Context())
			if perr := a.print(cmd, r, func(w io.Writer) { writeDrill(w, r) }); perr != nil {
				return perr
			}
			if err != nil {
				return err
			}
			if !r.Held() {
				return &holdfast.Error{Kind: holdfast.Conflict, What: "a wall did not hold", Do: "keep the state with --keep, and read the logs in it"}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&d.Bin, "bin", "bin", "folder of the binaries and, in drill/, of the drill's builds")
	f.StringVar(&d.State, "state", "", "folder for everything (default: a temporary one)")
	f.BoolVar(&keep, "keep", false, "keep the temporary folder")
	f.IntVar(&d.Hosts, "hosts", 60, "how many guards with agents")
	f.DurationVar(&d.Heartbeat, "heartbeat", time.Second, "the clock: every window scales with it")
	f.UintSliceVar(&d.Seeds, "seed", []uint{1, 2, 3, 4, 5}, "seeds; one release each")
	return cmd
}

func writeDrill(w io.Writer, r drill.Report) {
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	line := func(k string, v any) { fmt.Fprintf(t, "%s\t%v\n", k, v) }
	line("hosts, all faulty twins", r.Hosts)
	line("rehearsal refused it", r.RehearsalRefused)
	line("  naming", r.Refusal)
	line("harmed before the halt, by seed", r.Harmed)
	line("  longest time to halt", fmt.Sprintf("%.1f s", r.TimeToHalt))
	line("  given back, never had it", fmt.Sprintf("%d, %d", r.Recalled, r.NeverExposed))
	line("harmed without the halting test", r.HarmedWithoutHalting)
	line(fmt.Sprintf("harmed, %d twins of %d (no bound)", r.MixedTwins, r.Hosts), r.HarmedMixed)
	line("healed itself without network", fmt.Sprintf("%t, in %.2f s", r.SelfHealedOffline, r.SelfHealing))
	line("shuns it after a restart", r.ShunnedAfterRestart)
	line("crash to previous generation, p95", fmt.Sprintf("%.2f s", r.RecoveryP95))
	line("bad agent release came back", r.AgentReleaseRecovered)
	line("hosts needing hands", r.HostsNeedingHands)
	line("took", r.Took.Round(time.Second))
	t.Flush()
}
