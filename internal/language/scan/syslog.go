package scan

import (
	"encoding/binary"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast/internal/language/ocsf"
)

// syslogLine is RFC 3164 as files have it ("Nov 21 18:40:06 host app[1]: text"),
// with a time stamp of RFC 3339 as rsyslog and newer systems write it, or with
// the priority and version of RFC 5424 before it.
var syslogLine = regexp.MustCompile(`^(?:<\d{1,3}>\d? ?)?([A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\d[T ]\S+) (\S+) ([^\s:\[]+)(?:\[(\d+)\])?(?::| \S+ \S+ \S+)? ?(.*)$`)

// decodeSyslog reads a text log, each line a message for keywords.
func decodeSyslog(d *decoding, emit func(*Record) error) error {
	return d.lines(func(n int, line []byte) error {
		if len(line) == 0 {
			return nil
		}
		r := &Record{Line: n, Message: string(line)}
		app := ""
		if m := syslogLine.FindStringSubmatch(r.Message); m != nil {
			app = m[3]
			r.add("hostname", ocsf.StringValue(m[2]))
			r.add("program", ocsf.StringValue(app))
			if m[4] != "" {
				r.add("pid", windowsScalar(m[4]))
			}
			r.add("message", ocsf.StringValue(m[5]))
			if r.Time = parseTime(m[1]); r.Time.IsZero() {
				// The year is not in the line; any is right for windows of time.
				if t, err := time.Parse("2006 Jan _2 15:04:05", "1970 "+m[1]); err == nil {
					r.Time = t
				}
			}
		}
		r.Sources = ocsf.SyslogKind(syslogService(app))
		return emit(r)
	})
}

// syslogService maps the program of a line to Sigma's service.
func syslogService(app string) string {
	app = strings.ToLower(app)
	switch {
	case strings.HasPrefix(app, "sshd"):
		return "sshd"
	case app == "sudo":
		return "sudo"
	case strings.HasPrefix(app, "cron") || app == "anacron":
		return "cron"
	case strings.HasPrefix(app, "clam") || strings.HasPrefix(app, "freshclam"):
		return "clamav"
	case strings.HasPrefix(app, "vsftpd"):
		return "vsftpd"
	case strings.HasPrefix(app, "guacd"), strings.HasPrefix(app, "guacamole"):
		return "guacamole"
	case app == "su", app == "login", app == "systemd-logind", app == "useradd", app == "usermod", app == "groupadd", app == "passwd", app == "pkexec", app == "polkitd":
		return "auth"
	}
	return "syslog"
}

// decodeJournal reads "journalctl -o export": fields a line each, entries apart
// by an empty line; values with line breaks have their length before them.
// https://systemd.io/JOURNAL_EXPORT_FORMATS/
func decodeJournal(d *decoding, emit func(*Record) error) error {
	r := &Record{Line: 1}
	flush := func(next int) error {
		var err error
		if len(r.Fields) > 0 {
			r.fromJournal()
			err = emit(r)
		}
		r = &Record{Line: next}
		return err
	}
	for n := 1; ; n++ {
		line, err := d.in.ReadString('\n')
		if err != nil && line == "" {
			if err == io.EOF {
				return flush(n)
			}
			return err
		}
		line = strings.TrimRight(line, "\n")
		switch key, value, ok := strings.Cut(line, "="); {
		case line == "":
			if err := flush(n + 1); err != nil {
				return err
			}
		case ok:
			r.add(key, windowsScalar(value))
		default:
			var size [8]byte
			if _, err := io.ReadFull(d.in, size[:]); err != nil {
				return err
			}
			length := binary.LittleEndian.Uint64(size[:])
			if length > longestLine {
				d.bad(n, fmt.Errorf("the field %.40q is longer than 16 MiB", line))
				return flush(n)
			}
			b := make([]byte, length+1)
			if _, err := io.ReadFull(d.in, b); err != nil {
				return err
			}
			n += strings.Count(string(b), "\n")
			r.add(line, ocsf.StringValue(string(b[:length])))
		}
	}
}

// journal reads an entry of "journalctl -o json". It reports whether it is one.
func (r *Record) journal(object map[string]any) bool {
	if object["__REALTIME_TIMESTAMP"] == nil || object["MESSAGE"] == nil {
		return false
	}
	r.flatten("", object, 0)
	r.fromJournal()
	return true
}

// fromJournal names the log source of a journal entry.
func (r *Record) fromJournal() {
	r.Message = r.get("MESSAGE")
	app := r.get("SYSLOG_IDENTIFIER")
	if app == "" {
		app = r.get("_COMM")
	}
	if r.get("_TRANSPORT") == "audit" {
		r.Sources = []ocsf.LogSource{{Product: "linux", Service: "auditd"}}
	} else {
		r.Sources = ocsf.SyslogKind(syslogService(app))
	}
	if us, err := strconv.ParseInt(r.get("__REALTIME_TIMESTAMP"), 10, 64); err == nil {
		r.Time = time.UnixMicro(us).UTC()
	}
	r.add("program", ocsf.StringValue(app))
	r.add("message", ocsf.StringValue(r.Message))
}
