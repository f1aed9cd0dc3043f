package opamp

import (
	"context"
	"sync"
)

// pusher brings news to hosts that did not ask. Each host stands in its queue
// at most once, so that the queue is no longer than the connections are many,
// however many hints arrive; and few goroutines serve it, so that a hint for
// everybody does not wake everybody at once.
type pusher struct {
	mu      sync.Mutex
	queue   []*agent
	workers int
}

// maxWorkers is above one because a peer that does not read holds its worker
// for as long as Config.Stall.
const maxWorkers = 128

func (p *pusher) add(a *agent) {
	a.mu.Lock()
	queued := a.pushing
	a.pushing = true
	a.mu.Unlock()
	if queued {
		return
	}
	p.mu.Lock()
	p.queue = append(p.queue, a)
	start := p.workers < maxWorkers
	if start {
		p.workers++
	}
	p.mu.Unlock()
	if start {
		go p.work()
	}
}

func (p *pusher) work() {
	for {
		p.mu.Lock()
		if len(p.queue) == 0 {
			p.workers--
			p.queue = nil // its memory is not kept between bursts
			p.mu.Unlock()
			return
		}
		a := p.queue[0]
		p.queue[0] = nil
		p.queue = p.queue[1:]
		p.mu.Unlock()
		a.pushed(context.Background())
	}
}
