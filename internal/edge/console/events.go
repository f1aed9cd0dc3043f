package console

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/view"
)

// Limits of the streams of hints. A stream ends after a while, so that a
// session that ended, or a role that changed, is looked at again.
const (
	maxStreams   = 512
	streamLife   = 10 * time.Minute
	hintInterval = time.Second // at most one hint a topic
	gather       = 250 * time.Millisecond
	keepAlive    = 15 * time.Second
)

type streams struct{ open atomic.Int64 }

// events tells a page what to load again. It carries names of topics, never
// data: what a person may see is decided where the page is rendered.
func (s *Console) events(w http.ResponseWriter, r *http.Request, v *visit) error {
	var topics []view.Topic
	for _, t := range r.URL.Query()["topic"] {
		if slices.Contains(view.Topics, view.Topic(t)) && !slices.Contains(topics, view.Topic(t)) {
			topics = append(topics, view.Topic(t))
		}
	}
	if s.streams.open.Add(1) > maxStreams {
		s.streams.open.Add(-1)
		return &holdfast.Error{Kind: holdfast.Unavailable, What: "too many live pages are open", Do: "this one still works; reload it to see what is new"}
	}
	defer s.streams.open.Add(-1)
	ctx, cancel := context.WithTimeout(r.Context(), streamLife)
	defer cancel()

	// One pending mark per topic is all a slow reader can miss.
	pending := make(map[view.Topic]chan struct{}, len(topics))
	merged := make(chan view.Topic, len(view.Topics))
	for _, t := range topics {
		pending[t] = make(chan struct{}, 1)
	}
	if s.Hints != nil {
		go s.Hints.Listen(ctx, func(t view.Topic) {
			if mark := pending[t]; mark != nil {
				select {
				case mark <- struct{}{}:
					merged <- t // never blocks: at most one a topic
				default:
				}
			}
		})
	}

	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no")
	out := http.NewResponseController(w)
	send := func(text string) error {
		// Streams outlive the server's write timeout; servers without deadlines
		// (tests) say so and need none.
		_ = out.SetWriteDeadline(time.Now().Add(2 * keepAlive))
		if _, err := fmt.Fprint(w, text); err != nil {
			return err
		}
		return out.Flush()
	}
	if send("retry: 3000\n\n") != nil {
		return nil
	}
	last := map[view.Topic]time.Time{}
	beat := time.NewTicker(keepAlive)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-beat.C:
			if send(": still here\n\n") != nil {
				return nil
			}
		case t := <-merged:
			// Hints come in bursts: one of each is enough, after the burst.
			select {
			case <-time.After(max(gather, hintInterval-time.Since(last[t]))):
			case <-ctx.Done():
				return nil
			}
			<-pending[t] // what happens from here on is a new hint
			last[t] = time.Now()
			if send("event: "+string(t)+"\ndata: changed\n\n") != nil {
				return nil
			}
		}
	}
}
