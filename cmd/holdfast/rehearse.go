package main

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/rehearsal"
	"github.com/holdfast-security/holdfast/internal/trust/attest"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

func newRehearseCommand(a *app) *cobra.Command {
	var o rehearsal.Options
	var key, out, channel string
	cmd := &cobra.Command{
		Use:   "rehearse FILE",
		Short: "Run content on every sensor build of the fleet, and sign what was found",
		Long: `Run content on every sensor build of the fleet, and sign what was found.

FILE is a bundle, or with --channel agent a worker binary. Each build is the real
worker, run under the real guard with production's limits: every field each rule
names is read with matching and non-matching values, the bundle's own attacks must
be found, its benign events must not, events are fuzzed, the worker restarts a year
later, and the content is taken away again.

Exit code 0 if every build passed, 4 if one did not; the verdict is written and
signed either way.`,
		Example: `  holdfast rehearse my-rules.bundle --agent build-a --agent build-b --key rehearsal-1`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			o.Channel = holdfast.Channel(channel)
			if o.Content, err = os.ReadFile(args[0]); err != nil {
				return &holdfast.Error{Kind: holdfast.Invalid, Err: err}
			}
			signer, err := tuf.LoadKey(key)
			if err != nil {
				return err
			}
			if o.Guard == "" {
				own, err := ownFolder()
				if err != nil {
					return err
				}
				o.Guard = filepath.Join(own, "holdfast-guard")
			}
			if o.Seed == 0 {
				o.Seed = randomSeed()
			}
			if !a.json {
				o.Progress = func(p rehearsal.Progress) { writeStage(cmd.ErrOrStderr(), p) }
			}
			v, err := rehearsal.Run(cmd.Context(), o)
			if err != nil {
				return err
			}
			raw, err := attest.Sign(v, signer.Private)
			if err != nil {
				return err
			}
			if out == "" {
				out = args[0] + ".verdict"
			}
			if err := os.WriteFile(out, raw, 0o644); err != nil {
				return err
			}
			if err := a.print(cmd, v, func(w io.Writer) { writeVerdict(w, v, out) }); err != nil {
				return err
			}
			if !v.Passed() {
				return &holdfast.Error{Kind: holdfast.Conflict, What: "rehearsal refuses this content", Where: args[0], Do: "mend what is named above; hosts would refuse it as well"}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&channel, "channel", string(holdfast.Rules), "rules or agent")
	f.StringArrayVar(&o.Builds, "agent", nil, "worker binary of a sensor build in the fleet (repeat for each)")
	f.StringVar(&o.Guard, "guard", "", "the guard to run them under (default: beside this program)")
	f.StringVar(&key, "key", "", "file of the rehearsal key")
	f.StringVarP(&out, "output", "o", "", "file for the signed verdict (default: FILE.verdict)")
	f.Uint64Var(&o.Seed, "seed", 0, "seed of the fuzzed events (default: drawn, and written into the verdict)")
	_ = cmd.MarkFlagRequired("key")
	return cmd
}

func randomSeed() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:])>>1 | 1
}

func writeStage(w io.Writer, p rehearsal.Progress) {
	if p.Total > 0 && p.Done < p.Total {
		return
	}
	fmt.Fprintf(w, "build %d of %d (%s): %s", p.N, p.Of, p.Version, p.Stage)
	if p.Total > 0 {
		fmt.Fprintf(w, ", %d events", p.Total)
	}
	fmt.Fprintln(w)
}

func writeVerdict(w io.Writer, v holdfast.Verdict, file string) {
	for _, b := range v.Builds {
		word := "passed"
		if !b.Passed {
			word = "FAILED"
		}
		f := b.Figures
		fmt.Fprintf(w, "%s  %s (%s): %d rules, %d rule fields exercised, %d of %d attacks found, %d false positives on %d benign events, %.0f ns an event, %.0f MB\n",
			word, b.Version, b.Build.Short(), f.Rules, f.FieldsExercised, f.AttacksFound, f.Attacks, f.FalsePositives, f.Benign, f.NsPerEvent, float64(f.PeakRSS)/1e6)
		for _, p := range b.Failures {
			fmt.Fprintf(w, "  %s: rule %s, field %s: %s\n", p.Stage, orNone(p.Rule), orNone(p.Field), p.Reason)
		}
	}
	fmt.Fprintf(w, "%s in %.1f s, seed %d\n", file, v.Finished.Sub(v.Started).Seconds(), v.Seed)
}

func orNone(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
