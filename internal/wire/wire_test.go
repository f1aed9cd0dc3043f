package wire

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/open-telemetry/opamp-go/protobufs"
	collector "go.opentelemetry.io/proto/slim/otlp/collector/logs/v1"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/holdfast-security/holdfast"
)

var digests = rapid.Custom(func(t *rapid.T) holdfast.Digest {
	return holdfast.DigestOf(rapid.SliceOfN(rapid.Byte(), 1, 8).Draw(t, "content"))
})

var labels = rapid.StringMatching(`[a-zA-Z0-9 ._\-äß]{0,40}`)

var someTime = rapid.Custom(func(t *rapid.T) time.Time {
	return time.Unix(rapid.Int64Range(1, 4e9).Draw(t, "s"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns")).UTC()
})

func TestAttributesSurviveTheWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := holdfast.Attributes{
			Hostname: labels.Draw(t, "hostname"), OS: labels.Draw(t, "os"), Arch: labels.Draw(t, "arch"), Kernel: labels.Draw(t, "kernel"),
			Distro: labels.Draw(t, "distro"), Role: labels.Draw(t, "role"), Version: labels.Draw(t, "version"), Sensor: labels.Draw(t, "sensor"),
			Build: digests.Draw(t, "build"),
		}
		b, err := Marshal(&protobufs.AgentToServer{AgentDescription: Description("h1", a)})
		if err != nil {
			t.Fatal(err)
		}
		var m protobufs.AgentToServer
		if err := Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		got, err := AttributesOf(m.AgentDescription)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(a, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

var offers = rapid.Custom(func(t *rapid.T) holdfast.Offer {
	o := holdfast.Offer{
		Lease: "l" + labels.Draw(t, "lease"), Channel: holdfast.Channel("c" + labels.Draw(t, "channel")),
		Digest: digests.Draw(t, "digest"), Version: labels.Draw(t, "version"), Release: holdfast.ReleaseID(labels.Draw(t, "release")),
		Arm: rapid.SampledFrom([]holdfast.Arm{holdfast.New, holdfast.Placebo}).Draw(t, "arm"),
	}
	if rapid.Bool().Draw(t, "leased") {
		o.Expires = someTime.Draw(t, "expires")
	}
	if rapid.Bool().Draw(t, "recall") {
		o.Recall = digests.Draw(t, "recalled")
		if rapid.Bool().Draw(t, "to nothing") {
			o.Digest = ""
		}
	}
	return o
})

func TestOffersSurviveTheWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := offers.Draw(t, "offer")
		b, err := proto.Marshal(Packages(o))
		if err != nil {
			t.Fatal(err)
		}
		var p protobufs.PackagesAvailable
		if err := proto.Unmarshal(b, &p); err != nil {
			t.Fatal(err)
		}
		got, err := OfferOf(&p)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(o, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

// A server that has an older offer, or a placebo in its place, must look
// different to every OpAMP client, which compares only this hash.
func TestDifferentOffersHaveDifferentHashes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := offers.Draw(t, "a"), offers.Draw(t, "b")
		same := a.Channel == b.Channel && a.Digest == b.Digest && a.Lease == b.Lease && a.Recall == b.Recall
		if equal := bytes.Equal(Packages(a).AllPackagesHash, Packages(b).AllPackagesHash); equal != same {
			t.Fatalf("hashes equal: %v, offers the same: %v", equal, same)
		}
	})
}

func TestBadOffersAreRefused(t *testing.T) {
	good := holdfast.Offer{Lease: "l", Channel: holdfast.Rules, Digest: holdfast.DigestOf([]byte("x")), Arm: holdfast.New}
	change := func(f func(*protobufs.PackagesAvailable)) *protobufs.PackagesAvailable {
		p := Packages(good)
		f(p)
		return p
	}
	for name, p := range map[string]*protobufs.PackagesAvailable{
		"no package":     {},
		"nil":            nil,
		"two channels":   change(func(p *protobufs.PackagesAvailable) { p.Packages["agent"] = p.Packages["rules"] }),
		"short hash":     change(func(p *protobufs.PackagesAvailable) { p.Packages["rules"].Hash = []byte{1} }),
		"no hash":        change(func(p *protobufs.PackagesAvailable) { p.Packages["rules"].Hash = nil }),
		"no lease":       change(func(p *protobufs.PackagesAvailable) { p.Packages["rules"].File = nil }),
		"nil package":    change(func(p *protobufs.PackagesAvailable) { p.Packages["rules"] = nil }),
		"control in it":  change(func(p *protobufs.PackagesAvailable) { p.Packages["rules"].Version = "1\x1b[2J" }),
		"arm of nowhere": change(func(p *protobufs.PackagesAvailable) { p.Packages["rules"].File.Headers.Headers[1].Value = "left" }),
	} {
		if o, err := OfferOf(p); holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%s: got %+v, %v; want an Invalid error", name, o, err)
		}
	}
	if _, err := OfferOf(Packages(good)); err != nil {
		t.Fatal(err)
	}
}

var generations = rapid.MapOfN(rapid.SampledFrom(holdfast.Channels), digests, 0, 2)

func TestReportsSurviveTheWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := holdfast.HostReport{
			Boot: labels.Draw(t, "boot"), Running: generations.Draw(t, "running"), Previous: generations.Draw(t, "previous"),
			Attempted: generations.Draw(t, "attempted"), Failed: generations.Draw(t, "failed"),
			Shunned: rapid.SliceOfN(digests, 0, 5).Draw(t, "shunned"), Probation: rapid.Bool().Draw(t, "probation"),
			SafeMode: rapid.Bool().Draw(t, "safe"), Crashes: rapid.Uint64().Draw(t, "crashes"), Reason: labels.Draw(t, "reason"),
			Activation: labels.Draw(t, "activation"), Events: rapid.Uint64().Draw(t, "events"),
			EventNs: rapid.Uint64().Draw(t, "event_ns"),
		}
		for range rapid.IntRange(0, maxCosts).Draw(t, "costs") {
			r.Costs = append(r.Costs, holdfast.RuleCost{Rule: labels.Draw(t, "rule"), NsPerEvent: rapid.Float64Range(0, 1e9).Draw(t, "ns"), Share: rapid.Float64Range(0, 1).Draw(t, "share")})
			r.Forgotten = append(r.Forgotten, holdfast.Forgotten{Rule: labels.Draw(t, "correlation"), Count: rapid.Uint64().Draw(t, "count")})
		}
		m, err := Custom(ReportType, r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ReportOf(m)
		if err != nil {
			t.Fatal(err)
		}
		empty := func(g holdfast.Generation) bool { return len(g) == 0 }
		if diff := cmp.Diff(r, got, cmp.FilterValues(func(a, b holdfast.Generation) bool { return empty(a) && empty(b) }, cmp.Ignore()),
			cmp.FilterValues(func(a, b []holdfast.Digest) bool { return len(a)+len(b) == 0 }, cmp.Ignore())); diff != "" {
			t.Fatal(diff)
		}
	})
}

// A host is never lost over what it says of its rules' costs.
func TestWhatIsAbsurdAboutCostsIsDropped(t *testing.T) {
	many := strings.TrimSuffix(strings.Repeat(`{"rule":"r","ns_per_event":1,"share":0.5},`, 100), ",")
	for name, c := range map[string]struct {
		data             string
		costs, forgotten int
	}{
		"too many":  {`{"costs":[` + many + `],"forgotten":[` + many + `]}`, maxCosts, maxForgotten},
		"negative":  {`{"costs":[{"rule":"r","ns_per_event":-1}]}`, 0, 0},
		"endless":   {`{"costs":[{"rule":"r","ns_per_event":1e300},{"rule":"q","ns_per_event":2}]}`, 1, 0},
		"no share":  {`{"costs":[{"rule":"r","share":7}]}`, 0, 0},
		"escape":    {`{"costs":[{"rule":"\u001b[2J"}],"forgotten":[{"rule":"\u001b[2J"}]}`, 0, 0},
		"long name": {`{"forgotten":[{"rule":"` + strings.Repeat("a", 300) + `"}]}`, 0, 0},
	} {
		r, err := ReportOf(&protobufs.CustomMessage{Capability: Capability, Type: ReportType, Data: []byte(c.data)})
		if err != nil || len(r.Costs) != c.costs || len(r.Forgotten) != c.forgotten {
			t.Errorf("%s: %d costs, %d forgotten: %v", name, len(r.Costs), len(r.Forgotten), err)
		}
	}
}

func TestHostileReportsAreRefused(t *testing.T) {
	many := make([]string, maxShunned+1)
	for i := range many {
		many[i] = `"` + string(holdfast.DigestOf([]byte{byte(i), byte(i >> 8)})) + `"`
	}
	for name, data := range map[string]string{
		"no JSON":         `{`,
		"wrong type":      `{"crashes":"many"}`,
		"negative":        `{"crashes":-1}`,
		"no digest":       `{"running":{"rules":"latest"}}`,
		"path in digest":  `{"running":{"rules":"sha256:../../../../etc/passwd"}}`,
		"too many shuns":  `{"shunned":[` + strings.Join(many, ",") + `]}`,
		"escape in boot":  `{"boot":"\u001b[2J"}`,
		"long activation": `{"activation":"` + strings.Repeat("a", 300) + `"}`,
		"too long":        `{"reason":"` + strings.Repeat("a", maxCustom) + `"}`,
	} {
		if _, err := ReportOf(&protobufs.CustomMessage{Capability: Capability, Type: ReportType, Data: []byte(data)}); holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%s: %v; want an Invalid error", name, err)
		}
	}
}

func TestStatusesTellFailedFromNeverHad(t *testing.T) {
	a, b := holdfast.DigestOf([]byte("a")), holdfast.DigestOf([]byte("b"))
	for _, c := range []struct {
		name   string
		report holdfast.HostReport
		status protobufs.PackageStatusEnum
	}{
		{"never had b", holdfast.HostReport{Running: holdfast.Generation{"rules": a}}, protobufs.PackageStatusEnum_PackageStatusEnum_Installed},
		{
			"rolled back from b",
			holdfast.HostReport{Running: holdfast.Generation{"rules": a}, Attempted: holdfast.Generation{"rules": b}, Failed: holdfast.Generation{"rules": b}},
			protobufs.PackageStatusEnum_PackageStatusEnum_InstallFailed,
		},
		{
			"b in probation",
			holdfast.HostReport{Running: holdfast.Generation{"rules": b}, Attempted: holdfast.Generation{"rules": b}, Probation: true},
			protobufs.PackageStatusEnum_PackageStatusEnum_Installing,
		},
		{
			"b proved itself",
			holdfast.HostReport{Running: holdfast.Generation{"rules": b}, Attempted: holdfast.Generation{"rules": b}},
			protobufs.PackageStatusEnum_PackageStatusEnum_Installed,
		},
	} {
		if got := Statuses(c.report, nil).Packages["rules"].Status; got != c.status {
			t.Errorf("%s: %v, want %v", c.name, got, c.status)
		}
	}
}

func TestTokensSurviveAndDamageIsSeen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tok := Token{Server: "https://example.org:8443", Secret: rapid.StringMatching(`[A-Za-z0-9_-]{43}`).Draw(t, "secret")}
		copy(tok.CA[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "ca"))
		if rapid.Bool().Draw(t, "root") {
			tok.Root = rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "root digest")
		} else {
			tok.Root = []byte{}
		}
		s := tok.String()
		got, err := ParseToken("  " + s + "\n")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tok, got); diff != "" {
			t.Fatal(diff)
		}
		if _, err := ParseToken(s[:rapid.IntRange(0, len(s)-8).Draw(t, "cut")]); holdfast.KindOf(err) != holdfast.Invalid {
			t.Fatalf("a cut token: %v", err)
		}
	})
}

var facts = rapid.Custom(func(t *rapid.T) holdfast.Fact {
	return holdfast.Fact{Field: labels.Draw(t, "field"), Value: rapid.String().Draw(t, "value")}
})

var findings = rapid.Custom(func(t *rapid.T) holdfast.Finding {
	return holdfast.Finding{
		ID: "f" + labels.Draw(t, "id"), Hostname: labels.Draw(t, "host"), Rule: labels.Draw(t, "rule"), Title: rapid.String().Draw(t, "title"),
		Severity:   rapid.SampledFrom([]holdfast.Severity{"informational", "low", "medium", "high", "critical"}).Draw(t, "severity"),
		Techniques: rapid.SliceOfN(rapid.StringMatching(`T[0-9]{4}(\.[0-9]{3})?`), 0, 4).Draw(t, "techniques"),
		At:         someTime.Draw(t, "at"), Bundle: digests.Draw(t, "bundle"),
		Event: rapid.SliceOfN(facts, 0, 8).Draw(t, "event"), Matched: rapid.SliceOfN(facts, 0, 4).Draw(t, "matched"),
		Why: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) holdfast.Reason {
			return holdfast.Reason{
				Search: rapid.String().Draw(t, "search"), Field: labels.Draw(t, "field"), Test: labels.Draw(t, "test"), Counted: labels.Draw(t, "counted"),
				Fits: rapid.SliceOfN(rapid.String(), 0, 3).Draw(t, "fits"),
			}
		}), 0, 3).Draw(t, "why"),
		Tree: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) holdfast.Process {
			return holdfast.Process{
				PID: rapid.IntRange(0, 1<<22).Draw(t, "pid"), Path: rapid.String().Draw(t, "path"), CmdLine: rapid.String().Draw(t, "cmd"),
				User: labels.Draw(t, "user"), Started: someTime.Draw(t, "started"),
			}
		}), 0, 5).Draw(t, "tree"),
	}
})

var emptyIsNil = cmp.Options{
	cmp.FilterValues(func(a, b []holdfast.Fact) bool { return len(a)+len(b) == 0 }, cmp.Ignore()),
	cmp.FilterValues(func(a, b []holdfast.Reason) bool { return len(a)+len(b) == 0 }, cmp.Ignore()),
	cmp.FilterValues(func(a, b []holdfast.Process) bool { return len(a)+len(b) == 0 }, cmp.Ignore()),
	cmp.FilterValues(func(a, b []string) bool { return len(a)+len(b) == 0 }, cmp.Ignore()),
}

func TestFindingsSurviveTheWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(findings, 0, 3).Draw(t, "findings")
		var records [][]byte
		for _, f := range want {
			b, err := MarshalFinding(f)
			if err != nil {
				t.Fatal(err)
			}
			records = append(records, b)
		}
		b := ExportRequest(holdfast.Attributes{Hostname: "web-1"}, records)
		got, rejected, why, err := Findings(b)
		if err != nil || rejected != 0 {
			t.Fatal(rejected, why, err)
		}
		if diff := cmp.Diff(append([]holdfast.Finding{}, want...), append([]holdfast.Finding{}, got...), emptyIsNil); diff != "" {
			t.Fatal(diff)
		}
		// What we assemble by hand is what the official messages say.
		var official collector.ExportLogsServiceRequest
		if err := proto.Unmarshal(b, &official); err != nil {
			t.Fatal(err)
		}
		if n := len(official.ResourceLogs[0].ScopeLogs[0].LogRecords); n != len(want) {
			t.Fatalf("the official decoder sees %d records of %d", n, len(want))
		}
	})
}

func TestLargeFindingsAreCutAndSaySo(t *testing.T) {
	f := holdfast.Finding{ID: "f", Severity: "high", At: time.Unix(1e9, 0), Title: strings.Repeat("\x01", 1<<20)}
	for range 1000 {
		f.Event = append(f.Event, holdfast.Fact{Field: strings.Repeat("\x01", 1<<14), Value: strings.Repeat("\xff", 1<<14)})
		f.Matched = append(f.Matched, holdfast.Fact{Field: "f", Value: strings.Repeat("\x02", 1<<14)})
		f.Tree = append(f.Tree, holdfast.Process{CmdLine: strings.Repeat("\x02", 1<<14)})
		f.Why = append(f.Why, holdfast.Reason{Search: strings.Repeat("\x02", 1<<14), Fits: slices.Repeat([]string{strings.Repeat("\x02", 1<<14)}, 100)})
		f.Techniques = append(f.Techniques, "T1059")
	}
	b, err := MarshalFinding(f)
	if err != nil || len(b) > MaxRecord {
		t.Fatal(len(b), err)
	}
	got, rejected, why, err := Findings(ExportRequest(holdfast.Attributes{}, [][]byte{b}))
	if err != nil || rejected != 0 || len(got) != 1 {
		t.Fatal(rejected, why, err)
	}
	if last := got[0].Event[len(got[0].Event)-1]; last.Field != truncated {
		t.Errorf("nothing says that the finding was cut: %v", last)
	}
}

func TestOneBadRecordDoesNotHoldUpTheOthers(t *testing.T) {
	good, err := MarshalFinding(holdfast.Finding{ID: "f", Severity: "high", At: time.Unix(1e9, 0)})
	if err != nil {
		t.Fatal(err)
	}
	got, rejected, why, err := Findings(ExportRequest(holdfast.Attributes{}, [][]byte{good, nil, good}))
	if err != nil || rejected != 1 || why == "" || len(got) != 2 {
		t.Fatalf("%d found, %d rejected (%s), %v", len(got), rejected, why, err)
	}
	if _, _, _, err := Findings(ExportRequest(holdfast.Attributes{}, make([][]byte, MaxRecords+1))); holdfast.KindOf(err) != holdfast.Invalid {
		t.Errorf("too many records: %v", err)
	}
	for _, f := range []holdfast.Finding{{Severity: "high", At: time.Unix(1, 0)}, {ID: "f", Severity: "loud", At: time.Unix(1, 0)}, {ID: "f", Severity: "low"}} {
		if _, err := MarshalFinding(f); holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%+v: %v; want an Invalid error before it is queued", f, err)
		}
	}
}
