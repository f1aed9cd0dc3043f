package consent

import (
	"cmp"
	"slices"
	"time"

	"github.com/holdfast-security/holdfast"
)

// Preview is a number of hosts that will get a release for the same reason,
// before it is released.
type Preview struct {
	Org   holdfast.OrgID `json:"org"`
	Group string         `json:"group,omitempty"` // empty for hosts in no group
	State State          `json:"state"`
	Hosts int            `json:"hosts"`
	// Never: not this release, as things stand. Otherwise From is when the
	// first of the hosts may have it, and To the last; the rollout's own pace
	// comes on top.
	Never bool      `json:"never,omitempty"`
	From  time.Time `json:"from,omitzero"`
	To    time.Time `json:"to,omitzero"`
	Why   string    `json:"why,omitempty"` // of one of the hosts
}

// Previews adds up answers. The zero value is empty.
type Previews struct{ rows map[previewKey]*Preview }

type previewKey struct {
	org   holdfast.OrgID
	group string
	state State
	never bool
}

// Add counts one host.
func (p *Previews) Add(org holdfast.OrgID, group string, a Answer) {
	if p.rows == nil {
		p.rows = map[previewKey]*Preview{}
	}
	k := previewKey{org, group, a.State, a.Never}
	row := p.rows[k]
	if row == nil {
		row = &Preview{Org: org, Group: group, State: a.State, Never: a.Never, Why: a.Why}
		if !a.Never {
			row.From, row.To = a.From, a.From
		}
		p.rows[k] = row
	}
	row.Hosts++
	if !a.Never {
		if a.From.Before(row.From) {
			row.From, row.Why = a.From, a.Why
		}
		row.To = later(row.To, a.From)
	}
}

// Rows lists what was counted, by organisation, group and time; those who will
// not get it come last.
func (p *Previews) Rows() []Preview {
	all := make([]Preview, 0, len(p.rows))
	for _, row := range p.rows {
		all = append(all, *row)
	}
	slices.SortFunc(all, func(a, b Preview) int {
		never := map[bool]int{true: 1}
		return cmp.Or(
			cmp.Compare(a.Org, b.Org), cmp.Compare(a.Group, b.Group), cmp.Compare(never[a.Never], never[b.Never]),
			a.From.Compare(b.From), cmp.Compare(a.State, b.State),
		)
	})
	return all
}
