package live

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/edge/store"
	"github.com/holdfast-security/holdfast/internal/view"
)

// dotsUpTo is the largest fleet that the overview draws host by host.
const dotsUpTo = 1500

// snapshot is the fleet as it was a moment ago, by host name.
type snapshot struct {
	hosts    []view.HostRow
	revoked  []view.HostRow                    // not of the fleet any more, and counted nowhere
	byID     map[holdfast.HostID]*view.HostRow // of both
	plan     holdfast.RingPlan
	versions map[holdfast.Digest]string
	running  map[holdfast.Digest]int // hosts by what they run
	strata   map[holdfast.Stratum]int

	mu     sync.Mutex
	counts map[string][]int // hosts by ring, by ring plan and organisation
}

// inRings counts by ring of a plan the hosts that an organisation's releases are
// for.
func (f *snapshot) inRings(plan holdfast.RingPlan, org holdfast.OrgID) []int {
	var key strings.Builder
	fmt.Fprintf(&key, "%s", org)
	for _, r := range plan {
		fmt.Fprintf(&key, " %d", r.Through)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if n, ok := f.counts[key.String()]; ok {
		return n
	}
	n := make([]int, len(plan))
	for i := range f.hosts {
		if f.hosts[i].Org == org || org == holdfast.DefaultOrg {
			n[plan.Of(f.hosts[i].ID)]++
		}
	}
	if f.counts == nil {
		f.counts = map[string][]int{}
	}
	f.counts[key.String()] = n
	return n
}

func (f *snapshot) hostname(id holdfast.HostID) string {
	if h := f.byID[id]; h != nil && h.Attributes.Hostname != "" {
		return h.Attributes.Hostname
	}
	return string(id)
}

func (s *Source) readFleet(ctx context.Context) (*snapshot, error) {
	f := &snapshot{byID: map[holdfast.HostID]*view.HostRow{}, running: map[holdfast.Digest]int{}, strata: map[holdfast.Stratum]int{}}
	var err error
	if f.versions, err = s.versions(ctx); err != nil {
		return nil, err
	}
	if f.plan, err = s.plan(ctx); err != nil {
		return nil, err
	}
	enrolled, err := s.all.enrolled.get(ctx)
	if err != nil {
		return nil, err
	}
	f.hosts = make([]view.HostRow, 0, len(enrolled))
	for _, h := range enrolled {
		if !s.sees(h.Org) {
			continue
		}
		ring := f.plan[f.plan.Of(h.ID)].Name
		if h.Revoked {
			f.revoked = append(f.revoked, view.HostRow{Host: h, State: view.Revoked, Ring: ring})
			continue
		}
		// What a host said last is not stored if nothing about it changed.
		if now, ok := s.Driver.Host(h.ID); ok {
			h.Connected, h.LastSeen, h.Attributes, h.Report = now.Connected, now.LastSeen, now.Attributes, now.Report
		}
		for _, d := range h.Report.Running {
			f.running[d]++
		}
		f.strata[h.Attributes.Stratum()]++
		f.hosts = append(f.hosts, view.HostRow{Host: h, State: view.StateOf(h), Ring: ring})
	}
	for _, rows := range [][]view.HostRow{f.hosts, f.revoked} {
		slices.SortFunc(rows, func(a, b view.HostRow) int {
			return cmp.Or(cmp.Compare(a.Attributes.Hostname, b.Attributes.Hostname), cmp.Compare(a.ID, b.ID))
		})
		for i := range rows {
			f.byID[rows[i].ID] = &rows[i]
		}
	}
	return f, nil
}

// readEnrolled reads the hosts' rows.
func (s *Source) readEnrolled(ctx context.Context) ([]holdfast.Host, error) {
	var all []holdfast.Host
	err := s.Store.EachHost(ctx, func(h holdfast.Host) error {
		all = append(all, h)
		return nil
	})
	return all, err
}

// labels names what a host runs, for people.
func (f *snapshot) labels(h *view.HostRow) []string {
	var labels []string
	for _, c := range holdfast.Channels {
		if d, ok := h.Report.Running[c]; ok {
			labels = append(labels, string(c)+" "+cmp.Or(f.versions[d], d.Short()))
		}
	}
	return labels
}

// versions names every digest that people gave a version.
func (s *Source) versions(ctx context.Context) (map[holdfast.Digest]string, error) {
	named := map[holdfast.Digest]string{}
	builds, err := s.Store.Builds(ctx)
	if err != nil {
		return nil, err
	}
	for _, b := range builds {
		named[b.Digest] = b.Manifest.Version
	}
	bundles, err := s.Store.Bundles(ctx, "")
	for _, b := range bundles {
		named[b.Digest] = b.Version
	}
	return named, err
}

// plan is the ring plan that was signed last: the one hosts are shown in.
func (s *Source) plan(ctx context.Context) (holdfast.RingPlan, error) {
	releases, err := s.Store.Releases(ctx, "")
	if err != nil {
		return nil, err
	}
	for _, r := range releases {
		if r.Rings.Validate() == nil {
			return r.Rings, nil
		}
	}
	return holdfast.DefaultRings, nil
}

// Hosts returns one page of the hosts that q selects.
func (s *Source) Hosts(ctx context.Context, q view.HostQuery) (view.HostPage, error) {
	f, err := s.fleet.get(ctx)
	if err != nil {
		return view.HostPage{}, err
	}
	roles, builds := map[string]bool{}, map[string]bool{}
	rows := f.hosts
	if q.State == view.Revoked {
		rows = f.revoked
	}
	var all []*view.HostRow
	for i := range rows {
		h := &rows[i]
		roles[h.Attributes.Role], builds[h.Attributes.Version] = true, true
		if f.selects(q, h) {
			all = append(all, h)
		}
	}
	p := view.HostPage{Total: len(all), Roles: names(roles), Builds: names(builds)}
	for _, r := range f.plan {
		p.Rings = append(p.Rings, r.Name)
	}
	for _, h := range page(all, q.Page, q.Size) {
		row := *h
		row.Labels = f.labels(h)
		p.Hosts = append(p.Hosts, row)
	}
	return p, nil
}

func (f *snapshot) selects(q view.HostQuery, h *view.HostRow) bool {
	a := h.Attributes
	return (q.State == "" || q.State == h.State) && (q.Ring == "" || q.Ring == h.Ring) && (q.Role == "" || q.Role == a.Role) &&
		(q.Build == "" || q.Build == a.Version || q.Build == string(a.Build)) &&
		(q.Kind == "" || (q.Kind == "simulated") == h.Simulated) &&
		(q.Text == "" || contains(q.Text, string(h.ID), a.Hostname, a.OS, a.Arch, a.Kernel, a.Distro, a.Role, a.Version, a.Sensor, h.Ring, strings.Join(f.labels(h), " ")))
}

// contains reports whether every word of text is in one of the values.
func contains(text string, values ...string) bool {
	in := strings.ToLower(strings.Join(values, "\n"))
	for _, word := range strings.Fields(strings.ToLower(text)) {
		if !strings.Contains(in, word) {
			return false
		}
	}
	return true
}

func names(set map[string]bool) []string {
	delete(set, "")
	return slices.Sorted(maps.Keys(set))
}

func page[T any](all []T, number, size int) []T {
	number, size = max(1, number), max(1, size)
	from := min(len(all), (number-1)*size)
	return slices.Clone(all[from:min(len(all), from+size)])
}

// Host returns one host with what happened to it.
func (s *Source) Host(ctx context.Context, id holdfast.HostID) (d view.HostDetail, err error) {
	f, err := s.fleet.get(ctx)
	if err != nil {
		return d, err
	}
	row := f.byID[id]
	if row == nil {
		return d, holdfast.Errorf(holdfast.NotFound, "there is no host %s", id)
	}
	d = view.HostDetail{HostRow: *row, Versions: f.versions, Now: s.Now()}
	d.Labels = f.labels(row)
	r, err := s.Store.Revocation(ctx, id)
	if err == nil { // since a moment, perhaps: the list may not know yet
		d.Revocation, d.Revoked, d.Connected, d.State = &r, true, false, view.Revoked
	} else if holdfast.KindOf(err) != holdfast.NotFound {
		return d, err
	}
	d.Titles = s.titles(row.Report)
	if d.Harms, err = s.harmsOf(ctx, id); err != nil {
		return d, err
	}
	found, err := s.Store.Findings(ctx, store.FindingFilter{Host: id, Limit: 10})
	for _, n := range found {
		d.Findings = append(d.Findings, n.Finding)
	}
	return d, err
}

// titles names the rules that a report is about, as far as its content can be
// read: a page is shown without.
func (s *Source) titles(r holdfast.HostReport) map[string]string {
	titles := map[string]string{}
	for _, x := range r.Suspended {
		titles[x.Rule] = ""
	}
	for _, x := range r.Costs {
		titles[x.Rule] = ""
	}
	for _, x := range r.Forgotten {
		titles[x.Rule] = ""
	}
	rows, err := s.rulesIn(r.Running[holdfast.Rules])
	if err != nil || len(titles) == 0 {
		return nil
	}
	for _, row := range rows {
		if _, ok := titles[row.ID]; ok {
			titles[row.ID] = row.Title
		}
	}
	return titles
}

// harmsOf lists what happened to a host in the rollouts it took part in, latest
// first.
func (s *Source) harmsOf(ctx context.Context, id holdfast.HostID) ([]holdfast.Harm, error) {
	releases := map[holdfast.ReleaseID]bool{}
	err := s.Store.Admissions(ctx, store.AdmissionFilter{Host: id}, func(a holdfast.Admission) error {
		releases[a.Release] = true
		return nil
	})
	if err != nil {
		return nil, err
	}
	var all []holdfast.Harm
	for r := range releases {
		harms, err := s.Store.Harms(ctx, r, 0, 10_000)
		if err != nil {
			return nil, err
		}
		for _, h := range harms {
			if h.Host == id {
				all = append(all, h)
			}
		}
	}
	slices.SortFunc(all, func(a, b holdfast.Harm) int { return cmp.Compare(b.Seq, a.Seq) })
	return all, nil
}
