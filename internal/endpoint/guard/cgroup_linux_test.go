package guard

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/lifeline"
)

func TestWorkersStandInControlGroupsOfTheirOwn(t *testing.T) {
	h := newHost(t)
	h.options.Cgroup = "auto"
	h.options.CPU = 4000
	h.on(true)
	first := h.untilTold("ready", 0)
	if strings.Contains(h.log.String(), "no control groups") {
		t.Skipf("this machine gives no control groups to make groups in:\n%s", h.log)
	}
	// It is moved there after it has started.
	stands := func() bool {
		own, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", first.pid))
		return strings.Contains(string(own), "holdfast-")
	}
	for end := time.Now().Add(patience); !stands(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the worker stands in no group of its own")
		}
	}
	h.release(holdfast.Rules, h.content("good"))
	h.off()
	var g groups
	if err := g.find(); err != nil {
		t.Fatal(err)
	}
	name := "holdfast-" + holdfast.DigestOf([]byte(h.dir)).Short()
	for _, dir := range []string{g.memory, g.cpu} {
		if left, _ := filepath.Glob(filepath.Join(dir, name+"*")); len(left) > 0 && dir != "" && !g.v2 {
			t.Errorf("left behind: %v", left)
		}
	}
}

// A leak too fast for the guard's eye is ended by the kernel, and counts as what
// it is.
func TestAnOverrunSeenByTheKernelAlone(t *testing.T) {
	h := newHost(t)
	h.options.Cgroup = "auto"
	h.options.CPU = 4000
	h.options.Memory = 96 << 20
	h.options.Stall = 10 * time.Second // the memory goes first
	h.options.Policy.Probation = time.Minute
	h.on(true)
	h.untilTold("ready", 0)
	if strings.Contains(h.log.String(), "no control groups") {
		t.Skipf("this machine gives no control groups to make groups in:\n%s", h.log)
	}
	bad := h.content("leap")
	h.propose(holdfast.Rules, bad)
	h.until("reverted", func(s lifeline.Status) bool { return s.Failed[holdfast.Rules] == bad })
	if log := h.log.String(); !strings.Contains(log, "event=overran") {
		t.Errorf("not seen as an overrun")
	}
}
