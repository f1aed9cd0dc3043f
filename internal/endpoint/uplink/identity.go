package uplink

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/wire"
)

// Identity is who a host is to its control plane, and whom it believes. Safe
// for concurrent use.
type Identity struct {
	Host   holdfast.HostID
	Org    holdfast.OrgID
	Role   string // the role given at enrolment; empty if it gave none
	Server string // https://…, the hosts' listener
	// Roots is the initial root metadata of the repositories, pinned at
	// enrolment: "image" and "director".
	Roots map[string][]byte

	dir string // empty: kept in memory only
	ca  *x509.Certificate
	key *ecdsa.PrivateKey

	mu   sync.Mutex
	cert *tls.Certificate // the one to present
	old  *tls.Certificate // the one before, until the server has taken the new one
}

// Files below the identity directory. Identity is written last: where it
// exists, the host is enrolled.
const (
	keyFile      = "host.key"      // PKCS #8, PEM; 0600
	certFile     = "host.pem"      // the client certificate
	caFile       = "ca.pem"        // the hosts' certificate authority
	identityFile = "identity.json" // stored
)

type stored struct {
	Host   holdfast.HostID   `json:"host"`
	Org    holdfast.OrgID    `json:"org"`
	Role   string            `json:"role,omitempty"`
	Server string            `json:"server"`
	Roots  map[string][]byte `json:"roots,omitempty"`
}

// Enrolment is what Enrol needs.
type Enrolment struct {
	Dir        string // of the identity; empty keeps it in memory, which is for simulated hosts only
	Token      string
	Attributes holdfast.Attributes
	Simulated  bool
	Dial       DialFunc // nil: the network
}

// DialFunc opens connections, as net.Dialer.DialContext does.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// Enrol exchanges a token for an identity. The key is drawn here and never
// leaves. If it fails half way it can be called again with the same token: the
// server knows the key. Errors of kind Denied mean that another token is
// needed, Unavailable that it may work later.
func Enrol(ctx context.Context, e Enrolment) (*Identity, error) {
	token, err := wire.ParseToken(e.Token)
	if err != nil {
		return nil, err
	}
	if e.Dir != "" {
		if _, err := os.Stat(filepath.Join(e.Dir, identityFile)); err == nil {
			return nil, &holdfast.Error{Kind: holdfast.Conflict, What: "this host is enrolled already", Where: e.Dir, Do: "remove the directory to give the host a new identity"}
		}
		if err := os.MkdirAll(e.Dir, 0o700); err != nil {
			return nil, err
		}
	}
	id := &Identity{Server: strings.TrimRight(token.Server, "/"), dir: e.Dir}
	if id.key, err = id.drawKey(); err != nil {
		return nil, err
	}
	csr, err := id.csr()
	if err != nil {
		return nil, err
	}
	client, ca := pinnedClient(id.Server, token.CA, e.Dial)
	defer client.CloseIdleConnections()
	var answer wire.EnrolResponse
	if err := post(ctx, client, id.Server+wire.EnrolPath, wire.EnrolRequest{
		Secret: token.Secret, CSR: csr, Attributes: e.Attributes, Simulated: e.Simulated,
	}, &answer); err != nil {
		return nil, err
	}
	if id.ca = ca(); id.ca == nil || !bytes.Equal(answer.CA, id.ca.Raw) {
		return nil, &holdfast.Error{Kind: holdfast.Denied, What: "the server gave another certificate authority than the token names"}
	}
	if sum := sha256.Sum256(answer.Roots["image"]); len(token.Root) > 0 && subtle.ConstantTimeCompare(sum[:], token.Root) != 1 {
		return nil, &holdfast.Error{Kind: holdfast.Denied, What: "the server gave another root than the token names"}
	}
	id.Host, id.Org, id.Role, id.Roots = answer.Host, answer.Org, answer.Role, answer.Roots
	if id.cert, err = id.take(answer.Certificate); err != nil {
		return nil, err
	}
	return id, id.save()
}

// Open reads the identity that Enrol left in dir; NotFound if there is none.
func Open(dir string) (*Identity, error) {
	b, err := os.ReadFile(filepath.Join(dir, identityFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, &holdfast.Error{Kind: holdfast.NotFound, What: "this host is not enrolled", Where: dir, Do: "run holdfast-agent enrol"}
	}
	bad := func(file string, err error) (*Identity, error) {
		return nil, &holdfast.Error{
			Kind: holdfast.Internal, What: "the host's identity is damaged", Where: filepath.Join(dir, file), Err: err,
			Do: "remove the directory and enrol the host again",
		}
	}
	var s stored
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		return bad(identityFile, err)
	}
	id := &Identity{Host: s.Host, Org: s.Org, Role: s.Role, Server: s.Server, Roots: s.Roots, dir: dir}
	der, err := readPEM(filepath.Join(dir, caFile))
	if err == nil {
		id.ca, err = x509.ParseCertificate(der)
	}
	if err != nil {
		return bad(caFile, err)
	}
	if id.key, err = readKey(filepath.Join(dir, keyFile)); err != nil {
		return bad(keyFile, err)
	}
	der, err = readPEM(filepath.Join(dir, certFile))
	if err == nil {
		id.cert, err = id.take(der)
	}
	if err != nil {
		return bad(certFile, err)
	}
	return id, nil
}

// save writes everything but the key, which drawKey has written, and the
// identity itself last.
func (id *Identity) save() error {
	if id.dir == "" {
		return nil
	}
	b, err := json.MarshalIndent(stored{Host: id.Host, Org: id.Org, Role: id.Role, Server: id.Server, Roots: id.Roots}, "", "\t")
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		b    []byte
	}{
		{caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: id.ca.Raw})},
		{certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: id.cert.Certificate[0]})},
		{identityFile, b},
	} {
		if err := replace(filepath.Join(id.dir, f.name), f.b); err != nil {
			return err
		}
	}
	return nil
}

// drawKey returns the host's key: the one of an earlier attempt to enrol, or a
// new one, which is on disk before anybody hears of it.
func (id *Identity) drawKey() (*ecdsa.PrivateKey, error) {
	file := filepath.Join(id.dir, keyFile)
	if id.dir != "" {
		if key, err := readKey(file); err == nil {
			return key, nil
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil || id.dir == "" {
		return key, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, replace(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func (id *Identity) csr() ([]byte, error) {
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, id.key)
}

// take checks a certificate the server gave, so that a mistake over there
// never replaces an identity that works.
func (id *Identity) take(der []byte) (*tls.Certificate, error) {
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, &holdfast.Error{Kind: holdfast.Invalid, What: "the certificate cannot be read", Err: err}
	}
	if !id.key.PublicKey.Equal(leaf.PublicKey) || leaf.Subject.CommonName != string(id.Host) || leaf.CheckSignatureFrom(id.ca) != nil {
		return nil, &holdfast.Error{Kind: holdfast.Denied, What: "the certificate is not for this host and its key, or not of its authority"}
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: id.key, Leaf: leaf}, nil
}

// certificate returns the certificate to present.
func (id *Identity) certificate() *tls.Certificate {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.cert
}

// due reports whether the certificate is past half of its life.
func (id *Identity) due(now time.Time) bool {
	leaf := id.certificate().Leaf
	return now.After(leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2))
}

// renew asks for a certificate with a later end and presents it from now on.
// The old one is kept, on disk too, until proven is called.
func (id *Identity) renew(ctx context.Context, client *http.Client) error {
	csr, err := id.csr()
	if err != nil {
		return err
	}
	var answer wire.RenewResponse
	if err := post(ctx, client, id.Server+wire.RenewPath, wire.RenewRequest{CSR: csr}, &answer); err != nil {
		return err
	}
	cert, err := id.take(answer.Certificate)
	if err != nil {
		return err
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.old == nil {
		id.old = id.cert
	}
	id.cert = cert
	return nil
}

// proven says that the server took the certificate: the old one may go.
func (id *Identity) proven() error {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.old == nil {
		return nil
	}
	id.old = nil
	if id.dir == "" {
		return nil
	}
	return replace(filepath.Join(id.dir, certFile), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: id.cert.Certificate[0]}))
}

// fallBack presents the old certificate again, and reports whether there was
// one.
func (id *Identity) fallBack() bool {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.old == nil {
		return false
	}
	id.cert, id.old = id.old, nil
	return true
}

// TLS returns a configuration that believes only the pinned authority and
// presents the host's current certificate. Sessions are resumed, which spares
// the server most of a handshake.
func (id *Identity) TLS() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		RootCAs:            authority(id.ca),
		ClientSessionCache: tls.NewLRUClientSessionCache(1),
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return id.certificate(), nil
		},
	}
}

// HTTP returns a client for the host's control plane. Dial may be nil.
func (id *Identity) HTTP(dial DialFunc) *http.Client {
	return &http.Client{
		Transport: transport(id.TLS(), dial),
		Timeout:   time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // the pinned server is the only one
		},
	}
}

func transport(cfg *tls.Config, dial DialFunc) *http.Transport {
	return &http.Transport{
		TLSClientConfig:        cfg,
		DialContext:            dial,
		Proxy:                  http.ProxyFromEnvironment,
		MaxConnsPerHost:        4,
		IdleConnTimeout:        30 * time.Second,
		TLSHandshakeTimeout:    30 * time.Second,
		ResponseHeaderTimeout:  time.Minute,
		MaxResponseHeaderBytes: 16 << 10,
	}
}

// pinnedClient returns a client that speaks only to a server whose chain ends
// in the certificate with the given fingerprint, and a function that returns
// that certificate after the first answer.
func pinnedClient(server string, fingerprint [sha256.Size]byte, dial DialFunc) (*http.Client, func() *x509.Certificate) {
	var mu sync.Mutex
	var found *x509.Certificate
	verify := func(cs tls.ConnectionState) error {
		for _, c := range cs.PeerCertificates[1:] {
			sum := sha256.Sum256(c.Raw)
			if subtle.ConstantTimeCompare(sum[:], fingerprint[:]) != 1 {
				continue
			}
			pool := x509.NewCertPool()
			pool.AddCert(c)
			if _, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: pool, DNSName: cs.ServerName}); err != nil {
				return err
			}
			mu.Lock()
			found = c
			mu.Unlock()
			return nil
		}
		return &holdfast.Error{Kind: holdfast.Denied, What: "the server is not the one the token names", Do: "check the address; somebody may stand in between"}
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, VerifyConnection: verify} // verified by fingerprint instead
	if u, err := url.Parse(server); err == nil {
		cfg.ServerName = u.Hostname()
	}
	return &http.Client{Transport: transport(cfg, dial), Timeout: time.Minute}, func() *x509.Certificate {
		mu.Lock()
		defer mu.Unlock()
		return found
	}
}

// post sends JSON and reads JSON, both bounded.
func post(ctx context.Context, client *http.Client, to string, body, answer any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(b))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		if holdfast.KindOf(err) == holdfast.Denied {
			return err
		}
		return &holdfast.Error{Kind: holdfast.Unavailable, What: "the server cannot be reached", Err: err}
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return wire.ReadProblem(resp)
	}
	if b, err = io.ReadAll(io.LimitReader(resp.Body, wire.MaxEnrolBody+1)); err != nil {
		return &holdfast.Error{Kind: holdfast.Unavailable, What: "the answer did not arrive whole", Err: err}
	}
	if len(b) > wire.MaxEnrolBody {
		return &holdfast.Error{Kind: holdfast.Invalid, What: "the answer is too long"}
	}
	if err := json.Unmarshal(b, answer); err != nil {
		return &holdfast.Error{Kind: holdfast.Invalid, What: "the answer cannot be read", Err: err}
	}
	return nil
}

// replace writes a file whole or not at all, readable by its owner only.
func replace(file string, b []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-*") // CreateTemp makes it 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(b)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), file); err != nil {
		return err
	}
	return syncDir(filepath.Dir(file))
}

func readPEM(file string) ([]byte, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, errors.New("not PEM")
	}
	return block.Bytes, nil
}

func readKey(file string) (*ecdsa.PrivateKey, error) {
	der, err := readPEM(file)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	k, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("not an ECDSA key")
	}
	return k, nil
}
