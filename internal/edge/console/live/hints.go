package live

import (
	"context"

	"github.com/holdfast-security/holdfast/internal/edge/bus"
	"github.com/holdfast-security/holdfast/internal/edge/console"
)

// Hints are the bus's, as topics of pages.
type Hints struct{ Bus *bus.Local }

var _ console.Hints = Hints{}

// room is how many hints wait while a page is being told of one.
const room = 64

// Listen implements console.Hints.
func (h Hints) Listen(ctx context.Context, f func(console.Topic)) {
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
func topics(h bus.Hint) []console.Topic {
	if h == (bus.Hint{}) {
		return console.Topics
	}
	var list []console.Topic
	if h.Host != "" || h.Release != "" {
		list = append(list, console.TopicFleet, console.TopicRollouts)
	}
	if h.Finding != 0 {
		list = append(list, console.TopicFindings)
	}
	if h.Record || h.Release != "" {
		list = append(list, console.TopicRecord)
	}
	return list
}
