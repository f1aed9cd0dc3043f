package console

import (
	"net/http"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/view"
)

type contentPage struct {
	shell
	Bundles []view.BundleRow
}

type bundlePage struct {
	shell
	view.BundleDetail
}

func (s *Console) content(w http.ResponseWriter, r *http.Request, v *visit) error {
	rows, err := v.source.Bundles(r.Context())
	if err != nil {
		return err
	}
	return s.render(w, http.StatusOK, contentView(contentPage{s.shell(v, "Content", "content", view.TopicRollouts), rows}))
}

func (s *Console) bundle(w http.ResponseWriter, r *http.Request, v *visit) error {
	d, err := holdfast.ParseDigest(r.PathValue("digest"))
	if err != nil {
		return err
	}
	b, err := v.source.Bundle(r.Context(), d)
	if err != nil {
		return err
	}
	return s.render(w, http.StatusOK, bundleView(bundlePage{s.shell(v, string(b.Channel)+" "+b.Version, "content"), b}))
}

// saidOf is the verdict in a word.
func saidOf(b view.BundleRow) (tone, iconName, words string) {
	switch {
	case !b.Rehearsed:
		return "wait", "wait", "not rehearsed"
	case b.Passed:
		return "ok", "check", "passed"
	}
	return "bad", "halt", "refused"
}

func failuresOf(d view.BundleDetail) int {
	if d.Verdict == nil {
		return 0
	}
	n := 0
	for _, b := range d.Verdict.Builds {
		n += len(b.Failures)
	}
	return n
}

// problemsOf is what rehearsal said about one rule, over all builds.
func problemsOf(d view.BundleDetail, rule string) int {
	n := 0
	if d.Verdict != nil {
		for _, b := range d.Verdict.Builds {
			for _, f := range b.Failures {
				if f.Rule == rule && rule != "" {
					n++
				}
			}
		}
	}
	return n
}
