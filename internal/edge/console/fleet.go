package console

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/view"
)

const hostsPerPage = 50

type fleetPage struct {
	shell
	view.HostPage
	Query view.HostQuery
	Asked url.Values
}

type hostPage struct {
	shell
	view.HostDetail
}

// path is the host's page.
func (p hostPage) path() string { return "/fleet/" + pathOf(string(p.ID)) }

func (s *Console) fleet(w http.ResponseWriter, r *http.Request, v *visit) error {
	asked := r.URL.Query()
	q := view.HostQuery{
		Text: asked.Get("q"), State: view.HostState(asked.Get("state")), Ring: asked.Get("ring"),
		Role: asked.Get("role"), Build: asked.Get("build"), Kind: asked.Get("kind"),
		Page: pageNumber(asked), Size: hostsPerPage,
	}
	if q.State != "" && q.State != view.Revoked && !slices.Contains(view.HostStates, q.State) {
		return &holdfast.Error{Kind: holdfast.Invalid, What: "there is no host state " + strconv.Quote(string(q.State)), Where: "state", Do: "choose one from the list on the fleet page"}
	}
	hosts, err := v.source.Hosts(r.Context(), q)
	if err != nil {
		return err
	}
	return s.render(w, http.StatusOK, fleetView(fleetPage{s.shell(v, "Fleet", "fleet", view.TopicFleet), hosts, q, asked}))
}

// pageNumber reads ?page=, from 1; nonsense is the first page.
func pageNumber(q url.Values) int {
	n, err := strconv.Atoi(q.Get("page"))
	if err != nil || n < 1 || n > 1_000_000 {
		return 1
	}
	return n
}

func (s *Console) host(w http.ResponseWriter, r *http.Request, v *visit) error {
	d, err := v.source.Host(r.Context(), holdfast.HostID(r.PathValue("id")))
	if err != nil {
		return err
	}
	if !v.may(Inspect) {
		d.Findings = nil
	}
	p := hostPage{s.shell(v, d.Attributes.Hostname, "fleet", view.TopicFleet, view.TopicFindings), d}
	p.Done = r.URL.Query().Get("done")
	return s.render(w, http.StatusOK, hostView(p))
}

// slot is one line of the host's table of generations.
type slot struct {
	Name, Meaning string
	Generation    holdfast.Generation
}

func slotsOf(d view.HostDetail) []slot {
	r := d.Report
	return []slot{
		{"Running", "evaluates events now", r.Running},
		{"Previous", "what the guard would put back", r.Previous},
		{"Attempted", "the latest candidate, whatever became of it", r.Attempted},
		{"Failed", "the latest candidate that was reverted", r.Failed},
	}
}

// attributesOf are the host's own words about itself, in a fixed order.
func attributesOf(d view.HostDetail) [][2]string {
	a := d.Attributes
	return [][2]string{
		{"Role", a.Role},
		{"System", a.OS + "/" + a.Arch},
		{"Distribution", a.Distro},
		{"Kernel", a.Kernel},
		{"Agent", a.Version},
		{"Sensor", a.Sensor},
		{"Stratum", string(a.Stratum())},
	}
}
