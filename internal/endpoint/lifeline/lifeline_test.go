package lifeline

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/holdfast-security/holdfast"
)

var digest = holdfast.DigestOf([]byte("content"))

func reports() []Report {
	return []Report{
		{Kind: Ready},
		{Kind: Beat, Evaluated: 1 << 60},
		{Kind: Beat, Evaluated: 7, Contact: NoContact},
		{Kind: Beat, Evaluated: 7, Contact: HadContact},
		{Kind: Propose, ID: "lease-1", Channel: holdfast.Rules, Digest: digest},
		{Kind: Propose, ID: "lease-1", Channel: "config/otelcol", Digest: digest},
		{Kind: Reactivate, ID: "lease-2"},
		{Kind: Recall, Digest: digest},
		{Kind: Retry, Digest: digest},
		{Kind: Final, Digest: digest},
	}
}

func TestEveryReportArrivesAsItWasSent(t *testing.T) {
	var wire bytes.Buffer
	for _, m := range reports() {
		if err := WriteReport(&wire, m); err != nil {
			t.Fatal(err)
		}
	}
	r := NewReader(&wire)
	for _, want := range reports() {
		got, err := r.Report()
		if err != nil || got != want {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
	}
	if _, err := r.Report(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func TestABadLineCostsThatLineAlone(t *testing.T) {
	good := `{"kind":"beat","evaluated":7}` + "\n"
	for _, bad := range []string{
		"", "null", "[]", "{", `{"kind":"shutdown"}`, `{"kind":"beat","evaluated":-1}`, `{"kind":"beat","evaluated":"7"}`, `{"kind":"beat","contact":"perhaps"}`, `{"kind":"beat","contact":true}`,
		`{"kind":"propose","id":"x","channel":"../etc","digest":"` + string(digest) + `"}`,
		`{"kind":"propose","id":"x","channel":"/etc","digest":"` + string(digest) + `"}`,
		`{"kind":"propose","id":"a b","channel":"rules","digest":"` + string(digest) + `"}`,
		`{"kind":"propose","id":"x","channel":"rules","digest":"sha256:../../x"}`,
		`{"kind":"recall"}`, `{"kind":"reactivate","id":"` + strings.Repeat("x", MaxID+1) + `"}`,
		strings.Repeat("x", MaxLine), strings.Repeat("x", 3*MaxLine+1), "\x00\xff",
	} {
		r := NewReader(strings.NewReader(bad + "\n" + good))
		if _, err := r.Report(); holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%.60q: %v, want an error of kind invalid", bad, err)
		}
		if m, err := r.Report(); err != nil || m.Evaluated != 7 {
			t.Errorf("%.60q: the next line gave %+v, %v", bad, m, err)
		}
	}
}

func TestAnEndlessLineEndsTheConversation(t *testing.T) {
	r := NewReader(endless{})
	if _, err := r.Report(); !errors.Is(err, ErrBroken) {
		t.Fatal(err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

func TestAStatusAlwaysFitsALine(t *testing.T) {
	s := Status{Boot: strings.Repeat("b", MaxID), Reason: strings.Repeat("<é>", 400), Activation: strings.Repeat("a", MaxID)}
	for i := range 500 {
		s.Shunned = append(s.Shunned, holdfast.DigestOf([]byte{byte(i), byte(i >> 8)}))
	}
	g := holdfast.Generation{}
	for _, c := range []holdfast.Channel{"rules", "agent", "policy", "indicators"} {
		g[c] = digest
	}
	s.Running, s.Previous, s.Attempted, s.Failed = g, g, g, g
	s.Owed = &Owed{ID: strings.Repeat("a", MaxID), Channel: holdfast.Channel(strings.Repeat("c", MaxChannel)), Digest: digest}
	var wire bytes.Buffer
	if err := WriteOrder(&wire, Order{Kind: Tell, Status: &s}); err != nil {
		t.Fatal(err)
	}
	if wire.Len() > MaxLine {
		t.Errorf("a line of %d bytes", wire.Len())
	}
	o, err := NewReader(&wire).Order()
	if err != nil {
		t.Fatal(err)
	}
	n := len(o.Status.Shunned)
	if n == 0 || n+o.Status.ShunnedMore != 500 || !cmp.Equal(o.Status.Shunned, s.Shunned[:n]) {
		t.Errorf("%d shunned and %d more, want the newest of 500", n, o.Status.ShunnedMore)
	}
	if len(s.Shunned) != 500 {
		t.Error("the status itself was cut")
	}
}

func TestAWorkerByHandHasNoGuard(t *testing.T) {
	t.Setenv(Env, "")
	os.Unsetenv(Env)
	k, err := Open()
	if err != nil || k.Guarded() {
		t.Fatalf("%v, guarded %v", err, k.Guarded())
	}
	k.Beat(1)
	if err := k.Ready(); !errors.Is(err, ErrNoGuard) {
		t.Errorf("Ready: %v", err)
	}
	select {
	case m := <-k.Messages():
		t.Errorf("an order from nobody: %+v", m)
	default:
	}
}

func TestAWorkerThatIsNotReadDoesNotWait(t *testing.T) {
	_, out := io.Pipe() // nobody reads: every write blocks
	in, _ := io.Pipe()
	k := NewWorker(in, out)
	if n := testing.AllocsPerRun(1000, func() { k.Beat(1) }); n != 0 {
		t.Errorf("%v allocations a beat", n)
	}
}

func TestWorkerAndGuardTalk(t *testing.T) {
	toGuard, fromWorker := io.Pipe()
	toWorker, fromGuard := io.Pipe()
	k := NewWorker(toWorker, fromWorker)
	go func() {
		_ = WriteOrder(fromGuard, Order{Kind: Answer, ID: "x", Accepted: true})
		fromGuard.Close()
	}()
	if m := <-k.Messages(); m.Kind != Answer || !m.Accepted {
		t.Errorf("%+v", m)
	}
	if _, open := <-k.Messages(); open {
		t.Error("the guard is gone and the channel is open")
	}
	guard := NewReader(toGuard)
	go k.Beat(42)
	m, err := guard.Report()
	if err != nil || m.Kind != Beat || m.Evaluated != 42 || m.Contact != NoContact {
		t.Errorf("%+v, %v", m, err)
	}
	k.Contact()
	go k.Beat(43)
	m, err = guard.Report()
	if err != nil || m.Evaluated != 43 || m.Contact != HadContact {
		t.Errorf("%+v, %v", m, err)
	}
}

func FuzzReport(f *testing.F) {
	for _, m := range reports() {
		var b bytes.Buffer
		_ = WriteReport(&b, m)
		f.Add(b.Bytes())
	}
	f.Add([]byte("{}\n\n[[[[\n"))
	f.Add(bytes.Repeat([]byte("x"), MaxLine+10))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := NewReader(bytes.NewReader(data))
		for range len(data) + 1 {
			m, err := r.Report()
			switch {
			case err == nil:
				var b bytes.Buffer
				if err := WriteReport(&b, m); err != nil {
					t.Fatalf("read but not writable: %+v: %v", m, err)
				}
				if again, err := NewReader(&b).Report(); err != nil || again != m {
					t.Fatalf("%+v became %+v, %v", m, again, err)
				}
			case holdfast.KindOf(err) != holdfast.Invalid:
				return
			}
		}
		t.Fatal("more messages than bytes")
	})
}

func FuzzOrder(f *testing.F) {
	for _, m := range []Order{{Kind: Drain}, {Kind: Answer, ID: "x", Reason: "no"}, {Kind: Tell, Status: &Status{Boot: "b", Running: holdfast.Generation{"rules": digest}}}} {
		var b bytes.Buffer
		_ = WriteOrder(&b, m)
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := NewReader(bytes.NewReader(data))
		for range len(data) + 1 {
			m, err := r.Order()
			if err != nil {
				if holdfast.KindOf(err) != holdfast.Invalid {
					return
				}
				continue
			}
			if _, err := json.Marshal(m); err != nil {
				t.Fatal(err)
			}
		}
	})
}
