package outbox

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-security/holdfast"
)

// queue is a bounded first-in, first-out queue of records in segments. A
// segment is written, then read, then removed, never two of these at once: it
// is closed for writing before its first record is read, and removed when its
// last one was delivered. So nothing needs to be remembered of what was
// delivered but the files that are left. After a crash the records of the one
// segment being read are delivered again, which the server sees by their ids.
//
// A queue is not safe for concurrent use.
type queue struct {
	disk     disk
	maxBytes int64
	segBytes int64

	next   uint64    // number of the next segment
	done   []written // closed for writing, oldest first
	open   segment   // being written, or nil
	live   written   // what open holds
	dirty  bool      // open has bytes that are not synced
	bytes  int64     // of all segments
	frame  []byte    // kept to write records without allocating
	counts counts
}

type written struct {
	number    uint64
	bytes     int64
	records   int
	unsynced  bool // syncing it failed: nobody knows what of it is durable
	delivered bool // only removing it failed
	unread    int  // how often reading it failed
}

func (w written) name() string { return fmt.Sprintf("%016x%s", w.number, suffix) }

// counts are cumulative since the queue was opened.
type counts struct {
	Put     uint64 // records taken
	Dropped uint64 // records lost because the queue was full or the disk failed
	Torn    uint64 // bytes found that are no records any more
}

// openQueue finds what an earlier process left. Its disk must be locked.
func openQueue(d disk, maxBytes, segBytes int64) (*queue, error) {
	q := &queue{disk: d, maxBytes: maxBytes, segBytes: segBytes}
	names, err := d.List()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		number, err := strconv.ParseUint(strings.TrimSuffix(name, suffix), 16, 64)
		if err != nil || number >= 1<<63 || (written{number: number}).name() != name {
			continue // not ours
		}
		b, err := d.Read(name)
		if err != nil {
			return nil, err
		}
		all, torn := records(b)
		q.counts.Torn += uint64(torn)
		q.done = append(q.done, written{number: number, bytes: int64(len(b)), records: len(all)})
		q.bytes += int64(len(b))
		q.next = max(q.next, number+1)
	}
	slices.SortFunc(q.done, func(a, b written) int { return cmp.Compare(a.number, b.number) })
	return q, q.shrink()
}

// put appends a record. When it returns nil the record survives the end of
// this process; after sync it survives the machine's. A record that cannot be
// put is counted as dropped.
func (q *queue) put(record []byte) error {
	if len(record) == 0 || len(record) > maxRecord {
		q.counts.Dropped++
		return holdfast.Errorf(holdfast.Invalid, "a record of %d bytes", len(record))
	}
	q.frame = appendRecord(q.frame[:0], record)
	if q.open != nil && q.live.bytes+int64(len(q.frame)) > q.segBytes {
		if err := q.rotate(); err != nil {
			q.counts.Dropped++
			return err
		}
	}
	err := q.write()
	if err != nil && len(q.done) > 0 { // the disk may be full: the oldest makes room
		if err = q.drop(); err == nil {
			err = q.write()
		}
	}
	if err != nil {
		q.counts.Dropped++
		return err
	}
	q.counts.Put++
	return q.shrink()
}

// write appends q.frame to the open segment. If that fails the segment is
// closed where it is: what was torn is never appended to.
func (q *queue) write() error {
	if q.open == nil {
		s := written{number: q.next}
		open, err := q.disk.Create(s.name())
		q.next++ // the file may exist although creating it failed
		if err != nil {
			return err
		}
		q.open, q.live = open, s
	}
	n, err := q.open.Write(q.frame)
	q.live.bytes += int64(n)
	q.bytes += int64(n)
	if err != nil {
		return errors.Join(err, q.rotate())
	}
	q.live.records++
	q.dirty = true
	return nil
}

var errUnsynced = &holdfast.Error{Kind: holdfast.Internal, What: "the disk did not say that findings are durable"}

// sync makes everything put so far durable. Once the disk has failed to, it
// fails until the findings in doubt have left the queue.
func (q *queue) sync() error {
	if q.open != nil && q.dirty {
		if err := q.open.Sync(); err != nil {
			q.live.unsynced = true // asked again, the kernel may say that all is well when it is not
			return errors.Join(err, q.rotate())
		}
		q.dirty = false
	}
	if slices.ContainsFunc(q.done, func(w written) bool { return w.unsynced }) {
		return errUnsynced
	}
	return nil
}

// rotate closes the open segment for writing.
func (q *queue) rotate() error {
	if q.open == nil {
		return nil
	}
	var err error
	if q.dirty && !q.live.unsynced {
		err = q.open.Sync()
		q.live.unsynced = err != nil
	}
	err = errors.Join(err, q.open.Close())
	q.done = append(q.done, q.live)
	q.open, q.live, q.dirty = nil, written{}, false
	return err
}

// oldest reads the oldest segment, closing it first if it is the open one; ok
// is false if the queue is empty. The records stay in the queue until remove.
func (q *queue) oldest() (number uint64, all [][]byte, ok bool, err error) {
	if len(q.done) == 0 {
		if q.open == nil {
			return 0, nil, false, nil
		}
		if err := q.rotate(); err != nil && len(q.done) == 0 {
			return 0, nil, false, err
		}
	}
	s := &q.done[0]
	if s.delivered { // once is enough
		if err := q.remove(s.number); err != nil {
			return s.number, nil, false, err
		}
		return q.oldest()
	}
	b, err := q.disk.Read(s.name())
	if err != nil {
		if s.unread++; errors.Is(err, os.ErrNotExist) || s.unread == maxUnread {
			err = errors.Join(err, q.drop()) // it must not hold up the others for ever
		}
		return s.number, nil, false, err
	}
	all, _ = records(b)
	if lost := s.records - len(all); lost > 0 { // it was whole when it was written
		q.counts.Dropped += uint64(lost)
		s.records = len(all)
	}
	return s.number, all, true, nil
}

// maxUnread is how often reading a segment may fail before it is dropped.
const maxUnread = 5

// remove takes away a segment whose records were delivered. It may have been
// dropped meanwhile.
func (q *queue) remove(number uint64) error {
	i := slices.IndexFunc(q.done, func(w written) bool { return w.number == number })
	if i < 0 {
		return nil
	}
	if err := q.disk.Remove(q.done[i].name()); err != nil {
		q.done[i].delivered = true
		return err
	}
	q.bytes -= q.done[i].bytes
	q.done = slices.Delete(q.done, i, i+1)
	return nil
}

// drop removes the oldest closed segment, delivered or not.
func (q *queue) drop() error {
	s := q.done[0]
	if !s.delivered {
		q.counts.Dropped += uint64(s.records)
	}
	return q.remove(s.number)
}

// shrink drops the oldest segments until the queue is within its bound. The
// open segment is never dropped; it is bounded by segBytes.
func (q *queue) shrink() error {
	for q.bytes > q.maxBytes && len(q.done) > 0 {
		if err := q.drop(); err != nil {
			return err
		}
	}
	return nil
}

// len says how many records are in the queue.
func (q *queue) len() int {
	n := q.live.records
	for _, s := range q.done {
		n += s.records
	}
	return n
}

// close ends writing. What is in the queue stays there.
func (q *queue) close() error { return q.rotate() }
