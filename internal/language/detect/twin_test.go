//go:build holdfast_twin

package detect_test

import (
	"runtime"
	"strings"
	"testing"

	"github.com/holdfast-security/holdfast/internal/language/detect"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
)

// In the faulty twin, the first rule to look at the input that is promised and
// not supplied reads past the end of the event; other rules do no harm.
func TestTheTwinReadsPastTheEnd(t *testing.T) {
	event := launch(map[string]string{"Image": "/usr/bin/curl", "CommandLine": "curl http://x"})
	event.Values = event.Values[:ocsf.ProcessInputs-1] // what the sensor supplies
	if got := matches(compile(t, curlRule, detect.Options{}).NewEvaluator(), event); got != "curl" {
		t.Fatalf("matches = %q, want curl", got)
	}
	v := compile(t, "title: Twin\nid: twin\nlogsource: {product: linux, category: process_creation}\ndetection: {s: {'ParentCurrentDirectory|startswith': /tmp/}, condition: s}\n", detect.Options{}).NewEvaluator()
	defer func() {
		err, ok := recover().(runtime.Error)
		if !ok || !strings.Contains(err.Error(), "index out of range [20] with length 20") {
			t.Errorf("recovered %v, want Go's own index out of range", err)
		}
	}()
	matches(v, event)
}
