package main

import (
	"strings"
	"testing"

	"github.com/vbauerster/mpb/v8/decor"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/view"
)

// TestHeldBackHostsAreToldApart: they are no part of what a ring still has to do.
func TestHeldBackHostsAreToldApart(t *testing.T) {
	ring := view.RingProgress{Ring: holdfast.Ring{Name: "general"}, Eligible: 17, Held: 3, Admitted: 17}
	var b strings.Builder
	writeRollout(&b, view.RolloutDetail{RolloutRow: view.RolloutRow{Eligible: 17, Held: 3, Alpha: 1e-3, Rings: []view.RingProgress{ring}}})
	for _, want := range []string{"general  17        3          17", "3 hosts not eligible: their organisations' policies hold them back"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in:\n%s", want, b.String())
		}
	}
	bar := ringBar{}
	if bar.beside(decor.Statistics{}) != "" {
		t.Error("a ring in which nobody is held back says so")
	}
	bar.held.Store(3)
	if got := bar.beside(decor.Statistics{}); got != "  3 held back" {
		t.Errorf("beside the bar: %q", got)
	}
}
