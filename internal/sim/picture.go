package sim

import (
	"fmt"
	"html"
	"io"
	"math"
	"strings"
	"time"
)

// Picture writes the result as one HTML page with an SVG chart and the table:
// no script, no network.
func (r July19Result) Picture(w io.Writer) error {
	var b strings.Builder
	b.WriteString(`<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>19 July, again</title><style>
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}
svg{width:100%;height:auto;background:Canvas}text{fill:CanvasText;font:12px system-ui,sans-serif}.grid{stroke:CanvasText;stroke-opacity:.15}
table{border-collapse:collapse;font-size:13px}td,th{padding:.3rem .6rem;border-bottom:1px solid #8886;text-align:right}td:first-child,th:first-child,td:nth-child(2){text-align:left}
.ours{font-weight:600}caption{text-align:left;padding:.5rem 0}</style></head><body>
`)
	fmt.Fprintf(&b, "<h1>The release of 19 July 2024, again</h1><p>%s hosts, a release that breaks every one of them for good. How many had been harmed, by whose rule, over time. Both axes are logarithmic; dashed: broken hosts cannot report.</p>\n", thousands(r.Hosts))
	r.chart(&b)
	r.table(&b)
	b.WriteString("<ul>")
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "<li>%s</li>", html.EscapeString(n))
	}
	b.WriteString("</ul></body></html>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

const (
	chartW, chartH      = 1000.0, 460.0
	chartLeft, chartTop = 70.0, 20.0
	plotW, plotH        = 690.0, 380.0
)

// x of a time, from a minute to a fortnight.
func chartX(t time.Duration) float64 {
	m := min(max(t.Minutes(), 1), 20160)
	return chartLeft + plotW*math.Log(m)/math.Log(20160)
}

// y of a number of hosts, from one to ten million.
func chartY(n int) float64 {
	return chartTop + plotH*(1-math.Log10(max(float64(n), 1))/7)
}

var palette = []string{"#0a7d55", "#c62828", "#1565c0", "#6a1b9a", "#ef6c00", "#00838f", "#5d4037", "#ad1457", "#455a64", "#827717", "#283593", "#4e342e", "#9e9d24"}

func (r July19Result) chart(b *strings.Builder) {
	fmt.Fprintf(b, `<svg viewBox="0 0 %g %g" role="img" aria-label="Harmed hosts over time, by rule">`, chartW, chartH)
	for p := range 8 {
		n := int(math.Pow10(p))
		fmt.Fprintf(b, `<line class="grid" x1="%g" x2="%g" y1="%.1f" y2="%.1f"/><text x="%g" y="%.1f" text-anchor="end">%s</text>`, chartLeft, chartLeft+plotW, chartY(n), chartY(n), chartLeft-6, chartY(n)+4, thousands(n))
	}
	for _, t := range []struct {
		at   time.Duration
		name string
	}{{time.Minute, "1 min"}, {4 * time.Minute, "4 min"}, {10 * time.Minute, "10 min"}, {78 * time.Minute, "78 min"}, {6 * time.Hour, "6 h"}, {24 * time.Hour, "1 d"}, {6 * 24 * time.Hour, "6 d"}, {14 * 24 * time.Hour, "14 d"}} {
		fmt.Fprintf(b, `<line class="grid" x1="%.1f" x2="%.1f" y1="%g" y2="%g"/><text x="%.1f" y="%g" text-anchor="middle">%s</text>`, chartX(t.at), chartX(t.at), chartTop, chartTop+plotH, chartX(t.at), chartTop+plotH+18, t.name)
	}
	colour := map[string]string{}
	labels := 0
	for _, l := range r.Lines {
		c, known := colour[l.Rule]
		if !known {
			c = palette[len(colour)%len(palette)]
			colour[l.Rule] = c
			fmt.Fprintf(b, `<line x1="%g" x2="%g" y1="%d" y2="%d" stroke="%s" stroke-width="3"/><text x="%g" y="%d">%s</text>`, chartLeft+plotW+14, chartLeft+plotW+34, 30+18*labels, 30+18*labels, c, chartLeft+plotW+40, 34+18*labels, html.EscapeString(l.Rule))
			labels++
		}
		dash := ""
		if l.Variant == "realistic" && l.Rule != "Holdfast" {
			dash = ` stroke-dasharray="5 4"`
		}
		width := 1.5
		if l.Rule == "Holdfast" || l.Rule == "19 July 2024" {
			width = 3
		}
		fmt.Fprintf(b, `<path fill="none" stroke="%s" stroke-width="%g"%s d="%s"/>`, c, width, dash, path(l))
	}
	b.WriteString("</svg>\n")
}

// path draws a line's harmed hosts as steps, and those not yet recovered after.
func path(l July19Line) string {
	var b strings.Builder
	var last float64
	harmed, drawn := 0, 0
	for i, p := range thin(l.Points) {
		x, y := chartX(p.At), chartY(p.Broken)
		if i == 0 {
			fmt.Fprintf(&b, "M%.1f %.1f", x, y)
		} else {
			fmt.Fprintf(&b, "L%.1f %.1fL%.1f %.1f", x, last, x, y)
		}
		last, harmed, drawn = y, p.Broken, drawn+1
	}
	if drawn == 0 {
		return "M0 0"
	}
	for _, rec := range l.Recovered {
		last = chartY(harmed - rec.Hosts)
		fmt.Fprintf(&b, "L%.1f %.1f", chartX(rec.At), last)
	}
	fmt.Fprintf(&b, "L%.1f %.1f", chartX(fortnight), last)
	return b.String()
}

// thin keeps at most some 300 points, the first and the last among them.
func thin(p []Point) []Point {
	step := len(p)/300 + 1
	var out []Point
	for i := range p {
		if i%step == 0 || i == len(p)-1 {
			out = append(out, p[i])
		}
	}
	return out
}

func (r July19Result) table(b *strings.Builder) {
	b.WriteString("<table><caption>Hosts harmed before the rule stopped: median (95th percentile)</caption><thead><tr><th>Rule</th><th>Variant</th>")
	for _, f := range r.Faults {
		fmt.Fprintf(b, "<th>%s</th>", html.EscapeString(f))
	}
	b.WriteString("<th>clean release</th></tr></thead><tbody>\n")
	for _, w := range r.Rows {
		class := ""
		if w.Rule == "Holdfast" {
			class = ` class="ours"`
		}
		fmt.Fprintf(b, `<tr%s><td title="%s — %s">%s</td><td>%s</td>`, class, html.EscapeString(w.Text), html.EscapeString(w.Source), html.EscapeString(w.Rule), w.Variant)
		for i := range w.Median {
			fmt.Fprintf(b, "<td>%s (%s)</td>", thousands(w.Median[i]), thousands(w.P95[i]))
		}
		clean := "over 14 days"
		if w.CleanMinutes > 0 {
			clean = (time.Duration(w.CleanMinutes) * time.Minute).String()
			clean = strings.TrimSuffix(clean, "0s")
		}
		fmt.Fprintf(b, "<td>%s</td></tr>\n", clean)
	}
	b.WriteString("</tbody></table>\n")
}

// thousands writes a number with separators.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
