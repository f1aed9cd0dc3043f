package scan

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast/internal/language/ocsf"
)

// windows reads a Windows event as JSON: {"Event":{"System":…,"EventData":…}}
// as event log tools write it, or {"winlog":{…}} as log shippers do. It reports
// whether the object is one.
func (r *Record) windows(object map[string]any) bool {
	if event, ok := object["Event"].(map[string]any); ok {
		if system, ok := event["System"].(map[string]any); ok {
			r.windowsSystem(system)
			r.windowsData(event["EventData"])
			r.windowsData(event["UserData"])
			r.windowsKind()
			return true
		}
	}
	if log, ok := object["winlog"].(map[string]any); ok {
		for from, to := range map[string]string{"channel": "Channel", "event_id": "EventID", "provider_name": "Provider_Name", "computer_name": "Computer"} {
			if v, ok := log[from]; ok {
				r.add(to, windowsScalar(v))
			}
		}
		r.Time = parseTime(text(object["@timestamp"]))
		r.windowsData(log["event_data"])
		r.windowsData(log["user_data"])
		r.windowsKind()
		return true
	}
	if object["Channel"] != nil && object["EventID"] != nil {
		data := object["EventData"]
		for _, k := range slices.Sorted(maps.Keys(object)) {
			if k != "EventData" {
				r.flatten(k, object[k], 0)
			}
		}
		r.windowsData(data)
		r.Time = r.timeOf("TimeCreated", "@timestamp", "UtcTime", "SystemTime")
		r.windowsKind()
		return true
	}
	return false
}

// windowsSystem reads the header. Attributes are named by their element and
// themselves, Provider_Name, as the specification says.
func (r *Record) windowsSystem(system map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(system)) {
		switch v := system[name].(type) {
		case map[string]any:
			attributes := v
			if a, ok := v["#attributes"].(map[string]any); ok {
				attributes = a
			}
			for _, key := range slices.Sorted(maps.Keys(attributes)) {
				switch clean := strings.TrimPrefix(key, "@"); clean {
				case "#text", "text", "Value":
					r.add(name, windowsScalar(attributes[key]))
				default:
					r.add(name+"_"+clean, windowsScalar(attributes[key]))
				}
			}
			if t, ok := v["#text"]; ok && v["#attributes"] != nil {
				r.add(name, windowsScalar(t))
			}
		case nil:
		default:
			r.add(name, windowsScalar(v))
		}
	}
	r.Time = r.timeOf("TimeCreated_SystemTime")
}

// windowsData reads the body: named data, unnamed data as "Data", and whatever
// a provider nests in UserData.
func (r *Record) windowsData(v any) {
	object, ok := v.(map[string]any)
	if !ok {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		if name == "#attributes" || name == "xmlns" || len(r.Fields) >= mostFields {
			continue
		}
		switch v := object[name].(type) {
		case map[string]any:
			if t, ok := v["#text"]; ok {
				r.add(unspaced(name), windowsScalar(t))
				continue
			}
			r.windowsData(v)
		case []any:
			for _, el := range v {
				r.windowsElement(name, el)
			}
		default:
			r.add(unspaced(name), windowsScalar(v))
		}
	}
}

// unspaced is how rules name a field: as the log does, without its blanks.
func unspaced(name string) string { return strings.ReplaceAll(name, " ", "") }

// windowsElement reads one of several elements of a name, <Data Name="x">.
func (r *Record) windowsElement(name string, el any) {
	object, ok := el.(map[string]any)
	if !ok {
		r.add(name, windowsScalar(el))
		return
	}
	attributes, _ := object["#attributes"].(map[string]any)
	for _, key := range []string{"Name", "@Name"} {
		if n, ok := attributes[key].(string); ok {
			name = unspaced(n)
		} else if n, ok := object[key].(string); ok {
			name = unspaced(n)
		}
	}
	for _, key := range []string{"#text", "text", "content"} {
		if t, ok := object[key]; ok {
			r.add(name, windowsScalar(t))
			return
		}
	}
	if attributes == nil {
		r.windowsData(object)
	}
}

func windowsScalar(v any) ocsf.Value {
	if s, ok := v.(string); ok {
		if n, err := strconv.ParseInt(s, 10, 64); err == nil && strconv.FormatInt(n, 10) == s {
			return ocsf.IntValue(n)
		}
	}
	return scalar(v)
}

// windowsKind finds the log sources of the event by its channel and number, and
// adds the other names of its fields. Sysmon's Hashes are taken apart.
func (r *Record) windowsKind() {
	channel, provider := r.get("Channel"), r.get("Provider_Name")
	id, _ := strconv.ParseInt(r.get("EventID"), 10, 64)
	if strings.HasPrefix(channel, "Linux-Sysmon") || provider == "Linux-Sysmon" {
		r.Sources = []ocsf.LogSource{{Product: "linux", Service: "sysmon", Category: map[int64]string{
			1: "process_creation", 3: "network_connection", 5: "process_termination", 11: "file_event",
		}[id]}}
		return
	}
	if channel == "" && provider == "Microsoft-Windows-Sysmon" {
		channel = "Microsoft-Windows-Sysmon/Operational"
	}
	var names map[string]string
	r.Sources, names = ocsf.WindowsKind(channel, id)
	if names != nil {
		r.rename(names)
	}
	if hashes := r.get("Hashes"); hashes != "" {
		for _, pair := range strings.Split(hashes, ",") {
			if name, value, ok := strings.Cut(pair, "="); ok {
				r.add(map[string]string{"MD5": "md5", "SHA1": "sha1", "SHA256": "sha256", "IMPHASH": "Imphash"}[name], ocsf.StringValue(value))
			}
		}
	}
}

// rename gives fields their Sysmon names, and keeps the old name where no other
// field takes it.
func (r *Record) rename(names map[string]string) {
	taken := map[string]bool{}
	for _, to := range names {
		taken[to] = true
	}
	var fields []Field
	for _, f := range r.Fields {
		if to, ok := names[f.Name]; ok {
			fields = append(fields, Field{to, f.Value})
		}
		if !taken[f.Name] || names[f.Name] == f.Name {
			if names[f.Name] != f.Name {
				fields = append(fields, f)
			}
		}
	}
	r.Fields = fields
}

func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	}
	return ""
}

// timeOf returns the time in the first of the fields that has one.
func (r *Record) timeOf(names ...string) time.Time {
	for _, n := range names {
		if t := parseTime(r.get(n)); !t.IsZero() {
			return t
		}
	}
	return time.Time{}
}

var timeLayouts = []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999999", "2006-01-02T15:04:05.999999999", "2006-01-02T15:04:05.999999999-0700"}

// parseTime reads the ways logs write times: ISO 8601, or seconds, milliseconds
// or microseconds since 1970.
func parseTime(s string) time.Time {
	if s == "" || len(s) > 64 {
		return time.Time{}
	}
	for _, layout := range timeLayouts {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC()
		}
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f > 1e8) || f > 1e17 {
		return time.Time{}
	}
	switch {
	case f > 1e14:
		return time.UnixMicro(int64(f)).UTC()
	case f > 1e11:
		return time.UnixMilli(int64(f)).UTC()
	}
	return time.Unix(0, int64(f*1e9)).UTC()
}
