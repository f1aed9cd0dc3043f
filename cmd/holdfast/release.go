package main

import (
	"fmt"
	"io"
	"net/url"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/bundle"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
	"github.com/holdfast-security/holdfast/internal/wire/apiv1"
)

func newReleaseCommand(a *app) *cobra.Command {
	var r releasing
	cmd := &cobra.Command{
		Use:   "release FILE",
		Short: "Sign content and ask for its release",
		Long: `Sign content and ask for its release.

FILE is a bundle (channel rules) or a worker binary (channel agent). It needs a
rehearsal verdict that covers every sensor build in the fleet, and the signatures
of as many publishers as the threshold asks for; with fewer keys at hand, stage
and carry the desk on: holdfast trust sign, then release again without --key.

A release then waits for a second person: holdfast approve.`,
		Example: `  holdfast release my-rules.bundle --verdict my-rules.verdict.json \
      --key publisher-1 --key publisher-2 --profile urgent`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.file = args[0]
			rel, err := a.release(cmd, r)
			if err != nil || r.preview {
				return err
			}
			return a.print(cmd, rel, func(w io.Writer) {
				fmt.Fprintf(w, "release %s: %s %s, %s\nnext, by somebody else: holdfast approve %s\n", rel.ID, rel.Bundle.Channel, rel.Bundle.Version, rel.Profile, rel.ID)
			})
		},
	}
	deskFlag(cmd, &r.desk)
	f := cmd.Flags()
	f.StringVar(&r.channel, "channel", string(holdfast.Rules), "rules or agent")
	f.StringVar(&r.version, "version", "", "version, for people (default: the bundle's own)")
	f.StringVar(&r.verdict, "verdict", "", "file of the rehearsal verdict, as holdfast rehearse wrote it")
	f.StringArrayVar(&r.keys, "key", nil, "file of a publisher's private key (may be repeated)")
	f.StringVar(&r.profile, "profile", string(holdfast.Standard), "standard, urgent or emergency; none skips a ring")
	f.StringVar(&r.rings, "rings", "", "NAME:SHARE%:SOAK,… (default internal:1%:0s,early:10%:1h,general:100%:4h)")
	f.BoolVar(&r.critical, "critical", false, "customers may delay it by 72 hours at most, and not pause it; the publishers sign that")
	f.BoolVar(&r.preview, "preview", false, "sign and register it, show who would get it when, and ask for nothing yet")
	f.StringVar(&r.note, "note", "", "why; it goes on the record")
	_ = cmd.MarkFlagRequired("verdict")
	return cmd
}

// releasing is what a release is asked for with.
type releasing struct {
	file, desk, channel, version, verdict, profile, rings, note string
	keys                                                        []string
	critical, preview                                           bool
}

func (a *app) release(cmd *cobra.Command, r releasing) (rel holdfast.Release, err error) {
	data, err := os.ReadFile(r.file)
	if err != nil {
		return rel, &holdfast.Error{Kind: holdfast.Invalid, Err: err}
	}
	verdict, err := os.ReadFile(r.verdict)
	if err != nil {
		return rel, &holdfast.Error{Kind: holdfast.Invalid, Err: err, Do: "make one with: holdfast rehearse"}
	}
	if holdfast.Channel(r.channel) == holdfast.Rules {
		b, err := bundle.Open(data)
		if err != nil {
			return rel, err
		}
		r.version = b.Header.Version
	}
	if r.version == "" {
		return rel, &holdfast.Error{Kind: holdfast.Invalid, What: "a version is needed", Where: "--version"}
	}
	n := tuf.NewRelease{Channel: holdfast.Channel(r.channel), Digest: holdfast.DigestOf(data), Size: int64(len(data)), Version: r.version, Critical: r.critical}
	if r.rings != "" {
		if n.Rings, err = parseRings(r.rings); err != nil {
			return rel, err
		}
	}
	c, err := a.client()
	if err != nil {
		return rel, err
	}
	ctx := cmd.Context()
	if err := c.Do(ctx, "PUT", fmt.Sprintf("/api/v1/content/%s/%s?version=%s", n.Channel, n.Digest, url.QueryEscape(n.Version)), data, nil); err != nil {
		return rel, err
	}
	if err := c.Do(ctx, "PUT", "/api/v1/verdicts/"+string(n.Digest), verdict, nil); err != nil {
		return rel, err
	}
	desk, err := tuf.OpenDesk(r.desk)
	if err != nil {
		return rel, err
	}
	if err := stageRelease(desk, n, r.keys); err != nil {
		return rel, err
	}
	if err := a.publish(cmd, desk); err != nil {
		return rel, err
	}
	if r.preview {
		p, err := getPreview(cmd, c, string(n.Digest))
		if err != nil {
			return rel, err
		}
		return rel, a.print(cmd, p, func(w io.Writer) { writePreview(w, p, time.Now()) })
	}
	return rel, c.Post(ctx, "/api/v1/releases", apiv1.ReleaseRequest{Bundle: n.Digest, Profile: holdfast.Profile(r.profile), Note: r.note}, &rel)
}

// stageRelease puts the release on the desk and signs it, unless it is signed
// already or waits there for signatures.
func stageRelease(desk *tuf.Desk, n tuf.NewRelease, keys []string) error {
	_, releases, err := desk.Contents()
	if err != nil {
		return err
	}
	for _, r := range releases {
		if r.Digest == n.Digest {
			return nil
		}
	}
	if _, err := desk.Pending(); tuf.NothingStaged(err) {
		if err := desk.Stage(time.Now(), tuf.AddRelease(n)); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	return signAll(desk, keys)
}
