package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/consent"
	"github.com/holdfast-security/holdfast/internal/trust/dsse"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
	"github.com/holdfast-security/holdfast/internal/view"
	"github.com/holdfast-security/holdfast/internal/wire/apiv1"
)

func newConsentCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "consent",
		Short: "What an organisation allows on its hosts, and when",
		Long: `What an organisation allows on its hosts, and when. docs/consent.md has the whole
of it.

  holdfast consent keygen acme              once; the public key goes to the hosts
  holdfast consent check acme.yaml          is it possible at all?
  holdfast consent sign acme.yaml --key acme
  holdfast consent set acme.consent.json    hosts fetch it, and verify it themselves`,
	}
	cmd.AddCommand(newConsentKeygenCommand(a), newConsentCheckCommand(a), newConsentSignCommand(a), newConsentSetCommand(a), newConsentShowCommand(a))
	return cmd
}

func newConsentKeygenCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "keygen NAME", Short: "Make an organisation's key: NAME.key, which stays offline, and its public half", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			k, err := tuf.GenerateKey(filepath.Dir(args[0]), strings.TrimSuffix(filepath.Base(args[0]), ".key"))
			if err != nil {
				return err
			}
			public := base64.StdEncoding.EncodeToString(k.Public())
			return a.print(cmd, map[string]string{"public": public}, func(w io.Writer) {
				fmt.Fprintf(w, "%s\n\nput it into agent.json of the organisation's hosts:\n  \"consent\": {\"keys\": [%q]}\n", public, public)
			})
		},
	}
}

// readPolicy reads a policy file and names it in what is wrong with it.
func readPolicy(file string) ([]byte, consent.Policy, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, consent.Policy{}, &holdfast.Error{Kind: holdfast.Invalid, Err: err}
	}
	p, err := consent.Parse(file, b)
	return b, p, err
}

func newConsentCheckCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "check FILE", Short: "Refuse a policy that is impossible, with line and reason", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, p, err := readPolicy(args[0])
			if err != nil {
				return err
			}
			return a.print(cmd, map[string]any{"organisation": p.Org, "version": p.Version, "groups": len(p.Groups)}, func(w io.Writer) {
				fmt.Fprintf(w, "%s: organisation %s, version %d, %d groups\n", args[0], p.Org, p.Version, len(p.Groups))
			})
		},
	}
}

func newConsentSignCommand(a *app) *cobra.Command {
	var key, out string
	cmd := &cobra.Command{
		Use: "sign FILE --key KEY", Short: "Sign a policy, offline", Args: cobra.ExactArgs(1),
		Long: `Sign a policy, offline. The file is signed byte for byte, as it is read: a host
decodes the very text that you see.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			b, p, err := readPolicy(args[0])
			if err != nil {
				return err
			}
			k, err := tuf.LoadKey(key)
			if err != nil {
				return err
			}
			env, err := dsse.Sign(consent.PayloadType, b, k.Private)
			if err != nil {
				return err
			}
			if out == "" {
				out = strings.TrimSuffix(args[0], filepath.Ext(args[0])) + ".consent.json"
			}
			if err := os.WriteFile(out, append(bytes.TrimSpace(env), '\n'), 0o644); err != nil {
				return err
			}
			return a.print(cmd, map[string]any{"file": out, "organisation": p.Org, "version": p.Version}, func(w io.Writer) {
				fmt.Fprintf(w, "%s: version %d of organisation %s, signed\n", out, p.Version, p.Org)
			})
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "file of the organisation's private key")
	cmd.Flags().StringVar(&out, "out", "", "where to write it (default: FILE with .consent.json)")
	_ = cmd.MarkFlagRequired("key")
	return cmd
}

func newConsentSetCommand(a *app) *cobra.Command {
	var public string
	cmd := &cobra.Command{
		Use: "set FILE", Short: "Give the server a signed policy, for the hosts to fetch", Args: cobra.ExactArgs(1),
		Long: `Give the server a signed policy, for the hosts to fetch. The server checks it and
puts it on the record; it can change nothing in it. The first time, an
administrator also gives the organisation's public key.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			env, err := os.ReadFile(args[0])
			if err != nil {
				return &holdfast.Error{Kind: holdfast.Invalid, Err: err}
			}
			org, err := claimedOrg(env)
			if err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			path := "/api/v1/orgs/" + url.PathEscape(string(org)) + "/consent"
			if public != "" {
				path += "?public=" + url.QueryEscape(public)
			}
			var answer apiv1.ConsentAnswer
			if err := c.Do(cmd.Context(), "PUT", path, env, &answer); err != nil {
				return err
			}
			return a.print(cmd, answer, func(w io.Writer) {
				fmt.Fprintf(w, "version %d is in force for organisation %s\n", answer.Version, answer.Org)
			})
		},
	}
	cmd.Flags().StringVar(&public, "public", "", "the organisation's public key, when the server does not know it yet or it is replaced (administrators)")
	return cmd
}

// claimedOrg is whose policy an envelope says it is. The server verifies it.
func claimedOrg(env []byte) (holdfast.OrgID, error) {
	var e struct {
		Payload []byte `json:"payload"`
	}
	if err := json.Unmarshal(env, &e); err != nil {
		return "", &holdfast.Error{Kind: holdfast.Invalid, What: "not a signed policy", Err: err, Do: "make one with: holdfast consent sign"}
	}
	p, err := consent.Parse("policy", e.Payload)
	return p.Org, err
}

func newConsentShowCommand(a *app) *cobra.Command {
	var org string
	cmd := &cobra.Command{
		Use: "show", Short: "What an organisation allows, and how many hosts keep to it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			var v view.Consent
			if err := c.Get(cmd.Context(), "/api/v1/orgs/"+url.PathEscape(org)+"/consent", &v); err != nil {
				return err
			}
			return a.print(cmd, v, func(w io.Writer) {
				if v.Unreadable != "" {
					fmt.Fprintf(w, "organisation %s: its policy (version %d, brought by %s at %s) is stored and cannot be read:\n  %s\n"+
						"meanwhile: nothing is released to its %s, and what is critical 72 hours after it was signed; %d of them say that they keep to that version, and go on by it\n"+
						"what to do: if an older holdfastd runs than before, start the newer one again; otherwise bring what the organisation signed, under a higher version:\n  holdfast consent set FILE --public KEY\n\n%s",
						v.Org, v.Version, v.By, v.At.Local().Format(time.DateTime), v.Unreadable, plural(v.Hosts, "host"), v.Keeping, v.Policy)
					return
				}
				fmt.Fprintf(w, "organisation %s, version %d, signed with key %.12s; brought by %s at %s\n%d of %s keep to it\n\n%s",
					v.Org, v.Version, v.Key, v.By, v.At.Local().Format(time.DateTime), v.Keeping, plural(v.Hosts, "host"), v.Policy)
			})
		},
	}
	cmd.Flags().StringVar(&org, "org", string(holdfast.DefaultOrg), "organisation")
	return cmd
}
