package guard

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/holdfast-security/holdfast/internal/endpoint/lifeline"
)

// What a leak keeps, and what a busy loop does.
var (
	hoard [][]byte
	turns int
)

// actor is a worker that plays what its content says: the rules channel's file
// is a word, the way this worker fails. It tells what happens to it in a log
// beside its configuration, and proposes what it finds in a file there.
func actor(args []string) int {
	f := flag.NewFlagSet("actor", flag.ExitOnError)
	config := f.String("config", "", "")
	generation := f.String("generation", "", "")
	safe := f.Bool("safe", false, "")
	_ = f.Parse(args)
	dir := filepath.Dir(*config)
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 3
	}
	tell := func(format string, args ...any) {
		fmt.Fprintf(log, "%d %d %s\n", os.Getpid(), time.Now().UnixMilli(), fmt.Sprintf(format, args...))
	}
	line, err := lifeline.Open()
	if err != nil || !line.Guarded() {
		tell("no guard: %v", err)
		return 4
	}
	var play string
	for part := range strings.SplitSeq(*generation, ",") {
		if hex, ok := strings.CutPrefix(part, "rules=sha256:"); ok {
			data, err := os.ReadFile(filepath.Join(dir, "content", hex))
			if err != nil {
				tell("no content: %v", err)
				return 5
			}
			play, _, _ = strings.Cut(string(data), " ")
		}
	}
	if play == "die at start" || play == "die-at-start" {
		return 6
	}
	if play == "never-ready" {
		time.Sleep(time.Hour)
	}
	var draining, stuck atomic.Bool
	go func() {
		for m := range line.Messages() {
			switch m.Kind {
			case lifeline.Drain:
				draining.Store(true)
			case lifeline.Answer:
				tell("answer %s %v %s", m.ID, m.Accepted, m.Reason)
			case lifeline.Tell:
				data, _ := json.Marshal(m.Status)
				tell("status %s", data)
			}
		}
		os.Exit(7) // the guard is gone
	}()
	tell("ready %s safe=%v", *generation, *safe)
	if err := line.Ready(); err != nil {
		return 8
	}
	for n := uint64(0); ; n += 100 {
		if draining.Load() && play != "deaf" {
			tell("drained")
			return 0
		}
		if !stuck.Load() {
			line.Beat(n)
		}
		if n == 1000 && !*safe { // it works for a while, then:
			switch play {
			case "panic":
				var inputs [20]int
				_ = inputs[len(play)+int(n)]
			case "exit":
				return 9
			case "hang":
				tell("hang")
				time.Sleep(time.Hour)
			case "spin": // in the evaluation of one event
				tell("hang")
				for {
					turns++
				}
			case "busy": // beside an evaluation loop that turns
				go func() {
					for {
						turns++
					}
				}()
			}
		}
		if play == "leap" && n > 1000 && !*safe {
			b := make([]byte, 1<<30)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			hoard = append(hoard, b)
		}
		if play == "leak" && n > 1000 && !*safe {
			b := make([]byte, 8<<20)
			for i := range b {
				b[i] = 1
			}
			hoard = append(hoard, b)
		}
		for _, order := range take(dir) {
			var m lifeline.Report
			if err := json.Unmarshal([]byte(order), &m); err != nil {
				tell("order: %v", err)
				continue
			}
			switch m.Kind {
			case lifeline.Propose:
				err = line.Propose(m.ID, m.Channel, m.Digest)
			case lifeline.Reactivate:
				err = line.Reactivate(m.ID)
			case lifeline.Recall:
				err = line.Recall(m.Digest)
			case lifeline.Retry:
				err = line.Retry(m.Digest)
			case lifeline.Final:
				err = line.Final(m.Digest)
			}
			if err != nil {
				tell("order: %v", err)
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// take returns the orders in the file of that name, and that no other worker
// has taken.
func take(dir string) []string {
	mine := filepath.Join(dir, fmt.Sprintf("orders.%d", os.Getpid()))
	if os.Rename(filepath.Join(dir, "orders"), mine) != nil {
		return nil
	}
	defer os.Remove(mine)
	data, _ := os.ReadFile(mine)
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}
