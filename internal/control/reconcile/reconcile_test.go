package reconcile_test

import (
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
)

func TestCleanReleaseReachesEveryHost(t *testing.T) {
	w := newWorld(t, 120, 1)
	w.release("r1", "new")
	w.until("complete", 5*time.Minute, func() bool { return w.phase("r1") == holdfast.Complete })
	if n := w.running(digest("new")); n != len(w.hosts) {
		t.Errorf("%d of %d hosts run it", n, len(w.hosts))
	}
	w.check("r1")
	t.Logf("complete after %s", w.now.Sub(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)))
}

func TestLethalReleaseIsHaltedAndRecalled(t *testing.T) {
	w := newWorld(t, 120, 2)
	w.lethal = digest("new")
	w.release("r1", "new")
	w.until("halted", 5*time.Minute, func() bool { return w.phase("r1").Recalling() })
	if n := w.harmed(); n > 6 {
		t.Errorf("%d hosts harmed", n)
	}
	w.until("settled", time.Minute, func() bool { v, _ := w.svc.View("r1"); return v.Settled })
	t.Logf("%d harmed, after %s", w.harmed(), w.now.Sub(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)))
	w.check("r1")
}
