// Package wire maps the messages that hosts and the control plane exchange to
// the nouns and back: OpAMP (agent description, package offers and statuses,
// custom messages), OTLP logs that carry OCSF findings, and enrolment.
//
// Everything it decodes comes from the other side of a network and is bounded:
// a message that is too long, too deep or malformed is refused with an Invalid
// error and changes nothing. It has no state and does no I/O.
package wire

import (
	"encoding/hex"
	"strconv"
	"unicode"
	"unicode/utf8"

	"github.com/holdfast-security/holdfast"
)

// The paths on the hosts' listener.
const (
	EnrolPath = "/v1/enrol" // POST EnrolRequest, EnrolResponse
	RenewPath = "/v1/renew" // POST RenewRequest, RenewResponse; no certificate needed, it may have expired
	OpAMPPath = "/v1/opamp" // WebSocket
	LogsPath  = "/v1/logs"  // POST OTLP ExportLogsServiceRequest

	// GET: the signed policy of the organisation in the client's certificate,
	// with ConsentTag as its ETag; 404 if there is none.
	ConsentPath = "/v1/consent"
)

// ConsentTag is the entity tag of a version of an organisation's policy.
func ConsentTag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

// MaxMessage bounds one OpAMP message in either direction, in bytes.
const MaxMessage = 64 << 10

const maxText = 256 // bytes of any name, version or label that a peer sends

// text refuses what is too long or could disturb a terminal, a log or a page.
func text(where, s string) error {
	switch {
	case len(s) > maxText:
		return invalid(where, "is longer than 256 bytes")
	case !utf8.ValidString(s):
		return invalid(where, "is not UTF-8")
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return invalid(where, "holds a control character")
		}
	}
	return nil
}

func invalid(where, what string) error {
	return &holdfast.Error{Kind: holdfast.Invalid, What: what, Where: where}
}

// hashOf returns the 32 bytes of a digest, or nil for none.
func hashOf(d holdfast.Digest) []byte {
	b, err := hex.DecodeString(d.Hex())
	if err != nil || len(b) != 32 {
		return nil
	}
	return b
}

// digestOf is the inverse of hashOf.
func digestOf(where string, hash []byte) (holdfast.Digest, error) {
	switch len(hash) {
	case 0:
		return "", nil
	case 32:
		return holdfast.Digest("sha256:" + hex.EncodeToString(hash)), nil
	}
	return "", invalid(where, "is not a SHA-256")
}

// clip cuts s to at most n bytes, at a rune's border.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
