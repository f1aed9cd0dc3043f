package detect

import (
	"math"
	"time"

	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// datePart takes a part out of a date, as it is written: the specification
// knows no time zones. Values of kind Time are in UTC; integers are OCSF
// timestamps, milliseconds since 1970; text is ISO 8601, with "T" or a blank.
func datePart(part sigma.TimePart, v ocsf.Value) (int, bool) {
	var year, month, day, hour, minute int
	switch v.Kind {
	case ocsf.Time, ocsf.Int:
		ns := v.Num
		if v.Kind == ocsf.Int {
			if ns > maxMillis || ns < -maxMillis {
				return 0, false
			}
			ns *= int64(time.Millisecond)
		}
		t := time.Unix(0, ns).UTC()
		year, month, day, hour, minute = t.Year(), int(t.Month()), t.Day(), t.Hour(), t.Minute()
	case ocsf.String:
		s, ok := v.Str, true
		if len(s) < 10 || s[4] != '-' || s[7] != '-' {
			return 0, false
		}
		year, ok = digits(s[:4], ok)
		month, ok = digits(s[5:7], ok)
		day, ok = digits(s[8:10], ok)
		if len(s) >= 16 && (s[10] == 'T' || s[10] == ' ') && s[13] == ':' {
			hour, ok = digits(s[11:13], ok)
			minute, ok = digits(s[14:16], ok)
		} else if part == sigma.Hour || part == sigma.Minute {
			return 0, false
		}
		if !ok {
			return 0, false
		}
	default:
		return 0, false
	}
	switch part {
	case sigma.Minute:
		return minute, true
	case sigma.Hour:
		return hour, true
	case sigma.Day:
		return day, true
	case sigma.Month:
		return month, true
	case sigma.Week:
		_, week := time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC).ISOWeek()
		return week, true
	}
	return year, true
}

const maxMillis = math.MaxInt64 / int64(time.Millisecond)

func digits(s string, ok bool) (int, bool) {
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n, ok
}
