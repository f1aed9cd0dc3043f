package main

import (
	"context"
	"flag"
	"io"
	"os"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/sensor"
	"github.com/holdfast-security/holdfast/internal/language/bundle"
	"github.com/holdfast-security/holdfast/internal/language/rehearse"
)

// rehearseCommand evaluates the events that rehearsal gives it. Rehearsal ends
// it, by closing standard input or otherwise.
func rehearseCommand(_ context.Context, args []string) error {
	f := flag.NewFlagSet("rehearse", flag.ContinueOnError)
	file := f.String("bundle", "", "the bundle's `file`")
	if ok, err := parse(f, args); !ok {
		return err
	}
	in, err := os.Open(*file)
	if err != nil {
		return &holdfast.Error{Kind: holdfast.Invalid, What: "the bundle cannot be read", Err: err, Do: "name it with --bundle FILE"}
	}
	data, err := io.ReadAll(io.LimitReader(in, bundle.MaxBytes+1))
	in.Close()
	if err != nil {
		return &holdfast.Error{Kind: holdfast.Internal, Err: err}
	}
	return rehearse.Serve(data, sensor.Supplied(), os.Stdin, os.Stdout)
}
