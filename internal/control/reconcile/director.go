package reconcile

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

// direct tells the director what each ring may run, if that changed, and then
// the fleet that it may be offered: never before. What it tells is no transaction,
// so it asks once more whether it leads: another node's recall must stand.
func (s *Service) direct(ctx context.Context, now time.Time) error {
	approvals := s.vouched(s.approvals())
	j, err := json.Marshal(approvals)
	if err != nil {
		return err
	}
	if string(j) == s.approved {
		return nil
	}
	moment := s.Now() // the step may have taken long
	if err := s.leadsYet(ctx, s.Store, moment, moment.Add(s.Leader)); err != nil {
		return err
	}
	if err := s.Director.Approve(approvals, now); err != nil {
		// Nothing was published: hosts keep what they have, and we ask again.
		s.Log.Warn("director repository not updated", "err", err)
		return nil
	}
	s.approved = string(j)
	for _, d := range s.byAge() {
		if len(d.Policy) == 0 {
			continue
		}
		s.mu.Lock()
		r := d.known
		r.Approved = d.openRings()
		changed := !maps.Equal(r.Approved, d.known.Approved)
		if changed {
			d.known = r
			s.fleet.SetRelease(r)
		}
		s.mu.Unlock()
		if changed {
			s.hint("", d.Release)
		}
	}
	return nil
}

// vouched leaves out what the publishers do not vouch for any more. Otherwise
// one old digest that they withdrew would hold up every promotion and recall.
func (s *Service) vouched(all map[string][]tuf.Approval) map[string][]tuf.Approval {
	for ring, list := range all {
		all[ring] = slices.DeleteFunc(list, func(a tuf.Approval) bool {
			_, err := s.Director.Released(a.Digest)
			return holdfast.KindOf(err) == holdfast.NotFound
		})
	}
	return all
}

func (d *driven) openRings() map[int]bool {
	open := map[int]bool{}
	for i, r := range d.state.Rings {
		if !r.Opened.IsZero() {
			open[i] = true
		}
	}
	return open
}

// keptReleases is how many completed releases of a channel stay approved for
// hosts that still run them: they were away, or could not take a newer one.
// What the director does not name, a host gives up by itself.
const keptReleases = 8

// approvals is what every ring may run, by ring name: of each channel the
// newest release whose ring is open is current, the newest completed one before
// it is previous, and a host that still runs an older one may keep it. What was
// recalled from everybody is none of these.
func (s *Service) approvals() map[string][]tuf.Approval {
	all := map[string][]tuf.Approval{}
	byAge := s.byAge()
	slices.Reverse(byAge) // newest first
	type place struct {
		ring    string
		channel holdfast.Channel
	}
	current := map[place]bool{}
	previous := map[place]bool{}
	for _, d := range byAge {
		if len(d.Policy) == 0 {
			continue
		}
		for i, ring := range d.policy.Rings {
			if _, ok := all[ring.Name]; !ok {
				all[ring.Name] = []tuf.Approval{}
			}
			p := place{ring.Name, d.release.Bundle.Channel}
			if d.state.Phase.Recalling() || i >= len(d.state.Rings) || d.state.Rings[i].Opened.IsZero() {
				continue
			}
			a := tuf.Approval{Channel: p.channel, Digest: d.release.Bundle.Digest}
			switch {
			case !current[p]:
				current[p] = true
				a.State = tuf.Current
			case !previous[p] && d.state.Phase == holdfast.Complete:
				previous[p] = true
				a.State = tuf.Previous
			case d.state.Phase == holdfast.Complete:
				a.State = tuf.Pinnable
			default:
				continue
			}
			if !slices.ContainsFunc(all[ring.Name], func(b tuf.Approval) bool { return b.Channel == a.Channel && b.Digest == a.Digest }) {
				all[ring.Name] = append(all[ring.Name], a)
			}
		}
	}
	return all
}
