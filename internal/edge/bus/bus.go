// Package bus carries hints between the parts of the control plane: "look at
// this host again", "this rollout changed".
//
// A hint may be lost, repeated or late, and says nothing that the store does
// not say: whoever hears one looks up the truth, and whoever misses one finds
// it at the next heartbeat. So nothing here blocks and nothing is stored.
package bus

import (
	"slices"
	"sync"

	"github.com/holdfast-security/holdfast"
)

// Hint says what may have changed. The zero Hint means: anything.
type Hint struct {
	Host    holdfast.HostID    `json:"host,omitempty"`    // what this host should run
	Release holdfast.ReleaseID `json:"release,omitempty"` // where this rollout stands; with no Host, what any host should run
	Finding int64              `json:"finding,omitempty"` // findings up to this sequence number are stored
	Record  bool               `json:"record,omitempty"`  // an entry was added to the record
}

// Local is a bus within one process. The zero value is ready to use.
type Local struct {
	mu          sync.Mutex
	subscribers []*subscriber
	lost        uint64
}

type subscriber struct{ hints chan Hint }

// Publish gives h to every subscriber that has room for it, and never waits.
func (l *Local) Publish(h Hint) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.subscribers {
		select {
		case s.hints <- h:
		default:
			l.lost++
		}
	}
}

// Subscribe returns a channel of the hints published from now on, with room
// for some that the subscriber is not ready for; further ones are lost to it.
// cancel ends the subscription and closes the channel.
func (l *Local) Subscribe(room int) (hints <-chan Hint, cancel func()) {
	s := &subscriber{make(chan Hint, max(room, 1))}
	l.mu.Lock()
	l.subscribers = append(l.subscribers, s)
	l.mu.Unlock()
	return s.hints, sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.subscribers = slices.DeleteFunc(l.subscribers, func(o *subscriber) bool { return o == s })
		close(s.hints)
	})
}

// Lost is how many hints found a subscriber without room.
func (l *Local) Lost() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}
