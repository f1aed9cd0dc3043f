package main

import (
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-security/holdfast"
)

func TestFlagsSayWhichHarmCounts(t *testing.T) {
	o, err := parse([]string{"--signals", "crash,cpu", "--heartbeat", "2s"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]holdfast.HarmKind{holdfast.Crash, holdfast.CPU}, o.signals); d != "" || o.heartbeat != 2*time.Second {
		t.Error(d, o.heartbeat)
	}
	for _, bad := range []string{"", "crash,crash", "noise", "crash,"} {
		if _, err := parse([]string{"--signals", bad}, io.Discard); holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
