package worker

import (
	"strings"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
)

func TestConfigDefaults(t *testing.T) {
	c, err := parseConfig("agent.json", []byte(`{"state": "/var/lib/holdfast"}`))
	if err != nil {
		t.Fatal(err)
	}
	if c.Sensor != "auto" || c.Domain != "production" || time.Duration(c.Heartbeat) != time.Minute || c.Org != holdfast.DefaultOrg || c.Role != "server" {
		t.Errorf("%+v", c)
	}
}

func TestBadConfigIsRefusedWithPlaceAndReason(t *testing.T) {
	for name, c := range map[string]struct{ text, where, what string }{
		"not JSON":             {"{\n\"state\": ,\n}", "agent.json:2", "invalid character"},
		"unknown field":        {"{\"state\": \"/s\",\n\"servr\": 1}", "agent.json:2", `no field is called "servr"`},
		"wrong type":           {"{\"state\": \"/s\",\n\"role\": 7}", "agent.json:2", "role needs a string, not a number"},
		"no state":             {"{\"role\": \"laptop\"\n}", "agent.json:2: state", "absolute path"},
		"relative state":       {"{\n\"state\": \"var\"}", "agent.json:2: state", "absolute path"},
		"plain http":           {"{\"state\": \"/s\",\n\"servers\": [\"http://x\"]}", "agent.json:2: servers", `"http://x" is not the address`},
		"two servers":          {"{\"state\": \"/s\",\n\"servers\": [\"https://x\", \"https://y\"]}", "agent.json:2: servers", "more than one"},
		"domain":               {"{\"state\": \"/s\",\n\"domain\": \"prod\"}", "agent.json:2: domain", `"prod" is not a trust domain`},
		"sensor":               {"{\"state\": \"/s\",\n\"sensor\": \"kprobe\"}", "agent.json:2: sensor", `"kprobe"`},
		"replay, no file":      {"{\"state\": \"/s\",\n\"sensor\": \"replay\"}", "agent.json:2: sensor", "needs events"},
		"heartbeat":            {"{\"state\": \"/s\",\n\"heartbeat\": \"1ms\"}", "agent.json:2: heartbeat", "outside 100ms to 1h"},
		"heartbeat number":     {"{\"state\": \"/s\",\n\"heartbeat\": 60}", "agent.json", `a duration is a text such as "60s"`},
		"consent, no key":      {"{\"state\": \"/s\",\n\"consent\": {\"keys\": [\"MCowBQYDK2VwAyEA\"]}}", "agent.json:2: consent", "not an Ed25519 public key"},
		"consent, only a file": {"{\"state\": \"/s\",\n\"consent\": {\"file\": \"/etc/holdfast/consent.json\"}}", "agent.json:2: consent", "needs the organisation's keys"},
		"two documents":        {"{\"state\": \"/s\"} {}", "agent.json:1", "follows"},
		"too long":             {"{\"state\": \"/s\"}" + strings.Repeat(" ", maxConfig), "agent.json", "64 KiB"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseConfig("agent.json", []byte(c.text))
			if err == nil || holdfast.KindOf(err) != holdfast.Invalid {
				t.Fatalf("err %v", err)
			}
			if s := err.Error(); !strings.HasPrefix(s, c.where) || !strings.Contains(s, c.what) {
				t.Errorf("%q; want it to begin with %q and to say %q", s, c.where, c.what)
			}
		})
	}
}

func TestParseGeneration(t *testing.T) {
	d := holdfast.DigestOf([]byte("x"))
	g, err := ParseGeneration("agent=" + string(d) + ",rules=" + string(d))
	if err != nil || g[holdfast.Agent] != d || g[holdfast.Rules] != d {
		t.Errorf("%v %v", g, err)
	}
	if g, err := ParseGeneration(""); err != nil || len(g) != 0 {
		t.Errorf("%v %v", g, err)
	}
	for _, bad := range []string{"rules", "rules=", "=" + string(d), "rules=sha256:x", "rules=../../etc/passwd", ","} {
		if _, err := ParseGeneration(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestKernelIsShortenedToWhatAStratumNeeds(t *testing.T) {
	for release, want := range map[string]string{"6.1.0-18-amd64": "6.1", "6.18.44": "6.18", "5.15-custom": "5.15", "": "", "linux": ""} {
		if got := majorMinor(release); got != want {
			t.Errorf("%q: %q, want %q", release, got, want)
		}
	}
}
