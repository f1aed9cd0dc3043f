package live

import (
	"slices"
	"sync"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/view"
)

// People of the default organisation run the installation, and see all. Others see
// their own organisation's hosts, findings, harm, evidence and policy, and what is
// the vendor's and the same for every customer: releases, their rings, what all
// hosts together show, and the record.
//
// A Source for an organisation reads no more than that: its snapshot of the fleet
// holds that organisation's hosts and no other, and what is about all of them comes
// from the whole.
type scopes struct {
	mu sync.Mutex
	by map[holdfast.OrgID]*Source
}

// nobody is whose hosts are seen by people of no organisation. A filter by no name
// would select all.
const nobody holdfast.OrgID = "(none)"

// For implements view.Source.
func (s *Source) For(org holdfast.OrgID) view.Source {
	if s.all != s {
		if org == s.org {
			return s
		}
		return s.all.For(nobody) // never more than it has
	}
	if org == holdfast.DefaultOrg {
		return s
	}
	if org == "" {
		org = nobody
	}
	s.scopes.mu.Lock()
	defer s.scopes.mu.Unlock()
	of := s.scopes.by[org]
	if of == nil {
		of = newSource(s.Config)
		of.org, of.all = org, s
		if s.scopes.by == nil {
			s.scopes.by = map[holdfast.OrgID]*Source{}
		}
		s.scopes.by[org] = of
	}
	return of
}

// sees reports whether what is an organisation's own is shown.
func (s *Source) sees(org holdfast.OrgID) bool { return s.all == s || org == s.org }

// ownRollout leaves out what is other organisations' own.
func (s *Source) ownRollout(d view.RolloutDetail) view.RolloutDetail {
	d.Harms = slices.DeleteFunc(slices.Clone(d.Harms), func(h view.HarmRow) bool { return !s.sees(h.Org) })
	d.Orgs = slices.DeleteFunc(slices.Clone(d.Orgs), func(e view.OrgEvidence) bool { return !s.sees(e.Org) })
	d.Late = slices.DeleteFunc(slices.Clone(d.Late), func(l view.Latecomers) bool { return !s.sees(l.Org) })
	d.Preview = s.ownPreview(d.Preview)
	return d
}

// ownPreview is a preview of an organisation's hosts alone. How many have it is
// counted over all, and not told.
func (s *Source) ownPreview(p *view.Preview) *view.Preview {
	if p == nil || s.all == s {
		return p
	}
	return &view.Preview{Rows: slices.DeleteFunc(slices.Clone(p.Rows), func(r view.PreviewRow) bool { return !s.sees(r.Org) })}
}
