package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/scan"
)

// scanning is a scan as it was asked for.
type scanning struct {
	rules     []string
	logSource string
	lists     []string
}

func newScanCommand(a *app) *cobra.Command {
	var s scanning
	cmd := &cobra.Command{
		Use: "scan --rules DIR FILE…", Short: "Run rules over files of events, for triage", Args: cobra.MinimumNArgs(1),
		Long: `Run rules over files of events. The format of each file is recognised: JSON (a
line each, or not), Windows events as JSON or EVTX, auditd logs, syslog, and
journal exports (journalctl -o export, or -o json).

Events find the rules of their own log source by themselves: Windows events by
channel and number, Linux ones by the program that wrote them. Events that do not
say what they are meet every rule; --log-source says it for them.

One line is printed for each match; with --json, one object a line. Problems
with rules or lines go to standard error, and do not stop the scan.`,
		Example: `  holdfast scan --rules sigma/rules Security.evtx
  holdfast scan --rules my-rules --json /var/log/audit/audit.log
  journalctl -o export | holdfast scan --rules my-rules /dev/stdin`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.scan(cmd, s, args) },
	}
	cmd.Flags().StringArrayVar(&s.rules, "rules", nil, "folder or file of Sigma rules (may be given several times)")
	cmd.Flags().StringVar(&s.logSource, "log-source", "", "what the events are of: product/category/service, parts may be empty (linux/process_creation/)")
	cmd.Flags().StringArrayVar(&s.lists, "list", nil, "values of a placeholder: NAME=value,value")
	cmd.MarkFlagRequired("rules")
	return cmd
}

func (a *app) scan(cmd *cobra.Command, s scanning, files []string) error {
	warn := cmd.ErrOrStderr()
	set, err := loadRules(s.rules, warn)
	if err != nil {
		return err
	}
	o := scan.Options{}
	if o.Placeholders, err = placeholders(s.lists); err != nil {
		return err
	}
	if o.LogSource, err = logSource(s.logSource); err != nil {
		return err
	}
	progress, finish := scanProgress(warn)
	o.Progress = progress
	scanner, problems := scan.New(set, o)
	for _, p := range problems {
		fmt.Fprintln(warn, p)
	}
	out, bad := cmd.OutOrStdout(), 0
	var failed error
	scanned := false
	for _, file := range files {
		sum, err := scanner.File(file, func(h scan.Hit) error { return printHit(out, a.json, h) }, func(err error) {
			if bad++; bad <= mostBadLines {
				fmt.Fprintln(warn, err)
			}
		})
		scanned = scanned || err == nil || sum.Records > 0
		if err != nil {
			if scanned || len(files) > 1 { // else it is the command's own error
				fmt.Fprintln(warn, err)
			}
			failed = err
		}
		if !a.json && (err == nil || sum.Records > 0) {
			fmt.Fprintln(warn, summary(sum))
		}
	}
	finish()
	if bad > mostBadLines {
		fmt.Fprintf(warn, "… and %d more lines that cannot be read\n", bad-mostBadLines)
	}
	switch {
	case scanned:
		return nil
	case len(files) == 1:
		return failed
	}
	return &holdfast.Error{Kind: holdfast.Invalid, What: "none of the files can be read", Where: strings.Join(files, ", ")}
}

// summary says what a file held.
func summary(s scan.Summary) string {
	text := fmt.Sprintf("%s: %s, %s, %s", s.File, s.Format, plural(s.Records, "record"), plural(s.Hits, "match"))
	if s.Unrouted > 0 {
		text += fmt.Sprintf(", %d of sources that no rule is for", s.Unrouted)
	}
	if s.Bad > 0 {
		text += fmt.Sprintf(", %d cannot be read", s.Bad)
	}
	return text
}

const mostBadLines = 20

func printHit(out io.Writer, asJSON bool, h scan.Hit) error {
	if asJSON {
		return json.NewEncoder(out).Encode(h)
	}
	var facts []string
	for _, f := range h.Matched {
		facts = append(facts, fmt.Sprintf("%s=%.120q", f.Field, f.Value))
	}
	_, err := fmt.Fprintf(out, "%s:%d  %-8s %s  [%s]  %s\n", h.File, h.Line, h.Level, h.RuleTitle, h.RuleID, strings.Join(facts, " "))
	return err
}

func logSource(s string) (*ocsf.LogSource, error) {
	if s == "" {
		return nil, nil
	}
	parts := strings.Split(s, "/")
	if len(parts) > 3 {
		return nil, &holdfast.Error{Kind: holdfast.Invalid, What: "not a log source", Where: s, Do: "write product/category/service"}
	}
	parts = append(parts, "", "")
	return &ocsf.LogSource{Product: parts[0], Category: parts[1], Service: parts[2]}, nil
}

func placeholders(lists []string) (map[string][]string, error) {
	all := map[string][]string{}
	for _, l := range lists {
		name, values, ok := strings.Cut(l, "=")
		if !ok {
			return nil, &holdfast.Error{Kind: holdfast.Invalid, What: "not a list", Where: l, Do: "write NAME=value,value"}
		}
		all[strings.Trim(name, "%")] = append(all[strings.Trim(name, "%")], strings.Split(values, ",")...)
	}
	return all, nil
}

// scanProgress draws a bar for each file, if somebody is there to see it.
func scanProgress(w io.Writer) (progress func(file string, read, size int64), finish func()) {
	f, ok := w.(*os.File)
	if !ok {
		return nil, func() {}
	}
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return nil, func() {}
	}
	bars := mpb.New(mpb.WithOutput(f), mpb.WithWidth(40))
	byFile := map[string]*mpb.Bar{}
	progress = func(file string, read, size int64) {
		b := byFile[file]
		if b == nil {
			b = bars.AddBar(size, mpb.PrependDecorators(decor.Name(filepath.Base(file)+" ")), mpb.AppendDecorators(decor.Percentage()), mpb.BarRemoveOnComplete())
			byFile[file] = b
		}
		b.SetTotal(size, read >= size)
		b.SetCurrent(read)
	}
	return progress, func() {
		for _, b := range byFile {
			b.Abort(true)
		}
		bars.Wait()
	}
}
