package worker

import (
	"fmt"
	"time"

	"github.com/holdfast-security/holdfast/internal/endpoint/sensor"
	"github.com/holdfast-security/holdfast/internal/language/detect"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
)

// selfTest runs events of our own through an engine. It has an evaluator to
// itself, so that what it evaluates counts in no correlation, and makes no
// findings.
type selfTest struct {
	evaluator *detect.Evaluator
	events    []ocsf.Event
	at        int
}

// selfTestTexts are what the events say: ordinary, empty, long, and not text.
var selfTestTexts = []string{
	"/usr/lib/holdfast/self-test",
	"/bin/sh -c true",
	"",
	"sélf-tëst ünïcode \u202e\x00",
	"\xff\xfe not UTF-8 \xc3",
	string(make([]byte, 4096)),
}

func newSelfTest(engine *detect.Engine) *selfTest {
	t := &selfTest{evaluator: engine.NewEvaluator()}
	class := ocsf.ProcessActivity()
	for n, text := range selfTestTexts {
		values := make([]ocsf.Value, sensor.Supplied()[class.UID])
		for i := range values {
			switch class.Fields[i].Type {
			case "int":
				values[i] = ocsf.IntValue(int64(n))
			case "time":
				values[i] = ocsf.TimeValue(time.Unix(int64(n), 0))
			default:
				values[i] = ocsf.StringValue(fmt.Sprint(text, n))
			}
		}
		values[ocsf.ActivityID] = ocsf.IntValue(ocsf.ActivityLaunch)
		t.events = append(t.events, ocsf.Event{Class: class.UID, Values: values, Time: time.Unix(int64(n), 0)})
	}
	return t
}

// run evaluates n events.
func (t *selfTest) run(n int) {
	for range n {
		t.evaluator.Evaluate(&t.events[t.at], func(*detect.Match) {})
		t.at = (t.at + 1) % len(t.events)
	}
}
