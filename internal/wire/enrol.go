package wire

import (
	"crypto/sha256"
	"encoding/base64"
	"net/url"
	"strings"

	"github.com/holdfast-security/holdfast"
)

// Token is what a person carries to a host to enrol it. It is written
//
//	hfe1.<server>.<ca>.<root>.<secret>
//
// each part in base64url without padding: the URL of the hosts' listener, the
// SHA-256 of the certificate authority's certificate (DER), the SHA-256 of the
// image repository's root metadata (may be empty), and the enrolment's secret.
// With it a host needs to trust nothing it meets on the network: it speaks
// only to the holder of that authority's key, and believes only content signed
// under that root.
type Token struct {
	Server string
	CA     [sha256.Size]byte
	Root   []byte // 32 bytes, or empty
	Secret string
}

const tokenPrefix = "hfe1"

var b64 = base64.RawURLEncoding.Strict()

// String writes the token. It holds the secret: show it once, log it never.
func (t Token) String() string {
	parts := []string{tokenPrefix}
	for _, p := range [][]byte{[]byte(t.Server), t.CA[:], t.Root, []byte(t.Secret)} {
		parts = append(parts, b64.EncodeToString(p))
	}
	return strings.Join(parts, ".")
}

// ParseToken reads a token. Its error never repeats the token.
func ParseToken(s string) (Token, error) {
	bad := func(what string) (Token, error) {
		return Token{}, &holdfast.Error{Kind: holdfast.Invalid, What: what, Where: "enrolment token", Do: "copy it again, whole, from where it was shown"}
	}
	s = strings.TrimSpace(s)
	if len(s) > 2048 {
		return bad("is too long")
	}
	fields := strings.Split(s, ".")
	if len(fields) != 5 || fields[0] != tokenPrefix {
		return bad("does not look like hfe1.….….….…")
	}
	var parts [4][]byte
	for i, f := range fields[1:] {
		var err error
		if parts[i], err = b64.DecodeString(f); err != nil {
			return bad("is damaged")
		}
	}
	t := Token{Server: string(parts[0]), Root: parts[2], Secret: string(parts[3])}
	u, err := url.Parse(t.Server)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return bad("does not name an https server")
	}
	if len(parts[1]) != sha256.Size {
		return bad("does not name a certificate authority")
	}
	if len(t.Root) != 0 && len(t.Root) != sha256.Size {
		return bad("does not name a root")
	}
	if len(t.Secret) < minSecret || len(t.Secret) > maxText || text("", t.Secret) != nil {
		return bad("is cut short")
	}
	copy(t.CA[:], parts[1])
	return t, nil
}

const minSecret = 40 // 256 bits in base64url are 43

// EnrolRequest asks for an identity. Encoded as JSON.
type EnrolRequest struct {
	Secret     string              `json:"secret"` // Token.Secret
	CSR        []byte              `json:"csr"`    // PKCS #10, DER; the key is drawn on the host and stays there
	Attributes holdfast.Attributes `json:"attributes"`
	Simulated  bool                `json:"simulated,omitempty"` // the host only plays the protocol
}

// EnrolResponse gives it.
type EnrolResponse struct {
	Host        holdfast.HostID `json:"host"`
	Org         holdfast.OrgID  `json:"org"`
	Role        string          `json:"role,omitempty"` // the role the token gives, if it gives one
	Certificate []byte          `json:"certificate"`    // DER
	CA          []byte          `json:"ca"`             // DER
	// Roots pins what the host believes from now on: the initial TUF root
	// metadata of each repository, "image" and "director".
	Roots map[string][]byte `json:"roots,omitempty"`
}

// RenewRequest asks for a certificate with a later end. The key says which
// host asks, and its signature on the request that it is the host.
type RenewRequest struct {
	CSR []byte `json:"csr"`
}

// RenewResponse gives it.
type RenewResponse struct {
	Certificate []byte `json:"certificate"`
	CA          []byte `json:"ca"`
}

// MaxEnrolBody bounds the bodies of enrolment, in bytes. A response holds two
// pieces of root metadata.
const MaxEnrolBody = 256 << 10
