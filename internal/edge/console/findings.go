package console

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/view"
)

const findingsPerPage = 50

type findingsPage struct {
	shell
	view.FindingPage
	Query view.FindingQuery
	Asked url.Values
}

type findingPage struct {
	shell
	view.FindingDetail
}

func (s *Console) findings(w http.ResponseWriter, r *http.Request, v *visit) error {
	asked := r.URL.Query()
	q := view.FindingQuery{
		Text: asked.Get("q"), Severity: holdfast.Severity(asked.Get("severity")), Technique: asked.Get("technique"),
		Host: holdfast.HostID(asked.Get("host")), Page: pageNumber(asked), Size: findingsPerPage,
	}
	if q.Severity != "" && !slices.Contains(severities, q.Severity) {
		return &holdfast.Error{Kind: holdfast.Invalid, What: "there is no severity " + strconv.Quote(string(q.Severity)), Where: "severity", Do: "choose one from the list on the findings page"}
	}
	found, err := v.source.Findings(r.Context(), q)
	if err != nil {
		return err
	}
	return s.render(w, http.StatusOK, findingsView(findingsPage{s.shell(v, "Findings", "findings", view.TopicFindings), found, q, asked}))
}

func (s *Console) finding(w http.ResponseWriter, r *http.Request, v *visit) error {
	f, err := v.source.Finding(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return s.render(w, http.StatusOK, findingView(findingPage{s.shell(v, f.Title, "findings"), f}))
}

// fields is the event, each field with whether the rule matched it.
type field struct {
	holdfast.Fact
	Matched bool
}

func fieldsOf(d view.FindingDetail) []field {
	matched := map[string]bool{}
	for _, m := range d.Matched {
		matched[m.Field] = true
	}
	var all []field
	for _, e := range d.Event {
		all = append(all, field{e, matched[e.Field]})
		delete(matched, e.Field)
	}
	for _, m := range d.Matched {
		if matched[m.Field] { // matched, but not among the event's own fields
			all = append(all, field{m, true})
			delete(matched, m.Field)
		}
	}
	return all
}

// reason is a line of the rule, beside what the event has.
type reason struct {
	holdfast.Reason
	Has string
}

func reasonsOf(d view.FindingDetail) []reason {
	values := map[string]string{}
	for _, m := range d.Matched {
		values[m.Field] = m.Value
	}
	var all []reason
	for _, r := range d.Why {
		all = append(all, reason{r, cmp.Or(r.Counted, values[r.Field])})
	}
	return all
}

// ancestryOf is the process tree from the root down to the process itself.
func ancestryOf(d view.FindingDetail) []holdfast.Process {
	t := slices.Clone(d.Tree)
	slices.Reverse(t)
	return t
}

func base(p string) string { return p[strings.LastIndexByte(p, '/')+1:] }
