package main

import (
	"crypto/ed25519"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

// newTrustChangeCommands are the changes to what is vouched for that are not
// releases. Each is staged on the desk, then signed and published as a release
// is.
func newTrustChangeCommands(a *app) []*cobra.Command {
	ofRelease := func(name, short, long string, change func(holdfast.Channel, holdfast.Digest) tuf.Change) *cobra.Command {
		return a.staging(name+" CHANNEL DIGEST", short, long, cobra.ExactArgs(2), func(d *tuf.Desk, args []string) (tuf.Change, error) {
			c := holdfast.Channel(args[0])
			digest, err := releasedAs(d, c, args[1])
			return change(c, digest), err
		})
	}
	return []*cobra.Command{
		ofRelease("retry", "Stage: hosts that shun a release may try it once more",
			"Hosts never try again what failed on them, until publishers say so. Each retry\nis one more attempt for every such host.", tuf.AllowRetry),
		ofRelease("final", "Stage: hosts need not keep what ran before a release",
			"A host keeps the generation before the one it runs. After this it may forget\nit, as where an old worker must not come back.", tuf.MarkFinal),
		ofRelease("remove", "Stage: take a release out of the repository",
			"Nothing can activate it any more. Hosts that run it keep it until they are sent\nelsewhere; to send them back, halt its rollout.", tuf.Remove),
		a.staging("minimum CHANNEL SEQUENCE", "Stage: releases below a sequence number are unfit to run",
			"Publishers' answer to whoever would bring back an old hole: no server can send\na host below it. It can only be raised.", cobra.ExactArgs(2), func(_ *tuf.Desk, args []string) (tuf.Change, error) {
				n, err := strconv.ParseInt(args[1], 10, 64)
				if err != nil {
					return nil, &holdfast.Error{Kind: holdfast.Invalid, What: fmt.Sprintf("%q is not a sequence number", args[1]), Do: "`holdfast trust show` lists them"}
				}
				return tuf.SetMinimum(holdfast.Channel(args[0]), n), nil
			}),
		newTrustRehearsalsCommand(a),
		newTrustReplaceCommand(a),
		a.staging("renew ROLE", "Stage: sign a role again, with a later expiry",
			"ROLE is root (both roots), image/targets, image/CHANNEL or director/targets.\n`holdfast trust show` says when each expires.", cobra.ExactArgs(1), func(_ *tuf.Desk, args []string) (tuf.Change, error) {
				return tuf.Renew(args[0]), nil
			}),
		newTrustDiscardCommand(a),
		newTrustKeyCommand(a),
	}
}

// staging makes a command that stages one change and shows what it waits for.
func (a *app) staging(use, short, long string, args cobra.PositionalArgs, change func(*tuf.Desk, []string) (tuf.Change, error)) *cobra.Command {
	var desk string
	var keys []string
	cmd := &cobra.Command{
		Use: use, Short: short, Args: args,
		Long: short[len("Stage: "):] + ".\n\n" + long + "\n\nThe change is staged on the desk; sign it with --key here or with\n`holdfast trust sign`, then `holdfast trust publish`.",
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := tuf.OpenDesk(desk)
			if err != nil {
				return err
			}
			c, err := change(d, args)
			if err != nil {
				return err
			}
			if err := d.Stage(time.Now(), c); err != nil {
				return err
			}
			return a.sign(cmd, d, keys)
		},
	}
	deskFlag(cmd, &desk)
	cmd.Flags().StringArrayVar(&keys, "key", nil, "sign with this private key at once (may be repeated)")
	return cmd
}

// releasedAs finds a release by its digest or the beginning of it.
func releasedAs(d *tuf.Desk, c holdfast.Channel, start string) (holdfast.Digest, error) {
	_, all, err := d.Contents()
	if err != nil {
		return "", err
	}
	var found []holdfast.Digest
	for _, r := range all {
		if r.Channel == c && strings.HasPrefix(strings.TrimPrefix(string(r.Digest), "sha256:"), strings.TrimPrefix(start, "sha256:")) {
			found = append(found, r.Digest)
		}
	}
	if len(found) != 1 {
		return "", &holdfast.Error{Kind: holdfast.NotFound, What: fmt.Sprintf("%d releases of %s begin with %q", len(found), c, start), Do: "`holdfast trust show` lists them; write more of the digest"}
	}
	return found[0], nil
}

func newTrustRehearsalsCommand(a *app) *cobra.Command {
	threshold := 1
	cmd := a.staging("rehearsals KEY…", "Stage: name the keys that may sign verdicts",
		"KEY is a file with a public key (`holdfast trust key show`), or a private one.\nVerdicts by keys that are not named stop counting.", cobra.MinimumNArgs(1), func(_ *tuf.Desk, args []string) (tuf.Change, error) {
			var keys []ed25519.PublicKey
			for _, f := range args {
				k, err := tuf.LoadPublic(f)
				if err != nil {
					return nil, err
				}
				keys = append(keys, k)
			}
			return tuf.SetRehearsal(threshold, keys...), nil
		})
	cmd.Flags().IntVar(&threshold, "threshold", threshold, "how many of them must have signed a verdict")
	return cmd
}

func newTrustReplaceCommand(a *app) *cobra.Command {
	var revoke, add string
	cmd := a.staging("replace HOLDER", "Stage: revoke a key, and put another in its place",
		`HOLDER is root (an officer), publisher, image or director (the server's keys
of that repository), or ring-NAME. Give --revoke, --add, or both. What a revoked
publisher's key signed is signed again in the same change, so the others must
sign; a new root needs a threshold of the old officers and of the new.`, cobra.ExactArgs(1), func(d *tuf.Desk, args []string) (tuf.Change, error) {
			var key ed25519.PublicKey
			revoked, err := keyNamed(d, revoke)
			if err != nil {
				return nil, err
			}
			if add != "" {
				if key, err = tuf.LoadPublic(add); err != nil {
					return nil, err
				}
			}
			return tuf.ReplaceKey(args[0], revoked, key), nil
		})
	cmd.Flags().StringVar(&revoke, "revoke", "", "identifier of the key to revoke, or its beginning (`holdfast trust show`)")
	cmd.Flags().StringVar(&add, "add", "", "file with the new public key")
	return cmd
}

// keyNamed finds a key in force by its identifier or the beginning of it.
func keyNamed(d *tuf.Desk, start string) (string, error) {
	if start == "" {
		return "", nil
	}
	roles, err := d.Roles()
	if err != nil {
		return "", err
	}
	found := map[string]bool{}
	for _, r := range roles {
		for _, k := range r.Keys {
			if strings.HasPrefix(k, start) {
				found[k] = true
			}
		}
	}
	if len(found) != 1 {
		return "", &holdfast.Error{Kind: holdfast.NotFound, What: fmt.Sprintf("%d keys begin with %q", len(found), start), Where: "--revoke", Do: "`holdfast trust show --json` lists them whole"}
	}
	for k := range found {
		start = k
	}
	return start, nil
}

func newTrustDiscardCommand(a *app) *cobra.Command {
	var desk string
	cmd := &cobra.Command{
		Use: "discard", Short: "Throw away what is staged and not yet published", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := tuf.OpenDesk(desk)
			if err != nil {
				return err
			}
			if err := d.Discard(); err != nil {
				return err
			}
			return a.print(cmd, map[string]bool{"discarded": true}, func(w io.Writer) { fmt.Fprintln(w, "nothing is staged any more") })
		},
	}
	deskFlag(cmd, &desk)
	return cmd
}

func newTrustKeyCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "key", Short: "Make a key, or show its public half"}
	show := func(cmd *cobra.Command, name string, public ed25519.PublicKey) error {
		id, pem := tuf.KeyID(public), tuf.PublicPEM(public)
		return a.print(cmd, map[string]string{"name": name, "id": id, "public": string(pem)}, func(w io.Writer) {
			fmt.Fprintf(w, "%s  %s\n%s", name, id, pem)
		})
	}
	cmd.AddCommand(
		&cobra.Command{
			Use: "make FILE", Short: "Make an Ed25519 key; only its public half is printed", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				dir, name := filepath.Split(strings.TrimSuffix(args[0], ".key"))
				k, err := tuf.GenerateKey(filepath.Clean(dir), name)
				if err != nil {
					return err
				}
				return show(cmd, k.Name, k.Public())
			},
		},
		&cobra.Command{
			Use: "show FILE", Short: "Show the identifier and public half of a key", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				public, err := tuf.LoadPublic(args[0])
				if err != nil {
					return err
				}
				return show(cmd, filepath.Base(args[0]), public)
			},
		},
	)
	return cmd
}
