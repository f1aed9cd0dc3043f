package live

import (
	"context"
	"path"
	"strings"
	"sync"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/bundle"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
	"github.com/holdfast-security/holdfast/internal/view"
)

// Bundles lists everything registered, latest first.
func (s *Source) Bundles(ctx context.Context) ([]view.BundleRow, error) {
	f, err := s.fleet.get(ctx)
	if err != nil {
		return nil, err
	}
	bundles, err := s.Store.Bundles(ctx, "")
	if err != nil {
		return nil, err
	}
	of, err := s.latestReleases(ctx)
	if err != nil {
		return nil, err
	}
	var rows []view.BundleRow
	for _, b := range bundles {
		row, _, err := s.bundleRow(ctx, b, f, of)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// latestReleases returns the newest rollout of each digest.
func (s *Source) latestReleases(ctx context.Context) (map[holdfast.Digest]holdfast.Rollout, error) {
	releases, err := s.Store.Releases(ctx, "")
	if err != nil {
		return nil, err
	}
	rollouts, err := s.Store.Rollouts(ctx, false)
	if err != nil {
		return nil, err
	}
	phase := map[holdfast.ReleaseID]holdfast.Rollout{}
	for _, r := range rollouts {
		phase[r.Release] = r
	}
	of := map[holdfast.Digest]holdfast.Rollout{}
	for _, r := range releases { // newest first
		if _, ok := of[r.Bundle.Digest]; !ok {
			of[r.Bundle.Digest] = holdfast.Rollout{Release: r.ID, Phase: phase[r.ID].Phase}
		}
	}
	return of, nil
}

func (s *Source) bundleRow(ctx context.Context, b holdfast.Bundle, f *snapshot, of map[holdfast.Digest]holdfast.Rollout) (view.BundleRow, *holdfast.Verdict, error) {
	row := view.BundleRow{Bundle: b, Release: of[b.Digest].Release, Phase: of[b.Digest].Phase, Hosts: f.running[b.Digest]}
	v, _, err := s.Store.Verdict(ctx, b.Digest)
	if holdfast.KindOf(err) == holdfast.NotFound && err != nil {
		return row, nil, nil
	}
	if err != nil {
		return row, nil, err
	}
	row.Rehearsed, row.Passed, row.Builds = true, v.Passed(), len(v.Builds)
	for _, build := range v.Builds {
		row.Rules = max(row.Rules, build.Figures.Rules)
	}
	return row, &v, nil
}

// Bundle returns a bundle with what is in it and what rehearsal said.
func (s *Source) Bundle(ctx context.Context, d holdfast.Digest) (detail view.BundleDetail, err error) {
	b, err := s.Store.Bundle(ctx, d)
	if err != nil {
		return detail, err
	}
	f, err := s.fleet.get(ctx)
	if err != nil {
		return detail, err
	}
	of, err := s.latestReleases(ctx)
	if err != nil {
		return detail, err
	}
	if detail.BundleRow, detail.Verdict, err = s.bundleRow(ctx, b, f, of); err != nil {
		return detail, err
	}
	if b.Channel == holdfast.Rules {
		if detail.Contents, err = s.rulesIn(d); err != nil {
			return detail, err
		}
		detail.Rules = max(detail.Rules, len(detail.Contents))
	}
	if s.Trust != nil {
		r, err := s.Trust.Released(d)
		if err != nil && holdfast.KindOf(err) != holdfast.NotFound {
			return detail, err
		}
		detail.Signed = r.Signed
	}
	detail.Preview, err = s.preview(d)
	return detail, err
}

// ruleCache keeps the rules of the bundles looked at last. A digest's content
// never changes.
type ruleCache struct {
	mu sync.Mutex
	by map[holdfast.Digest][]view.RuleRow
}

const bundlesKept = 16

func (s *Source) rulesIn(d holdfast.Digest) ([]view.RuleRow, error) {
	if s.Content == nil || d == "" {
		return nil, nil
	}
	s.rules.mu.Lock()
	defer s.rules.mu.Unlock()
	if rows, ok := s.rules.by[d]; ok {
		return rows, nil
	}
	data, err := s.Content.Read(d)
	if err != nil {
		if holdfast.KindOf(err) == holdfast.NotFound {
			return nil, nil // known by name only; the page says that it is opaque
		}
		return nil, err
	}
	b, err := bundle.Open(data)
	if err != nil {
		return nil, err
	}
	rows := rulesOf(b)
	if len(s.rules.by) >= bundlesKept || s.rules.by == nil {
		s.rules.by = map[holdfast.Digest][]view.RuleRow{}
	}
	s.rules.by[d] = rows
	return rows, nil
}

// rulesOf lists the rules of a bundle. What does not parse is not listed: the
// verdict says what is wrong with it.
func rulesOf(b *bundle.Bundle) []view.RuleRow {
	var rows []view.RuleRow
	for _, p := range b.Paths("rules") {
		if ext := strings.ToLower(path.Ext(p)); ext != ".yml" && ext != ".yaml" {
			continue
		}
		set, _ := sigma.Parse(p, b.Files[p])
		for _, r := range set.Rules {
			ls := r.LogSource
			var source []string
			for _, v := range []string{ls.Category, ls.Product, ls.Service} {
				if v != "" {
					source = append(source, v)
				}
			}
			rows = append(rows, ruleRow(&r.Meta, strings.Join(source, " / "), p))
		}
		for _, c := range set.Correlations {
			rows = append(rows, ruleRow(&c.Meta, "correlation", p))
		}
	}
	return rows
}

func ruleRow(m *sigma.Meta, source, file string) view.RuleRow {
	return view.RuleRow{ID: m.Key(), Title: m.Title, Level: holdfast.Severity(m.Level), Techniques: m.Techniques(), LogSource: source, File: file}
}
