package ocsf

import (
	"strings"
	"testing"
)

// The table is whole: every ordinal has a path of its own, a type, and names
// that no other field has.
func TestProcessActivityIsOneWholeTable(t *testing.T) {
	class := ProcessActivity()
	if len(class.Fields) != ProcessInputs {
		t.Fatalf("%d fields, %d inputs", len(class.Fields), ProcessInputs)
	}
	if processInputs != 20 {
		t.Errorf("the sensor's definition has %d inputs; it supplies 20", processInputs)
	}
	seen := map[string]int{}
	for i, f := range class.Fields {
		if f.Path == "" || !strings.Contains("string int bool time", f.Type) || f.Type == "" {
			t.Errorf("input %d is not described: %+v", i, f)
		}
		for _, name := range append([]string{f.Path}, f.Names...) {
			if first, twice := seen[name]; twice {
				t.Errorf("%s is the name of inputs %d and %d", name, first, i)
			}
			seen[name] = i
			if got, ok := class.Ordinal(name); !ok || got != i {
				t.Errorf("Ordinal(%s) = %d, %v; want %d", name, got, ok, i)
			}
		}
	}
}

func TestAManifestReadBackIsTheClass(t *testing.T) {
	m := Manifest("1.2.3", "linux/amd64")
	classes := FromManifest(m)
	if len(classes) != 1 || len(classes[0].Fields) != ProcessInputs || classes[0].UID != ProcessActivityUID || len(classes[0].Sources) == 0 {
		t.Fatalf("classes %+v", classes)
	}
	for _, name := range []string{"Image", "CommandLine", "ParentUser", "process.cmd_line"} {
		a, _ := ProcessActivity().Ordinal(name)
		if b, ok := classes[0].Ordinal(name); !ok || a != b {
			t.Errorf("%s is at %d here and at %d in the manifest", name, a, b)
		}
	}
}

func TestLogSources(t *testing.T) {
	offered, _ := WindowsKind(sysmonChannel, 13)
	accepts := func(l LogSource) bool {
		for _, o := range offered {
			if l.Accepts(o) {
				return true
			}
		}
		return false
	}
	for want, sources := range map[bool][]LogSource{
		true:  {{Product: "windows"}, {Category: "registry_set"}, {Category: "registry_event", Product: "windows"}, {Service: "sysmon"}, {}},
		false: {{Product: "linux"}, {Category: "process_creation"}, {Service: "security"}, {Category: "registry_set", Product: "linux"}},
	} {
		for _, l := range sources {
			if accepts(l) != want {
				t.Errorf("Sysmon 13 is seen by %s: %v", l, !want)
			}
		}
	}
}

func TestSparseEventsAreEmptyAfterReset(t *testing.T) {
	ev := &Event{Values: make([]Value, 4), Set: []uint16{}}
	ev.Put(2, IntValue(7))
	ev.PutList(3, []Value{StringValue("a"), StringValue("b")})
	if got := strings.Join(ev.Texts(3), "+") + ev.Texts(2)[0]; got != "a+b7" {
		t.Errorf("texts %q", got)
	}
	ev.Reset()
	for i, v := range ev.Values {
		if v.Present() {
			t.Errorf("value %d is still there", i)
		}
	}
}
