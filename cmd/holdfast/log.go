package main

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/trust/tlog"
)

func newLogCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "log",
		Short: "The record of every decision: export it, and verify it offline",
	}
	cmd.AddCommand(newLogExportCommand(a), newLogVerifyCommand(a))
	return cmd
}

func newLogExportCommand(a *app) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "export", Short: "Save the record: checkpoint, tiles and entries in one archive", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			var raw []byte
			if err := c.Get(cmd.Context(), "/api/v1/record/export", &raw); err != nil {
				return err
			}
			if err := os.WriteFile(out, raw, 0o644); err != nil {
				return err
			}
			return a.print(cmd, map[string]any{"file": out, "bytes": len(raw)}, func(w io.Writer) { fmt.Fprintf(w, "%s, %d bytes\n", out, len(raw)) })
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "record.zip", "file to write")
	return cmd
}

func newLogVerifyCommand(a *app) *cobra.Command {
	var key, older string
	var show bool
	cmd := &cobra.Command{
		Use:   "verify [EXPORT]",
		Short: "Check the record: signature, every entry, and that history was not rewritten",
		Long: `Check the record: the checkpoint's signature, that every entry is the one it
commits to, and, with --older, that an export or checkpoint you kept is a prefix
of it. EXPORT is the archive or folder that log export made; it is checked
offline. Without EXPORT the running server's record is fetched and checked.

The log's public key must come from elsewhere than the export: an installation
publishes it, and holdfastd keeps it in log.pub of its state folder.`,
		Example: `  holdfast log verify --key log.pub
  holdfast log verify record.zip --key log.pub --older last-month/record.zip`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			export, err := a.export(cmd, args)
			if err != nil {
				return err
			}
			against := tlog.Against{}
			if against.Public, err = publicKey(key); err != nil {
				return err
			}
			if older != "" {
				if err := keptBefore(older, &against); err != nil {
					return err
				}
			}
			var entries []holdfast.Entry
			v, err := tlog.VerifyExport(export, against, func(e holdfast.Entry) error {
				if show {
					entries = append(entries, e)
				}
				return nil
			})
			if err != nil {
				return err
			}
			return a.print(cmd, map[string]any{"entries": v.Checkpoint.Size, "root": v.Checkpoint.Root.String(), "continues": v.Older.Size, "shown": entries}, func(w io.Writer) {
				for _, e := range entries {
					fmt.Fprintf(w, "%6d  %s  %-10s %-12s %s\n", e.Seq, e.At.Local().Format(time.DateTime), e.Kind, e.By, e.Text)
				}
				fmt.Fprintf(w, "the record holds: %d entries, root %s\n", v.Checkpoint.Size, v.Checkpoint.Root)
				if older != "" {
					fmt.Fprintf(w, "it continues the %d entries you kept\n", v.Older.Size)
				}
			})
		},
	}
	cmd.Flags().StringVar(&key, "key", filepath.Join(".holdfast", "server", "log.pub"), "file of the log's public key")
	cmd.Flags().StringVar(&older, "older", "", "an earlier export or checkpoint that this one must continue")
	cmd.Flags().BoolVar(&show, "show", false, "print the entries, too")
	return cmd
}

// export opens what is to be verified: a folder, an archive, or the server's.
func (a *app) export(cmd *cobra.Command, args []string) (fs.FS, error) {
	if len(args) == 1 {
		return openExport(args[0])
	}
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	var raw []byte
	if err := c.Get(cmd.Context(), "/api/v1/record/export", &raw); err != nil {
		return nil, err
	}
	return zip.NewReader(bytes.NewReader(raw), int64(len(raw)))
}

func openExport(path string) (fs.FS, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, &holdfast.Error{Kind: holdfast.Invalid, Err: err}
	}
	if info.IsDir() {
		return os.DirFS(path), nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	z, err := zip.NewReader(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		return nil, &holdfast.Error{Kind: holdfast.Invalid, What: "not an export of the record", Where: path, Err: err}
	}
	return z, nil
}

// keptBefore reads what the user kept: an export, or a bare checkpoint.
func keptBefore(path string, a *tlog.Against) error {
	export, err := openExport(path)
	if err == nil {
		a.OlderExport = export
		a.Older, err = fs.ReadFile(export, "checkpoint")
		return err
	}
	raw, readErr := os.ReadFile(path)
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	a.Older = raw
	return nil
}

func publicKey(file string) (string, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return "", &holdfast.Error{Kind: holdfast.Invalid, What: "the log's public key is needed", Err: err, Do: "name its file with --key"}
	}
	return strings.TrimSpace(string(raw)), nil
}
