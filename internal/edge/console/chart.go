package console

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast/internal/view"
)

// A chart is drawn on the server as SVG, so that it is there without
// JavaScript; with it, the same Series are drawn live (assets/console.js).
type chart struct {
	ID      string
	Label   string // what it shows, for those who cannot see it
	Unit    string
	Log     bool
	From    time.Time
	To      time.Time
	Min     float64
	Max     float64
	Points  []view.Sample
	Limits  []limit // horizontal lines with a meaning
	Moments []moment
	Tone    string
}

type limit struct {
	Value float64
	Label string
	Tone  string
}

type moment struct {
	At    time.Time
	Label string
	Tone  string
}

// The drawing's own units. The picture scales to the width it is given.
const (
	chartWidth, chartHeight                              = 640.0, 230.0
	chartLeft, chartRight, chartTop, chartBottom float64 = 46, 12, 14, 24
)

func (c chart) x(t time.Time) float64 {
	d := c.To.Sub(c.From).Seconds()
	if d <= 0 {
		d = 1
	}
	f := t.Sub(c.From).Seconds() / d
	return round(chartLeft + (chartWidth-chartLeft-chartRight)*min(1, max(0, f)))
}

func (c chart) y(v float64) float64 {
	lo, hi := c.Min, c.Max
	if c.Log {
		lo, hi, v = math.Log10(lo), math.Log10(hi), math.Log10(max(v, c.Min))
	}
	f := (v - lo) / max(hi-lo, 1e-12)
	return round(chartHeight - chartBottom - (chartHeight-chartTop-chartBottom)*min(1, max(0, f)))
}

func round(v float64) float64 { return math.Round(v*10) / 10 }

// path draws the samples as steps: a value holds until the next one.
func (c chart) path() string {
	var b strings.Builder
	for i, s := range c.Points {
		if i == 0 {
			fmt.Fprintf(&b, "M%g %g", c.x(s.At), c.y(s.Value))
			continue
		}
		fmt.Fprintf(&b, "H%gV%g", c.x(s.At), c.y(s.Value))
	}
	if len(c.Points) > 0 {
		fmt.Fprintf(&b, "H%g", c.x(c.To))
	}
	return b.String()
}

// area is path closed along the bottom.
func (c chart) area() string {
	if len(c.Points) == 0 {
		return ""
	}
	base := chartHeight - chartBottom
	return fmt.Sprintf("%sV%gH%gZ", c.path(), base, c.x(c.Points[0].At))
}

type tick struct {
	At    float64
	Label string
}

func (c chart) yTicks() []tick {
	var t []tick
	if c.Log {
		for e := math.Ceil(math.Log10(c.Min)); e <= math.Floor(math.Log10(c.Max)+1e-9); e++ {
			t = append(t, tick{c.y(math.Pow(10, e)), decade(int(e))})
		}
		return t
	}
	step := niceStep(c.Max - c.Min)
	for v := c.Min; v <= c.Max+step/1e6; v += step {
		t = append(t, tick{c.y(v), count(int(v))})
	}
	return t
}

func decade(e int) string {
	switch {
	case e >= 0 && e <= 4:
		return count(int(math.Pow(10, float64(e))))
	case e == -1:
		return "0.1"
	}
	return "10" + superscript(e)
}

// niceStep divides a range into two to five round steps.
func niceStep(width float64) float64 {
	if width <= 0 {
		return 1
	}
	raw := width / 4
	mag := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, m := range []float64{1, 2, 2.5, 5, 10} {
		if raw <= m*mag {
			return max(1, math.Round(m*mag))
		}
	}
	return max(1, 10*mag)
}

func (c chart) xTicks() []tick {
	d := c.To.Sub(c.From)
	if d <= 0 {
		return nil
	}
	step := timeStep(d)
	var t []tick
	for at := c.From.Truncate(step).Add(step); at.Before(c.To); at = at.Add(step) {
		x := c.x(at)
		if x < chartLeft+14 || x > chartWidth-chartRight-14 {
			continue
		}
		form := "15:04"
		switch {
		case step < time.Minute:
			form = "15:04:05"
		case step >= 24*time.Hour:
			form = "2 Jan"
		}
		t = append(t, tick{x, at.UTC().Format(form)})
	}
	return t
}

func timeStep(d time.Duration) time.Duration {
	for _, s := range []time.Duration{
		time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 15 * time.Second, 30 * time.Second,
		time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute,
		time.Hour, 2 * time.Hour, 4 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour, 48 * time.Hour,
	} {
		if d/s <= 6 {
			return s
		}
	}
	return d / 5
}

// series is what the live chart draws: seconds, values, and the limits.
func (c chart) series() string {
	type line struct {
		Value float64 `json:"value"`
		Label string  `json:"label"`
		Tone  string  `json:"tone"`
	}
	type mark struct {
		At    float64 `json:"at"`
		Label string  `json:"label"`
		Tone  string  `json:"tone"`
	}
	out := struct {
		Log    bool      `json:"log"`
		Unit   string    `json:"unit"`
		Tone   string    `json:"tone"`
		Min    float64   `json:"min"`
		Max    float64   `json:"max"`
		X      []float64 `json:"x"`
		Y      []float64 `json:"y"`
		Limits []line    `json:"limits"`
		Marks  []mark    `json:"marks"`
	}{Log: c.Log, Unit: c.Unit, Tone: c.Tone, Min: c.Min, Max: c.Max, X: []float64{}, Y: []float64{}, Limits: []line{}, Marks: []mark{}}
	secs := func(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
	for _, p := range c.Points {
		v := p.Value
		if c.Log {
			v = max(v, c.Min)
		}
		out.X, out.Y = append(out.X, secs(p.At)), append(out.Y, v)
	}
	if n := len(c.Points); n > 0 && c.Points[n-1].At.Before(c.To) {
		out.X, out.Y = append(out.X, secs(c.To)), append(out.Y, out.Y[n-1])
	}
	for _, l := range c.Limits {
		out.Limits = append(out.Limits, line(l))
	}
	for _, m := range c.Moments {
		out.Marks = append(out.Marks, mark{secs(m.At), m.Label, m.Tone})
	}
	b, err := json.Marshal(out)
	if err != nil { // a NaN or an infinity: nothing to draw live
		return ""
	}
	return string(b)
}

// exposureChart is A(t): how many hosts had been given the release by when.
func exposureChart(d view.RolloutDetail) chart {
	c := chart{
		ID: "exposure", Label: "Hosts exposed over time", Unit: "hosts", Tone: "accent",
		From: d.Started, To: endOf(d), Min: 0, Max: float64(max(d.Eligible, d.Admitted, 1)), Points: d.Exposure,
		Limits: []limit{{float64(d.Eligible), "eligible", "muted"}},
	}
	for _, r := range d.Rings {
		if r.Opens.After(d.Started) && r.Opens.Before(c.To) {
			c.Moments = append(c.Moments, moment{r.Opens, r.Name + " opens", "muted"})
		}
	}
	c.Moments = append(c.Moments, harmMoments(d)...)
	return c
}

// evidenceChart is E over time against the thresholds, on a log scale.
func evidenceChart(d view.RolloutDetail) chart {
	halt := 1 / d.Alpha
	c := chart{
		ID: "evidence", Label: "Evidence of harm over time, against the threshold that halts", Unit: "E", Log: true, Tone: "ink",
		From: d.Started, To: endOf(d), Min: 0.1, Max: halt * 10, Points: d.Proof,
		Limits:  []limit{{halt, "halt at " + number(halt), "bad"}, {10, "hold at 10", "warn"}},
		Moments: harmMoments(d),
	}
	for _, p := range d.Proof {
		if !math.IsInf(p.Value, 0) {
			c.Max = max(c.Max, p.Value*3)
		}
	}
	return c
}

func endOf(d view.RolloutDetail) time.Time {
	if !d.Ended.IsZero() {
		return d.Ended
	}
	return d.Now
}

func harmMoments(d view.RolloutDetail) []moment {
	var m []moment
	for _, h := range d.Harms {
		tone := "bad"
		if h.Arm != "new" {
			tone = "muted"
		}
		m = append(m, moment{h.At, "", tone})
	}
	return m[:min(len(m), 200)]
}

// stroke writes an SVG path of letters and numbers.
func stroke(parts ...any) string {
	var b strings.Builder
	for _, p := range parts {
		fmt.Fprint(&b, p, " ")
	}
	return b.String()
}
