package scan

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast/internal/language/ocsf"
)

// decodeAudit reads the Linux audit log: one record a line. Rules for auditd
// speak of single records (type: EXECVE with a0, a1, …); a SYSCALL record with
// its EXECVE, CWD and PROCTITLE also makes one process_creation event, so that
// rules for process creation see audit logs too.
func decodeAudit(d *decoding, emit func(*Record) error) error {
	var joined auditEvent
	err := d.lines(func(n int, line []byte) error {
		if len(strings.TrimSpace(string(line))) == 0 {
			return nil
		}
		r, id, err := parseAudit(string(line))
		if err != nil {
			d.bad(n, err)
			return nil
		}
		r.Line = n
		if id != joined.id {
			if err := joined.flush(emit); err != nil {
				return err
			}
			joined = auditEvent{id: id}
		}
		joined.add(r)
		return emit(r)
	})
	if err != nil {
		return err
	}
	return joined.flush(emit)
}

// parseAudit reads one record and returns its event's id too.
func parseAudit(line string) (*Record, string, error) {
	r := &Record{Sources: []ocsf.LogSource{{Product: "linux", Service: "auditd"}}, Message: line}
	rest := line
	id := ""
	// auditd separates fields it translated for people (ENRICHED) by \x1d.
	rest = strings.ReplaceAll(rest, "\x1d", " ")
	for rest = strings.TrimLeft(rest, " "); rest != ""; rest = strings.TrimLeft(rest, " ") {
		key, after, ok := strings.Cut(rest, "=")
		if !ok || len(r.Fields) >= mostFields {
			break
		}
		if i := strings.LastIndexByte(key, ' '); i >= 0 {
			key = key[i+1:]
		}
		var value string
		quoted := false
		switch {
		case strings.HasPrefix(after, "audit("):
			end := strings.IndexByte(after, ')')
			if end < 0 {
				return nil, "", fmt.Errorf("the audit record has no end of its time stamp")
			}
			id = after[len("audit("):end]
			stamp, _, _ := strings.Cut(id, ":")
			if s, err := strconv.ParseFloat(stamp, 64); err == nil && s > 0 && s < 1e11 {
				r.Time = time.UnixMilli(int64(s * 1000)).UTC()
			}
			rest = strings.TrimLeft(after[end+1:], ": ")
			continue
		case strings.HasPrefix(after, `"`):
			value, rest, _ = strings.Cut(after[1:], `"`)
			quoted = true
		case strings.HasPrefix(after, "'"):
			// msg='op=… ' of user-space records: its fields are fields too.
			inner, tail, _ := strings.Cut(after[1:], "'")
			rest = inner + " " + tail
			continue
		default:
			value, rest, _ = strings.Cut(after, " ")
		}
		if !quoted && unhexed(key) {
			if b, err := hex.DecodeString(value); err == nil && len(value) > 0 {
				value = strings.TrimRight(strings.ReplaceAll(string(b), "\x00", " "), " ")
			}
		}
		r.add(key, windowsScalar(value))
	}
	if id == "" {
		return nil, "", fmt.Errorf("this is not an audit record: msg=audit(…) is missing")
	}
	return r, id, nil
}

// unhexed says whether auditd writes a field in hexadecimal when it has blanks
// or other special characters.
func unhexed(key string) bool {
	switch key {
	case "proctitle", "name", "cwd", "exe", "comm", "cmd", "data", "path", "acct", "key":
		return true
	}
	return len(key) >= 2 && key[0] == 'a' && strings.Trim(key[1:], "0123456789") == ""
}

// auditEvent collects the records of one event id.
type auditEvent struct {
	id      string
	syscall *Record
	argv    []string
	cwd     string
}

func (a *auditEvent) add(r *Record) {
	switch r.get("type") {
	case "SYSCALL":
		a.syscall = r
	case "EXECVE":
		for i := range 1024 {
			arg := r.get("a" + strconv.Itoa(i))
			if arg == "" && i >= 1 && !hasField(r, "a"+strconv.Itoa(i)) {
				break
			}
			a.argv = append(a.argv, arg)
		}
	case "CWD":
		a.cwd = r.get("cwd")
	}
}

func hasField(r *Record, name string) bool {
	for _, f := range r.Fields {
		if f.Name == name {
			return true
		}
	}
	return false
}

// flush emits the process creation that the records stand for, if they do.
func (a *auditEvent) flush(emit func(*Record) error) error {
	if a.syscall == nil || a.argv == nil {
		return nil
	}
	s := a.syscall
	r := &Record{Line: s.Line, Time: s.Time, Sources: []ocsf.LogSource{{Product: "linux", Category: "process_creation", Service: "sysmon"}}}
	r.add("Image", ocsf.StringValue(s.get("exe")))
	r.add("CommandLine", ocsf.StringValue(strings.Join(a.argv, " ")))
	r.add("CurrentDirectory", ocsf.StringValue(a.cwd))
	for from, to := range map[string]string{"pid": "ProcessId", "ppid": "ParentProcessId", "uid": "LogonId", "UID": "User", "tty": "TerminalSessionId"} {
		if v := s.get(from); v != "" {
			r.add(to, windowsScalar(v))
		}
	}
	a.syscall = nil
	return emit(r)
}
