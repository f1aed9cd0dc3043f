package console

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/view"
)

// A decision is something a person may do to a rollout: a page that asks, and a
// form that does it. With JavaScript the same form opens over the rollout.
type decision struct {
	Name    string // in the address
	Verb    string // on the button
	Icon    string
	Ask     string // heads the page that asks
	Explain string
	Field   string // label of the text a person writes; empty: none
	Spare   bool   // the text may stay empty: nobody in a hurry must find words
	Needs   Permission
	From    []holdfast.Phase
	Grave   bool
	Second  bool                       // not for the person who made the release
	Only    func(view.RolloutRow) bool // offered only then; nil: always
	Result  string
	do      func(view.Actions, context.Context, holdfast.ReleaseID, string, string) error
}

var decisions = []decision{
	{
		Name: "approve", Verb: "Approve", Icon: "check", Needs: Approve, Second: true,
		From: []holdfast.Phase{holdfast.Waiting},
		Ask:  "Approve this release?", Explain: "You are the second person. The first ring opens at once; every ring keeps the soak that the publishers signed.",
		Result: "Approved. The first ring is open.",
		do: func(a view.Actions, ctx context.Context, id holdfast.ReleaseID, by, _ string) error {
			return a.Approve(ctx, id, by)
		},
	},
	{
		Name: "resume", Verb: "Resume", Icon: "run", Needs: Steer,
		From: []holdfast.Phase{holdfast.Paused},
		Ask:  "Resume this rollout?", Explain: "Admission goes on where it stood. The evidence so far is kept.",
		Result: "Resumed.",
		do: func(a view.Actions, ctx context.Context, id holdfast.ReleaseID, by, _ string) error {
			return a.Resume(ctx, id, by)
		},
	},
	{
		Name: "pause", Verb: "Pause", Icon: "pause", Needs: Steer, Field: "Why",
		From: []holdfast.Phase{holdfast.Running, holdfast.Held},
		Ask:  "Pause this rollout?", Explain: "No more hosts are given the release. Those that have it keep it and are watched on.",
		Result: "Paused. Nobody else is given it.",
		do: func(a view.Actions, ctx context.Context, id holdfast.ReleaseID, by, text string) error {
			return a.Pause(ctx, id, by, text)
		},
	},
	{
		Name: "finish", Verb: "Finish", Icon: "check", Needs: Steer,
		From: []holdfast.Phase{holdfast.Running, holdfast.Held}, Only: func(r view.RolloutRow) bool { return r.Delayed > 0 },
		Ask: "Finish this rollout?", Explain: "It waits for nobody but hosts whose organisations allow it later, or that are away. It is then complete, and the channel's next release need not wait. Those hosts follow when they may, in growing steps, compared with nobody.",
		Result: "Finished. Those who come later will follow.",
		do: func(a view.Actions, ctx context.Context, id holdfast.ReleaseID, by, _ string) error {
			return a.Finish(ctx, id, by)
		},
	},
	{
		Name: "halt", Verb: "Halt and recall", Icon: "halt", Needs: Halt, Field: "Why (may stay empty)", Spare: true, Grave: true,
		From: []holdfast.Phase{holdfast.Running, holdfast.Held, holdfast.Paused, holdfast.Complete},
		Ask:  "Halt this release and call it back?", Explain: "Offers stop and leases are revoked. Every host that has the release returns to what it had before, the unreachable ones at their next contact. This content is never offered again unless two people override.",
		Result: "Halted by you. Hosts are called back at their next heartbeat.",
		do: func(a view.Actions, ctx context.Context, id holdfast.ReleaseID, by, text string) error {
			return a.Halt(ctx, id, by, text)
		},
	},
	{
		Name: "override", Verb: "Override the halt", Icon: "warn", Needs: Override, Field: "How many hosts were harmed, as a number, and why it may go on", Grave: true,
		From: []holdfast.Phase{holdfast.Halted, holdfast.Stopped},
		Ask:  "Override this halt?", Explain: "Two people must do this, each by name, and each must write how many harmed hosts they have seen. It stands on the record. The evidence stays; the threshold for the next halt is twice as high.",
		Result: "Your override is on the record. It takes effect when a second person has given theirs.",
		do: func(a view.Actions, ctx context.Context, id holdfast.ReleaseID, by, text string) error {
			return a.Override(ctx, id, by, text)
		},
	},
}

// decisionResults is what the rollout page says after each.
var decisionResults = func() map[string]string {
	m := map[string]string{}
	for _, d := range decisions {
		m[d.Name] = d.Result
	}
	return m
}()

func (d decision) offered(r view.RolloutRow, v *visit) bool {
	return v.may(d.Needs) && slices.Contains(d.From, r.Phase) && !(d.Second && r.By == v.User.Name) && (d.Only == nil || d.Only(r))
}

type confirmPage struct {
	shell
	decision
	Rollout view.RolloutDetail
	Text    string
	Problem string
}

func (p confirmPage) path() string {
	return "/rollouts/" + pathOf(string(p.Rollout.ID))
}

// confirm asks.
func (s *Console) confirm(d decision) handler {
	return func(w http.ResponseWriter, r *http.Request, v *visit) error {
		ro, err := v.source.Rollout(r.Context(), holdfast.ReleaseID(r.PathValue("id")))
		if err != nil {
			return err
		}
		if !d.offered(ro.RolloutRow, v) {
			return d.refusal(ro.RolloutRow)
		}
		return s.render(w, http.StatusOK, confirmView(confirmPage{shell: s.shell(v, d.Verb, "rollouts"), decision: d, Rollout: ro}))
	}
}

// decide does it. Whether it may be done is the action's to say: the rollout
// may have moved on since the page was shown.
func (s *Console) decide(d decision) handler {
	return func(w http.ResponseWriter, r *http.Request, v *visit) error {
		id := holdfast.ReleaseID(r.PathValue("id"))
		text := strings.TrimSpace(r.PostFormValue("text"))
		if d.Field != "" && (text == "" && !d.Spare || len(text) > 2000) {
			ro, err := v.source.Rollout(r.Context(), id)
			if err != nil {
				return err
			}
			return s.render(w, http.StatusBadRequest, confirmView(confirmPage{
				shell: s.shell(v, d.Verb, "rollouts"), decision: d, Rollout: ro, Text: text,
				Problem: "Say why, in up to 2,000 characters. It stands on the record beside your name.",
			}))
		}
		if err := d.do(s.Actions, r.Context(), id, v.User.Name, text); err != nil {
			return err
		}
		http.Redirect(w, r, "/rollouts/"+pathOf(string(id))+"?"+url.Values{"done": {d.Name}}.Encode(), http.StatusSeeOther)
		return nil
	}
}

func (d decision) refusal(r view.RolloutRow) error {
	if !slices.Contains(d.From, r.Phase) {
		return &holdfast.Error{Kind: holdfast.Conflict, What: "a rollout that is " + string(r.Phase) + " cannot be asked to " + d.Name, Where: string(r.ID)}
	}
	if d.Only != nil && !d.Only(r) {
		return &holdfast.Error{Kind: holdfast.Conflict, What: "it waits for others than those whose organisations delay it, or who are away", Where: string(r.ID)}
	}
	return &holdfast.Error{Kind: holdfast.Denied, What: "you made this release, so another person must " + d.Name + " it", Where: string(r.ID)}
}
