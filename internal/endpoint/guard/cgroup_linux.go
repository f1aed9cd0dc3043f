package guard

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast"
)

// groups makes a control group for each worker, where this host lets it: of
// version 2 if it has a memory controller there, else of version 1. They are the
// backstop; what the guard watches for itself needs none.
type groups struct {
	memory, cpu string // directories to make groups in; "" if there is none
	v2          bool
	name        string
	limit       uint64 // bytes
	milli       uint64 // thousandths of a core
}

// group is one worker's.
type group struct {
	dirs []string
	ooms uint64 // kernel kills for want of memory before the worker entered
}

func newGroups(o Options) *groups {
	g := &groups{limit: o.Memory, milli: o.CPU}
	if o.Cgroup == "" {
		return g
	}
	abs, _ := filepath.Abs(o.State)
	g.name = "holdfast-" + holdfast.DigestOf([]byte(abs)).Short()
	var err error
	if o.Cgroup == "auto" {
		err = g.find()
	} else {
		g.memory, g.cpu, g.v2 = o.Cgroup, o.Cgroup, true
	}
	if err == nil {
		g.sweep()
		err = g.try()
	}
	if err != nil {
		o.Log.Info("no control groups: limits are kept by watching alone", "why", err)
		g.memory, g.cpu = "", ""
	}
	return g
}

// find looks for the guard's own groups (see cgroups(7)).
func (g *groups) find() error {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(own)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		switch path := filepath.Join("/", f[2]); {
		case f[0] == "0" && has("/sys/fs/cgroup/cgroup.controllers"):
			return g.delegate(filepath.Join("/sys/fs/cgroup", path))
		case contains(f[1], "memory"):
			g.memory = filepath.Join("/sys/fs/cgroup/memory", path)
		case contains(f[1], "cpu"):
			g.cpu = filepath.Join("/sys/fs/cgroup/cpu", path)
		}
	}
	return nil
}

// delegate prepares a version 2 group for groups below it: processes stand in
// leaves only, so the guard moves into one.
func (g *groups) delegate(own string) error {
	leaf := filepath.Join(own, g.name+"-guard")
	if err := os.Mkdir(leaf, 0o755); err != nil && !os.IsExist(err) {
		return err
	}
	if err := write(leaf, "cgroup.procs", strconv.Itoa(os.Getpid())); err != nil {
		return err
	}
	if err := write(own, "cgroup.subtree_control", "+memory +cpu"); err != nil {
		_ = write(own, "cgroup.procs", strconv.Itoa(os.Getpid()))
		_ = os.Remove(leaf)
		return err
	}
	g.memory, g.cpu, g.v2 = own, own, true
	return nil
}

// sweep removes groups of this host's workers, and counts those that are still
// in use.
func (g *groups) sweep() (left int) {
	for _, dir := range []string{g.memory, g.cpu} {
		if dir == "" {
			continue
		}
		old, _ := filepath.Glob(filepath.Join(dir, g.name+"-worker-*"))
		for _, d := range old {
			if os.Remove(d) != nil {
				left++
			}
		}
	}
	return left
}

func (g *groups) try() error {
	one, err := g.make("0")
	for _, d := range one.dirs {
		_ = os.Remove(d)
	}
	return err
}

func (g *groups) make(name string) (group, error) {
	var out group
	sub := func(parent string) (string, error) {
		d := filepath.Join(parent, g.name+"-worker-"+name)
		if err := os.Mkdir(d, 0o755); err != nil && !os.IsExist(err) {
			return "", err
		}
		out.dirs = append(out.dirs, d)
		return d, nil
	}
	if g.memory != "" {
		d, err := sub(g.memory)
		if err != nil {
			return out, err
		}
		limit := strconv.FormatUint(g.limit, 10)
		if g.v2 {
			err = write(d, "memory.max", limit)
			_ = write(d, "memory.swap.max", "0")
		} else {
			err = write(d, "memory.limit_in_bytes", limit)
		}
		if err != nil {
			return out, err
		}
	}
	const period = 100_000 // µs
	quota := strconv.FormatUint(g.milli*period/1000, 10)
	switch {
	case g.v2:
		return out, write(out.dirs[0], "cpu.max", fmt.Sprintf("%s %d", quota, period))
	case g.cpu != "":
		d, err := sub(g.cpu)
		if err == nil {
			err = write(d, "cpu.cfs_quota_us", quota)
		}
		return out, err
	}
	return out, nil
}

// prepare makes the group of the run-th worker. Without it the worker runs all
// the same.
func (g *groups) prepare(run uint64) group {
	if g.memory == "" && g.cpu == "" {
		return group{}
	}
	one, err := g.make(strconv.FormatUint(run, 10))
	if err != nil {
		slog.Debug("control group", "err", err)
	}
	return one
}

func (one group) enter(pid int) {
	for _, d := range one.dirs {
		_ = write(d, "cgroup.procs", strconv.Itoa(pid))
	}
}

// outOfMemory reports whether the kernel has killed in the worker's group for
// want of memory.
func (g *groups) outOfMemory(p *process) bool { return p.group.ooms > 0 }

// release removes the group of a worker that is gone.
func (g *groups) release(p *process) {
	for _, d := range p.group.dirs {
		for _, name := range []string{"memory.events", "memory.oom_control"} {
			data, _ := os.ReadFile(filepath.Join(d, name))
			for line := range bytes.Lines(data) {
				if n, ok := bytes.CutPrefix(line, []byte("oom_kill ")); ok {
					p.group.ooms, _ = strconv.ParseUint(string(bytes.TrimSpace(n)), 10, 64)
				}
			}
		}
		_ = os.Remove(d)
	}
}

// close removes what is left. The kernel takes a moment to see that a group is
// empty.
func (g *groups) close() {
	for range 10 {
		if g.sweep() == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func write(dir, file, value string) error {
	return os.WriteFile(filepath.Join(dir, file), []byte(value), 0)
}

func has(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func contains(list, one string) bool {
	for x := range strings.SplitSeq(list, ",") {
		if x == one {
			return true
		}
	}
	return false
}
