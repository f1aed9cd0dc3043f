package report

import (
	"fmt"
	"html"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// Technique is an ATT&CK technique with the rules that look for it.
type Technique struct {
	ID      string   `json:"id"` // "T1059.004"
	Tactics []string `json:"tactics"`
	Rules   []string `json:"rules"` // titles
}

// Coverage groups rules by the techniques they are tagged with, in the order of
// their ids. A technique's tactics are those its rules name beside it.
func Coverage(rules []*sigma.Rule) []Technique {
	byID := map[string]*Technique{}
	for _, r := range rules {
		for _, id := range r.Techniques() {
			t := byID[id]
			if t == nil {
				t = &Technique{ID: id}
				byID[id] = t
			}
			t.Rules = append(t.Rules, r.Title)
			for _, tactic := range r.Tactics() {
				if !slices.Contains(t.Tactics, tactic) {
					t.Tactics = append(t.Tactics, tactic)
				}
			}
		}
	}
	var all []Technique
	for _, id := range slices.Sorted(maps.Keys(byID)) {
		slices.Sort(byID[id].Tactics)
		all = append(all, *byID[id])
	}
	return all
}

// WriteNavigator writes coverage as a layer of the ATT&CK Navigator, format 4.5;
// a technique's score is the number of its rules.
func WriteNavigator(w io.Writer, name string, all []Technique) error {
	type technique struct {
		ID      string `json:"techniqueID"`
		Score   int    `json:"score"`
		Comment string `json:"comment"`
		Enabled bool   `json:"enabled"`
	}
	most := 1
	techniques := []technique{}
	for _, t := range all {
		most = max(most, len(t.Rules))
		techniques = append(techniques, technique{t.ID, len(t.Rules), strings.Join(t.Rules, "\n"), true})
	}
	return encode(w, map[string]any{
		"name":       name,
		"versions":   map[string]string{"attack": "17", "navigator": "5.1.0", "layer": "4.5"},
		"domain":     "enterprise-attack",
		"sorting":    3,
		"techniques": techniques,
		"gradient":   map[string]any{"colors": []string{"#dbeafe", "#1d4ed8"}, "minValue": 1, "maxValue": most},
	})
}

// tactics in the order of an attack.
var tactics = []string{
	"reconnaissance", "resource-development", "initial-access", "execution", "persistence", "privilege-escalation", "defense-evasion", "stealth", "defense-impairment",
	"credential-access", "discovery", "lateral-movement", "collection", "command-and-control", "exfiltration", "impact",
}

// The picture's measures, in pixels.
const (
	cellWidth, cellHeight = 132, 30
	cellGap, headHeight   = 4, 64
)

// WritePicture draws coverage as an SVG: a column for each tactic, a cell for
// each technique, darker the more rules look for it. It has its own colours for
// light and dark, and its text is text.
func WritePicture(w io.Writer, title string, all []Technique) error {
	columns := map[string][]Technique{}
	for _, t := range all {
		for _, tactic := range t.Tactics {
			columns[tactic] = append(columns[tactic], t)
		}
		if len(t.Tactics) == 0 {
			columns["other"] = append(columns["other"], t)
		}
	}
	var order []string
	longest := 0
	for _, tactic := range append(slices.Clone(tactics), "other") {
		if n := len(columns[tactic]); n > 0 {
			order, longest = append(order, tactic), max(longest, n)
		}
	}
	width, height := max(len(order), 3)*(cellWidth+cellGap)+cellGap, headHeight+longest*(cellHeight+cellGap)+36
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="%s">`+"\n", width, height, width, height, html.EscapeString(title))
	b.WriteString(`<style>text{font:12px system-ui,sans-serif;fill:#111827}.h{font-weight:600}.t{font-size:16px;font-weight:600}.c0{fill:#dbeafe}.c1{fill:#93c5fd}.c2{fill:#3b82f6}.c3{fill:#1e40af}.c2+text,.c3+text{fill:#fff}.bg{fill:#fff}@media(prefers-color-scheme:dark){.bg{fill:#0b1220}text{fill:#e5e7eb}.c0{fill:#1e3a5f}.c1{fill:#1d4f91}.c2{fill:#2563eb}.c3{fill:#60a5fa}.c3+text{fill:#0b1220}}</style>` + "\n")
	fmt.Fprintf(&b, `<rect class="bg" width="%d" height="%d"/><text class="t" x="%d" y="24">%s</text>`+"\n", width, height, cellGap, html.EscapeString(title))
	for i, tactic := range order {
		x := cellGap + i*(cellWidth+cellGap)
		fmt.Fprintf(&b, `<text class="h" x="%d" y="%d">%s (%d)</text>`+"\n", x, headHeight-8, html.EscapeString(strings.ReplaceAll(tactic, "-", " ")), len(columns[tactic]))
		for j, t := range columns[tactic] {
			y := headHeight + j*(cellHeight+cellGap)
			fmt.Fprintf(&b, `<g><title>%s</title><rect class="c%d" x="%d" y="%d" width="%d" height="%d" rx="3"/><text x="%d" y="%d">%s · %d</text></g>`+"\n",
				html.EscapeString(t.ID+"\n"+strings.Join(t.Rules, "\n")), shade(len(t.Rules)), x, y, cellWidth, cellHeight, x+8, y+19, t.ID, len(t.Rules))
		}
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d">%d techniques; the number after each is how many rules look for it</text>`+"\n</svg>\n", cellGap, height-10, len(all))
	_, err := io.WriteString(w, b.String())
	return err
}

func shade(rules int) int {
	switch {
	case rules >= 10:
		return 3
	case rules >= 4:
		return 2
	case rules >= 2:
		return 1
	}
	return 0
}
