package live

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/reconcile"
	"github.com/holdfast-security/holdfast/internal/language/consent"
	"github.com/holdfast-security/holdfast/internal/trust/dsse"
	"github.com/holdfast-security/holdfast/internal/view"
)

// Consent returns what an organisation allows on its hosts, and how many of
// them know it. A policy that is stored and cannot be read is no error: it says
// so, and what counts in its place.
func (s *Source) Consent(ctx context.Context, org holdfast.OrgID) (view.Consent, error) {
	if !s.sees(org) {
		return view.Consent{}, holdfast.Errorf(holdfast.NotFound, "there is no policy of organisation %s", org)
	}
	c, err := s.Store.Consent(ctx, org)
	v := view.Consent{Org: org, Version: c.Version, Key: dsse.KeyID(c.Key), By: c.By, At: c.At}
	var p consent.Policy
	switch {
	case err == nil:
		var signed []byte
		p, signed, err = reconcile.ReadConsent(c)
		v.Policy = string(signed)
	case holdfast.KindOf(err) != holdfast.Internal:
		return view.Consent{}, err
	}
	if err != nil {
		v.Unreadable = err.Error()
		p = reconcile.Unreadable(org, c.Version)
	}
	for i := range p.Groups {
		v.Groups = append(v.Groups, groupOf(&p.Groups[i]))
	}
	f, err := s.fleet.get(ctx)
	if err != nil {
		return v, err
	}
	for i := range f.hosts {
		h := &f.hosts[i]
		if h.Org != org {
			continue
		}
		v.Hosts++
		if h.Report.Consent == c.Version {
			v.Keeping++
		}
		in := false
		for j := range p.Groups {
			if p.Groups[j].Where.Matches(h.ID, &h.Attributes) {
				v.Groups[j].Hosts++
				in = true
			}
		}
		if !in {
			v.Outside++
		}
	}
	return v, nil
}

// groupOf says what a group says, without its hosts.
func groupOf(g *consent.Group) view.ConsentGroup {
	v := view.ConsentGroup{Name: g.Name}
	for _, x := range []struct{ name, is string }{{"role", g.Where.Role}, {"kernel", g.Where.Kernel}, {"distribution", g.Where.Distro}, {"agent", g.Where.Version}} {
		if x.is != "" {
			v.Where = append(v.Where, x.name+" "+x.is)
		}
	}
	if n := len(g.Where.Hosts); n > 0 {
		v.Where = append(v.Where, fmt.Sprintf("%d by id", n))
	}
	for _, c := range holdfast.Channels {
		r, ok := g.Rules[c]
		if !ok {
			r.Track = consent.General
		}
		v.Rules = append(v.Rules, view.ConsentRule{Channel: c, Track: string(r.Track), Delay: r.Delay, Pin: r.Pin})
	}
	for _, c := range holdfast.Channels {
		if r, ok := g.Critical[c]; ok {
			v.Rules = append(v.Rules, view.ConsentRule{Channel: c, Critical: true, Track: string(r.Track), Delay: r.Delay})
		}
	}
	for i := range g.Windows {
		v.Windows = append(v.Windows, g.Windows[i].String())
	}
	return v
}

// Consents returns what every organisation allows, and who will get what was
// signed and is not released.
func (s *Source) Consents(ctx context.Context) (p view.ConsentPage, err error) {
	versions, err := s.Store.ConsentVersions(ctx)
	if err != nil {
		return p, err
	}
	f, err := s.fleet.get(ctx)
	if err != nil {
		return p, err
	}
	orgs := map[holdfast.OrgID]int{}
	for org := range versions {
		if s.sees(org) {
			orgs[org] = 0
		}
	}
	for i := range f.hosts {
		orgs[f.hosts[i].Org]++
	}
	for _, org := range slices.Sorted(maps.Keys(orgs)) {
		v := view.Consent{Org: org, Hosts: orgs[org], Outside: orgs[org]}
		if _, signed := versions[org]; signed {
			if v, err = s.Consent(ctx, org); err != nil {
				return p, err
			}
		}
		p.Orgs = append(p.Orgs, v)
	}
	p.Coming, err = s.coming(ctx)
	return p, err
}

// mostComing bounds what is looked at that was not released.
const mostComing = 20

// coming lists what publishers signed and nobody has released yet.
func (s *Source) coming(ctx context.Context) (all []view.Coming, err error) {
	bundles, err := s.Store.Bundles(ctx, "") // latest first
	if err != nil {
		return nil, err
	}
	of, err := s.latestReleases(ctx)
	if err != nil {
		return nil, err
	}
	passed := map[holdfast.Channel]bool{}
	looked := 0
	for _, b := range bundles {
		r, released := of[b.Digest]
		if released && r.Phase != holdfast.Waiting {
			passed[b.Channel] = true
		}
		if passed[b.Channel] || looked == mostComing {
			continue
		}
		looked++
		who, err := s.preview(b.Digest)
		if err != nil {
			return nil, err
		}
		if who != nil {
			all = append(all, view.Coming{Bundle: b, Release: r.Release, Preview: *who})
		}
	}
	return all, nil
}

// preview says who gets content when; nil if the publishers did not sign it.
func (s *Source) preview(d holdfast.Digest) (*view.Preview, error) {
	rows, have, err := s.Driver.Preview(d)
	if holdfast.KindOf(err) == holdfast.NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p := &view.Preview{Have: have, Rows: make([]view.PreviewRow, len(rows))}
	for i, r := range rows {
		p.Rows[i] = view.PreviewRow{Org: r.Org, Group: r.Group, State: string(r.State), Hosts: r.Hosts, Never: r.Never, From: r.From, To: r.To, Why: r.Why}
	}
	return s.ownPreview(p), nil
}
