package sim

import (
	"fmt"
	"html"
	"io"
	"math"
	"strings"
	"time"
)

// Picture writes the result as one HTML page with SVG charts and the table: no
// script, no network.
func (r July19Result) Picture(w io.Writer) error {
	var b strings.Builder
	b.WriteString(`<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>19 July, again</title><style>
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:74rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;line-height:1.2}h2{font-size:1.1rem;margin:1.6rem 0 .2rem}p{max-width:44rem}
.wide{overflow-x:auto}svg{display:block;width:100%;min-width:40rem;height:auto}text{fill:CanvasText;font:12px system-ui,sans-serif}
.grid{stroke:CanvasText;stroke-opacity:.14}.key{display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;list-style:none;padding:0;margin:.8rem 0;font-size:13px}
.key span{display:inline-block;width:1.5rem;height:0;border-top:3px solid;vertical-align:middle;margin-right:.4rem}
table{border-collapse:collapse;font-size:13px;white-space:nowrap}td,th{padding:.3rem .6rem;border-bottom:1px solid #8886;text-align:right}
td:first-child,th:first-child,td:nth-child(2),th:nth-child(2){text-align:left}.ours{font-weight:600}caption{text-align:left;padding:.5rem 0}</style></head><body>
`)
	fmt.Fprintf(&b, "<h1>The release of 19 July 2024, again</h1><p>%s hosts, and a release that breaks every one of them. How many were exposed to it, harmed by it, and well again, by whose rule, over time. Both axes are logarithmic. Solid: broken hosts report (generous); dashed: they cannot (realistic, as it was).</p>\n", thousands(r.Hosts))
	colours := r.colours(&b)
	r.chart(&b, colours, "Exposed", "hosts that had the release", func(l July19Line) string { return steps(l.Points, func(p Point) int { return p.Exposed }) })
	r.chart(&b, colours, "Harmed", "hosts that it broke", func(l July19Line) string { return steps(l.Points, func(p Point) int { return p.Broken }) })
	r.chart(&b, colours, "Well again", "hosts that had been broken and work again", func(l July19Line) string {
		if len(l.Recovered) == 0 {
			return ""
		}
		points := []Point{{At: time.Minute}}
		for _, x := range l.Recovered {
			points = append(points, Point{At: x.At, Broken: x.Hosts})
		}
		return steps(points, func(p Point) int { return p.Broken })
	})
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
	chartW, chartH      = 1100.0, 330.0
	chartLeft, chartTop = 90.0, 14.0
	plotW, plotH        = 990.0, 280.0
)

// chartX of a time, from a minute to a fortnight.
func chartX(t time.Duration) float64 {
	m := min(max(t.Minutes(), 1), 20160)
	return chartLeft + plotW*math.Log(m)/math.Log(20160)
}

// chartY of a number of hosts: one to ten million, and below the line none.
func chartY(n int) float64 {
	if n < 1 {
		return chartTop + plotH
	}
	return chartTop + plotH*.95*(1-math.Log10(float64(n))/7)
}

// palette can be told apart on white and on black.
var palette = []string{"#0c9b68", "#d93025", "#3b78e7", "#a050c8", "#e8710a", "#129eaf", "#9c6b4e", "#d6478a", "#6f8291", "#8f8a1a", "#5f63d8", "#b5651d", "#7aa116"}

// colours gives every rule its own, and writes the key.
func (r July19Result) colours(b *strings.Builder) map[string]string {
	colour := map[string]string{}
	b.WriteString(`<ul class="key">`)
	for _, l := range r.Lines {
		if _, known := colour[l.Rule]; !known {
			c := palette[len(colour)%len(palette)]
			colour[l.Rule] = c
			fmt.Fprintf(b, `<li><span style="border-color:%s"></span>%s</li>`, c, html.EscapeString(l.Rule))
		}
	}
	b.WriteString("</ul>\n")
	return colour
}

// chart draws one line for each rule and variant that has one.
func (r July19Result) chart(b *strings.Builder, colour map[string]string, name, what string, path func(July19Line) string) {
	fmt.Fprintf(b, `<h2>%s</h2><div class="wide"><svg viewBox="0 0 %g %g" role="img" aria-label="%s over time: %s">`, name, chartW, chartH, name, what)
	for p := range 8 {
		n := int(math.Pow10(p))
		rule(b, chartY(n), thousands(n))
	}
	rule(b, chartY(0), "0")
	for _, t := range []struct {
		at   time.Duration
		name string
	}{{time.Minute, "1 min"}, {4 * time.Minute, "4 min"}, {10 * time.Minute, "10 min"}, {78 * time.Minute, "78 min"}, {6 * time.Hour, "6 h"}, {24 * time.Hour, "1 d"}, {6 * 24 * time.Hour, "6 d"}, {14 * 24 * time.Hour, "14 d"}} {
		fmt.Fprintf(b, `<line class="grid" x1="%.1f" x2="%.1f" y1="%g" y2="%g"/><text x="%.1f" y="%g" text-anchor="middle">%s</text>`, chartX(t.at), chartX(t.at), chartTop, chartTop+plotH, chartX(t.at), chartTop+plotH+18, t.name)
	}
	for _, l := range r.Lines {
		d := path(l)
		if d == "" {
			continue
		}
		dash, width := "", 1.5
		if l.Variant == "realistic" {
			dash = ` stroke-dasharray="6 4"`
		}
		if l.Rule == "Holdfast" || l.Rule == "19 July 2024" {
			width = 3.5
		}
		fmt.Fprintf(b, `<path fill="none" stroke="%s" stroke-width="%g"%s d="%s"><title>%s, %s</title></path>`, colour[l.Rule], width, dash, d, html.EscapeString(l.Rule), l.Variant)
	}
	b.WriteString("</svg></div>\n")
}

// rule draws a line of the grid.
func rule(b *strings.Builder, y float64, name string) {
	fmt.Fprintf(b, `<line class="grid" x1="%g" x2="%g" y1="%.1f" y2="%.1f"/><text x="%g" y="%.1f" text-anchor="end">%s</text>`, chartLeft, chartLeft+plotW, y, y, chartLeft-6, y+4, name)
}

// steps draws a number of hosts over time, to the end of the chart.
func steps(points []Point, hosts func(Point) int) string {
	var b strings.Builder
	last := chartY(0)
	for i, p := range thin(points) {
		x, y := chartX(p.At), chartY(hosts(p))
		if i == 0 {
			fmt.Fprintf(&b, "M%.1f %.1f", x, y)
		} else {
			fmt.Fprintf(&b, "L%.1f %.1fL%.1f %.1f", x, last, x, y)
		}
		last = y
	}
	if b.Len() == 0 {
		return ""
	}
	fmt.Fprintf(&b, "L%.1f %.1f", chartX(fortnight), last)
	return b.String()
}

// thin keeps points that lie at least two units apart in the chart, and the
// last.
func thin(p []Point) []Point {
	var out []Point
	last := -1.0
	for i := range p {
		if x := chartX(p[i].At); x-last >= 2 || i == len(p)-1 {
			out, last = append(out, p[i]), x
		}
	}
	return out
}

func (r July19Result) table(b *strings.Builder) {
	b.WriteString(`<h2>By rule and fault</h2><div class="wide"><table><caption>Hosts harmed before the rule stopped: median (95th percentile)</caption><thead><tr><th>Rule</th><th>Variant</th>`)
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
	b.WriteString("</tbody></table></div>\n")
}

// thousands writes a number with separators.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
