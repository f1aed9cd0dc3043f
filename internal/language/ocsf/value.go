package ocsf

import (
	"math"
	"strconv"
	"time"
)

// Kind is the type of a Value.
type Kind uint8

// The kinds of value. Absent is the zero value: a field the event lacks.
const (
	Absent Kind = iota
	Null        // the field is there and says "nothing"
	String
	Int
	Float
	Bool
	Time
	List // several values; see Event.Lists
)

// Value is one value of an event: a small struct, never boxed.
type Value struct {
	Str  string // String
	Num  int64  // Int; Bool as 0 or 1; Time as Unix nanoseconds; Float as its IEEE 754 bits; List as an index into Event.Lists
	Kind Kind
}

// StringValue returns a present string, even if it is empty.
func StringValue(s string) Value { return Value{Str: s, Kind: String} }

// IntValue returns a present integer.
func IntValue(n int64) Value { return Value{Num: n, Kind: Int} }

// FloatValue returns a present floating-point number.
func FloatValue(f float64) Value { return Value{Num: int64(math.Float64bits(f)), Kind: Float} }

// BoolValue returns a present truth value.
func BoolValue(b bool) Value {
	if b {
		return Value{Num: 1, Kind: Bool}
	}
	return Value{Kind: Bool}
}

// TimeValue returns a present point in time. The zero time is Absent.
func TimeValue(t time.Time) Value {
	if t.IsZero() {
		return Value{}
	}
	return Value{Num: t.UnixNano(), Kind: Time}
}

// Present reports whether the event has the field, be it empty or null.
func (v Value) Present() bool { return v.Kind != Absent }

// Float returns a numeric value as a float64; other kinds give 0.
func (v Value) Float() float64 {
	switch v.Kind {
	case Int, Bool, Time:
		return float64(v.Num)
	case Float:
		return math.Float64frombits(uint64(v.Num))
	}
	return 0
}

// timeLayout is how times are written in findings and compared as text.
const timeLayout = "2006-01-02T15:04:05.000000000Z"

// AppendText appends the value's text, the form in which Sigma compares it. A
// list has no text of its own.
func (v Value) AppendText(b []byte) []byte {
	switch v.Kind {
	case String:
		return append(b, v.Str...)
	case Int:
		return strconv.AppendInt(b, v.Num, 10)
	case Float:
		return strconv.AppendFloat(b, v.Float(), 'g', -1, 64)
	case Bool:
		return strconv.AppendBool(b, v.Num != 0)
	case Time:
		return time.Unix(0, v.Num).UTC().AppendFormat(b, timeLayout)
	}
	return b
}

// Text is AppendText as a string.
func (v Value) Text() string {
	if v.Kind == String {
		return v.Str
	}
	return string(v.AppendText(nil))
}
