package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/report"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

func newContentImportCommand(a *app) *cobra.Command {
	var list string
	cmd := &cobra.Command{
		Use: "import RULES DIR", Short: "Take over the Sigma rules that run on this sensor, as they are", Args: cobra.ExactArgs(2),
		Long: `Copy the rule files below RULES (a checkout of SigmaHQ, say) whose rules all run
on this build's sensor into the content repository DIR, byte for byte, and say of
each of the others why not: it is for another log source, names a field that the
sensor does not supply, or has an error. Folders become part of the file's name.
Files that DIR has already are left alone.

What is copied keeps its author's licence: see that of RULES. Give each rule tests
before you release it; holdfast content test names those that have none.`,
		Example: `  holdfast content import sigma/rules/linux my-rules --list not-taken.txt`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.importRules(cmd, args[0], args[1], list)
		},
	}
	cmd.Flags().StringVar(&list, "list", "", "write the rules that were not taken, and why, to this file instead of standard output")
	return cmd
}

// imported is what became of the rules.
type imported struct {
	Taken   []string         `json:"taken"`   // files below DIR
	Already []string         `json:"already"` // files DIR had, left alone
	Left    []report.Finding `json:"left"`    // why the others were not taken
	Counts  report.Counts    `json:"rules"`
}

func (a *app) importRules(cmd *cobra.Command, from, dir, list string) error {
	if _, err := os.Stat(filepath.Join(dir, "pack.yml")); err != nil {
		return &holdfast.Error{Kind: holdfast.Invalid, What: "not a content repository: it has no pack.yml", Where: dir, Do: "make one with: holdfast content new DIR"}
	}
	set, problems, err := readRules(from)
	if err != nil {
		return err
	}
	r := imported{Taken: []string{}, Already: []string{}, Left: []report.Finding{}}
	all := report.Lint(set, problems, nil, nil)
	r.Counts = report.Count(set, all)
	left := map[string]bool{}
	for _, f := range all {
		if f.Level == "error" {
			left[f.File] = true
			r.Left = append(r.Left, f)
		}
	}
	for _, file := range filesOf(set) {
		if left[file] {
			continue
		}
		name, err := filepath.Rel(rulesBelow(from), file)
		if err != nil || name == "." {
			name = filepath.Base(file)
		}
		to := filepath.Join(dir, "rules", strings.ReplaceAll(filepath.ToSlash(name), "/", "_"))
		switch err := copyFile(file, to); {
		case errors.Is(err, fs.ErrExist):
			r.Already = append(r.Already, to)
		case err != nil:
			return &holdfast.Error{Kind: holdfast.Internal, Where: to, Err: err}
		default:
			r.Taken = append(r.Taken, to)
		}
	}
	if list != "" {
		var b bytes.Buffer
		writeLeft(&b, r.Left)
		if err := os.WriteFile(list, b.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return a.print(cmd, r, func(w io.Writer) {
		if list == "" {
			writeLeft(w, r.Left)
		}
		fmt.Fprintf(w, "taken: %s into %s", plural(len(r.Taken), "file"), filepath.Join(dir, "rules"))
		if n := len(r.Already); n > 0 {
			fmt.Fprintf(w, ", %d were there already", n)
		}
		fmt.Fprintf(w, "\nrules: %d run here, %d are for what this sensor does not supply, %d have errors\n", r.Counts.Run, r.Counts.Inapplicable, r.Counts.Wrong)
	})
}

// filesOf lists the files that a set was read from, in order.
func filesOf(set sigma.Set) []string {
	var all []string
	for _, r := range set.Rules {
		all = append(all, r.File)
	}
	for _, c := range set.Correlations {
		all = append(all, c.File)
	}
	for _, f := range set.Filters {
		all = append(all, f.File)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// writeLeft lists rules by the reason they were left, the commonest first.
func writeLeft(w io.Writer, left []report.Finding) {
	by := map[string][]report.Finding{}
	for _, f := range left {
		reason := f.Message
		if f.Do != "" {
			reason += " (" + f.Do + ")"
		}
		by[reason] = append(by[reason], f)
	}
	var reasons []string
	for r := range by {
		reasons = append(reasons, r)
	}
	slices.SortFunc(reasons, func(x, y string) int { return cmp.Or(cmp.Compare(len(by[y]), len(by[x])), cmp.Compare(x, y)) })
	for _, r := range reasons {
		fmt.Fprintf(w, "%d: %s\n", len(by[r]), r)
		for _, f := range by[r] {
			fmt.Fprintf(w, "    %s  %s:%d\n", f.Rule, f.File, f.Line)
		}
	}
}

// copyFile copies a file to where none is yet.
func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}
