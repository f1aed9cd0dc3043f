package main

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/spf13/cobra"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/bundle"
	"github.com/holdfast-security/holdfast/internal/language/ruletest"
)

// skeleton is what content new writes.
//
//go:embed all:skeleton
var skeleton embed.FS

func newContentCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "content",
		Short: "Rules as code: make, test and build a content repository",
		Long: `Rules as code.

A content repository is a folder (a git repository, usually):

  pack.yml          name, channel and version
  rules/*.yml       Sigma rules
  tests/*.yml       each rule's own tests, under the same file name:
                    events that must match, and events that must not
  benign/*.jsonl    ordinary events, one a line, on which no rule may fire`,
	}
	cmd.AddCommand(newContentNewCommand(a), newContentTestCommand(a), newContentBuildCommand(a))
	cmd.AddCommand(newRuleCommands(a)...)
	return cmd
}

func newContentNewCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "new DIR", Short: "Make a content repository with one rule and its tests", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := args[0]
			if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
				return &holdfast.Error{Kind: holdfast.Conflict, What: "the folder is not empty", Where: dir, Do: "name a new one"}
			}
			files, err := writeSkeleton(dir)
			if err != nil {
				return err
			}
			return a.print(cmd, map[string]any{"dir": dir, "files": files}, func(w io.Writer) {
				for _, f := range files {
					fmt.Fprintln(w, "  "+filepath.Join(dir, f))
				}
				fmt.Fprintf(w, "next: holdfast content test %s\n", dir)
			})
		},
	}
}

func writeSkeleton(dir string) ([]string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	var files []string
	return files, fs.WalkDir(skeleton, "skeleton", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := skeleton.ReadFile(p)
		if err != nil {
			return err
		}
		t, err := template.New(p).Parse(string(raw))
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(p, "skeleton/")
		to := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		files = append(files, name)
		return errors.Join(t.Execute(f, map[string]string{"Name": filepath.Base(abs)}), f.Close())
	})
}

func newContentTestCommand(a *app) *cobra.Command {
	var (
		junit string
		watch bool
	)
	cmd := &cobra.Command{
		Use: "test DIR", Short: "Run every rule's own tests, and the benign events", Args: cobra.ExactArgs(1),
		Long: `Run every rule's own tests on this build's engine: events that must match, events
that must not, and benign events on which no rule may fire. Exit code 0 if all
hold, 2 if not.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			test := func() error { return a.testContent(cmd, args[0], junit) }
			if watch {
				return watchDir(cmd, args[0], test)
			}
			return test()
		},
	}
	cmd.Flags().StringVar(&junit, "junit", "", "also write the results to this file, as JUnit XML")
	cmd.Flags().BoolVar(&watch, "watch", false, "test again whenever a file changes")
	return cmd
}

func (a *app) testContent(cmd *cobra.Command, dir, junit string) error {
	b, err := bundle.FromRepository(os.DirFS(dir), "")
	if err != nil {
		return err
	}
	r, err := ruletest.Run(b)
	if err != nil {
		return err
	}
	if junit != "" {
		if err := writeJUnit(junit, b.Paths("rules"), r); err != nil {
			return err
		}
	}
	if err := a.print(cmd, r, func(w io.Writer) { writeTests(w, r) }); err != nil {
		return err
	}
	if !r.Passed() {
		return exitCode(holdfast.Invalid.ExitCode())
	}
	return nil
}

func writeTests(w io.Writer, r ruletest.Result) {
	for _, p := range r.Problems {
		fmt.Fprintln(w, "FAIL "+whereOf(p)+": "+p.Reason)
	}
	for _, p := range r.Warnings {
		fmt.Fprintln(w, "note "+whereOf(p)+": "+p.Reason)
	}
	for _, f := range r.Untested {
		fmt.Fprintln(w, "note "+f+": has no tests of both kinds; rehearsal will exercise it all the same")
	}
	for _, s := range r.Weak {
		fmt.Fprintln(w, "note expensive: "+s)
	}
	verdict := "all hold"
	if !r.Passed() {
		verdict = plural(len(r.Problems), "failure")
	}
	fmt.Fprintf(w, "%d rules: %d events matched, %d did not and should not, %d benign: %s\n", r.Rules, r.Matched, r.Silent, r.Benign, verdict)
}

func whereOf(p holdfast.RuleProblem) string {
	s := p.File
	if p.Line > 0 {
		s += fmt.Sprintf(":%d:%d", p.Line, p.Column)
	}
	return s
}

func newContentBuildCommand(a *app) *cobra.Command {
	var out, version string
	cmd := &cobra.Command{
		Use: "build DIR", Short: "One canonical bundle: the same files give the same digest anywhere", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := bundle.FromRepository(os.DirFS(args[0]), version)
			if err != nil {
				return err
			}
			data, err := b.Encode()
			if err != nil {
				return err
			}
			if out == "" {
				out = strings.TrimRight(filepath.Clean(args[0]), "/") + ".bundle"
			}
			if err := os.WriteFile(out, data, 0o644); err != nil {
				return err
			}
			built := holdfast.Bundle{Channel: b.Header.Channel, Version: b.Header.Version, Digest: holdfast.DigestOf(data), Size: int64(len(data))}
			return a.print(cmd, built, func(w io.Writer) {
				fmt.Fprintf(w, "%s  %s %s, %d rules, %d bytes\n%s\n", out, b.Header.Name, built.Version, len(b.Paths("rules")), built.Size, built.Digest)
			})
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "file to write (default: DIR.bundle)")
	cmd.Flags().StringVar(&version, "version", "", "version (default: pack.yml's)")
	return cmd
}
