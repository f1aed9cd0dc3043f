package wire

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/open-telemetry/opamp-go/protobufs"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-security/holdfast"
)

// What the fuzz targets demand: no input panics, and what is taken is stable,
// that is, writing it again and reading that gives the same.

func FuzzAgentToServer(f *testing.F) {
	m, _ := Custom(ReportType, holdfast.HostReport{Boot: "b", Running: holdfast.Generation{"rules": holdfast.DigestOf(nil)}})
	b, _ := Marshal(&protobufs.AgentToServer{AgentDescription: Description("h", holdfast.Attributes{Kernel: "6.1"}), CustomMessage: m})
	f.Add(b)
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var m protobufs.AgentToServer
		if Unmarshal(b, &m) != nil {
			return
		}
		if a, err := AttributesOf(m.AgentDescription); err == nil {
			again, err := AttributesOf(Description("h", a))
			if err != nil || a != again {
				t.Fatalf("%+v became %+v, %v", a, again, err)
			}
		}
		if r, err := ReportOf(m.CustomMessage); err == nil {
			c, err := Custom(ReportType, r)
			if err != nil {
				t.Fatal(err)
			}
			again, err := ReportOf(c)
			if err != nil || again.Boot != r.Boot || !again.Running.Equal(r.Running) {
				t.Fatalf("%+v became %+v, %v", r, again, err)
			}
		}
		_, _ = LeaseRequestOf(m.CustomMessage)
	})
}

func FuzzServerToAgent(f *testing.F) {
	l, _ := Custom(LeaseType, Lease{Lease: "l", Granted: true, Expires: time.Unix(1e9, 0)})
	b, _ := Marshal(&protobufs.ServerToAgent{
		CustomMessage:     l,
		PackagesAvailable: Packages(holdfast.Offer{Lease: "l", Channel: "rules", Digest: holdfast.DigestOf(nil), Arm: holdfast.New, Expires: time.Unix(1e9, 0)}),
	})
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var m protobufs.ServerToAgent
		if Unmarshal(b, &m) != nil {
			return
		}
		if o, err := OfferOf(m.PackagesAvailable); err == nil {
			p, err := proto.Marshal(Packages(o))
			if err != nil {
				t.Fatal(err)
			}
			var again protobufs.PackagesAvailable
			if err := proto.Unmarshal(p, &again); err != nil {
				t.Fatal(err)
			}
			o2, err := OfferOf(&again)
			if err != nil || !o.Expires.Equal(o2.Expires) {
				t.Fatalf("%+v became %+v, %v", o, o2, err)
			}
			o.Expires, o2.Expires = time.Time{}, time.Time{}
			if o != o2 {
				t.Fatalf("%+v became %+v", o, o2)
			}
		}
		_, _ = LeaseOf(m.CustomMessage)
	})
}

func FuzzFindings(f *testing.F) {
	r, err := MarshalFinding(holdfast.Finding{
		ID: "f", Severity: "high", At: time.Unix(1e9, 1), Techniques: []string{"T1059"}, Event: []holdfast.Fact{{Field: "a", Value: "b"}},
		Tree: []holdfast.Process{{PID: 1}, {PID: 2}},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ExportRequest(holdfast.Attributes{Hostname: "h"}, [][]byte{r, r}))
	f.Fuzz(func(t *testing.T, b []byte) {
		found, _, _, err := Findings(b)
		if err != nil {
			return
		}
		for _, one := range found {
			again, err := MarshalFinding(one)
			if err != nil {
				t.Fatalf("a finding that was taken cannot be written: %v", err)
			}
			two, _, why, err := Findings(ExportRequest(holdfast.Attributes{}, [][]byte{again}))
			if err != nil || len(two) != 1 {
				t.Fatal(why, err)
			}
			if two[0].ID != one.ID || cmp.Diff(one.Techniques, two[0].Techniques, emptyIsNil) != "" {
				t.Fatalf("%+v became %+v", one, two[0])
			}
		}
	})
}

func FuzzToken(f *testing.F) {
	f.Add(Token{Server: "https://h:1", Secret: strings.Repeat("s", 43)}.String())
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := ParseToken(s)
		if err != nil {
			return
		}
		again, err := ParseToken(tok.String())
		if err != nil || tok.Server != again.Server || tok.Secret != again.Secret {
			t.Fatalf("%q became %q, %v", s, tok.String(), err)
		}
	})
}
