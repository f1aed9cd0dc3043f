package live

import (
	"context"

	"github.com/holdfast-security/holdfast/internal/edge/bus"
	"github.com/holdfast-security/holdfast/internal/view"
)

// Hints are the bus's, as topics of pages.
type Hints struct{ Bus *bus.Local }

var _ view.Hints = Hints{}

// room is how many hints wait while a page is being told of one.
const room = 64

// Listen implements view.Hints.
func (h Hints) Listen(ctx context.Context, f func(view.Topic)) {
	hints, cancel := h.Bus.Subscribe(room)
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return
		case hint := <-hints:
			for _, t := range topics(hint) {
				f(t)
			}
		}
	}
}

// topics is what a hint is about; the zero hint is about everything.
func topics(h bus.Hint) []view.Topic {
	if h == (bus.Hint{}) {
		return view.Topics
	}
	var list []view.Topic
	if h.Host != "" || h.Release != "" {
		list = append(list, view.TopicFleet, view.TopicRollouts)
	}
	if h.Finding != 0 {
		list = append(list, view.TopicFindings)
	}
	if h.Record || h.Release != "" {
		list = append(list, view.TopicRecord)
	}
	return list
}
