package report

import (
	"encoding/json"
	"io"
	"path/filepath"
	"slices"
)

// WriteSARIF writes findings as SARIF 2.1.0, which code hosts show beside the
// lines. https://docs.oasis-open.org/sarif/sarif/v2.1.0/
func WriteSARIF(w io.Writer, version string, all []Finding) error {
	type text struct {
		Text string `json:"text"`
	}
	type region struct {
		StartLine   int `json:"startLine"`
		StartColumn int `json:"startColumn,omitempty"`
	}
	type result struct {
		RuleID    string `json:"ruleId"`
		Level     string `json:"level"`
		Message   text   `json:"message"`
		Locations []any  `json:"locations"`
	}
	type check struct {
		ID               string `json:"id"`
		ShortDescription text   `json:"shortDescription"`
	}
	results, checks := []result{}, []check{}
	for _, f := range all {
		if !slices.ContainsFunc(checks, func(c check) bool { return c.ID == f.Check }) {
			checks = append(checks, check{f.Check, text{checkNames[f.Check]}})
		}
		message := f.Message
		if f.Do != "" {
			message += " (" + f.Do + ")"
		}
		results = append(results, result{
			RuleID: f.Check, Level: f.Level, Message: text{message},
			Locations: []any{map[string]any{"physicalLocation": map[string]any{
				"artifactLocation": map[string]string{"uri": filepath.ToSlash(f.File)},
				"region":           region{max(f.Line, 1), f.Column},
			}}},
		})
	}
	return encode(w, map[string]any{
		"$schema": "https://json.schemastore.org/sarif-2.1.0.json",
		"version": "2.1.0",
		"runs": []any{map[string]any{
			"tool":    map[string]any{"driver": map[string]any{"name": "holdfast content lint", "version": version, "rules": checks}},
			"results": results,
		}},
	})
}

var checkNames = map[string]string{
	"parse":      "The rule can be read",
	"applicable": "The sensor supplies the rule's log source and fields",
	"compile":    "The rule runs on the sensor's events",
	"cost":       "The rule is not evaluated on every event",
	"metadata":   "The rule says what people need to know",
}

func encode(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
