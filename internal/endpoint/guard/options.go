package guard

import (
	"log/slog"
	"os"
	"time"

	"github.com/holdfast-security/holdfast"
)

// Options is what a guard needs. All durations, Memory and CPU must be set.
type Options struct {
	// State is the directory of the host's state: guard/state.json and
	// content/<hex> stand below it.
	State string
	// Worker is the packaged worker. It runs where a generation has no agent
	// channel, and in safe mode.
	Worker string
	// Config is passed to the worker, unread.
	Config string
	Policy Policy

	Stall  time.Duration // a worker whose evaluation loop stands still for this long is killed
	Start  time.Duration // a worker that is not ready after this long is killed
	Drain  time.Duration // a worker that has not finished this long after it was asked to is killed
	Memory uint64        // bytes resident that a worker may have
	CPU    uint64        // thousandths of a core that a worker may use
	CPUFor time.Duration // … on average over this long

	// Cgroup is where workers get control groups of their own: "auto" is below
	// the guard's own, "" is nowhere. Where there is none to be had, limits are
	// kept by watching alone.
	Cgroup string
	// BootID is a file that holds the kernel's boot id.
	BootID string
	Log    *slog.Logger
	// Output receives what workers write to standard output and error.
	Output *os.File
}

// Default returns what hosts run in production. State, Worker, Config, Log and
// Output remain to be set.
func Default() Options {
	return Options{
		Policy: DefaultPolicy,
		Stall:  700 * time.Millisecond,
		Start:  20 * time.Second,
		Drain:  5 * time.Second,
		Memory: 512 << 20,
		CPU:    1000,
		CPUFor: 30 * time.Second,
		Cgroup: "auto",
		BootID: "/proc/sys/kernel/random/boot_id",
	}
}

func (o Options) check() error {
	bad := func(what, where, do string) error {
		return &holdfast.Error{Kind: holdfast.Invalid, What: what, Where: where, Do: do}
	}
	switch {
	case o.State == "" || o.Worker == "" || o.Config == "":
		return bad("a guard needs a state directory, a packaged worker and its configuration", "--state, --worker, --config", "give all three")
	case o.Policy.Probation <= 0 || o.Policy.Loop < 2 || o.Policy.LoopWindow <= 0:
		return bad("probation would end before it begins", "--probation", "give a duration above zero")
	case o.Stall < 300*time.Millisecond:
		return bad("a stall this short cannot be told from a busy host", "--stall", "give 300ms or more")
	case o.Start <= 0 || o.Drain <= 0 || o.CPUFor < time.Second:
		return bad("a limit of no time", "--start, --drain, --cpu-for", "give a second or more")
	case o.Memory < 16<<20 || o.CPU < 10:
		return bad("no worker can run with so little", "--memory-max, --cpu-max", "give at least 16 MiB and 10 thousandths of a core")
	}
	return nil
}
