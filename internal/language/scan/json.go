package scan

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-security/holdfast/internal/language/ocsf"
)

// decodeJSON reads JSON objects: one a line, or written over several lines one
// after the other, or in a list.
func decodeJSON(d *decoding, emit func(*Record) error) error {
	if head, _ := d.in.Peek(3); bytes.Equal(head, []byte("\xef\xbb\xbf")) {
		d.in.Discard(3)
	}
	if !lineByLine(d.in) {
		return decodeJSONStream(d, emit)
	}
	return d.lines(func(n int, line []byte) error {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			return nil
		}
		v, err := decodeValue(json.NewDecoder(bytes.NewReader(line)))
		if err != nil {
			d.bad(n, err)
			return nil
		}
		return emitJSON(v, n, emit)
	})
}

// lineByLine says whether the first line with anything in it is an object of
// its own, or at least starts like one and does not end in what is in view.
func lineByLine(in *bufio.Reader) bool {
	head, _ := in.Peek(in.Size())
	head = bytes.TrimLeft(head, " \t\r\n")
	line, _, whole := bytes.Cut(head, []byte("\n"))
	line = bytes.TrimSpace(line)
	if len(line) < 2 || line[0] != '{' {
		return false
	}
	return !whole || json.Valid(line)
}

func decodeJSONStream(d *decoding, emit func(*Record) error) error {
	lines := &lineCounter{r: d.in}
	dec := json.NewDecoder(lines)
	for {
		// Skip to the next value, to know the line it starts in.
		v, err := decodeValue(dec)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			d.bad(lines.at(dec.InputOffset()), err)
			return nil // nobody knows where the next value starts
		}
		if list, ok := v.([]any); ok {
			for _, el := range list {
				if err := emitJSON(el, lines.last, emit); err != nil {
					return err
				}
			}
		} else if err := emitJSON(v, lines.last, emit); err != nil {
			return err
		}
		lines.last = lines.at(dec.InputOffset()) + 1
	}
}

// lineCounter remembers where lines end in what was read through it.
type lineCounter struct {
	r      io.Reader
	offset int64
	ends   []int64
	last   int
	passed int
}

func (l *lineCounter) Read(b []byte) (int, error) {
	n, err := l.r.Read(b)
	for i, c := range b[:n] {
		if c == '\n' {
			l.ends = append(l.ends, l.offset+int64(i))
		}
	}
	l.offset += int64(n)
	if l.last == 0 {
		l.last = 1
	}
	return n, err
}

// at returns the line an offset is in, and forgets the lines before.
func (l *lineCounter) at(offset int64) int {
	n := 0
	for n < len(l.ends) && l.ends[n] < offset {
		n++
	}
	l.passed += n
	l.ends = l.ends[n:]
	return l.passed + 1
}

func decodeValue(dec *json.Decoder) (any, error) {
	dec.UseNumber()
	var v any
	err := dec.Decode(&v)
	return v, err
}

func emitJSON(v any, line int, emit func(*Record) error) error {
	object, ok := v.(map[string]any)
	if !ok {
		return emit(&Record{Line: line, Message: fmt.Sprint(v)})
	}
	r := &Record{Line: line}
	if !r.windows(object) && !r.journal(object) {
		r.flatten("", object, 0)
		r.recognise(object)
	}
	return emit(r)
}

const (
	mostFields  = 8192 // of one record
	deepestJSON = 64
)

// flatten adds the leaves of a JSON object as fields, their names joined by
// dots; elements of a list have the name of the list.
func (r *Record) flatten(prefix string, v any, depth int) {
	if len(r.Fields) >= mostFields || depth > deepestJSON {
		return
	}
	switch v := v.(type) {
	case map[string]any:
		if prefix != "" {
			prefix += "."
		}
		for _, k := range slices.Sorted(maps.Keys(v)) {
			r.flatten(prefix+k, v[k], depth+1)
		}
	case []any:
		for _, el := range v {
			r.flatten(prefix, el, depth+1)
		}
	default:
		r.add(prefix, scalar(v))
	}
}

// scalar is a JSON leaf as a value.
func scalar(v any) ocsf.Value {
	switch v := v.(type) {
	case string:
		return ocsf.StringValue(v)
	case bool:
		return ocsf.BoolValue(v)
	case json.Number:
		if n, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return ocsf.IntValue(n)
		}
		if f, err := v.Float64(); err == nil {
			return ocsf.FloatValue(f)
		}
		return ocsf.StringValue(v.String())
	}
	return ocsf.Value{Kind: ocsf.Null}
}

// recognise finds out which log source a JSON event is of, by fields that only
// one has.
func (r *Record) recognise(object map[string]any) {
	has := func(names ...string) bool {
		return !slices.ContainsFunc(names, func(n string) bool { return object[n] == nil })
	}
	is := func(product, category, service string) {
		r.Sources = []ocsf.LogSource{{Product: product, Category: category, Service: service}}
	}
	switch {
	case has("class_uid"):
		r.fromOCSF()
	case has("eventSource", "eventName", "awsRegion"):
		is("aws", "", "cloudtrail")
	case has("_path"):
		is("zeek", "", r.get("_path"))
	case strings.HasPrefix(r.get("apiVersion"), "audit.k8s.io/"):
		is("kubernetes", "", "audit")
	case has("Image", "CommandLine"):
		if strings.Contains(r.get("Image"), `\`) {
			r.Sources, _ = ocsf.WindowsKind("Microsoft-Windows-Sysmon/Operational", 1)
		} else {
			is("linux", "process_creation", "sysmon")
		}
	}
	r.Time = r.timeOf("time", "@timestamp", "timestamp", "eventTime", "ts", "UtcTime")
}

// fromOCSF gives an OCSF event, such as our own sensor's, Sigma's names too.
func (r *Record) fromOCSF() {
	class := ocsf.ProcessActivity()
	if r.get("class_uid") != strconv.Itoa(class.UID) {
		return
	}
	category := "process_creation"
	if r.get("activity_id") == strconv.Itoa(ocsf.ActivityTerminate) {
		category = "process_termination"
	}
	r.Sources = []ocsf.LogSource{{Product: "linux", Category: category, Service: "sysmon"}}
	for _, f := range r.Fields {
		if i, ok := class.Ordinal(f.Name); ok {
			for _, name := range class.Fields[i].Names {
				r.add(name, f.Value)
			}
		}
	}
}
