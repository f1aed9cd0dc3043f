package live

import (
	"context"
	"slices"
	"strings"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/edge/store"
	"github.com/holdfast-security/holdfast/internal/view"
)

// mostSearched is how many of the newest findings a list goes through.
const mostSearched = 10_000

// Findings returns one page of the newest findings that q selects.
func (s *Source) Findings(ctx context.Context, q view.FindingQuery) (p view.FindingPage, err error) {
	filter := store.FindingFilter{Org: s.org, Host: q.Host, Severity: q.Severity, Limit: mostSearched}
	searched := q.Text != "" || q.Technique != ""
	if !searched {
		filter.Limit = min(mostSearched, max(1, q.Page)*max(1, q.Size))
		counts, err := s.Store.CountFindings(ctx, filter)
		if err != nil {
			return p, err
		}
		for _, n := range counts {
			p.Total += n
		}
	}
	found, err := s.Store.Findings(ctx, filter)
	if err != nil {
		return p, err
	}
	var all []holdfast.Finding
	for _, n := range found {
		if !searched || matches(q, &n.Finding) {
			all = append(all, n.Finding)
		}
	}
	if searched {
		p.Total = len(all)
	}
	if len(found) == mostSearched {
		p.Searched = mostSearched
		p.Total = min(p.Total, mostSearched)
	}
	p.Findings = page(all, q.Page, q.Size)
	return p, nil
}

func matches(q view.FindingQuery, f *holdfast.Finding) bool {
	if q.Technique != "" && !slices.ContainsFunc(f.Techniques, func(t string) bool {
		// A technique includes its sub-techniques.
		return strings.EqualFold(t, q.Technique) || strings.HasPrefix(strings.ToUpper(t), strings.ToUpper(q.Technique)+".")
	}) {
		return false
	}
	if q.Text == "" {
		return true
	}
	values := []string{f.Title, f.Hostname, f.Rule}
	for _, p := range f.Tree {
		values = append(values, p.Path, p.CmdLine, p.User)
	}
	for _, m := range f.Matched {
		values = append(values, m.Value)
	}
	return contains(q.Text, values...)
}

// Finding returns a finding with its rule.
func (s *Source) Finding(ctx context.Context, id string) (d view.FindingDetail, err error) {
	n, err := s.Store.Finding(ctx, id)
	if err != nil {
		return d, err
	}
	if !s.sees(n.Finding.Org) {
		return d, holdfast.Errorf(holdfast.NotFound, "there is no finding %s", id)
	}
	d.Finding = n.Finding
	f, err := s.fleet.get(ctx)
	if err != nil {
		return d, err
	}
	d.Version = f.versions[d.Bundle]
	if h := f.byID[d.Finding.Host]; h != nil {
		d.Simulated = h.Simulated
	}
	counts, err := s.Store.CountFindings(ctx, store.FindingFilter{Org: s.org, Rule: d.Finding.Rule})
	if err != nil {
		return d, err
	}
	for _, c := range counts {
		d.Others += c
	}
	d.Others = max(0, d.Others-1)
	rules, err := s.rulesIn(d.Bundle)
	if err != nil {
		return d, nil // a finding is shown even if its bundle cannot be read any more
	}
	if i := slices.IndexFunc(rules, func(r view.RuleRow) bool { return r.ID == d.Finding.Rule }); i >= 0 {
		d.Rule = &rules[i]
	}
	return d, nil
}
