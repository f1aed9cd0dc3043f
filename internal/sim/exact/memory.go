package exact

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/reconcile"
)

// memory is the store of a played control plane: what a transaction did is
// undone if it fails. It is used by one goroutine. It keeps the promises that
// reconcile asks of a store; edge/store's own suite checks the real ones.
type memory struct {
	hosts      map[holdfast.HostID]holdfast.Host
	releases   map[holdfast.ReleaseID]holdfast.Release
	rollouts   map[holdfast.ReleaseID]stored
	orders     []reconcile.Order
	openings   map[openingKey]reconcile.Opening
	admissions []*holdfast.Admission
	byPart     map[part]*holdfast.Admission
	harms      []holdfast.Harm
	harmed     map[harmKey]bool
	record     []holdfast.Entry
	settings   map[string]string
	leases     map[string]lease
	consents   map[holdfast.OrgID]holdfast.Consent

	undo []func()
	in   bool
	// fail, if set, is asked before a transaction and after it: true loses it,
	// or what came of it.
	fail func(done bool) bool
}

type (
	stored struct {
		holdfast.Rollout
		settled bool
	}
	openingKey struct {
		release       holdfast.ReleaseID
		block, number int
	}
	part struct {
		release holdfast.ReleaseID
		host    holdfast.HostID
		block   int
	}
	harmKey struct {
		part
		kind holdfast.HarmKind // "": any
	}
	lease struct {
		holder  string
		expires time.Time
		term    int64
	}
)

func newMemory() *memory {
	return &memory{
		hosts: map[holdfast.HostID]holdfast.Host{}, releases: map[holdfast.ReleaseID]holdfast.Release{}, rollouts: map[holdfast.ReleaseID]stored{},
		openings: map[openingKey]reconcile.Opening{}, byPart: map[part]*holdfast.Admission{},
		harmed: map[harmKey]bool{}, settings: map[string]string{}, leases: map[string]lease{}, consents: map[holdfast.OrgID]holdfast.Consent{},
	}
}

// set writes one key, and remembers how it was.
func set[K comparable, V any](m *memory, in map[K]V, k K, v V) {
	old, had := in[k]
	m.undo = append(m.undo, func() {
		if had {
			in[k] = old
		} else {
			delete(in, k)
		}
	})
	in[k] = v
}

// push appends, and remembers the length.
func push[V any](m *memory, to *[]V, v V) {
	n := len(*to)
	m.undo = append(m.undo, func() { *to = (*to)[:n] })
	*to = append(*to, v)
}

func (m *memory) Tx(_ context.Context, f func(tx reconcile.Tx) error) error {
	away := holdfast.Errorf(holdfast.Unavailable, "the store is away (played)")
	if m.fail != nil && m.fail(false) {
		return away
	}
	m.in, m.undo = true, m.undo[:0]
	err := f(m)
	m.in = false
	if err != nil {
		for i := len(m.undo) - 1; i >= 0; i-- {
			m.undo[i]()
		}
		return err
	}
	if m.fail != nil && m.fail(true) {
		return away
	}
	return nil
}

func (m *memory) AcquireLease(_ context.Context, name, holder string, now, expires time.Time) (bool, int64, error) {
	l := m.leases[name]
	if l.holder != holder && now.Before(l.expires) {
		return false, l.term, nil
	}
	if l.holder != holder {
		l.term++
	}
	l.holder, l.expires = holder, expires
	set(m, m.leases, name, l)
	return true, l.term, nil
}

func (m *memory) ReleaseLease(_ context.Context, name, holder string) error {
	if l := m.leases[name]; l.holder == holder {
		l.expires = time.Time{}
		set(m, m.leases, name, l)
	}
	return nil
}

// giveUp makes every lease run out.
func (m *memory) giveUp() {
	for name, l := range m.leases {
		l.expires = time.Time{}
		m.leases[name] = l
	}
}

func found[K comparable, V any](in map[K]V, k K) (V, error) {
	v, ok := in[k]
	if !ok {
		return v, holdfast.Errorf(holdfast.NotFound, "%v is not stored", k)
	}
	return v, nil
}

func (m *memory) Host(_ context.Context, id holdfast.HostID) (holdfast.Host, error) {
	return found(m.hosts, id)
}

func (m *memory) EachHost(_ context.Context, each func(holdfast.Host) error) error {
	for _, id := range slices.Sorted(maps.Keys(m.hosts)) {
		if err := each(m.hosts[id]); err != nil {
			return err
		}
	}
	return nil
}

func (m *memory) SaveHosts(_ context.Context, hosts []holdfast.Host) error {
	for _, h := range hosts {
		set(m, m.hosts, h.ID, h)
	}
	return nil
}

func (m *memory) Disconnected(context.Context) error {
	for id, h := range m.hosts {
		if h.Connected {
			h.Connected = false
			set(m, m.hosts, id, h)
		}
	}
	return nil
}

func (m *memory) Release(_ context.Context, id holdfast.ReleaseID) (holdfast.Release, error) {
	return found(m.releases, id)
}

func (m *memory) ApproveRelease(_ context.Context, id holdfast.ReleaseID, by string) error {
	r, err := found(m.releases, id)
	if err != nil {
		return err
	}
	r.Approved = by
	set(m, m.releases, id, r)
	return nil
}

func (m *memory) Rollouts(_ context.Context, unsettled bool) (all []holdfast.Rollout, _ error) {
	for _, r := range m.rollouts {
		if !unsettled || !r.settled {
			all = append(all, r.Rollout)
		}
	}
	slices.SortFunc(all, func(a, b holdfast.Rollout) int {
		return cmp.Or(m.releases[b.Release].Created.Compare(m.releases[a.Release].Created), cmp.Compare(a.Release, b.Release))
	})
	return all, nil
}

func (m *memory) Rollout(_ context.Context, id holdfast.ReleaseID) (holdfast.Rollout, error) {
	r, err := found(m.rollouts, id)
	return r.Rollout, err
}

func (m *memory) UnsettledVersions(context.Context) (map[holdfast.ReleaseID]int64, error) {
	v := map[holdfast.ReleaseID]int64{}
	for id, r := range m.rollouts {
		if !r.settled {
			v[id] = r.Version
		}
	}
	return v, nil
}

func (m *memory) SwapRollout(_ context.Context, r holdfast.Rollout, settled bool) error {
	old, err := found(m.rollouts, r.Release)
	if err != nil {
		return err
	}
	if old.Version != r.Version {
		return holdfast.Errorf(holdfast.Conflict, "rollout %s is at version %d, not %d", r.Release, old.Version, r.Version)
	}
	r.Version++
	set(m, m.rollouts, r.Release, stored{r, settled})
	return nil
}

func (m *memory) AddOrder(_ context.Context, o reconcile.Order) (int64, error) {
	o.Seq = int64(len(m.orders)) + 1
	push(m, &m.orders, o)
	return o.Seq, nil
}

func (m *memory) Orders(_ context.Context, id holdfast.ReleaseID, after int64) (all []reconcile.Order, _ error) {
	for _, o := range m.orders {
		if o.Release == id && o.Seq > after {
			all = append(all, o)
		}
	}
	return all, nil
}

func (m *memory) PutOpenings(_ context.Context, all []reconcile.Opening) error {
	for _, o := range all {
		k := openingKey{o.Release, o.Block, o.Number}
		if _, ok := m.openings[k]; !ok {
			set(m, m.openings, k, o)
		}
	}
	return nil
}

func (m *memory) Openings(_ context.Context, id holdfast.ReleaseID, now time.Time) (all []reconcile.Opening, _ error) {
	for k, o := range m.openings {
		if k.release == id && now.Before(o.Until) {
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b reconcile.Opening) int {
		return cmp.Or(a.Block-b.Block, a.Number-b.Number)
	})
	return all, nil
}

func (m *memory) AddAdmissions(_ context.Context, all []holdfast.Admission) error {
	for _, a := range all {
		k := part{a.Release, a.Host, a.Block}
		if _, twice := m.byPart[k]; twice {
			return holdfast.Errorf(holdfast.Conflict, "%s was drawn twice in block %d", a.Host, a.Block)
		}
		row := a
		push(m, &m.admissions, &row)
		set(m, m.byPart, k, &row)
	}
	return nil
}

func (m *memory) MarkAdmissions(_ context.Context, all []holdfast.Admission) error {
	for _, a := range all {
		row, err := found(m.byPart, part{a.Release, a.Host, a.Block})
		if err != nil {
			return err
		}
		old := *row
		m.undo = append(m.undo, func() { *row = old })
		once := func(to *time.Time, v time.Time) {
			if to.IsZero() {
				*to = v
			}
		}
		once(&row.Activated, a.Activated)
		once(&row.Clean, a.Clean)
		if row.Left.IsZero() {
			row.Left, row.Why = a.Left, a.Why
		}
		once(&row.Returned, a.Returned)
	}
	return nil
}

func (m *memory) EachAdmission(_ context.Context, id holdfast.ReleaseID, each func(holdfast.Admission) error) error {
	for _, a := range m.admissions {
		if a.Release == id {
			if err := each(*a); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *memory) AddHarms(_ context.Context, all []holdfast.Harm) (added []holdfast.Harm, _ error) {
	for _, h := range all {
		k := harmKey{part{h.Release, h.Host, h.Block}, h.Kind}
		if m.harmed[k] {
			continue
		}
		set(m, m.harmed, k, true)
		h.Seq, h.First = int64(len(m.harms))+1, !m.harmed[harmKey{k.part, ""}]
		set(m, m.harmed, harmKey{k.part, ""}, true)
		push(m, &m.harms, h)
		added = append(added, h)
	}
	return added, nil
}

func (m *memory) Harms(_ context.Context, id holdfast.ReleaseID, after int64, most int) (all []holdfast.Harm, _ error) {
	for _, h := range m.harms {
		if h.Release == id && h.Seq > after && len(all) < most {
			all = append(all, h)
		}
	}
	return all, nil
}

func (m *memory) Append(_ context.Context, entries ...holdfast.Entry) ([]holdfast.Entry, error) {
	for i := range entries {
		entries[i].Seq = int64(len(m.record))
		push(m, &m.record, entries[i])
	}
	return entries, nil
}

func (m *memory) Setting(_ context.Context, name string) (string, error) {
	v, ok := m.settings[name]
	if !ok {
		return "", holdfast.Errorf(holdfast.NotFound, "no setting %s", name)
	}
	return v, nil
}

func (m *memory) PutSetting(_ context.Context, name, value string) error {
	set(m, m.settings, name, value)
	return nil
}

// ConsentVersions and Consent are reconcile.Consents.
func (m *memory) ConsentVersions(context.Context) (map[holdfast.OrgID]int64, error) {
	all := map[holdfast.OrgID]int64{}
	for org, c := range m.consents {
		all[org] = c.Version
	}
	return all, nil
}

func (m *memory) Consent(_ context.Context, org holdfast.OrgID) (holdfast.Consent, error) {
	return found(m.consents, org)
}
