package reconcile

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/rollout"
)

// Approve is the second person's word: the release may begin. Denied if by
// asked for it himself. Approving twice changes nothing.
func (s *Service) Approve(ctx context.Context, id holdfast.ReleaseID, by string) error {
	now := s.Now()
	r, err := s.Store.Release(ctx, id)
	if err != nil {
		return err
	}
	if s.Admissible != nil && r.Approved == "" && by != r.By {
		if err := s.Admissible(ctx, r); err != nil {
			return err
		}
	}
	err = s.Store.Tx(ctx, func(tx Tx) error {
		r, err := tx.Release(ctx, id)
		if err != nil {
			return err
		}
		switch {
		case by == "" || by == r.By:
			return &holdfast.Error{Kind: holdfast.Denied, What: "the second person must be another than the first", Where: string(id), Do: "ask somebody else to approve it"}
		case r.Approved != "":
			return nil
		}
		if err := tx.ApproveRelease(ctx, id, by); err != nil {
			return err
		}
		_, err = tx.Append(ctx, holdfast.Entry{
			At: now, Kind: "approve", Org: r.Org, By: by, Release: id, Bundle: r.Bundle.Digest,
			Text: fmt.Sprintf("%s %s, asked for by %s, is approved by %s", r.Bundle.Channel, r.Bundle.Version, r.By, by),
		})
		return err
	})
	if err == nil {
		s.Wake()
	}
	return err
}

// Halt recalls a release, whatever the evidence. It works in every phase after
// approval, also after completion. Halting twice changes nothing.
func (s *Service) Halt(ctx context.Context, id holdfast.ReleaseID, by, reason string) error {
	return s.order(ctx, id, by, rollout.Command{Kind: rollout.HaltNow, Reason: reason}, func(p holdfast.Phase) (done, fits bool) {
		return p.Recalling(), p != holdfast.Waiting
	})
}

// Pause admits nobody more; observation goes on.
func (s *Service) Pause(ctx context.Context, id holdfast.ReleaseID, by, reason string) error {
	return s.order(ctx, id, by, rollout.Command{Kind: rollout.Pause, Reason: reason}, func(p holdfast.Phase) (done, fits bool) {
		return p == holdfast.Paused, p == holdfast.Running || p == holdfast.Held
	})
}

// Resume ends a pause.
func (s *Service) Resume(ctx context.Context, id holdfast.ReleaseID, by string) error {
	return s.order(ctx, id, by, rollout.Command{Kind: rollout.Continue}, func(p holdfast.Phase) (done, fits bool) {
		return p == holdfast.Running || p == holdfast.Held, p == holdfast.Paused
	})
}

// Finish completes a rollout that waits only for hosts whose organisations
// allow it later, or that are away.
func (s *Service) Finish(ctx context.Context, id holdfast.ReleaseID, by string) error {
	s.mu.Lock()
	d := s.rollouts[id]
	waits := d != nil && d.state.Delayed == 0 && !d.state.Phase.Done()
	s.mu.Unlock()
	if waits {
		return &holdfast.Error{Kind: holdfast.Conflict, What: fmt.Sprintf("release %s waits for others than those whose organisations delay them, or who are away", id), Do: "wait, or halt it"}
	}
	return s.order(ctx, id, by, rollout.Command{Kind: rollout.Finish}, func(p holdfast.Phase) (done, fits bool) {
		return p == holdfast.Complete, p == holdfast.Running || p == holdfast.Held
	})
}

// order stores a person's command with its entry on the record; the next step
// carries it out.
func (s *Service) order(ctx context.Context, id holdfast.ReleaseID, by string, c rollout.Command, check func(holdfast.Phase) (done, fits bool)) error {
	if by == "" {
		return holdfast.Errorf(holdfast.Denied, "a decision needs a name")
	}
	now := s.Now()
	err := s.Store.Tx(ctx, func(tx Tx) error {
		r, err := tx.Rollout(ctx, id)
		if err != nil {
			return err
		}
		done, fits := check(r.Phase)
		if done {
			return nil
		}
		if !fits {
			return &holdfast.Error{Kind: holdfast.Conflict, What: fmt.Sprintf("release %s is %s, which does not go with %s", id, r.Phase, c.Kind), Do: "look at it again"}
		}
		state, err := rollout.Load(r.State)
		if err != nil {
			return err
		}
		waiting, err := tx.Orders(ctx, id, state.CommandSeq)
		if err != nil {
			return err
		}
		if n := len(waiting); n > 0 && waiting[n-1].Kind == string(c.Kind) {
			return nil // given before, and about to be carried out
		}
		return s.putOrder(ctx, tx, id, by, c, now)
	})
	if err == nil {
		s.Wake()
	}
	return err
}

func (s *Service) putOrder(ctx context.Context, tx Tx, id holdfast.ReleaseID, by string, c rollout.Command, now time.Time) error {
	rel, err := tx.Release(ctx, id)
	if err != nil {
		return err
	}
	c.By, c.At = by, now
	j, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if _, err := tx.AddOrder(ctx, Order{Release: id, Kind: string(c.Kind), By: by, At: now, Command: j}); err != nil {
		return err
	}
	text := fmt.Sprintf("%s orders: %s", by, c.Kind)
	if c.Second != "" {
		text = fmt.Sprintf("%s and %s order: %s, acknowledging %d harmed hosts", by, c.Second, c.Kind, c.Acknowledged)
	}
	if c.Reason != "" {
		text += " (" + c.Reason + ")"
	}
	_, err = tx.Append(ctx, holdfast.Entry{At: now, Kind: "order", Org: rel.Org, By: by, Release: id, Bundle: rel.Bundle.Digest, Text: text, Detail: j})
	return err
}

// overrideAsked names the setting that keeps who first asked to override.
func overrideAsked(id holdfast.ReleaseID) string { return "override." + string(id) }

type overrideRequest struct {
	By           string    `json:"by"`
	Acknowledged int       `json:"acknowledged"`
	Evidence     int64     `json:"event_seq"` // what both must have seen
	At           time.Time `json:"at"`
}

// Override lets a recalled release go on. It takes two people, who both name
// the number of harmed hosts that they acknowledge (the first number in what
// they write); it takes effect with the second. If more harm came in between,
// both must look again.
func (s *Service) Override(ctx context.Context, id holdfast.ReleaseID, by, acknowledged string) error {
	if by == "" {
		return holdfast.Errorf(holdfast.Denied, "a decision needs a name")
	}
	now := s.Now()
	err := s.Store.Tx(ctx, func(tx Tx) error {
		r, err := tx.Rollout(ctx, id)
		if err != nil {
			return err
		}
		state, err := rollout.Load(r.State)
		if err != nil {
			return err
		}
		harmed := harmedHosts(state)
		n, err := strconv.Atoi(firstNumber.FindString(acknowledged))
		switch {
		case !r.Phase.Recalling():
			return &holdfast.Error{Kind: holdfast.Conflict, What: fmt.Sprintf("release %s is %s: nothing is recalled", id, r.Phase)}
		case err != nil || n != harmed:
			return &holdfast.Error{Kind: holdfast.Invalid, What: fmt.Sprintf("%d hosts were harmed", harmed), Where: "acknowledged", Do: "write the number of harmed hosts that you have seen"}
		}
		var first overrideRequest
		v, err := tx.Setting(ctx, overrideAsked(id))
		switch {
		case holdfast.KindOf(err) == holdfast.NotFound:
		case err != nil:
			return err
		default:
			if err := json.Unmarshal([]byte(v), &first); err != nil {
				return err
			}
		}
		if first.By == by && first.Evidence == state.EventSeq {
			return nil // asked before: it waits for somebody else
		}
		if first.By == "" || first.Evidence != state.EventSeq {
			rel, err := tx.Release(ctx, id)
			if err != nil {
				return err
			}
			if err := putJSON(ctx, tx, overrideAsked(id), overrideRequest{by, n, state.EventSeq, now}); err != nil {
				return err
			}
			_, err = tx.Append(ctx, holdfast.Entry{
				At: now, Kind: "override-asked", Org: rel.Org, By: by, Release: id, Bundle: rel.Bundle.Digest,
				Text: fmt.Sprintf("%s asks to override the recall, acknowledging %d harmed hosts", by, n),
			})
			return err
		}
		if err := putJSON(ctx, tx, overrideAsked(id), overrideRequest{}); err != nil {
			return err
		}
		if err := s.putOrder(ctx, tx, id, first.By, rollout.Command{Kind: rollout.Override, Second: by, Acknowledged: n}, now); err != nil {
			return err
		}
		// Every host may have given it back already: there is something to
		// drive again.
		return tx.SwapRollout(ctx, r, false)
	})
	if err == nil {
		s.Wake()
	}
	return err
}

// OverrideAsked returns who has asked to override a recall, or "".
func (s *Service) OverrideAsked(ctx context.Context, id holdfast.ReleaseID) (string, error) {
	var first overrideRequest
	v, err := s.Store.Setting(ctx, overrideAsked(id))
	if holdfast.KindOf(err) == holdfast.NotFound {
		return "", nil
	}
	if err == nil {
		err = json.Unmarshal([]byte(v), &first)
	}
	return first.By, err
}

var firstNumber = regexp.MustCompile(`[0-9]+`)

// harmedHosts counts the treated hosts that came to harm.
func harmedHosts(s rollout.State) int {
	n := 0
	for _, b := range s.Blocks {
		for _, c := range b.Cells {
			n += c.HarmedTreated
		}
	}
	return n
}
