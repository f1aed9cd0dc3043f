// Package holdfast holds the nouns of Holdfast, endpoint protection that cannot
// take down the fleet it protects, and the kinds of its errors.
//
// It is plain data with the little behaviour that every part must agree on
// (which ring a host is in, what a digest looks like). It imports only the
// standard library; the verbs live in the rooms under internal, which
// ARCHITECTURE.md lists and arch_test.go enforces.
package holdfast

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"time"
)

// OrgID names an organisation: a customer of a vendor or MSSP, or the single
// company that runs its own Holdfast (DefaultOrg).
type OrgID string

// DefaultOrg is the organisation of an installation that serves only itself.
const DefaultOrg OrgID = "default"

// HostID identifies an enrolled host for its whole life. It is drawn at random
// by the control plane at enrolment, and is the common name of the host's
// client certificate.
type HostID string

// Digest is the SHA-256 of a file's bytes, written "sha256:" and 64 lower-case
// hexadecimal digits. The zero value means "none".
type Digest string

// DigestOf returns the digest of b.
func DigestOf(b []byte) Digest {
	sum := sha256.Sum256(b)
	return Digest("sha256:" + hex.EncodeToString(sum[:]))
}

// ParseDigest checks the form of s.
func ParseDigest(s string) (Digest, error) {
	h, ok := strings.CutPrefix(s, "sha256:")
	if ok && len(h) == 64 && strings.Trim(h, "0123456789abcdef") == "" {
		return Digest(s), nil
	}
	return "", &Error{Kind: Invalid, What: "not a digest", Where: s[:min(len(s), 80)], Do: `write it as "sha256:" and 64 lower-case hexadecimal digits`}
}

// Hex returns the digest without its prefix: the name of its file in content
// stores. It never holds a path separator for a digest that ParseDigest took.
func (d Digest) Hex() string { return strings.TrimPrefix(string(d), "sha256:") }

// Short returns the first 12 hexadecimal digits, for people.
func (d Digest) Short() string { return d.Hex()[:min(12, len(d.Hex()))] }

// Channel is a named stream of content with versions of its own.
type Channel string

// The channels. All travel one road, through one gate.
const (
	Rules Channel = "rules" // Sigma (and later YARA) rules
	Agent Channel = "agent" // the worker binary, holdfast-agent
)

// Channels lists the channels this version knows, in a fixed order.
var Channels = []Channel{Rules, Agent}

// Generation is what runs on a host: the digest of each channel's content,
// together. A channel without content is absent, not empty.
type Generation map[Channel]Digest

// Equal reports whether both run the same content.
func (g Generation) Equal(o Generation) bool { return maps.Equal(g, o) }

// With returns a copy of g in which channel c runs d (or nothing, if d is
// empty).
func (g Generation) With(c Channel, d Digest) Generation {
	n := maps.Clone(g)
	if n == nil {
		n = Generation{}
	}
	if d == "" {
		delete(n, c)
	} else {
		n[c] = d
	}
	return n
}

// String writes the generation in channel order, for people and logs.
func (g Generation) String() string {
	if len(g) == 0 {
		return "(no content)"
	}
	var parts []string
	for _, c := range slices.Sorted(maps.Keys(g)) {
		parts = append(parts, string(c)+"="+g[c].Short())
	}
	return strings.Join(parts, " ")
}

// Bundle describes one version of a channel's content. The bytes live in the
// registry under their digest; package bundle reads and writes them.
type Bundle struct {
	Channel Channel   `json:"channel"`
	Version string    `json:"version"` // for people: "2026.11.21-1"; the digest decides
	Digest  Digest    `json:"digest"`
	Size    int64     `json:"size"` // bytes
	Created time.Time `json:"created"`
}
