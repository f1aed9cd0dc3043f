// Package scan runs rules over files of events: JSON in lines or not, Windows
// events as JSON or EVTX, auditd logs, syslog and journal exports. It is for
// triage, for testing rules, and for measuring the engine.
package scan

import (
	"strings"
	"time"

	"github.com/holdfast-security/holdfast/internal/language/ocsf"
)

// Record is one event of a file, before it is laid out for the engine.
type Record struct {
	Line    int              // where it starts, from 1; of binary files its number
	Sources []ocsf.LogSource // what it answers to; nil if the file does not say
	Fields  []Field
	Message string // as one log line; if empty, the values are joined
	Time    time.Time
}

// Field is one named value. A list is written as several fields of one name.
type Field struct {
	Name  string
	Value ocsf.Value
}

func (r *Record) add(name string, v ocsf.Value) { r.Fields = append(r.Fields, Field{name, v}) }

// get returns the text of the first field of a name, or "".
func (r *Record) get(name string) string {
	for _, f := range r.Fields {
		if f.Name == name {
			return f.Value.Text()
		}
	}
	return ""
}

// text returns the message, or else what a keyword should see: the values.
func (r *Record) text() string {
	if r.Message != "" {
		return r.Message
	}
	var b strings.Builder
	for i, f := range r.Fields {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(f.Value.Text())
	}
	return b.String()
}
