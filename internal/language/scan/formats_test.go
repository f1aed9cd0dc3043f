package scan_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/scan"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// records reads everything, as "line source field=value …".
func records(t *testing.T, data string, fields ...string) (lines []string, bad int) {
	t.Helper()
	err := scan.Records(strings.NewReader(data), func(r *scan.Record) error {
		s := fmt.Sprint(r.Line)
		if r.Sources != nil {
			s += " " + strings.ReplaceAll(r.Sources[len(r.Sources)-1].String(), " ", ",")
		}
		for _, want := range fields {
			for _, f := range r.Fields {
				if f.Name == want {
					s += " " + want + "=" + f.Value.Text()
				}
			}
		}
		lines = append(lines, s)
		return nil
	}, func(int, error) { bad++ })
	if err != nil {
		t.Fatal(err)
	}
	return lines, bad
}

func TestFormats(t *testing.T) {
	sysmon := `{"Event":{"System":{"Provider":{"#attributes":{"Name":"Microsoft-Windows-Sysmon"}},"EventID":1,"Channel":"Microsoft-Windows-Sysmon/Operational"},"EventData":{"Image":"C:\\a.exe","Hashes":"MD5=AA,IMPHASH=BB"}}}`
	for name, c := range map[string]struct {
		data   string
		fields []string
		want   string
		bad    int
	}{
		"JSON lines": {
			`{"Image":"/bin/ls","CommandLine":"ls","list":["x","y"],"deep":{"a":{"b":true}}}` + "\n\nnot json\n" + `{"other":1}`,
			[]string{"Image", "list", "deep.a.b", "other"},
			"1 product=linux,category=process_creation,service=sysmon Image=/bin/ls list=x list=y deep.a.b=true|4 other=1", 1,
		},
		"JSON over several lines": {"{\n \"x\": 1\n}\n{\n \"x\": 2}\n", []string{"x"}, "1 x=1|4 x=2", 0},
		"JSON list":               {`[{"x":1},` + "\n" + `{"x":2}]`, []string{"x"}, "1 x=1|1 x=2", 0},
		"Windows event as JSON":   {sysmon, []string{"Image", "Provider_Name", "EventID", "Imphash"}, `1 product=windows,category=process_creation,service=sysmon Image=C:\a.exe Provider_Name=Microsoft-Windows-Sysmon EventID=1 Imphash=BB`, 0},
		"winlogbeat": {
			`{"@timestamp":"2024-01-01T00:00:00Z","winlog":{"channel":"Security","event_id":"4688","event_data":{"NewProcessName":"C:\\b.exe","ProcessId":"0x10"}}}`,
			[]string{"Image", "NewProcessName", "ParentProcessId", "EventID"},
			`1 product=windows,category=process_creation,service=security Image=C:\b.exe NewProcessName=C:\b.exe ParentProcessId=0x10 EventID=4688`, 0,
		},
		"OCSF": {`{"class_uid":1007,"activity_id":1,"process":{"cmd_line":"id -u","file":{"path":"/usr/bin/id"}}}`, []string{"Image", "CommandLine"}, "1 product=linux,category=process_creation,service=sysmon Image=/usr/bin/id CommandLine=id -u", 0},
		"auditd": {
			"type=SYSCALL msg=audit(1700000000.123:42): arch=c000003e syscall=59 ppid=1 pid=7 uid=0 comm=\"id\" exe=\"/usr/bin/id\"\n" +
				"type=EXECVE msg=audit(1700000000.123:42): argc=2 a0=\"id\" a1=2D752078\nnonsense\ntype=CWD msg=audit(1700000000.123:42): cwd=\"/root\"\ntype=USER_CMD msg=audit(1700000001.000:43): msg='cwd=\"/tmp\" cmd=6964 res=success'\n",
			[]string{"type", "a1", "cmd", "res", "Image", "CommandLine", "CurrentDirectory"},
			"1 product=linux,service=auditd type=SYSCALL|2 product=linux,service=auditd type=EXECVE a1=-u x|4 product=linux,service=auditd type=CWD|1 product=linux,category=process_creation,service=sysmon Image=/usr/bin/id CommandLine=id -u x CurrentDirectory=/root|5 product=linux,service=auditd type=USER_CMD cmd=id res=success", 1,
		},
		"syslog": {
			"Nov 21 18:40:06 web sshd[77]: Failed password for root\n2024-11-21T18:40:06.1+01:00 web CRON[8]: (root) CMD (x)\nfree text\n",
			[]string{"program", "pid", "message"},
			"1 product=linux,service=syslog program=sshd pid=77 message=Failed password for root|2 product=linux,service=syslog program=CRON pid=8 message=(root) CMD (x)|3 product=linux,service=syslog", 0,
		},
		"journal export": {
			"__REALTIME_TIMESTAMP=1700000000000000\nSYSLOG_IDENTIFIER=sudo\nMESSAGE\n" + "\x07\x00\x00\x00\x00\x00\x00\x00two\nlin\n\n__REALTIME_TIMESTAMP=1700000001000000\n_COMM=x\nMESSAGE=y\n",
			[]string{"message", "program"},
			"1 product=linux,service=syslog message=two\nlin program=sudo|7 product=linux,service=syslog message=y program=x", 0,
		},
		"journal JSON": {`{"__REALTIME_TIMESTAMP":"1700000000000000","SYSLOG_IDENTIFIER":"sshd","MESSAGE":"m"}`, []string{"message"}, "1 product=linux,service=syslog message=m", 0},
		"EVTX":         {evtx(), []string{"Channel", "EventID", "Image", "User", "Provider_Name"}, `1 product=windows,category=process_creation,service=sysmon Channel=Microsoft-Windows-Sysmon/Operational EventID=1 Image=C:\évil.exe User=S-1-5-18 Provider_Name=Microsoft-Windows-Sysmon`, 0},
		"empty":        {"", nil, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			lines, bad := records(t, c.data, c.fields...)
			got := strings.Join(lines, "|")
			if !sameWords(got, c.want) || bad != c.bad {
				t.Errorf("got  %s (%d bad)\nwant %s (%d bad)", got, bad, c.want, c.bad)
			}
		})
	}
}

// sameWords compares without regard to the order of fields in a record.
func sameWords(a, b string) bool {
	as, bs := strings.Split(a, "|"), strings.Split(b, "|")
	if len(as) != len(bs) {
		return false
	}
	for i := range as {
		for _, w := range strings.Fields(bs[i]) {
			if !strings.Contains(as[i], w) {
				return false
			}
		}
		if len(as[i]) != len(bs[i]) {
			return false
		}
	}
	return true
}

// evtxBuilder writes the smallest event log: one chunk, one record.
type evtxBuilder struct{ b []byte }

func (e *evtxBuilder) u8(v ...byte)  { e.b = append(e.b, v...) }
func (e *evtxBuilder) u16(v int)     { e.b = binary.LittleEndian.AppendUint16(e.b, uint16(v)) }
func (e *evtxBuilder) u32(v int)     { e.b = binary.LittleEndian.AppendUint32(e.b, uint32(v)) }
func (e *evtxBuilder) text(s string) { e.b = append(e.b, wide(s)...) }
func (e *evtxBuilder) value(s string) {
	e.u8(0x05, 0x01)
	e.u16(len(utf16.Encode([]rune(s))))
	e.text(s)
}
func (e *evtxBuilder) subst(i, k int) { e.u8(0x0d); e.u16(i); e.u8(byte(k)) }

func wide(s string) (b []byte) {
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

// name writes a name where it is first used.
func (e *evtxBuilder) name(s string) {
	e.u32(len(e.b) + 4)
	e.u32(0)
	e.u16(0)
	e.u16(len(s))
	e.text(s)
	e.u16(0)
}

func (e *evtxBuilder) element(name string, attr, attrValue string, body func()) {
	if attr == "" {
		e.u8(0x01)
	} else {
		e.u8(0x41)
	}
	e.u16(0)
	e.u32(0)
	e.name(name)
	if attr != "" {
		e.u32(0)
		e.u8(0x06)
		e.name(attr)
		e.value(attrValue)
	}
	if body == nil {
		e.u8(0x03)
		return
	}
	e.u8(0x02)
	body()
	e.u8(0x04)
}

// evtx is a log with one Sysmon event, written as a template and its values.
func evtx() string {
	e := &evtxBuilder{b: append([]byte("ElfChnk\x00"), make([]byte, 0x200-8)...)}
	start := len(e.b)
	e.u8(0x2a, 0x2a, 0, 0)
	e.b = append(e.b, make([]byte, 20)...)
	e.u8(0x0f, 1, 1, 0, 0x0c, 1)
	e.u32(99)
	e.u32(len(e.b) + 4) // the definition stands right here
	e.b = append(e.b, make([]byte, 20)...)
	sizeAt := len(e.b)
	e.u32(0)
	e.u8(0x0f, 1, 1, 0)
	e.element("Event", "", "", func() {
		e.element("System", "", "", func() {
			e.element("Provider", "Name", "Microsoft-Windows-Sysmon", nil)
			e.element("EventID", "", "", func() { e.subst(0, 6) })
			e.element("Channel", "", "", func() { e.value("Microsoft-Windows-Sysmon/Operational") })
		})
		e.element("EventData", "", "", func() {
			e.element("Data", "Name", "Image", func() { e.subst(1, 1) })
			e.element("Data", "Name", "User", func() { e.subst(2, 19) })
		})
	})
	e.u8(0)
	binary.LittleEndian.PutUint32(e.b[sizeAt:], uint32(len(e.b)-sizeAt-4))
	image, sid := wide(`C:\évil.exe`), []byte{1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0}
	e.u32(3)
	for _, v := range []struct{ size, kind int }{{2, 6}, {len(image), 1}, {len(sid), 19}} {
		e.u16(v.size)
		e.u8(byte(v.kind), 0)
	}
	e.u16(1)
	e.b = append(append(e.b, image...), sid...)
	e.u8(0)
	e.u32(len(e.b) + 4 - start)
	binary.LittleEndian.PutUint32(e.b[start+4:], uint32(len(e.b)-start))
	header := append([]byte("ElfFile\x00"), make([]byte, 4096-8)...)
	header[0x29] = 0x10
	return string(header) + string(append(e.b, make([]byte, 65536-len(e.b))...))
}

// Nothing a file holds makes a decoder fail but by an error, and what it gives
// can be evaluated.
func FuzzRecords(f *testing.F) {
	f.Add([]byte(`{"Event":{"System":{"EventID":{"#text":1},"Channel":"Security"},"UserData":{"a":{"b":[1,{"@Name":"x","#text":"y"}]}}}}`))
	f.Add([]byte("type=EXECVE msg=audit(1.2:3): argc=1 a0=6964 msg='x=y\n"))
	f.Add([]byte("__CURSOR=x\nMESSAGE\n\x03\x00\x00\x00\x00\x00\x00\x00abc\n\n"))
	f.Add([]byte("<34>1 2024-01-01T00:00:00Z h app 1 - - text"))
	f.Add([]byte(evtx()))
	set, _ := sigma.Parse("r.yml", []byte("title: R\nid: r\nlogsource: {product: windows}\ndetection: {s: {'Image|contains': e}, k: [k], condition: 1 of them}\n"))
	s, _ := scan.New(set, scan.Options{})
	f.Fuzz(func(t *testing.T, data []byte) {
		sum, _ := s.Read("fuzz", bytes.NewReader(data), 0, func(scan.Hit) error { return nil }, func(error) {})
		if sum.Records > len(data)+1 {
			t.Errorf("%d records in %d bytes", sum.Records, len(data))
		}
	})
}

func TestScanRunsRulesOverFiles(t *testing.T) {
	set, problems := sigma.Parse("r.yml", []byte(`title: Windows process
id: win
logsource: {product: windows, category: process_creation}
detection: {s: {'Image|endswith': '\évil.exe'}, condition: s}
---
title: Linux process
id: lin
logsource: {product: linux, category: process_creation}
detection: {s: {'Image|endswith': /id}, condition: s}
---
title: Failed
id: failed
logsource: {product: linux, service: sshd}
detection: {k: [failed password], condition: k}
---
title: Guessing
id: guess
correlation: {type: event_count, rules: [failed], group-by: [hostname], timespan: 5m, condition: {gte: 2}, generate: true}
`))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	s, problems := scan.New(set, scan.Options{})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for name, c := range map[string]struct{ data, want string }{
		"EVTX":    {evtx(), "win@1"},
		"JSON":    {`{"Image":"/usr/bin/ID","CommandLine":"id"}` + "\n" + `{"Image":"/bin/ls","CommandLine":"id"}`, "lin@1"},
		"syslog":  {"Nov 21 18:40:06 web sshd[77]: Failed password for root\nNov 21 18:41:06 web sshd[77]: FAILED PASSWORD for root\n", "failed@1 failed@2 guess@2"},
		"unknown": {`{"exe":"/usr/bin/id"}`, ""},
	} {
		var got []string
		sum, err := s.Read(name, strings.NewReader(c.data), 0, func(h scan.Hit) error {
			got = append(got, fmt.Sprintf("%s@%d", h.RuleID, h.Line))
			if len(h.Matched) == 0 || h.File != name {
				t.Errorf("%s: a hit without facts or file: %+v", name, h)
			}
			return nil
		}, func(err error) { t.Error(err) })
		if err != nil || strings.Join(got, " ") != c.want || sum.Hits != len(got) {
			t.Errorf("%s: %v, want %s (%+v, %v)", name, got, c.want, sum, err)
		}
	}
	forced, _ := scan.New(set, scan.Options{LogSource: &ocsf.LogSource{Product: "linux", Category: "process_creation"}})
	hits := 0
	if _, err := forced.Read("x", strings.NewReader(`{"Image":"/usr/bin/id"}`), 0, func(scan.Hit) error { hits++; return nil }, func(err error) { t.Error(err) }); err != nil || hits != 1 {
		t.Errorf("with a log source said: %d hits, %v", hits, err)
	}
}
