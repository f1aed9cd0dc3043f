package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

func newTrustCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "trust",
		Short: "The keys behind content: ceremony, signing, publishing",
		Long: `The keys behind content. docs/trust.md says who holds which, and why.

A desk is a folder with everything that is signed offline. A change is staged,
signed by as many publishers as the threshold asks for (each on a machine of
their own, the folder carried between them), and published.`,
	}
	cmd.AddCommand(newTrustInitCommand(a), newTrustRootsCommand(a), newTrustShowCommand(a), newTrustSignCommand(a), newTrustPublishCommand(a))
	cmd.AddCommand(newTrustChangeCommands(a)...)
	return cmd
}

func deskFlag(cmd *cobra.Command, desk *string) {
	cmd.Flags().StringVar(desk, "desk", "desk", "folder of what is signed offline")
}

func newTrustInitCommand(a *app) *cobra.Command {
	var desk, domain string
	var c tuf.Ceremony
	cmd := &cobra.Command{
		Use: "init", Short: "Hold the ceremony: make every key and both repositories", Args: cobra.NoArgs,
		Long: `Hold the ceremony: make every key and both repositories.

Afterwards move each key file to whom it belongs: root-N and publisher-N to
people, offline; rehearsal-N to the rehearsal machine; online/ to the server.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.Domain = tuf.Domain(domain)
			if _, err := tuf.Init(desk, c, time.Now()); err != nil {
				return err
			}
			return a.print(cmd, map[string]string{"desk": desk, "keys": c.Keys}, func(w io.Writer) {
				fmt.Fprintf(w, "desk %s, keys in %s: move each to whom it belongs (docs/trust.md)\n", desk, c.Keys)
			})
		},
	}
	deskFlag(cmd, &desk)
	f := cmd.Flags()
	f.StringVar(&c.Keys, "keys", "keys", "folder for the private keys")
	f.StringVar(&domain, "domain", string(tuf.Production), "production, or drill (which production hosts refuse)")
	f.IntVar(&c.Publishers, "publishers", 3, "how many publishers")
	f.IntVar(&c.Threshold, "threshold", 2, "how many of them must sign")
	f.StringSliceVar(&c.Rings, "rings", nil, "names of the rings (default internal,early,general)")
	return cmd
}

func newTrustRootsCommand(a *app) *cobra.Command {
	var desk string
	cmd := &cobra.Command{
		Use: "roots DIR", Short: "Write the two roots that hosts are installed with", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := tuf.OpenDesk(desk)
			if err != nil {
				return err
			}
			roots, err := d.Roots()
			if err != nil {
				return err
			}
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			for name, raw := range map[string][]byte{"image-root.json": roots.Image, "director-root.json": roots.Director} {
				if err := os.WriteFile(filepath.Join(args[0], name), raw, 0o644); err != nil {
					return err
				}
			}
			return a.print(cmd, map[string]string{"dir": args[0]}, func(w io.Writer) { fmt.Fprintln(w, args[0]) })
		},
	}
	deskFlag(cmd, &desk)
	return cmd
}

func newTrustShowCommand(a *app) *cobra.Command {
	var desk string
	cmd := &cobra.Command{
		Use: "show", Short: "What publishers vouch for, and what waits for signatures", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := tuf.OpenDesk(desk)
			if err != nil {
				return err
			}
			policy, releases, err := d.Contents()
			if err != nil {
				return err
			}
			pending, err := d.Pending()
			if err != nil && !tuf.NothingStaged(err) {
				return err
			}
			roles, err := d.Roles()
			if err != nil {
				return err
			}
			return a.print(cmd, map[string]any{"policy": policy, "roles": roles, "releases": releases, "pending": pending}, func(w io.Writer) {
				fmt.Fprintf(w, "domain %s, rings %s\n", policy.Domain, strings.Join(policy.Rings, ", "))
				writeRoles(w, roles)
				for _, r := range releases {
					fmt.Fprintf(w, "  %s %d  %s  %s  signed %s%s\n", r.Channel, r.Sequence, r.Version, r.Digest.Short(), r.Signed.Local().Format(time.DateTime), remarks(r))
				}
				writePending(w, pending)
			})
		},
	}
	deskFlag(cmd, &desk)
	return cmd
}

func writeRoles(w io.Writer, roles []tuf.Role) {
	for _, r := range roles {
		until := "signed online"
		if !r.Expires.IsZero() {
			until = "until " + r.Expires.Local().Format(time.DateOnly)
		}
		var keys []string
		for _, k := range r.Keys {
			keys = append(keys, k[:min(12, len(k))])
		}
		fmt.Fprintf(w, "  %-22s %d of %d  %-16s keys %s\n", r.Name, r.Threshold, len(r.Keys), until, strings.Join(keys, " "))
	}
}

func remarks(r tuf.Release) string {
	var s string
	if r.Retry > 0 {
		s += fmt.Sprintf(", retry %d", r.Retry)
	}
	if r.Final {
		s += ", final"
	}
	return s
}

func writePending(w io.Writer, pending []tuf.Pending) {
	for _, p := range pending {
		fmt.Fprintf(w, "waiting: %s, %d of %d signatures\n", p.Role, len(p.Signed), p.Want)
		for _, c := range p.Changes {
			fmt.Fprintln(w, "  "+c)
		}
	}
}

func newTrustSignCommand(a *app) *cobra.Command {
	var desk string
	var keys []string
	cmd := &cobra.Command{
		Use: "sign --key FILE", Short: "Add a signature to what is staged", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := tuf.OpenDesk(desk)
			if err != nil {
				return err
			}
			return a.sign(cmd, d, keys)
		},
	}
	deskFlag(cmd, &desk)
	cmd.Flags().StringArrayVar(&keys, "key", nil, "file of a private key (may be repeated)")
	_ = cmd.MarkFlagRequired("key")
	return cmd
}

// sign adds signatures to what is staged, and shows what it still waits for.
func (a *app) sign(cmd *cobra.Command, d *tuf.Desk, keys []string) error {
	if err := signAll(d, keys); err != nil {
		return err
	}
	pending, err := d.Pending()
	if err != nil {
		return err
	}
	return a.print(cmd, pending, func(w io.Writer) { writePending(w, pending) })
}

func signAll(d *tuf.Desk, files []string) error {
	for _, f := range files {
		k, err := tuf.LoadKey(f)
		if err != nil {
			return err
		}
		if _, err := d.Sign(k); err != nil {
			return err
		}
	}
	return nil
}

func newTrustPublishCommand(a *app) *cobra.Command {
	var desk string
	cmd := &cobra.Command{
		Use: "publish", Short: "Complete what is staged, and send what is in force to the server", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := tuf.OpenDesk(desk)
			if err != nil {
				return err
			}
			if err := a.publish(cmd, d); err != nil {
				return err
			}
			return a.print(cmd, map[string]bool{"published": true}, func(w io.Writer) { fmt.Fprintln(w, "published") })
		},
	}
	deskFlag(cmd, &desk)
	return cmd
}

// publish completes what is staged, if anything is, and sends everything in
// force to the server.
func (a *app) publish(cmd *cobra.Command, d *tuf.Desk) error {
	files, err := d.Complete()
	if tuf.NothingStaged(err) {
		files, err = d.Files()
	}
	if err != nil {
		return err
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	return c.Do(cmd.Context(), "PUT", "/api/v1/trust/metadata", files, nil)
}

// parseRings reads "internal:1%:0s,early:10%:1h,general:100%:4h".
func parseRings(s string) (holdfast.RingPlan, error) {
	var plan holdfast.RingPlan
	for _, part := range strings.Split(s, ",") {
		var r holdfast.Ring
		var share float64
		var soak string
		fields := strings.Split(part, ":")
		if len(fields) == 3 {
			r.Name, soak = fields[0], fields[2]
			if _, err := fmt.Sscanf(fields[1], "%f%%", &share); err != nil {
				share = -1
			}
		}
		var err error
		if r.Soak, err = time.ParseDuration(soak); err != nil || share <= 0 {
			return nil, &holdfast.Error{Kind: holdfast.Invalid, What: fmt.Sprintf("%q is not a ring", part), Where: "--rings", Do: "write NAME:SHARE%:SOAK with cumulative shares, as in internal:1%:0s,early:10%:1h,general:100%:4h"}
		}
		r.Through = uint32(share*10_000 + .5)
		plan = append(plan, r)
	}
	return plan, plan.Validate()
}
