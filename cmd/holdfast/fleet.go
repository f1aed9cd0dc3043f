package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/view"
	"github.com/holdfast-security/holdfast/internal/wire/apiv1"
)

func newStatusCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "How the fleet stands: hosts by state, the current rollout, what was dropped",
		Long: `How the fleet stands: hosts by state, the current rollout, what was dropped.

Which server: --server and --token-file, or HOLDFAST_SERVER and
HOLDFAST_TOKEN_FILE, or the file cli.json ({"server": …, "token": …}) in
./.holdfast or in your configuration directory under holdfast.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			var o view.Overview
			if err := c.Get(cmd.Context(), "/api/v1/status", &o); err != nil {
				return err
			}
			return a.print(cmd, o, func(w io.Writer) { writeStatus(w, o) })
		},
	}
}

func writeStatus(w io.Writer, o view.Overview) {
	fmt.Fprintf(w, "%s, of which %d simulated\n", plural(o.Hosts, "host"), o.Simulated)
	for _, s := range view.HostStates {
		if n := o.States[s]; n > 0 {
			fmt.Fprintf(w, "  %-10s %6d\n", s, n)
		}
	}
	if r := o.Rollout; r != nil {
		fmt.Fprintf(w, "rollout %s: %s %s %s, %d of %d admitted, %d harmed, evidence %.3g of %.0f\n",
			r.ID, r.Bundle.Channel, r.Bundle.Version, r.Phase, r.Admitted, r.Eligible, r.Harmed, r.Evidence, 1/r.Alpha)
	}
	fmt.Fprintf(w, "lost: %d of %d events, %d findings; %d worker crashes\n", o.Loss.EventsDropped, o.Loss.Events, o.Loss.FindingsDropped, o.Loss.Crashes)
}

func newHostsCommand(a *app) *cobra.Command {
	var text, state, role, kind string
	var page, size int
	cmd := &cobra.Command{
		Use:   "hosts [HOST]",
		Short: "The fleet, or one host whole",
		Example: `  holdfast hosts --state putback
  holdfast hosts --q kernel-6.1 --json
  holdfast hosts revoke 4f2c… --reason "retired"
  holdfast hosts 4f2c…`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				var h view.HostDetail
				if err := c.Get(cmd.Context(), "/api/v1/hosts/"+url.PathEscape(args[0]), &h); err != nil {
					return err
				}
				return a.print(cmd, h, func(w io.Writer) { writeHost(w, h) })
			}
			q := url.Values{"q": {text}, "state": {state}, "role": {role}, "kind": {kind}, "page": {strconv.Itoa(page)}, "size": {strconv.Itoa(size)}}
			var hosts view.HostPage
			if err := c.Get(cmd.Context(), "/api/v1/hosts?"+q.Encode(), &hosts); err != nil {
				return err
			}
			return a.print(cmd, hosts, func(w io.Writer) {
				t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
				fmt.Fprintln(t, "HOST\tNAME\tSTATE\tRING\tKERNEL\tDISTRO\tROLE\tSENSOR\tRUNNING")
				for _, h := range hosts.Hosts {
					name := h.Attributes.Hostname
					if h.Simulated {
						name += " (simulated)"
					}
					fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", h.ID, name, h.State, h.Ring, h.Attributes.Kernel, h.Attributes.Distro, h.Attributes.Role, h.Attributes.Sensor, h.Report.Running)
				}
				t.Flush()
				if len(hosts.Hosts) < hosts.Total {
					fmt.Fprintf(w, "%d of %d; more with --page\n", len(hosts.Hosts), hosts.Total)
				}
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&text, "q", "", "text in name, id or any attribute")
	f.StringVar(&state, "state", "", "protected, probation, putback, safe, bare or silent; revoked lists those that are not of the fleet any more")
	f.StringVar(&role, "role", "", "role, as chosen at enrolment")
	f.StringVar(&kind, "kind", "", "real or simulated")
	f.IntVar(&page, "page", 1, "page")
	f.IntVar(&size, "size", 50, "hosts a page, at most 500")
	cmd.AddCommand(newDoNotCanaryCommand(a), newRevokeCommand(a))
	return cmd
}

func newRevokeCommand(a *app) *cobra.Command {
	var r apiv1.RevokeRequest
	cmd := &cobra.Command{
		Use: "revoke HOST", Short: "End a host's identity: its machine was stolen, replaced or retired", Args: cobra.ExactArgs(1),
		Long: `End a host's identity, for good and at once: its connection is closed, and its
key opens nothing any more. It may not connect, renew its certificate, be offered
anything, or deliver findings; it is of no rollout and in no count, and no recall
waits for it. Who revoked it and why stands on the record.

What runs on the machine goes on running by itself. HOST is an id, as "holdfast
hosts" lists them. Revoking again changes nothing: the first reason stands.

There is no way back for the key. A machine that comes back is enrolled again, as
another host: remove its identity directory (/var/lib/holdfast/identity) first.`,
		Example: `  holdfast hosts --q lost-laptop
  holdfast hosts revoke 4f2c… --reason "stolen on 3 March, case 1207"
  holdfast hosts --state revoked`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			var stands holdfast.Revocation
			if err := c.Post(cmd.Context(), "/api/v1/hosts/"+url.PathEscape(args[0])+"/revoke", r, &stands); err != nil {
				return err
			}
			return a.print(cmd, stands, func(w io.Writer) {
				fmt.Fprintf(w, "%s is revoked, since %s by %s: %s\n", stands.Host, stands.At.Local().Format(time.DateTime), stands.By, stands.Reason)
			})
		},
	}
	cmd.Flags().StringVar(&r.Reason, "reason", "", "why; it stands on the record beside your name")
	_ = cmd.MarkFlagRequired("reason")
	return cmd
}

func newDoNotCanaryCommand(a *app) *cobra.Command {
	var off bool
	cmd := &cobra.Command{
		Use: "do-not-canary HOST", Short: "Mark a host that goes last in every release", Args: cobra.ExactArgs(1),
		Long: `Mark a host that goes last in every release, in the last ring, when all others
have it. What nobody has tried because of that is shown as uncovered.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			method, says := http.MethodPut, "goes last"
			if off {
				method, says = http.MethodDelete, "takes its turn again"
			}
			if err := c.Do(cmd.Context(), method, "/api/v1/hosts/"+url.PathEscape(args[0])+"/do-not-canary", nil, nil); err != nil {
				return err
			}
			return a.print(cmd, struct{}{}, func(w io.Writer) { fmt.Fprintf(w, "%s %s\n", args[0], says) })
		},
	}
	cmd.Flags().BoolVar(&off, "off", false, "take the mark away")
	return cmd
}

func writeHost(w io.Writer, h view.HostDetail) {
	r := h.Report
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	line := func(k string, v any) { fmt.Fprintf(t, "%s\t%v\n", k, v) }
	line("host", h.ID)
	line("name", h.Attributes.Hostname)
	line("state", h.State)
	line("ring", h.Ring)
	if r := h.Revocation; r != nil {
		line("revoked", fmt.Sprintf("%s by %s: %s", r.At.Local().Format(time.DateTime), r.By, r.Reason))
	}
	if h.NoCanary {
		line("do not canary", "it goes last in every release")
	}
	line("runs", r.Running)
	line("before", r.Previous)
	line("attempted", r.Attempted)
	line("failed", r.Failed)
	line("shunned", short(r.Shunned))
	if r.Reason != "" {
		line("reason", r.Reason)
	}
	line("crashes", r.Crashes)
	line("sensor", h.Attributes.Sensor)
	line("events", fmt.Sprintf("%d, %d dropped", r.Events, r.EventsDropped))
	line("memory", fmt.Sprintf("%.1f MB", float64(r.RSS)/1e6))
	line("last seen", h.LastSeen.Local().Format(time.DateTime))
	if r.EventNs > 0 {
		line("an event", fmt.Sprintf("%.2f µs to evaluate", float64(r.EventNs)/1e3))
	}
	for _, x := range r.Suspended {
		line("suspended", titleOf(h.Titles, x.Rule)+": "+x.Reason)
	}
	for _, x := range r.Forgotten {
		line("forgets", fmt.Sprintf("%s: %d groups or entries, to stay within its bounds", titleOf(h.Titles, x.Rule), x.Count))
	}
	for _, x := range r.Costs {
		line("rule", fmt.Sprintf("%.1f ns an event, evaluated on %.1f %%: %s", x.NsPerEvent, 100*x.Share, titleOf(h.Titles, x.Rule)))
	}
	t.Flush()
}

// titleOf names a rule for people, by its id if the server does not know it.
func titleOf(titles map[string]string, id string) string {
	if title := titles[id]; title != "" {
		return title + " [" + id + "]"
	}
	return id
}

func short(ds []holdfast.Digest) string {
	if len(ds) == 0 {
		return "none"
	}
	var s []string
	for _, d := range ds {
		s = append(s, d.Short())
	}
	return strings.Join(s, " ")
}

// clip shortens what would fill the screen.
func clip(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n]) + "…"
	}
	return s
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if strings.HasSuffix(noun, "ch") {
		noun += "e"
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

func newFindingsCommand(a *app) *cobra.Command {
	var follow bool
	var severity, text, host string
	var size int
	cmd := &cobra.Command{
		Use:   "findings [ID]",
		Short: "What the rules found: the latest, one whole, or live",
		Example: `  holdfast findings --follow
  holdfast findings --severity high --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			if len(args) == 1 {
				var f view.FindingDetail
				if err := c.Get(cmd.Context(), "/api/v1/findings/"+url.PathEscape(args[0]), &f); err != nil {
					return err
				}
				return a.print(cmd, f, func(w io.Writer) { writeFinding(w, f.Finding) })
			}
			if follow {
				err := c.Follow(cmd.Context(), "/api/v1/findings/follow", func(raw json.RawMessage) error {
					if a.json {
						_, err := fmt.Fprintf(w, "%s\n", raw)
						return err
					}
					var f holdfast.Finding
					if err := json.Unmarshal(raw, &f); err != nil {
						return err
					}
					writeFinding(w, f)
					return nil
				})
				if cmd.Context().Err() != nil {
					return nil // Ctrl-C is how one stops following
				}
				return err
			}
			q := url.Values{"severity": {severity}, "q": {text}, "host": {host}, "size": {strconv.Itoa(size)}}
			var page view.FindingPage
			if err := c.Get(cmd.Context(), "/api/v1/findings?"+q.Encode(), &page); err != nil {
				return err
			}
			return a.print(cmd, page, func(w io.Writer) {
				for _, f := range page.Findings {
					fmt.Fprintf(w, "%s  %-13s %-24s %s\n", f.At.Local().Format(time.DateTime), f.Severity, f.Hostname, f.Title)
				}
				fmt.Fprintf(w, "%d of %s\n", len(page.Findings), plural(page.Total, "finding"))
			})
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&follow, "follow", "f", false, "print findings as they arrive, until Ctrl-C")
	f.StringVar(&severity, "severity", "", "informational, low, medium, high or critical")
	f.StringVar(&text, "q", "", "text in title, host name or command lines")
	f.StringVar(&host, "host", "", "host id")
	f.IntVar(&size, "size", 50, "how many, at most 500")
	return cmd
}

func writeFinding(w io.Writer, f holdfast.Finding) {
	fmt.Fprintf(w, "%s  %s  %s  on %s\n", f.At.Local().Format("15:04:05.000"), strings.ToUpper(string(f.Severity)), f.Title, f.Hostname)
	fmt.Fprintf(w, "    rule %s  %s\n", f.Rule, strings.Join(f.Techniques, " "))
	for i, p := range f.Tree {
		fmt.Fprintf(w, "    %s%s (%d, %s)  %s\n", strings.Repeat("  ", i), p.Path, p.PID, p.User, clip(p.CmdLine, 160))
	}
	for _, m := range f.Matched {
		fmt.Fprintf(w, "    matched %s = %q\n", m.Field, clip(m.Value, 160))
	}
	for _, r := range f.Why {
		switch {
		case r.Counted != "":
			fmt.Fprintf(w, "    by %s %s: %s\n", r.Search, r.Test, r.Counted)
		case len(r.Fits) > 0:
			fmt.Fprintf(w, "    by %s: %s %s %s\n", r.Search, r.Field, r.Test, clip(fmt.Sprintf("%q", r.Fits), 160))
		default:
			fmt.Fprintf(w, "    by %s: %s\n", r.Search, r.Field)
		}
	}
}

func newEnrolTokenCommand(a *app) *cobra.Command {
	r := apiv1.EnrolmentRequest{}
	cmd := &cobra.Command{
		Use:     "enrol-token",
		Short:   "A one-time token with which hosts enrol",
		Example: "  holdfast enrol-token --role server > token && holdfast-agent enrol --token-file token",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			var answer apiv1.EnrolmentAnswer
			if err := c.Post(cmd.Context(), "/api/v1/enrolments", r, &answer); err != nil {
				return err
			}
			return a.print(cmd, answer, func(w io.Writer) { fmt.Fprintln(w, answer.Token) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&r.Role, "role", "server", "role of the hosts that use it: server, laptop, …")
	f.IntVar(&r.Uses, "uses", 1, "how many hosts may use it")
	f.DurationVar(&r.Valid, "valid", time.Hour, "how long it lives")
	f.BoolVar(&r.Simulated, "simulated", false, "its hosts are simulated, and shown as such")
	return cmd
}
