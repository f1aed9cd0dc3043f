package worker

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/detect"
)

// What correlations have counted outlives the worker: it is written every few
// seconds while it changes, when the guard starts another worker, and at the
// end. The file is for this host alone:
//
//	holdfast counts 1 HOST\n   state (detect.AppendState)   SHA-256 of all before
const (
	countsMagic = "holdfast counts 1 "
	countsEvery = 10 * time.Second // what a crash costs at most
	maxCounts   = 8 << 20          // bytes of state; it takes some milliseconds to write so much
	maxHead     = 512
)

func countsFile(state string) string { return filepath.Join(state, "counts", "correlations") }

// takeCounts reads the file and removes it: if what is in it ever kills a
// worker, it kills one. It returns fs.ErrNotExist if there is none.
func takeCounts(file string, host holdfast.HostID) ([]byte, error) {
	refuse := func(what string) error {
		return &holdfast.Error{Kind: holdfast.Denied, What: "the saved counts are not used: " + what, Where: file}
	}
	info, err := os.Lstat(file)
	if err != nil {
		return nil, err
	}
	defer os.Remove(file)
	switch {
	case !info.Mode().IsRegular():
		return nil, refuse("this is not a file")
	case info.Size() > maxCounts+maxHead:
		return nil, refuse(fmt.Sprintf("%d bytes are more than any worker writes", info.Size()))
	case !private(info):
		return nil, refuse("others than the agent may have written them")
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	head := countsHead(host)
	sum := len(b) - sha256.Size
	switch {
	case !bytes.HasPrefix(b, []byte(countsMagic)) || sum < len(head):
		return nil, refuse("this worker knows no such format")
	case sha256.Sum256(b[:sum]) != [sha256.Size]byte(b[sum:]):
		return nil, refuse("they are damaged")
	case !bytes.HasPrefix(b, head):
		return nil, refuse("they are of another host")
	}
	return b[len(head):sum], nil
}

func countsHead(host holdfast.HostID) []byte {
	return fmt.Appendf(nil, "%s%s\n", countsMagic, host)
}

// restoreCounts lets the evaluator count on from where the last worker was. A
// host without its counts still evaluates, so nothing of this is fatal.
func restoreCounts(v *detect.Evaluator, file string, host holdfast.HostID, log *slog.Logger) {
	b, err := takeCounts(file, host)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var r detect.Restored
	if err == nil {
		r, err = v.Restore(b, time.Now())
	}
	if err != nil {
		log.Warn("correlations start anew", "err", err)
		return
	}
	log.Info("correlations count on", "groups", r.Groups, "taken", len(r.Taken), "changed", few(r.Changed), "gone", few(r.Gone))
}

// few names the first of many.
func few(ids []string) string {
	if n := len(ids); n > 8 {
		return fmt.Sprintf("%s and %d more", printable(strings.Join(ids[:8], " ")), n-8)
	}
	return printable(strings.Join(ids, " "))
}

// keeper saves the counts of one evaluator. The loop encodes, which takes it
// milliseconds at most; another goroutine waits for the disk.
type keeper struct {
	file  string
	host  holdfast.HostID
	log   *slog.Logger
	asked atomic.Bool // save as soon as possible

	full, free chan []byte // one buffer goes round
	ended      chan struct{}

	// The loop's.
	due     time.Time
	counted uint64
	left    int
}

func newKeeper(file string, host holdfast.HostID, log *slog.Logger) *keeper {
	k := &keeper{file: file, host: host, log: log, full: make(chan []byte, 1), free: make(chan []byte, 1), ended: make(chan struct{})}
	k.free <- countsHead(host)
	k.asked.Store(true) // what was taken from the disk goes back
	go k.write()
	return k
}

// look saves if it is time to, something was counted, and the disk is done with
// the last.
func (k *keeper) look(v *detect.Evaluator, now time.Time) {
	asked := k.asked.Load()
	if !asked && (now.Before(k.due) || v.Counted() == k.counted) {
		return
	}
	select {
	case b := <-k.free:
		k.save(v, b)
		if k.asked.Store(false); !asked {
			k.due = now.Add(countsEvery)
		}
	default:
	}
}

func (k *keeper) save(v *detect.Evaluator, b []byte) {
	k.counted = v.Counted()
	b, left := v.AppendState(b[:len(countsHead(k.host))], maxCounts)
	if left > 0 && k.left == 0 {
		k.log.Warn("a restart would forget some groups of correlations: all of them are more than is kept on disk", "groups", left, "bytes", maxCounts)
	}
	k.left = left
	k.full <- b
}

// close saves what is counted now and waits until it is on disk. It follows the
// loop's end.
func (k *keeper) close(v *detect.Evaluator) {
	b := <-k.free
	k.save(v, b)
	close(k.full)
	<-k.ended
}

func (k *keeper) write() {
	defer close(k.ended)
	failed := false
	for b := range k.full {
		sum := sha256.Sum256(b)
		err := replaceFile(k.file, append(b, sum[:]...))
		if err != nil && !failed {
			k.log.Error("what correlations have counted cannot be saved; a restart would forget it", "err", err)
		}
		failed = err != nil
		k.free <- b
	}
}

// replaceFile puts a file that only this user may read in the place of another,
// whole or not at all.
func replaceFile(file string, b []byte) error {
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "tmp-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	return err
}
