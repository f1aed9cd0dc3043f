package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/client"
	"github.com/holdfast-security/holdfast/internal/view"
	"github.com/holdfast-security/holdfast/internal/wire/apiv1"
)

func newRolloutCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "rollout", Short: "Releases on their way through the fleet"}
	cmd.AddCommand(
		&cobra.Command{
			Use: "list", Short: "Every rollout, latest first", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				c, err := a.client()
				if err != nil {
					return err
				}
				var rows []view.RolloutRow
				if err := c.Get(cmd.Context(), "/api/v1/rollouts", &rows); err != nil {
					return err
				}
				return a.print(cmd, rows, func(w io.Writer) {
					t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
					fmt.Fprintln(t, "RELEASE\tCONTENT\tPHASE\tADMITTED\tHARMED\tEVIDENCE\tBY\tAPPROVED")
					for _, r := range rows {
						fmt.Fprintf(t, "%s\t%s %s\t%s\t%d/%d\t%d\t%.3g/%.0f\t%s\t%s\n", r.ID, r.Bundle.Channel, r.Bundle.Version, r.Phase, r.Admitted, r.Eligible, r.Harmed, r.Evidence, 1/r.Alpha, r.By, r.Approved)
					}
					t.Flush()
				})
			},
		},
		&cobra.Command{
			Use: "show RELEASE", Short: "One rollout: rings, evidence, harm, and why it stands where it stands", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				c, err := a.client()
				if err != nil {
					return err
				}
				d, err := getRollout(cmd.Context(), c, args[0])
				if err != nil {
					return err
				}
				return a.print(cmd, d, func(w io.Writer) { writeRollout(w, d) })
			},
		},
		&cobra.Command{
			Use: "watch [RELEASE]", Short: "Progress bars per ring, until the rollout ends (the latest, if none is named)", Args: cobra.MaximumNArgs(1),
			Long: `Progress bars per ring, until the rollout ends.

Exits 0 when it is complete, and 4 when it was halted or stopped. With --json it
prints one object per change instead of bars.`,
			RunE: func(cmd *cobra.Command, args []string) error {
				c, err := a.client()
				if err != nil {
					return err
				}
				id := ""
				if len(args) == 1 {
					id = args[0]
				}
				return a.watch(cmd, c, id)
			},
		},
		newPreviewCommand(a), newFinishCommand(a),
	)
	return cmd
}

func getRollout(ctx context.Context, c *client.Client, id string) (d view.RolloutDetail, err error) {
	return d, c.Get(ctx, "/api/v1/rollouts/"+url.PathEscape(id), &d)
}

func writeRollout(w io.Writer, d view.RolloutDetail) {
	fmt.Fprintf(w, "%s  %s %s (%s)  %s\n", d.ID, d.Bundle.Channel, d.Bundle.Version, d.Bundle.Digest.Short(), d.Phase)
	if d.Why != "" {
		fmt.Fprintf(w, "  %s\n", d.Why)
	}
	t := tabwriter.NewWriter(w, 2, 4, 2, ' ', 0)
	fmt.Fprintln(t, "  RING\tELIGIBLE\tHELD BACK\tADMITTED\tPLACEBO\tCLEAN\tHARMED\tRECALLED")
	for _, r := range d.Rings {
		fmt.Fprintf(t, "  %s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", r.Name, r.Eligible, r.Held, r.Admitted, r.Placebo, r.Clean, r.Harmed, r.Recalled)
	}
	t.Flush()
	if d.Held > 0 {
		fmt.Fprintf(w, "  %s not eligible: their organisations' policies hold them back\n", plural(d.Held, "host"))
	}
	fmt.Fprintf(w, "  evidence E = %.4g, halts at %.0f\n", d.Evidence, 1/d.Alpha)
	fmt.Fprintf(w, "  not ruled out (%.0f %%): up to %.3g of admitted hosts harmed; %d pending; uncovered mass %.1f %%\n", 100*(1-d.Bound.Delta), d.Bound.HU, d.Bound.Pending, 100*d.Bound.Uncovered)
	if d.Admitted > 0 {
		fmt.Fprintf(w, "  at any time: p = %.3g, hazard ratio %s\n", d.Bound.PValue, between(d.Bound.Ratio))
	}
	for _, o := range d.Orgs {
		halted := ""
		if o.Halted {
			halted = "  HALTED"
		}
		fmt.Fprintf(w, "  organisation %s: E = %.4g, halts at %.0f; harm %d against %d; p = %.3g, hazard ratio %s%s\n", o.Org, o.E, o.Limit, o.Treated, o.Control, o.PValue, between(o.Ratio), halted)
	}
	if !d.Phase.Done() {
		fmt.Fprintf(w, "  at worst, if it harms every host: %d of %d harmed before it is recalled%s\n", d.Bound.Worst, d.Eligible, map[bool]string{false: " (by STOP: no error probability is claimed)"}[d.Bound.Tested])
	}
	if d.Phase.Recalling() {
		fmt.Fprintf(w, "  recall: %d of %s back", d.Recall.Back, plural(d.Recall.Hosts, "host"))
		if n := d.Recall.Revoked; n > 0 {
			fmt.Fprintf(w, ", %d revoked before they gave it back", n)
		}
		fmt.Fprintln(w)
	}
	if d.LateFailed+d.LateWaiting > 0 {
		fmt.Fprintf(w, "  since it was complete: %s harmed, %s until some of their kind have proved it\n", plural(d.LateFailed, "host"), plural(d.LateWaiting, "host")+" waiting")
		for _, l := range d.Late {
			fmt.Fprintf(w, "    %s %s: %d admitted, %d clean, %d harmed, %d waiting\n", l.Org, l.Stratum, l.Drawn, l.Clean, l.Failed, l.Waiting)
		}
	}
	for _, h := range d.Harms {
		fmt.Fprintf(w, "  harmed: %s %s %s (%s) %s\n", h.At.Local().Format(time.TimeOnly), h.Hostname, h.Kind, h.Arm, h.Detail)
	}
}

// between writes an interval of which zero bounds are open.
func between(r view.Range) string {
	switch {
	case r.Low == 0 && r.High == 0:
		return "not known yet"
	case r.Low == 0:
		return fmt.Sprintf("at most %.3g", r.High)
	case r.High == 0:
		return fmt.Sprintf("at least %.3g", r.Low)
	}
	return fmt.Sprintf("%.3g to %.3g", r.Low, r.High)
}

// watch shows a rollout until it ends.
func (a *app) watch(cmd *cobra.Command, c *client.Client, id string) error {
	ctx := cmd.Context()
	if id == "" {
		var rows []view.RolloutRow
		if err := c.Get(ctx, "/api/v1/rollouts", &rows); err != nil {
			return err
		}
		if len(rows) == 0 {
			return &holdfast.Error{Kind: holdfast.NotFound, What: "there is no rollout yet", Do: "make one: holdfast release --help"}
		}
		id = string(rows[0].ID)
	}
	bars := mpb.NewWithContext(ctx, mpb.WithOutput(cmd.OutOrStdout()), mpb.WithWidth(40))
	if a.json {
		bars = nil
	}
	rings := map[string]*ringBar{}
	var last string
	for {
		d, err := getRollout(ctx, c, id)
		if err != nil {
			return err
		}
		state := fmt.Sprint(d.Phase, d.Rings, d.Recall)
		switch {
		case bars == nil && state != last:
			if err := a.print(cmd, d, nil); err != nil {
				return err
			}
		case bars != nil:
			drawRings(bars, rings, d)
		}
		last = state
		over := d.Phase == holdfast.Complete || d.Phase.Recalling() && d.Recall.Over()
		if over {
			for _, b := range rings {
				b.bar.Abort(false)
			}
			if bars != nil {
				bars.Wait()
				writeRollout(cmd.OutOrStdout(), d)
			}
			if d.Phase.Recalling() {
				return exitCode(holdfast.Conflict.ExitCode())
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// ringBar is a ring's bar, of the hosts that can take the release; beside it how
// many cannot.
type ringBar struct {
	bar  *mpb.Bar
	held atomic.Int64
}

func (b *ringBar) beside(decor.Statistics) string {
	if n := b.held.Load(); n > 0 {
		return fmt.Sprintf("  %d held back", n)
	}
	return ""
}

func drawRings(bars *mpb.Progress, rings map[string]*ringBar, d view.RolloutDetail) {
	for _, r := range d.Rings {
		b := rings[r.Name]
		if b == nil {
			b = &ringBar{}
			b.bar = bars.AddBar(0,
				mpb.PrependDecorators(decor.Name(fmt.Sprintf("%-12s", r.Name))),
				mpb.AppendDecorators(decor.CountersNoUnit("%d / %d"), decor.Any(b.beside)))
			rings[r.Name] = b
		}
		b.held.Store(int64(r.Held))
		b.bar.SetTotal(int64(r.Eligible), false)
		b.bar.SetCurrent(int64(min(r.Admitted, r.Eligible)))
	}
}

// newDecisionCommands returns the commands by which people decide about a
// release.
func newDecisionCommands(a *app) []*cobra.Command {
	decide := func(use, verb, short, long string) *cobra.Command {
		var reason apiv1.Reason
		cmd := &cobra.Command{
			Use: use + " RELEASE", Short: short, Long: long, Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				c, err := a.client()
				if err != nil {
					return err
				}
				var in any
				if verb != "approve" && verb != "resume" {
					in = reason
				}
				if err := c.Post(cmd.Context(), "/api/v1/releases/"+url.PathEscape(args[0])+"/"+verb, in, nil); err != nil {
					return err
				}
				return a.print(cmd, map[string]string{"release": args[0], "decision": verb}, func(w io.Writer) { fmt.Fprintln(w, args[0]+": "+verb) })
			},
		}
		if verb != "approve" && verb != "resume" {
			cmd.Flags().StringVar(&reason.Reason, "reason", "", "why; it goes on the record")
		}
		return cmd
	}
	return []*cobra.Command{
		decide("approve", "approve", "Be the second person of a release", ""),
		decide("halt", "halt", "Stop a release and bring every host back",
			"Stop a release and bring every host back: offers stop, leases are revoked, every\nhost that has the release returns to what it had; those that are away, at their\nnext contact. One action; no second person is needed to stop."),
		decide("pause", "pause", "Admit nobody more, for now; hosts keep what they have", ""),
		decide("resume", "resume", "End a pause", ""),
		decide("override", "override", "Let a halted release go on (takes two people)",
			"Let a halted release go on. It takes effect when a second person has asked for it\ntoo. The evidence stays, and the threshold doubles."),
	}
}
