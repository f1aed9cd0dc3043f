package fleet

import "time"

// wheel brings hosts back when their deadline has passed: a timing wheel with
// one bucket for each grain of time. A host is in at most one bucket. A beat
// does not move it; it is looked at when its bucket comes, and put into a later
// one if it was heard since. So a beat costs nothing here, and a host is moved
// about once in two heartbeats.
type wheel struct {
	grain   time.Duration
	buckets map[int64][]*host
	next    int64 // the first bucket not yet brought back
}

func (w *wheel) add(h *host, at time.Time) {
	if h.queued {
		return
	}
	h.queued = true
	if w.buckets == nil {
		w.buckets = map[int64][]*host{}
	}
	n := max(at.UnixNano()/int64(w.grain)+1, w.next)
	w.buckets[n] = append(w.buckets[n], h)
}

func (w *wheel) advance(now time.Time, due func(*host)) {
	last := now.UnixNano() / int64(w.grain)
	bring := func(n int64) {
		hosts := w.buckets[n]
		delete(w.buckets, n)
		for _, h := range hosts {
			h.queued = false
			due(h)
		}
	}
	from := w.next
	w.next = last + 1
	if last-from > int64(len(w.buckets)) { // a long gap: look at what there is
		for n := range w.buckets {
			if n <= last {
				bring(n)
			}
		}
		return
	}
	for n := from; n <= last; n++ {
		bring(n)
	}
}
