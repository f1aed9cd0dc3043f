package console

import (
	"encoding/json"
	"math"
	"regexp"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/view"
)

var numbers = regexp.MustCompile(`-?[0-9.]+`)

// Property: whatever was measured, a drawing stays inside its frame and its
// series is JSON.
func TestChartsStayInsideTheirFrame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := fixtureTime
		d := view.RolloutDetail{
			RolloutRow: view.RolloutRow{Started: start, Eligible: rapid.IntRange(0, 9_000_000).Draw(t, "eligible"), Alpha: rapid.Float64Range(1e-9, .5).Draw(t, "alpha")},
			Now:        start.Add(time.Duration(rapid.Int64Range(0, int64(40*24*time.Hour)).Draw(t, "age"))),
		}
		d.Admitted = rapid.IntRange(0, max(1, d.Eligible)).Draw(t, "admitted")
		for i := range rapid.IntRange(0, 30).Draw(t, "n") {
			at := start.Add(time.Duration(rapid.Int64Range(-int64(time.Hour), int64(50*24*time.Hour)).Draw(t, "at")))
			d.Exposure = append(d.Exposure, view.Sample{At: at, Value: float64(i)})
			d.Proof = append(d.Proof, view.Sample{At: at, Value: rapid.Float64Range(0, 1e300).Draw(t, "e")})
		}
		for _, c := range []chart{exposureChart(d), evidenceChart(d)} {
			for _, p := range []string{c.path(), c.area()} {
				for _, n := range numbers.FindAllString(p, -1) {
					v, err := strconv.ParseFloat(n, 64)
					if err != nil || math.IsNaN(v) || v < 0 || v > chartWidth {
						t.Fatalf("%s draws %s in %s", c.ID, n, p)
					}
				}
			}
			for _, tick := range append(c.xTicks(), c.yTicks()...) {
				if tick.At < 0 || tick.At > chartWidth {
					t.Fatalf("%s has a tick at %v", c.ID, tick)
				}
			}
			if n := len(c.xTicks()); n > 8 {
				t.Fatalf("%s has %d ticks", c.ID, n)
			}
			if n := len(c.yTicks()); n > 320 {
				t.Fatalf("%s has %d lines", c.ID, n)
			}
			if !json.Valid([]byte(c.series())) {
				t.Fatalf("%s carries %q", c.ID, c.series())
			}
		}
	})
}

func TestEvidenceRulerEndsAtTheThreshold(t *testing.T) {
	for e, want := range map[float64]string{0: "0.0%", .1: "0.0%", 1: "25.0%", 10: "50.0%", 1000: "100.0%", 1e9: "100.0%"} {
		if got := ruler(e, 1e-3); got != want {
			t.Errorf("E = %v is drawn at %s, want %s", e, got, want)
		}
	}
}

func TestStateOfHost(t *testing.T) {
	a, b := holdfast.Generation{holdfast.Rules: "a"}, holdfast.Generation{holdfast.Rules: "b"}
	for _, c := range []struct {
		h    holdfast.Host
		want view.HostState
	}{
		{holdfast.Host{}, view.Silent},
		{holdfast.Host{Connected: true}, view.Bare},
		{holdfast.Host{Connected: true, Report: holdfast.HostReport{SafeMode: true}}, view.SafeMode},
		{holdfast.Host{Connected: true, Report: holdfast.HostReport{Running: a}}, view.Protected},
		{holdfast.Host{Connected: true, Report: holdfast.HostReport{Running: b, Previous: a, Attempted: b, Probation: true}}, view.Probation},
		{holdfast.Host{Connected: true, Report: holdfast.HostReport{Running: a, Attempted: b, Failed: b}}, view.PutBack},
		{holdfast.Host{Connected: true, Report: holdfast.HostReport{Running: b, Attempted: b, Failed: a}}, view.Protected},
	} {
		if got := view.StateOf(c.h); got != c.want {
			t.Errorf("%+v is %s, want %s", c.h.Report, got, c.want)
		}
	}
}
