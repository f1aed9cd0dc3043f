package reconcile

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/rollout"
)

func (d *driven) entry(kind, by string, at time.Time, text string, detail any) holdfast.Entry {
	e := holdfast.Entry{At: at, Kind: kind, Org: d.release.Org, By: by, Release: d.Release, Bundle: d.release.Bundle.Digest, Text: text}
	if detail != nil {
		// Only plain data of ours comes here; it always encodes.
		e.Detail, _ = json.Marshal(detail)
	}
	return e
}

// entries are what the actions put on the record.
func (d *driven) entries(actions []rollout.Action, at time.Time) []holdfast.Entry {
	var all []holdfast.Entry
	add := func(kind, by, text string, detail any) { all = append(all, d.entry(kind, by, at, text, detail)) }
	what := fmt.Sprintf("%s %s", d.release.Bundle.Channel, d.release.Bundle.Version)
	var admits []rollout.Admit
	for _, a := range actions {
		switch a := a.(type) {
		case rollout.Admit:
			admits = append(admits, a)
		case rollout.OpenRing:
			add("promote", us, fmt.Sprintf("%s is open to ring %s", what, a.Name), a)
		case rollout.Hold:
			add("hold", us, fmt.Sprintf("slowed down: pooled evidence of harm is %.3g", a.Evidence), a)
		case rollout.Resume:
			add("resume", us, fmt.Sprintf("back to its pace: pooled evidence of harm fell to %.3g", a.Evidence), a)
		case rollout.Halt:
			by := us
			if a.By != "" {
				by = a.By
			}
			add("halt", by, fmt.Sprintf("%s is recalled%s: %s (%d of %d hosts harmed, evidence %.4g against %.4g)", what, forOrg(a.Org), a.Why, a.Harmed, a.Exposed, a.Evidence, a.Limit), a)
		case rollout.Stop:
			add("stop", us, fmt.Sprintf("%s is recalled%s without a claim: %s (%d of %d hosts harmed)", what, forOrg(a.Org), a.Why, a.Harmed, a.Exposed), a)
		case rollout.Storm:
			add("storm", us, fmt.Sprintf("%s is paused%s: %s", what, forOrg(a.Org), a.Why), a)
		case rollout.Complete:
			add("complete", us, fmt.Sprintf("%s is on every host that could be reached: %d", what, a.Exposed), a)
		case rollout.Note:
			add("note", us, a.What, nil)
		}
	}
	if len(admits) > 0 {
		treat, placebo := 0, 0
		for _, a := range admits {
			treat += a.Treat
			placebo += a.Placebo
		}
		all = append(all, d.entry("admit", us, at, fmt.Sprintf("block %d: %d hosts will get %s, and %d activate anew what they have (%s)", admits[0].Block, treat, what, placebo, admits[0].Why), nil))
	}
	return all
}

func forOrg(org holdfast.OrgID) string {
	if org == "" {
		return ""
	}
	return " from organisation " + string(org)
}
