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
	"github.com/holdfast-security/holdfast/internal/stage"
	"github.com/holdfast-security/holdfast/internal/stage/drill"
)

func newDrillCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drill",
		Short: "Faults played on purpose, with a trust root that production hosts refuse",
		Long: `Faults played on purpose, on real processes: a server of the drill's own, and
guards with their agents that are enrolled as drill targets. Their trust root is in
the domain "drill", which production hosts refuse, as drill targets refuse
production's.

Exit code 0 if everything that the drill is to show was so, 4 if not. Needs the
drill's builds: make twins makes them.`,
	}
	cmd.AddCommand(newJuly19Command(a))
	for _, d := range drill.All {
		cmd.AddCommand(newPlayCommand(a, d.Name, d.Short, d.Long, []drill.Drill{d}))
	}
	cmd.AddCommand(newPlayCommand(a, "all", "Every drill but july19, one after the other", "Every drill but july19, one after the other, each on a stage of its own.", drill.All))
	return cmd
}

// ground is where a drill is played.
type ground struct {
	stage.Config
	keep bool
}

func (g *ground) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&g.Bin, "bin", "bin", "folder of the binaries and, in drill/, of the drill's builds")
	f.StringVar(&g.State, "state", "", "folder for everything (default: a temporary one)")
	f.BoolVar(&g.keep, "keep", false, "keep the temporary folder")
	f.DurationVar(&g.Heartbeat, "heartbeat", time.Second, "the clock: every window scales with it")
}

// make finds the programs and makes the folder; done removes it.
func (g *ground) make(cmd *cobra.Command) (c stage.Config, done func(), err error) {
	c, done = g.Config, func() {}
	if c.Bin, err = filepath.Abs(g.Bin); err != nil {
		return c, done, err
	}
	if _, err := os.Stat(filepath.Join(c.Bin, "drill/agent-twin")); err != nil {
		return c, done, &holdfast.Error{Kind: holdfast.NotFound, What: "the drill's builds are missing", Where: c.Bin, Do: "make them: make twins"}
	}
	if c.State == "" {
		if c.State, err = os.MkdirTemp("", "holdfast-drill-"); err != nil {
			return c, done, err
		}
		if !g.keep {
			done = func() { os.RemoveAll(c.State) }
		}
	}
	c.Say = func(format string, args ...any) { fmt.Fprintf(cmd.ErrOrStderr(), format+"\n", args...) }
	return c, done, nil
}

func notHeld(what string) error {
	return &holdfast.Error{Kind: holdfast.Conflict, What: what, Do: "keep the state with --keep, and read the logs in it"}
}

func newPlayCommand(a *app, name, short, long string, drills []drill.Drill) *cobra.Command {
	var g ground
	var o drill.Options
	var record bool
	cmd := &cobra.Command{
		Use: name, Short: short, Long: long, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var all []drill.Result
			var failed error
			for _, d := range drills {
				r, err := a.play(cmd, g, d, o)
				if r.Name != "" { // it began
					all = append(all, r)
				}
				switch {
				case err != nil:
					failed = fmt.Errorf("drill %s: %w", d.Name, err)
				case !r.Held:
					failed = notHeld("drill " + d.Name + " did not show what it is to show")
				}
				if failed != nil {
					break
				}
			}
			if len(all) == 0 {
				return failed
			}
			var out any = all
			if len(drills) == 1 {
				out = all[0]
			}
			if err := a.print(cmd, out, func(w io.Writer) { writeDrills(w, all) }); err != nil || failed != nil || !record {
				return first(failed, err)
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			for _, r := range all {
				if err := c.Post(cmd.Context(), "/api/v1/drills", r.Drill, nil); err != nil {
					return err
				}
			}
			return nil
		},
	}
	f := cmd.Flags()
	g.flags(cmd)
	f.IntVar(&o.Hosts, "hosts", 24, "how many guards with agents")
	f.Uint64Var(&o.Seed, "seed", 1, "what the drill decides by chance; see above")
	f.BoolVar(&record, "record", false, "also put the result on the record of your own installation (see --server)")
	return cmd
}

func (a *app) play(cmd *cobra.Command, g ground, d drill.Drill, o drill.Options) (drill.Result, error) {
	c, done, err := g.make(cmd)
	if err != nil {
		return drill.Result{}, err
	}
	defer done()
	if o.Hosts < 20 || o.Hosts > 400 {
		return drill.Result{}, &holdfast.Error{Kind: holdfast.Invalid, What: "a drill needs 20 to 400 hosts", Where: "--hosts", Do: "24 are enough"}
	}
	if g.State != "" {
		c.State = filepath.Join(c.State, d.Name)
	}
	o.Config = c
	c.Say("drill %s: %s (seed %d)", d.Name, d.Short, o.Seed)
	return d.Play(cmd.Context(), o)
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func writeDrills(w io.Writer, all []drill.Result) {
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "DRILL\tHOSTS\tSEED\tDETECTED\tHALTED\tRECOVERED\tEXPOSED\tHARMED\tHANDS\tHELD\tTOOK")
	for _, r := range all {
		fmt.Fprintf(t, "%s\t%d\t%d\t%s\t%s\t%s\t%d\t%d\t%d\t%t\t%s\n", r.Name, r.Hosts, r.Seed, seconds(r.Detect), seconds(r.Halt), seconds(r.Recover),
			r.Exposed, r.Harmed, r.HostsNeedingHands, r.Held, r.Took.Round(time.Second))
	}
	t.Flush()
	for _, r := range all {
		fmt.Fprintf(w, "\n%s: %s\n", r.Name, r.Fault)
		for _, c := range r.Checks {
			mark := "yes"
			if !c.Held {
				mark = "NO "
			}
			fmt.Fprintf(w, "  %s  %s\n", mark, c.What)
		}
	}
}

func seconds(s *float64) string {
	if s == nil {
		return "-"
	}
	return fmt.Sprintf("%.1f s", *s)
}

func newJuly19Command(a *app) *cobra.Command {
	var g ground
	var d drill.July19
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

A seed decides which of the recorded programs the rule looks for, how it compares,
and so when after a worker's start the fault strikes, in probation or after it; the
first one also which hosts of the mixed fleet are sincere. Which hosts are drawn is
the server's, at random, and processes order themselves.

Exit code 0 if every wall held, 4 if one did not. Needs the drill's builds: make
drill makes them.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, done, err := g.make(cmd)
			if err != nil {
				return err
			}
			defer done()
			d.Config = c
			r, err := d.Play(cmd.Context())
			if perr := a.print(cmd, r, func(w io.Writer) { writeJuly19(w, r) }); perr != nil {
				return perr
			}
			if err == nil && !r.Held() {
				return notHeld("a wall did not hold")
			}
			return err
		},
	}
	f := cmd.Flags()
	g.flags(cmd)
	f.IntVar(&d.Hosts, "hosts", 60, "how many guards with agents")
	f.UintSliceVar(&d.Seeds, "seed", []uint{1, 2, 3, 4, 5}, "seeds; one release each")
	return cmd
}

func writeJuly19(w io.Writer, r drill.Report) {
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	line := func(k string, v any) { fmt.Fprintf(t, "%s\t%v\n", k, v) }
	line("hosts, all faulty twins", r.Hosts)
	line("rehearsal refused it", r.RehearsalRefused)
	line("  naming", r.Refusal)
	line("harmed before the halt, by seed", r.Harmed)
	line("  it strikes after a worker's start, s", r.StrikeAt)
	line("  longest time to halt", fmt.Sprintf("%.1f s", r.TimeToHalt))
	line("  given back, never had it", fmt.Sprintf("%d, %d", r.Recalled, r.NeverExposed))
	line("harmed without the halting test", r.HarmedWithoutHalting)
	line(fmt.Sprintf("harmed, %d twins of %d (no bound)", r.MixedTwins, r.Hosts), r.HarmedMixed)
	line("healed itself without network", fmt.Sprintf("%t, in %.2f s", r.SelfHealedOffline, r.SelfHealing))
	line("shuns it after a restart", r.ShunnedAfterRestart)
	line("crash on trial to previous generation, p95", fmt.Sprintf("%.2f s over %d", r.RecoveryP95, r.Recoveries))
	line("bad agent release came back", r.AgentReleaseRecovered)
	line("hosts needing hands", r.HostsNeedingHands)
	line("took", r.Took.Round(time.Second))
	t.Flush()
}
