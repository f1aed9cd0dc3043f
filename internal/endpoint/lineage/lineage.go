// Package lineage remembers which process descends from which, so that an event
// can name its parent and a finding can show its process tree, without asking
// the kernel again.
//
// The table is bounded. Processes that have exited are forgotten first, oldest
// first; they are kept until then because a tree often leads through a parent
// that is gone. It is not safe for concurrent use: the evaluation loop owns it.
package lineage

import (
	"strings"
	"time"

	"github.com/holdfast-security/holdfast"
)

// CmdLineBytes bounds the command line that is remembered of each process. The
// event itself carries more; only children and trees see this much.
const CmdLineBytes = 1 << 10

// Tick is the resolution at which start times identify a process: what /proc
// shows. A process id is not used again within one tick.
const Tick = 10 * time.Millisecond

// Key names one process for the life of the machine: process ids come again,
// start times do not go back. Start is in ticks since boot.
type Key struct {
	PID   uint32
	Start uint64
}

// KeyOf returns the key of a process that started at the given time since boot.
func KeyOf(pid uint32, start time.Duration) Key {
	return Key{PID: pid, Start: uint64(start / Tick)}
}

// Process is what is remembered of one process.
type Process struct {
	Key     Key
	Parent  Key // who forked it, even after it was adopted by another
	Path    string
	CmdLine string
	User    string
	Started time.Time
}

// Table is the bounded memory of processes.
type Table struct {
	slots  []slot
	index  map[Key]int32
	exited []int32 // ring of slots whose process is gone, oldest at head
	head   int
	count  int
	hand   int // where the search for a victim among the living goes on
	used   int
}

type slot struct {
	Process
	gone bool
}

// New returns an empty table for at most capacity processes, at least one.
func New(capacity int) *Table {
	capacity = max(capacity, 1)
	return &Table{
		slots:  make([]slot, capacity),
		index:  make(map[Key]int32, capacity),
		exited: make([]int32, capacity),
	}
}

// Len returns how many processes are remembered.
func (t *Table) Len() int { return t.used }

// Exec records what a process runs from now on. The parent recorded by an
// earlier fork stays, if there was one. Text is cut, never kept longer.
func (t *Table) Exec(p Process) {
	p.CmdLine = cut(p.CmdLine)
	i, known := t.index[p.Key]
	if !known {
		i = t.take(p.Key)
	} else if parent := t.slots[i].Parent; parent != (Key{}) {
		p.Parent = parent
	}
	t.slots[i].Process = p
}

// Fork records a child, which runs what its parent runs until it executes
// something else. A child that is known already is left alone: the snapshot at
// start may have seen more than the fork event says.
func (t *Table) Fork(child, parent Key, at time.Time) {
	if _, known := t.index[child]; known {
		return
	}
	var p Process
	if i, ok := t.index[parent]; ok {
		p = t.slots[i].Process
	}
	p.Key, p.Parent, p.Started = child, parent, at
	t.slots[t.take(child)].Process = p
}

// Exit records that a process is gone. It stays in the table until its place is
// needed.
func (t *Table) Exit(k Key) {
	i, ok := t.index[k]
	if !ok || t.slots[i].gone {
		return
	}
	t.slots[i].gone = true
	t.exited[(t.head+t.count)%len(t.exited)] = i
	t.count++
}

// Get returns what is known of a process.
func (t *Table) Get(k Key) (Process, bool) {
	i, ok := t.index[k]
	if !ok {
		return Process{}, false
	}
	return t.slots[i].Process, true
}

// Tree returns the process and its ancestors, nearest first, at most depth of
// them. It ends where an ancestor is not known any more.
func (t *Table) Tree(k Key, depth int) []holdfast.Process {
	var tree []holdfast.Process
	for len(tree) < depth {
		i, ok := t.index[k]
		if !ok {
			break
		}
		p := &t.slots[i].Process
		tree = append(tree, holdfast.Process{PID: int(p.Key.PID), Path: p.Path, CmdLine: p.CmdLine, User: p.User, Started: p.Started})
		if p.Parent == k {
			break
		}
		k = p.Parent
	}
	return tree
}

// take returns an empty slot for k, forgetting another process if it must.
func (t *Table) take(k Key) int32 {
	var i int32
	switch {
	case t.used < len(t.slots):
		i = int32(t.used)
		t.used++
	case t.count > 0:
		i = t.exited[t.head]
		t.head = (t.head + 1) % len(t.exited)
		t.count--
		delete(t.index, t.slots[i].Key)
	default: // more living processes than places
		i = int32(t.hand)
		if t.slots[i].Key.PID == 1 { // the root of every tree
			t.hand = (t.hand + 1) % len(t.slots)
			i = int32(t.hand)
		}
		t.hand = (t.hand + 1) % len(t.slots)
		delete(t.index, t.slots[i].Key)
	}
	t.slots[i] = slot{}
	t.index[k] = i
	return i
}

// cut copies a string that is too long, so that the rest of it can be freed.
func cut(s string) string {
	if len(s) <= CmdLineBytes {
		return s
	}
	return strings.Clone(strings.ToValidUTF8(s[:CmdLineBytes], ""))
}
