package worker

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/sensor"
)

// Config is agent.json: what a host is told by the people who run it. What it
// learns at enrolment (its id, its certificate) is kept below State instead.
type Config struct {
	// Servers names the hosts' listener ("https://holdfast.example:8443"). Left
	// out, it is where the host enrolled. It is a list of one for now.
	Servers []string `json:"servers,omitempty"`
	// State is the directory for everything this host keeps.
	State string `json:"state"`
	// Org and Role are what the host says of itself when it enrols.
	Org  holdfast.OrgID `json:"org,omitempty"`
	Role string         `json:"role,omitempty"`
	// Domain is the trust domain whose content may run here: "production", or
	// "drill" on hosts that exist to be broken. It cannot be both.
	Domain string `json:"domain"`
	// Sensor is auto, ebpf, proc, replay or none.
	Sensor string  `json:"sensor,omitempty"`
	Replay *Replay `json:"replay,omitempty"`
	// Consent makes this host keep to what its organisation signed.
	Consent Consent `json:"consent,omitzero"`
	// Heartbeat is how often the host reports, 60 s in production.
	Heartbeat Duration `json:"heartbeat,omitempty"`
}

// Replay names recorded events for the sensor "replay".
type Replay struct {
	File string  `json:"file"`
	Loop bool    `json:"loop,omitempty"`
	Rate float64 `json:"rate,omitempty"` // launches per second; 0 as fast as they can be evaluated
}

// Consent is how a host knows its organisation's decisions (docs/consent.md).
type Consent struct {
	// Keys are the organisation's public keys, Ed25519 in base64. A policy
	// signed by one of them counts.
	Keys []string `json:"keys"`
	// File, if set, is a signed policy that came by another road than the
	// server's. Of the two the newer counts.
	File string `json:"file,omitempty"`
}

// The trust domains.
const (
	Production = "production"
	DrillOnly  = "drill"
)

// Duration is a time.Duration written as people write it: "60s", "1h30m".
type Duration time.Duration

// UnmarshalJSON reads a duration.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return errors.New(`a duration is a text such as "60s"`)
	}
	v, err := time.ParseDuration(s)
	*d = Duration(v)
	return err
}

// MarshalJSON writes a duration.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// The bounds of a configuration.
const (
	maxConfig    = 64 << 10
	minHeartbeat = 100 * time.Millisecond // the drill's clock
	maxHeartbeat = time.Hour

	maxConsentKeys = 8
)

func (c Consent) keys() ([]ed25519.PublicKey, error) {
	var keys []ed25519.PublicKey
	for _, k := range c.Keys {
		raw, err := base64.StdEncoding.DecodeString(k)
		if err != nil || len(raw) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("%.60q is not an Ed25519 public key in base64", k)
		}
		keys = append(keys, raw)
	}
	return keys, nil
}

// ReadConfig reads agent.json and fills in what it leaves out.
func ReadConfig(file string) (Config, error) {
	f, err := os.Open(file)
	if err != nil {
		return Config{}, &holdfast.Error{Kind: holdfast.Invalid, What: "the configuration cannot be read", Err: err, Do: "name it with --config FILE"}
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return Config{}, &holdfast.Error{Kind: holdfast.Invalid, Where: file, Err: err}
	}
	return parseConfig(file, data)
}

func parseConfig(file string, data []byte) (Config, error) {
	c := Config{
		Org: holdfast.DefaultOrg, Role: "server", Domain: Production,
		Sensor: sensor.Auto, Heartbeat: Duration(time.Minute),
	}
	refuse := func(field, what, do string) (Config, error) {
		where := fmt.Sprintf("%s:%d", file, lineOf(data, field))
		if field != "" {
			where += ": " + field
		}
		return Config{}, &holdfast.Error{Kind: holdfast.Invalid, What: what, Where: where, Do: do}
	}
	if len(data) > maxConfig {
		return refuse("", "longer than 64 KiB", "")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return Config{}, decodeProblem(file, data, d.InputOffset(), err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return refuse("", "something follows the configuration's last brace", "")
	}

	if c.State == "" || !filepath.IsAbs(c.State) {
		return refuse("state", "the state directory must be an absolute path", `such as "/var/lib/holdfast"`)
	}
	if len(c.Servers) > 1 {
		return refuse("servers", "more than one server", "name one; the host follows it when it moves")
	}
	for _, s := range c.Servers {
		if u, err := url.Parse(s); err != nil || u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.User != nil {
			return refuse("servers", fmt.Sprintf("%q is not the address of a server", s), `write "https://", a name and perhaps a port`)
		}
	}
	if c.Domain != Production && c.Domain != DrillOnly {
		return refuse("domain", fmt.Sprintf("%q is not a trust domain", c.Domain), "use production or drill")
	}
	switch c.Sensor {
	case sensor.Auto, sensor.TierEBPF, sensor.TierProc, sensor.TierNone:
	case sensor.TierReplay:
		if c.Replay == nil || c.Replay.File == "" {
			return refuse("sensor", "the sensor replay needs events", `name their file: "replay": {"file": "/path/events.jsonl"}`)
		}
	default:
		return refuse("sensor", fmt.Sprintf("no sensor is called %q", c.Sensor), "use auto, ebpf, proc, replay or none")
	}
	if len(c.Consent.Keys) == 0 && c.Consent.File != "" || c.Consent.File != "" && !filepath.IsAbs(c.Consent.File) {
		return refuse("consent", "a policy file needs the organisation's keys and an absolute path", "")
	}
	if len(c.Consent.Keys) > maxConsentKeys {
		return refuse("consent", fmt.Sprintf("more than %d keys", maxConsentKeys), "")
	}
	if _, err := c.Consent.keys(); err != nil {
		return refuse("consent", err.Error(), "holdfast consent keygen prints it")
	}
	if c.Replay != nil && (c.Replay.Rate < 0 || c.Replay.Rate > 1e6) {
		return refuse("replay", "the rate must be 0 to 1,000,000 events per second", "")
	}
	if h := time.Duration(c.Heartbeat); h < minHeartbeat || h > maxHeartbeat {
		return refuse("heartbeat", fmt.Sprintf("a heartbeat every %s is outside 100ms to 1h", h), "60s is usual")
	}
	return c, nil
}

// decodeProblem says which line and field the JSON decoder stumbled over.
func decodeProblem(file string, data []byte, offset int64, err error) error {
	e := &holdfast.Error{Kind: holdfast.Invalid, Err: err}
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		offset = syntax.Offset
	case errors.As(err, &kind):
		offset = kind.Offset
		e.Err, e.What = nil, fmt.Sprintf("%s needs a %s, not a %s", kind.Field, kind.Type, kind.Value)
	default:
		if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
			e.Err, e.What = nil, "no field is called "+name
			e.Do = "the fields are servers, state, org, role, domain, sensor, replay, consent and heartbeat"
			if at := bytes.Index(data, []byte(name)); at >= 0 {
				offset = int64(at)
			}
		}
	}
	e.Where = fmt.Sprintf("%s:%d", file, 1+bytes.Count(data[:min(max(offset, 0), int64(len(data)))], []byte("\n")))
	return e
}

// lineOf returns the line on which a field of the configuration stands, or its
// last line if it is not there.
func lineOf(data []byte, field string) int {
	at := bytes.Index(data, []byte(`"`+field+`"`))
	if at < 0 {
		at = len(bytes.TrimRight(data, "\n"))
	}
	return 1 + bytes.Count(data[:at], []byte("\n"))
}
