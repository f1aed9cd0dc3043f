package main

import (
	"fmt"
	"io"
	"net/url"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/client"
	"github.com/holdfast-security/holdfast/internal/view"
)

func newPreviewCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "preview RELEASE|DIGEST|FILE", Short: "Who gets a release when, by what their organisations allow", Args: cobra.ExactArgs(1),
		Long: `Who gets a release when, by what their organisations allow. It can be asked as
soon as the publishers have signed the content, before anybody asks for its
release. The rollout's own pace comes on top.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			p, err := getPreview(cmd, c, args[0])
			if err != nil {
				return err
			}
			return a.print(cmd, p, func(w io.Writer) { writePreview(w, p, time.Now()) })
		},
	}
}

// getPreview takes a release, a digest, or a file of content.
func getPreview(cmd *cobra.Command, c *client.Client, what string) (view.Preview, error) {
	digest, err := holdfast.ParseDigest(what)
	if err != nil {
		if data, err := os.ReadFile(what); err == nil {
			digest = holdfast.DigestOf(data)
		} else {
			d, err := getRollout(cmd.Context(), c, what)
			if err != nil {
				return view.Preview{}, err
			}
			digest = d.Bundle.Digest
		}
	}
	var d view.BundleDetail
	if err := c.Get(cmd.Context(), "/api/v1/bundles/"+url.PathEscape(string(digest)), &d); err != nil {
		return view.Preview{}, err
	}
	if d.Preview == nil {
		return view.Preview{}, &holdfast.Error{Kind: holdfast.Conflict, What: "the publishers have not signed it: rings and soaks are not known", Where: digest.Short()}
	}
	return *d.Preview, nil
}

func writePreview(w io.Writer, p view.Preview, now time.Time) {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "ORGANISATION\tGROUP\tHOSTS\tWHEN\tWHY")
	for _, r := range p.Rows {
		group := r.Group
		if group == "" {
			group = "–"
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\n", r.Org, group, r.Hosts, previewTime(r, now), r.Why)
	}
	t.Flush()
	fmt.Fprintf(w, "%s run it already\n", plural(p.Have, "host"))
}

func previewTime(r view.PreviewRow, now time.Time) string {
	local := func(t time.Time) string {
		if !t.After(now) {
			return "now"
		}
		return t.Local().Format(time.DateTime)
	}
	if r.Never {
		return "no: " + r.State
	}
	if from, to := local(r.From), local(r.To); from != to {
		return from + " to " + to
	}
	return local(r.From)
}

func newFinishCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "finish RELEASE", Short: "Complete a rollout that only waits for hosts whose organisations delay it", Args: cobra.ExactArgs(1),
		Long: `Complete a rollout that only waits for hosts whose organisations delay it, so that
the next release of the channel need not. Those hosts still get it when they may,
unless a newer one is there for them, in growing steps and without a comparison.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			if err := c.Post(cmd.Context(), "/api/v1/releases/"+url.PathEscape(args[0])+"/finish", nil, nil); err != nil {
				return err
			}
			return a.print(cmd, map[string]string{"release": args[0], "decision": "finish"}, func(w io.Writer) { fmt.Fprintln(w, args[0]+": finish") })
		},
	}
}
