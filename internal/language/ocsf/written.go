package ocsf

import (
	"fmt"
	"strconv"
	"time"

	"github.com/holdfast-security/holdfast"
)

// FromWritten makes an event of class c from fields as people write them: names
// of Sigma's taxonomy or paths, and texts. A launch is assumed for process
// activity unless activity_id is given. It is for tests and corpora; sensors
// fill events by ordinal.
func (c *Class) FromWritten(fields map[string]string) (*Event, error) {
	ev := &Event{Class: c.UID, Values: make([]Value, len(c.Fields))}
	if c.UID == ProcessActivityUID {
		ev.Values[ActivityID] = IntValue(ActivityLaunch)
	}
	for name, text := range fields {
		i, ok := c.Ordinal(name)
		if !ok {
			return nil, &holdfast.Error{Kind: holdfast.Invalid, What: "this build supplies no field " + name, Where: c.Name, Do: "see holdfast-agent manifest"}
		}
		v, err := written(c.Fields[i].Type, text)
		if err != nil {
			return nil, &holdfast.Error{Kind: holdfast.Invalid, What: err.Error(), Where: name}
		}
		ev.Values[i] = v
		if c.Fields[i].Path == "time" {
			ev.Time = time.Unix(0, v.Num)
		}
	}
	return ev, nil
}

func written(kind, text string) (Value, error) {
	switch kind {
	case "int":
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return Value{}, fmt.Errorf("%q is not a whole number", text)
		}
		return IntValue(n), nil
	case "bool":
		b, err := strconv.ParseBool(text)
		if err != nil {
			return Value{}, fmt.Errorf("%q is not true or false", text)
		}
		return BoolValue(b), nil
	case "time":
		t, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			return Value{}, fmt.Errorf("%q is not a time such as 2006-01-02T15:04:05Z", text)
		}
		return TimeValue(t), nil
	default:
		return StringValue(text), nil
	}
}
