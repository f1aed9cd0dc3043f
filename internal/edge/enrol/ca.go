package enrol

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base32"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-security/holdfast"
)

const (
	caLife = 20 * 365 * 24 * time.Hour // replaced by enrolling anew
	// Life is how long a client certificate is good for. Hosts renew at half of
	// it; one that was away for longer renews with its expired certificate.
	Life       = 14 * 24 * time.Hour
	serverLife = 90 * 24 * time.Hour
	// skew is how far a host's clock may be behind ours.
	skew = time.Hour
)

// CA is the certificate authority of hosts: it signs their client
// certificates and the certificate of the listener they connect to, so that
// one pinned fingerprint is all a host must be given. Safe for concurrent use.
type CA struct {
	key    *ecdsa.PrivateKey
	cert   *x509.Certificate
	naming []byte // key of the pseudo-random function that names hosts
	ticket []byte // key that the keys of TLS session tickets are derived from

	mu     sync.Mutex
	server *tls.Certificate // of the listener, renewed as it ages
	names  []string
}

// OpenCA reads the authority from dir, and draws one if there is none yet. Key
// and certificate are one file, readable by its owner only, which appears
// whole or not at all.
func OpenCA(dir string, now time.Time) (*CA, error) {
	file := filepath.Join(dir, "hosts-ca.pem")
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		if b, err = drawCA(now); err != nil {
			return nil, err
		}
		if err = writeOnce(file, b); errors.Is(err, os.ErrExist) { // another process was faster
			b, err = os.ReadFile(file)
		}
	}
	if err != nil {
		return nil, &holdfast.Error{Kind: holdfast.Internal, What: "cannot open the hosts' certificate authority", Err: err}
	}
	ca, err := parseCA(b)
	if err != nil {
		return nil, &holdfast.Error{
			Kind: holdfast.Internal, What: "the hosts' certificate authority is damaged", Where: file, Err: err,
			Do: "restore the file from a backup; without it every host must enrol again",
		}
	}
	return ca, nil
}

func drawCA(now time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: "Holdfast hosts"},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(caLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...), nil
}

func parseCA(b []byte) (*CA, error) {
	var ca CA
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "PRIVATE KEY":
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, err
			}
			var ok bool
			if ca.key, ok = key.(*ecdsa.PrivateKey); !ok {
				return nil, errors.New("the key is not an ECDSA key")
			}
			ca.naming = derive(block.Bytes, "holdfast host names v1")
			ca.ticket = derive(block.Bytes, "holdfast session tickets v1")
		case "CERTIFICATE":
			var err error
			if ca.cert, err = x509.ParseCertificate(block.Bytes); err != nil {
				return nil, err
			}
		}
	}
	if ca.key == nil || ca.cert == nil || !ca.key.PublicKey.Equal(ca.cert.PublicKey) {
		return nil, errors.New("key and certificate do not both stand in it, or do not belong together")
	}
	return &ca, nil
}

// writeOnce creates the file with its content, durably, or fails with
// os.ErrExist.
func writeOnce(file string, b []byte) error {
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, ".hosts-ca-*") // CreateTemp makes it 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(b)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), file); err != nil { // unlike a rename, a link never replaces
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// DER returns the authority's certificate.
func (ca *CA) DER() []byte { return ca.cert.Raw }

// Fingerprint is what hosts pin: the SHA-256 of the authority's certificate.
func (ca *CA) Fingerprint() [sha256.Size]byte { return sha256.Sum256(ca.cert.Raw) }

// nameOf returns the id of the host that holds a public key. It is a
// pseudo-random function of the key: asking twice with one key (because the
// first answer was lost) gives one host, and nobody can choose an id, and with
// it a ring, by trying keys.
func (ca *CA) nameOf(spki []byte) holdfast.HostID {
	name := derive(ca.naming, string(spki))[:15]
	return holdfast.HostID(strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(name)))
}

func derive(key []byte, purpose string) []byte {
	prf := hmac.New(sha256.New, key)
	prf.Write([]byte(purpose))
	return prf.Sum(nil)
}

// issue signs a client certificate for a host's key.
func (ca *CA) issue(csr *x509.CertificateRequest, id holdfast.HostID, org holdfast.OrgID, life time.Duration, now time.Time) (der []byte, serialHex string, err error) {
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: string(id), Organization: []string{string(org)}},
		NotBefore:    now.Add(-skew),
		NotAfter:     now.Add(life),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err = x509.CreateCertificate(rand.Reader, template, ca.cert, csr.PublicKey, ca.key)
	return der, template.SerialNumber.Text(16), err
}

// readCSR takes a request whose signer holds an ECDSA P-256 key. All else that
// it asks for is ignored.
func readCSR(der []byte) (*x509.CertificateRequest, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return nil, &holdfast.Error{Kind: holdfast.Invalid, Where: "csr", Err: err}
	}
	if key, ok := csr.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
		return nil, &holdfast.Error{Kind: holdfast.Invalid, Where: "csr", What: "the key is not an ECDSA P-256 key"}
	}
	return csr, nil
}

func serial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	b[0] &= 0x7f           // positive, at most 20 octets (RFC 5280)
	return new(big.Int).SetBytes(b[:])
}

// TLSConfig is the configuration of the hosts' listener under the given host
// names and addresses. A client certificate is asked for and its key proven
// in the handshake, but whether it is good is decided by Host, because
// enrolment and renewal come without one.
//
// A host that was here within the last day resumes its session, which spares
// most of the handshake, even if the server was restarted meanwhile: the keys
// of session tickets are derived from the authority's. A resumed session still
// has fresh keys (psk_dhe_ke), and Host looks at its certificate as at any.
func (ca *CA) TLSConfig(names []string, now func() time.Time) (*tls.Config, error) {
	ca.mu.Lock()
	ca.names = slices.Clone(names)
	ca.server = nil
	ca.mu.Unlock()
	if _, err := ca.serverCertificate(now()); err != nil {
		return nil, err
	}
	base := &tls.Config{
		MinVersion:     tls.VersionTLS13,
		ClientAuth:     tls.RequestClientCert,
		Time:           now,
		NextProtos:     []string{"http/1.1"}, // a WebSocket needs the whole connection
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return ca.serverCertificate(now()) },
	}
	cfg := base.Clone()
	var mu sync.Mutex
	var today *tls.Config
	var day int64
	cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		mu.Lock()
		defer mu.Unlock()
		if d := now().Unix() / (24 * 60 * 60); today == nil || d != day {
			day, today = d, base.Clone()
			today.SetSessionTicketKeys([][32]byte{ca.ticketKey(d), ca.ticketKey(d - 1)})
		}
		return today, nil
	}
	return cfg, nil
}

func (ca *CA) ticketKey(day int64) [32]byte {
	return [32]byte(derive(ca.ticket, strconv.FormatInt(day, 10)))
}

func (ca *CA) serverCertificate(now time.Time) (*tls.Certificate, error) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if ca.server != nil && now.Before(ca.server.Leaf.NotAfter.Add(-serverLife/3)) {
		return ca.server, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: "holdfastd"},
		NotBefore:    now.Add(-skew),
		NotAfter:     now.Add(serverLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, n := range ca.names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	ca.server = &tls.Certificate{Certificate: [][]byte{der, ca.cert.Raw}, PrivateKey: key, Leaf: leaf}
	return ca.server, nil
}

// Host says which host a request comes from: the one whose certificate, signed
// by this authority and valid now, its connection was opened with.
func (ca *CA) Host(r *http.Request, now time.Time) (holdfast.HostID, error) {
	denied := func(what, do string) (holdfast.HostID, error) {
		return "", &holdfast.Error{Kind: holdfast.Denied, What: what, Do: do}
	}
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return denied("no client certificate was presented", "enrol the host")
	}
	leaf := r.TLS.PeerCertificates[0]
	switch {
	case !bytes.Equal(leaf.RawIssuer, ca.cert.RawSubject) || leaf.CheckSignatureFrom(ca.cert) != nil:
		return denied("the client certificate is not of this control plane", "enrol the host")
	case leaf.IsCA || !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth) || leaf.Subject.CommonName == "":
		return denied("the certificate is not a host's", "enrol the host")
	case now.After(leaf.NotAfter) || now.Before(leaf.NotBefore):
		return denied("the host's certificate is expired or not yet valid", "renew it")
	}
	return holdfast.HostID(leaf.Subject.CommonName), nil
}
