package worker

import (
	"context"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/outbox"
	"github.com/holdfast-security/holdfast/internal/endpoint/uplink"
)

func (w *worker) setLink(l *uplink.Link) {
	w.state.mu.Lock()
	defer w.state.mu.Unlock()
	w.link = l
}

func (w *worker) theLink() *uplink.Link {
	w.state.mu.Lock()
	defer w.state.mu.Unlock()
	return w.link
}

// say reports now, if there is anybody to report to.
func (w *worker) say() {
	if l := w.theLink(); l != nil {
		l.Report(w.state.report(time.Now()))
	}
}

// deliver sends findings to the server this host is enrolled with.
func (w *worker) deliver(ctx context.Context, records [][]byte) (int, time.Duration, error) {
	l := w.theLink()
	if l == nil {
		return 0, 0, holdfast.Errorf(holdfast.Unavailable, "not connected yet")
	}
	return outbox.Post(l.HTTP(), w.identity.Server, func() holdfast.Attributes { return w.attr })(ctx, records)
}
