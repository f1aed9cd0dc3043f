package drill

import (
	"os"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
)

// What a guard wrote while it tried content, lost the worker, tried a placebo,
// tried the content again, lost the worker after probation, and gave it back: as holdfast-guard writes it.
const written = `time=2026-11-21T21:00:22.551448894Z level=INFO msg=guard event=proposed slot=current digest=2938da462939 running="rules=50e12105c528" safe=false trial="rules=2938da462939" probation=false
time=2026-11-21T21:00:22.558453493Z level=INFO msg=started slot=trial pid=26052 generation="rules=2938da462939" safe=false
time=2026-11-21T21:00:22.723445234Z level=INFO msg=guard event=ready slot=trial running="rules=2938da462939" safe=false trial="rules=2938da462939" probation=true
panic: runtime error: index out of range [20] with length 20
time=2026-11-21T21:00:22.759671145Z level=INFO msg=guard event=exited slot=trial detail="exit status 2" running="rules=50e12105c528" safe=false shunned=2938da462939
time=2026-11-21T21:00:22.992816923Z level=INFO msg=guard event=ready slot=current running="rules=50e12105c528" safe=false
time=2026-11-21T21:00:31.546724775Z level=INFO msg=guard event=ready slot=trial running="rules=50e12105c528" safe=false trial="rules=50e12105c528" probation=true
time=2026-11-21T21:01:31.613481289Z level=INFO msg=guard event=ticked running="rules=50e12105c528" safe=false
time=2026-11-21T21:02:31.546724775Z level=INFO msg=guard event=ready slot=trial running="rules=2938da462939" safe=false trial="rules=2938da462939" probation=true
time=2026-11-21T21:02:34.613481289Z level=INFO msg=guard event=ticked running="rules=2938da462939" safe=false
time=2026-11-21T21:02:38.759671145Z level=INFO msg=guard event=exited slot=current detail="exit status 2" running="rules=2938da462939" safe=false
time=2026-11-21T21:02:39.759671145Z level=INFO msg=guard event=recalled running="rules=50e12105c528" safe=false shunned=2938da462939
time=2026-11-21T21:02:40.759671145Z level=INFO msg=guard event=exited slot=current detail="exit status 2" running="rules=50e12105c528" safe=false shunned=2938da462939
`

func TestAGuardsLogIsRead(t *testing.T) {
	file := t.TempDir() + "/guard.log"
	if err := os.WriteFile(file, []byte(written), 0o600); err != nil {
		t.Fatal(err)
	}
	l := guardLog{file}
	lethal := holdfast.Digest("sha256:2938da4629390000000000000000000000000000000000000000000000000000")
	if n := l.tried(lethal); n != 2 {
		t.Errorf("tried %d times", n)
	}
	if at := l.left(lethal); at.Second() != 39 {
		t.Errorf("left at %v", at)
	}
	if at := l.struck(lethal); len(at) != 2 || at[0].Second() != 22 || at[1].Second() != 38 {
		t.Errorf("struck at %v", at)
	}
	if n := l.count("ready", "current"); n != 1 {
		t.Errorf("ready %d times", n)
	}
	if r := l.recoveries(); len(r) != 1 || r[0].Round(time.Millisecond) != 233*time.Millisecond {
		t.Errorf("recoveries %v", r)
	}
}
