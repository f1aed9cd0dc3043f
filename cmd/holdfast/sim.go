package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/sim"
	"github.com/holdfast-security/holdfast/internal/sim/exact"
)

func newSimRunCommand(a *app) *cobra.Command {
	var seed uint64
	var hostByHost bool
	cmd := &cobra.Command{
		Use:   "run SCENARIO.yaml",
		Short: "Play a scenario: a fleet, a release, faults and outages",
		Long: `Play a scenario in virtual time, with the controller that decides in holdfastd.

Groups of like hosts are played in counts, any number of them; up to 20,000
hosts can be played one by one (--exact, or fidelity: exact in the file), each
with the guard's and the loader's real decisions and every message. An option
that a fidelity cannot play is refused.

The same scenario and seed give the same run. After every step the promises are
checked; a broken one is an error that names seed and step, and prints the
smallest scenario that still breaks it. docs/halting.md describes the file.`,
		Example: `  holdfast sim run scenario.yaml
  holdfast sim run scenario.yaml --exact --seed 42 --json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := readScenario(args[0])
			if err != nil {
				return err
			}
			s, err := sim.ParseScenario(args[0], b)
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("seed") {
				s.World.Seed = seed
			}
			if hostByHost {
				s.Fidelity = sim.Exact
			}
			if err := s.Plays(s.Fidelity); err != nil {
				return err
			}
			out, err := playScenario(cmd.Context(), s)
			if v := (*sim.Violation)(nil); errors.As(err, &v) {
				return a.broken(cmd, v)
			}
			if err != nil {
				return err
			}
			return a.print(cmd, out, func(w io.Writer) { printOutcome(w, s, out) })
		},
	}
	cmd.Flags().Uint64Var(&seed, "seed", 0, "replace the scenario's seed")
	cmd.Flags().BoolVar(&hostByHost, "exact", false, "play every host, whatever the file says")
	return cmd
}

func playScenario(ctx context.Context, s sim.Scenario) (sim.Outcome, error) {
	if s.Fidelity == sim.Exact {
		out, err := exact.Run(ctx, s.Policy, s.World)
		if v := (*sim.Violation)(nil); errors.As(err, &v) {
			return out, exact.Shrink(ctx, s.Policy, s.World, v)
		}
		return out, err
	}
	out, err := sim.Counts(s.Policy, s.World)
	if v := (*sim.Violation)(nil); errors.As(err, &v) {
		return out, sim.ShrinkCounts(s.Policy, s.World, v)
	}
	return out, err
}

// broken prints a broken promise, and what led to it.
func (a *app) broken(cmd *cobra.Command, v *sim.Violation) error {
	err := a.print(cmd, v, func(w io.Writer) {
		for _, line := range v.Trace {
			fmt.Fprintln(w, " ", line)
		}
	})
	if err != nil {
		return err
	}
	return &holdfast.Error{Kind: holdfast.Internal, What: v.Error(), Do: fmt.Sprintf("replay it with --seed %d", v.Seed)}
}

// readScenario reads at most a little more than a scenario may be long.
func readScenario(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, &holdfast.Error{Kind: holdfast.NotFound, Err: err}
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 1<<20+1))
}

func printOutcome(w io.Writer, s sim.Scenario, o sim.Outcome) {
	if s.Name != "" {
		fmt.Fprintf(w, "%s (seed %d)\n", s.Name, o.Seed)
	}
	fmt.Fprintf(w, "%12s %10s %10s %10s %12s\n", "time", "exposed", "broken", "pending", "evidence")
	step := len(o.Curve)/24 + 1
	for i, p := range o.Curve {
		if i%step == 0 || i == len(o.Curve)-1 {
			fmt.Fprintf(w, "%12s %10d %10d %10d %12.4g\n", p.At, p.Exposed, p.Broken, p.Pending, p.E)
		}
	}
	for _, n := range append(s.Notes, o.Notes...) {
		fmt.Fprintln(w, n)
	}
	fmt.Fprintf(w, "%s", o.Phase)
	if o.Decided > 0 {
		fmt.Fprintf(w, " after %s", o.Decided)
	}
	if o.Why != "" {
		fmt.Fprintf(w, ": %s", o.Why)
	}
	fmt.Fprintf(w, "\n%d hosts had the release, %d were broken by it\n", o.Exposed, o.Broken)
	if s.Fidelity == sim.Exact || o.Returned > 0 {
		fmt.Fprintf(w, "%d of the broken run proven content again, %d need hands\n", o.Returned, o.Hands)
	}
	printGroups(w, o.Groups)
}

// printGroups says who had the release, and when, by what organisations signed.
func printGroups(w io.Writer, all []sim.GroupOutcome) {
	if len(all) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%-20s %-24s %8s %8s %12s %12s\n", "organisation", "group", "hosts", "had it", "from", "to")
	for _, g := range all {
		from, to := "", ""
		if g.Had > 0 {
			from, to = g.First.String(), g.Last.String()
		}
		fmt.Fprintf(w, "%-20s %-24s %8d %8d %12s %12s\n", g.Org, cmp.Or(g.Group, "(none)"), g.Hosts, g.Had, from, to)
	}
}

func newSimGoalsCommand(a *app) *cobra.Command {
	var o sim.GoalOptions
	cmd := &cobra.Command{
		Use:   "goals",
		Short: "Measure the goals: false halts, hosts harmed, time to all",
		Long: `Measure the goals of docs/halting.md by simulation with the real controller.

Without --runs each 95th percentile comes from 200 runs at a million hosts, and
false halts from 20,000 null runs at 10,000 hosts and 5,000 at a million, network
and server outages included: that takes hours. Exit code 1 if a goal is missed.`,
		Example: `  holdfast sim goals --runs 40
  holdfast sim goals --only G4 --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			began := time.Now()
			said := began
			o.Progress = func(goal string, begun, runs int) {
				if now := time.Now(); begun == 0 || now.Sub(said) >= 10*time.Second {
					said = now
					fmt.Fprintf(cmd.ErrOrStderr(), "%7s  %s: %d of %s\n", now.Sub(began).Round(time.Second), goal, begun, plural(runs, "run"))
				}
			}
			goals, err := sim.Goals(cmd.Context(), o)
			if err != nil {
				return err
			}
			if err := a.print(cmd, goals, func(w io.Writer) { printGoals(w, goals) }); err != nil {
				return err
			}
			for _, g := range goals {
				if !g.Pass {
					return exitCode(1)
				}
			}
			return nil
		},
	}
	cmd.Flags().IntVar(&o.Runs, "runs", 0, "at most this many runs a goal (ten times as many null runs at 10,000 hosts)")
	cmd.Flags().Uint64Var(&o.Seed, "seed", 1, "the first seed; the others follow")
	cmd.Flags().StringVar(&o.Only, "only", "", "only goals whose name begins with this")
	return cmd
}

func printGoals(w io.Writer, goals []sim.Goal) {
	fmt.Fprintf(w, "%-20s %10s %10s  %-21s %10s %6s  %s\n", "goal", "figure", "median", "95 % interval", "target", "runs", "")
	for _, g := range goals {
		verdict := "met"
		if !g.Pass {
			verdict = "MISSED"
		}
		fmt.Fprintf(w, "%-20s %10.4g %10.4g  %-21s %10.4g %6d  %-6s %s: %s\n", g.Name, g.Figure, g.Median, fmt.Sprintf("%.4g – %.4g", g.Low, g.High), g.Target, g.Runs, verdict, g.What, g.Unit)
	}
}

func newSimJuly19Command(a *app) *cobra.Command {
	var o sim.July19Options
	var picture string
	cmd := &cobra.Command{
		Use:   "july19",
		Short: "The release of 19 July 2024 again, by Holdfast's rule and by others'",
		Long: `Play the release of 19 July 2024 on 8.5 million hosts: once with Holdfast, once
with each peer's rule, which is implemented from its own description and names
its source. "generous" lets broken hosts report, "realistic" does not.`,
		Example: `  holdfast sim july19 --picture july19.html
  holdfast sim july19 --runs 200 --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Progress = func(s string) { fmt.Fprintln(cmd.ErrOrStderr(), s) }
			r, err := sim.July19(cmd.Context(), o)
			if err != nil {
				return err
			}
			if picture != "" {
				if err := writePicture(picture, r); err != nil {
					return err
				}
			}
			return a.print(cmd, r, func(w io.Writer) { printJuly19(w, r) })
		},
	}
	cmd.Flags().IntVar(&o.Runs, "runs", 40, "runs of Holdfast for each fault")
	cmd.Flags().Uint64Var(&o.Seed, "seed", 1, "the first seed; the others follow")
	cmd.Flags().IntVar(&o.Hosts, "hosts", 8_500_000, "hosts in the fleet")
	cmd.Flags().StringVar(&picture, "picture", "", "write a page with the picture and the table to this file")
	return cmd
}

func writePicture(name string, r sim.July19Result) error {
	f, err := os.Create(name)
	if err != nil {
		return &holdfast.Error{Kind: holdfast.Invalid, Err: err, Do: "name a file that can be written"}
	}
	if err := r.Picture(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

func printJuly19(w io.Writer, r sim.July19Result) {
	fmt.Fprintf(w, "Hosts harmed before the rule stopped, of %d: median (p95)\n\n%-34s %-10s", r.Hosts, "rule", "variant")
	for _, f := range r.Faults {
		fmt.Fprintf(w, " %20s", strings.Replace(f, " (one stratum)", " stratum", 1))
	}
	fmt.Fprintln(w)
	for _, row := range r.Rows {
		fmt.Fprintf(w, "%-34s %-10s", row.Rule, row.Variant)
		for i := range row.Median {
			fmt.Fprintf(w, " %20s", fmt.Sprintf("%d (%d)", row.Median[i], row.P95[i]))
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w)
	for _, n := range r.Notes {
		fmt.Fprintln(w, "·", n)
	}
}
