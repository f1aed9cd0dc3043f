package wire

import (
	"encoding/json"
	"strings"
	"time"

	common "go.opentelemetry.io/proto/slim/otlp/common/v1"
	logs "go.opentelemetry.io/proto/slim/otlp/logs/v1"
	resource "go.opentelemetry.io/proto/slim/otlp/resource/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-security/holdfast"
)

// Bounds of findings on the wire. What a host sends beyond them is cut before
// it is queued, so that the server never has a reason to refuse it.
const (
	MaxRecord  = 64 << 10 // bytes of one log record
	MaxRecords = 1000     // in one request
	MaxRequest = 4 << 20  // bytes of one request, decompressed

	maxFacts      = 128
	maxTree       = 32
	maxFits       = 8   // values of one reason
	maxFit        = 512 // bytes of one
	maxTechniques = 32
)

// detection is a finding as OCSF 1.5 writes it: class Detection Finding
// (2004), with the profile "datetime" for nanoseconds. The event's own fields
// are under unmapped, because their paths are those of another class.
type detection struct {
	ClassUID    int       `json:"class_uid"`
	CategoryUID int       `json:"category_uid"`
	ActivityID  int       `json:"activity_id"`
	TypeUID     int       `json:"type_uid"`
	Time        int64     `json:"time"` // milliseconds since 1970
	TimeDT      time.Time `json:"time_dt"`
	SeverityID  int       `json:"severity_id"`
	Severity    string    `json:"severity"`
	Metadata    struct {
		Version  string   `json:"version"`
		UID      string   `json:"uid"`
		Profiles []string `json:"profiles"`
		Product  struct {
			Name   string `json:"name"`
			Vendor string `json:"vendor_name"`
		} `json:"product"`
	} `json:"metadata"`
	Info struct {
		UID      string   `json:"uid"`
		Title    string   `json:"title"`
		Analytic analytic `json:"analytic"`
		Attacks  []attack `json:"attacks,omitempty"`
	} `json:"finding_info"`
	Device struct {
		Hostname string `json:"hostname"`
		TypeID   int    `json:"type_id"`
	} `json:"device"`
	Evidences   []evidence   `json:"evidences,omitempty"`
	Observables []observable `json:"observables,omitempty"`
	Unmapped    struct {
		Event []holdfast.Fact   `json:"event,omitempty"`
		Why   []holdfast.Reason `json:"why,omitempty"`
	} `json:"unmapped"`
}

type analytic struct {
	UID     string          `json:"uid"`
	TypeID  int             `json:"type_id"` // 1: rule
	Version holdfast.Digest `json:"version"` // the bundle that holds the rule
}

type attack struct {
	Technique struct {
		UID string `json:"uid"`
	} `json:"technique"`
}

type evidence struct {
	Process *process `json:"process,omitempty"`
}

type process struct {
	PID     int       `json:"pid"`
	CmdLine string    `json:"cmd_line"`
	Created time.Time `json:"created_time_dt"`
	File    struct {
		Path string `json:"path"`
	} `json:"file"`
	User struct {
		Name string `json:"name"`
	} `json:"user"`
	Parent *process `json:"parent_process,omitempty"`
}

type observable struct {
	Name   string `json:"name"`
	TypeID int    `json:"type_id"` // 99: other
	Value  string `json:"value"`
}

// severities gives OCSF's severity_id and OTLP's severity number for a Sigma
// level.
var severities = map[holdfast.Severity]struct {
	ocsf int
	otlp logs.SeverityNumber
}{
	"informational": {1, logs.SeverityNumber_SEVERITY_NUMBER_INFO},
	"low":           {2, logs.SeverityNumber_SEVERITY_NUMBER_INFO3},
	"medium":        {3, logs.SeverityNumber_SEVERITY_NUMBER_WARN},
	"high":          {4, logs.SeverityNumber_SEVERITY_NUMBER_ERROR},
	"critical":      {5, logs.SeverityNumber_SEVERITY_NUMBER_FATAL},
}

// cuts are the sizes to try in turn until a finding fits MaxRecord. The last
// one always does, even if JSON writes each byte as six.
var cuts = []cut{
	{8 << 10, maxFacts, maxTree, maxFacts, maxFits}, {1 << 10, maxFacts, maxTree, maxFacts, maxFits}, {256, 32, 16, 16, 2}, {64, 16, 8, 4, 1},
}

// cut is how many bytes a value may have, and how many of each there may be.
type cut struct{ value, facts, tree, why, fits int }

// truncated is the name of the fact that says that something was cut.
const truncated = "holdfast.truncated"

// MarshalFinding writes a finding as one OTLP log record whose body is the
// OCSF object. It always fits MaxRecord: what is too long is cut, and a fact
// "holdfast.truncated" says so. Org, Host and Received are the server's to say
// and are not carried. A finding the server would refuse is refused here.
func MarshalFinding(f holdfast.Finding) ([]byte, error) {
	for _, c := range cuts {
		body, err := marshalDetection(f, c)
		if err != nil {
			return nil, err
		}
		if len(body) > MaxRecord-1024 {
			continue
		}
		if _, err := findingOf(body); err != nil {
			return nil, err
		}
		return proto.Marshal(&logs.LogRecord{
			TimeUnixNano:         uint64(f.At.UnixNano()),
			ObservedTimeUnixNano: uint64(f.At.UnixNano()),
			SeverityNumber:       severities[f.Severity].otlp,
			SeverityText:         string(f.Severity),
			EventName:            "ocsf.detection_finding",
			Body:                 &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: string(body)}},
		})
	}
	return nil, invalid("finding", "has an id, rule or hostname longer than 256 bytes")
}

func marshalDetection(f holdfast.Finding, size cut) ([]byte, error) {
	short := false
	cut := func(s string) string {
		c := clip(strings.ToValidUTF8(s, "\uFFFD"), size.value)
		short = short || len(c) < len(s)
		return c
	}
	first := func(n, limit int) int {
		short = short || n > limit
		return min(n, limit)
	}
	var d detection
	d.ClassUID, d.CategoryUID, d.ActivityID, d.TypeUID = 2004, 2, 1, 200401
	d.Time, d.TimeDT = f.At.UnixMilli(), f.At.UTC()
	d.SeverityID, d.Severity = severities[f.Severity].ocsf, cut(string(f.Severity))
	d.Metadata.Version, d.Metadata.UID, d.Metadata.Profiles = "1.5.0", f.ID, []string{"datetime"}
	d.Metadata.Product.Name, d.Metadata.Product.Vendor = "Holdfast", "Holdfast"
	d.Info.UID, d.Info.Title = f.ID, cut(f.Title)
	d.Info.Analytic = analytic{UID: f.Rule, TypeID: 1, Version: f.Bundle}
	for _, t := range f.Techniques[:first(len(f.Techniques), maxTechniques)] {
		var a attack
		a.Technique.UID = cut(t)
		d.Info.Attacks = append(d.Info.Attacks, a)
	}
	d.Device.Hostname = f.Hostname
	for _, m := range f.Matched[:first(len(f.Matched), size.facts)] {
		d.Observables = append(d.Observables, observable{Name: cut(m.Field), TypeID: 99, Value: cut(m.Value)})
	}
	for _, e := range f.Event[:first(len(f.Event), size.facts)] {
		d.Unmapped.Event = append(d.Unmapped.Event, holdfast.Fact{Field: cut(e.Field), Value: cut(e.Value)})
	}
	for _, r := range f.Why[:first(len(f.Why), size.why)] {
		c := holdfast.Reason{Search: cut(r.Search), Field: cut(r.Field), Test: cut(r.Test), Counted: cut(r.Counted)}
		for _, v := range r.Fits[:first(len(r.Fits), size.fits)] {
			c.Fits = append(c.Fits, cut(clip(v, maxFit)))
		}
		d.Unmapped.Why = append(d.Unmapped.Why, c)
	}
	var tree *process
	for i := first(len(f.Tree), size.tree) - 1; i >= 0; i-- {
		p := f.Tree[i]
		o := &process{PID: p.PID, CmdLine: cut(p.CmdLine), Created: p.Started.UTC(), Parent: tree}
		o.File.Path, o.User.Name = cut(p.Path), cut(p.User)
		tree = o
	}
	if tree != nil {
		d.Evidences = []evidence{{Process: tree}}
	}
	if short {
		d.Unmapped.Event = append(d.Unmapped.Event, holdfast.Fact{Field: truncated, Value: "true"})
	}
	body, err := json.Marshal(d)
	if err != nil {
		return nil, &holdfast.Error{Kind: holdfast.Invalid, Where: "finding " + clip(f.ID, 64), Err: err}
	}
	return body, nil
}

// ExportRequest puts records that MarshalFinding wrote into one OTLP export
// request, without decoding them.
func ExportRequest(a holdfast.Attributes, records [][]byte) []byte {
	// Field numbers of opentelemetry/proto: ExportLogsServiceRequest
	// .resource_logs = 1; ResourceLogs .resource = 1, .scope_logs = 2;
	// ScopeLogs .log_records = 2.
	var scope []byte
	for _, r := range records {
		scope = protowire.AppendTag(scope, 2, protowire.BytesType)
		scope = protowire.AppendBytes(scope, r)
	}
	of, err := proto.Marshal(&resource.Resource{Attributes: []*common.KeyValue{
		label(keyService, serviceName), label(keyVersion, a.Version), label(keyHostname, a.Hostname),
	}})
	if err != nil { // labels are short strings; only invalid UTF-8 can be refused
		of = nil
	}
	var of1 []byte
	of1 = protowire.AppendTag(of1, 1, protowire.BytesType)
	of1 = protowire.AppendBytes(of1, of)
	of1 = protowire.AppendTag(of1, 2, protowire.BytesType)
	of1 = protowire.AppendBytes(of1, scope)
	var b []byte
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	return protowire.AppendBytes(b, of1)
}

func label(key, value string) *common.KeyValue {
	return &common.KeyValue{Key: key, Value: &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: value}}}
}

// Findings reads an OTLP export request. Records that are no findings are
// counted as rejected, with the first reason, and do not hold up the others;
// an error means that the request as a whole cannot be read.
//
// It walks the encoding instead of decoding it into messages, because two
// bytes of an empty record would become hundreds in memory.
func Findings(b []byte) (found []holdfast.Finding, rejected int, reason string, err error) {
	if len(b) > MaxRequest {
		return nil, 0, "", invalid("export request", "is longer than 4 MiB")
	}
	n := 0
	err = within(b, []protowire.Number{1, 2, 2}, func(record []byte) error {
		if n++; n > MaxRecords {
			return invalid("export request", "holds more than 1,000 records")
		}
		body, err := bodyOf(record)
		if err != nil {
			return err
		}
		f, err := findingOf(body)
		if err == nil {
			found = append(found, f)
			return nil
		}
		if rejected++; reason == "" {
			reason = err.Error()
		}
		return nil
	})
	if err != nil {
		return nil, 0, "", err
	}
	return found, rejected, reason, nil
}

// within calls f for each message that lies in b under the given field
// numbers, outermost first.
func within(b []byte, path []protowire.Number, f func([]byte) error) error {
	if len(path) == 0 {
		return f(b)
	}
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return invalid("export request", "is not protobuf")
		}
		b = b[n:]
		m := protowire.ConsumeFieldValue(num, typ, b)
		if m < 0 {
			return invalid("export request", "is cut short")
		}
		if num == path[0] && typ == protowire.BytesType {
			v, _ := protowire.ConsumeBytes(b)
			if err := within(v, path[1:], f); err != nil {
				return err
			}
		}
		b = b[m:]
	}
	return nil
}

// bodyOf returns the string in a log record's body (LogRecord.body = 5,
// AnyValue.string_value = 1); empty if it has none.
func bodyOf(record []byte) (body []byte, err error) {
	err = within(record, []protowire.Number{5, 1}, func(v []byte) error {
		body = v
		return nil
	})
	return body, err
}

func findingOf(body []byte) (holdfast.Finding, error) {
	var none holdfast.Finding
	if len(body) > MaxRecord {
		return none, invalid("log record", "is longer than 64 KiB")
	}
	var d detection
	if err := json.Unmarshal(body, &d); err != nil {
		return none, &holdfast.Error{Kind: holdfast.Invalid, Where: "log record", What: "is not an OCSF object", Err: err}
	}
	if d.ClassUID != 2004 {
		return none, invalid("class_uid", "is not 2004, Detection Finding")
	}
	f := holdfast.Finding{
		ID: d.Info.UID, Hostname: d.Device.Hostname, Rule: d.Info.Analytic.UID, Title: d.Info.Title,
		Severity: holdfast.Severity(d.Severity), At: d.TimeDT, Bundle: d.Info.Analytic.Version, Event: d.Unmapped.Event, Why: d.Unmapped.Why,
	}
	if f.ID == "" {
		return none, invalid("finding_info.uid", "is missing")
	}
	if f.At.IsZero() || f.At.Year() < 1970 || f.At.Year() > 2200 {
		return none, invalid("time_dt", "is missing or absurd")
	}
	if _, ok := severities[f.Severity]; !ok {
		return none, invalid("severity", "is none of Sigma's levels")
	}
	for _, t := range []struct{ where, s string }{
		{"finding_info.uid", f.ID},
		{"finding_info.analytic.uid", f.Rule},
		{"device.hostname", f.Hostname},
	} {
		if err := text(t.where, t.s); err != nil {
			return none, err
		}
	}
	if f.Bundle != "" {
		if _, err := holdfast.ParseDigest(string(f.Bundle)); err != nil {
			return none, err
		}
	}
	if len(d.Info.Attacks) > maxTechniques || len(d.Observables) > maxFacts || len(f.Event) > maxFacts+1 || len(f.Why) > maxFacts {
		return none, invalid("finding "+f.ID, "has more parts than a finding may have")
	}
	for _, a := range d.Info.Attacks {
		if err := text("finding_info.attacks", a.Technique.UID); err != nil {
			return none, err
		}
		f.Techniques = append(f.Techniques, a.Technique.UID)
	}
	for _, r := range f.Why {
		if len(r.Fits) > maxFits {
			return none, invalid("unmapped.why", "names more than 8 values")
		}
	}
	for _, o := range d.Observables {
		f.Matched = append(f.Matched, holdfast.Fact{Field: o.Name, Value: o.Value})
	}
	if len(d.Evidences) > 0 {
		for p := d.Evidences[0].Process; p != nil; p = p.Parent {
			if len(f.Tree) == maxTree {
				return none, invalid("evidences", "nest deeper than 32 processes")
			}
			f.Tree = append(f.Tree, holdfast.Process{PID: p.PID, Path: p.File.Path, CmdLine: p.CmdLine, User: p.User.Name, Started: p.Created})
		}
	}
	return f, nil
}
