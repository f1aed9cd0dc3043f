package enrol_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/edge/enrol"
	"github.com/holdfast-security/holdfast/internal/endpoint/uplink"
	"github.com/holdfast-security/holdfast/internal/wire"
)

// office is an enrolment server on the loopback, with a clock and a store in
// memory.
type office struct {
	*testing.T
	ca  *enrol.CA
	url string

	mu    sync.Mutex
	now   time.Time
	uses  map[string]int
	hosts map[holdfast.HostID]holdfast.Host
	away  error
	calls int
}

const secret = "a-secret-of-at-least-forty-characters-0001"

func newOffice(t *testing.T) *office {
	t.Helper()
	o := &office{T: t, now: time.Now(), uses: map[string]int{secret: 1}, hosts: map[holdfast.HostID]holdfast.Host{}}
	var err error
	if o.ca, err = enrol.OpenCA(t.TempDir(), o.now); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	mux := http.NewServeMux()
	roots := func() map[string][]byte { return map[string][]byte{"image": []byte("the root")} }
	enrol.NewServer(o.ca, o, roots, time.Hour, o.clock, log).Register(mux)
	mux.HandleFunc("GET /who", func(w http.ResponseWriter, r *http.Request) {
		host, err := o.ca.Host(r, o.clock())
		if err != nil {
			wire.WriteProblem(w, err, 0)
			return
		}
		_, _ = io.WriteString(w, string(host))
	})
	cfg, err := o.ca.TLSConfig([]string{"127.0.0.1", "localhost"}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o.url = "https://" + l.Addr().String()
	server := &http.Server{Handler: mux, TLSConfig: cfg, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	go func() {
		if err := server.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	}()
	t.Cleanup(func() { server.Close() })
	return o
}

func (o *office) clock() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.now
}

func (o *office) later(d time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.now = o.now.Add(d)
}

func (o *office) Host(_ context.Context, id holdfast.HostID) (holdfast.Host, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.away != nil {
		return holdfast.Host{}, o.away
	}
	if h, ok := o.hosts[id]; ok {
		return h, nil
	}
	return holdfast.Host{}, holdfast.Errorf(holdfast.NotFound, "no host %s", id)
}

func (o *office) EnrolHost(_ context.Context, s string, _ time.Time, as func(holdfast.Enrolment) holdfast.Host) (holdfast.Host, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.calls++
	if o.uses[s] == 0 {
		return holdfast.Host{}, holdfast.Errorf(holdfast.Denied, "secret %s is used up", s)
	}
	o.uses[s]--
	h := as(holdfast.Enrolment{Org: "acme", Role: "laptop"})
	o.hosts[h.ID] = h
	return h, nil
}

func (o *office) SetSerial(_ context.Context, id holdfast.HostID, serial string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	h := o.hosts[id]
	h.Serial = serial
	o.hosts[id] = h
	return nil
}

func (o *office) token() string { return enrol.Token(o.url, o.ca, nil, secret) }

func (o *office) enrol(dir, token string) (*uplink.Identity, error) {
	return uplink.Enrol(o.Context(), uplink.Enrolment{Dir: dir, Token: token, Attributes: holdfast.Attributes{Hostname: "h", Role: "server"}})
}

// who asks the server which host it sees.
func (o *office) who(id *uplink.Identity) (string, int) {
	o.Helper()
	c := id.HTTP(nil)
	defer c.CloseIdleConnections()
	resp, err := c.Get(o.url + "/who")
	if err != nil {
		o.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		o.Fatal(err)
	}
	return string(b), resp.StatusCode
}

func TestEnrolment(t *testing.T) {
	o := newOffice(t)
	dir := filepath.Join(t.TempDir(), "identity")
	id, err := o.enrol(dir, o.token())
	if err != nil {
		t.Fatal(err)
	}
	h := o.hosts[id.Host]
	if h.Org != "acme" || id.Org != "acme" || h.Attributes.Role != "laptop" || id.Role != "laptop" || h.Serial == "" || string(id.Roots["image"]) != "the root" {
		t.Errorf("host %+v, identity %+v", h, id)
	}
	if got, _ := o.who(id); got != string(id.Host) {
		t.Errorf("the server sees %q", got)
	}
	again, err := uplink.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := o.who(again); got != string(id.Host) || again.Role != id.Role || again.Server != o.url {
		t.Errorf("after a restart the server sees %q, the host %+v", got, again)
	}
	for _, f := range []string{"host.key", "host.pem", "identity.json"} {
		if info, err := os.Stat(filepath.Join(dir, f)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", f, info.Mode(), err)
		}
	}
	if _, err := o.enrol(dir, o.token()); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("enrolled twice: %v", err)
	}
	if _, err := o.enrol(t.TempDir(), o.token()); holdfast.KindOf(err) != holdfast.Denied || strings.Contains(err.Error(), secret) {
		t.Errorf("a used-up token: %v", err)
	}
}

// The answer is lost: the host asks again with the same key, and is the same
// host, although its token is used up.
func TestALostAnswerCostsNoToken(t *testing.T) {
	o := newOffice(t)
	dir := t.TempDir()
	first, err := o.enrol(dir, o.token())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "identity.json")); err != nil { // as if it had died before writing it
		t.Fatal(err)
	}
	second, err := o.enrol(dir, o.token())
	if err != nil || second.Host != first.Host || o.calls != 1 {
		t.Errorf("%v, %v; %d uses", second, err, o.calls)
	}
}

func TestTheTokenPinsTheServer(t *testing.T) {
	o, thief := newOffice(t), newOffice(t)
	tok, err := wire.ParseToken(o.token())
	if err != nil {
		t.Fatal(err)
	}
	tok.Server = thief.url // the name leads to somebody else
	dir := t.TempDir()
	if _, err := o.enrol(dir, tok.String()); err == nil {
		t.Fatal("enrolled with another server")
	}
	if thief.calls != 0 {
		t.Error("the other server learned the secret")
	}
	tok.Server, tok.Root = o.url, bytes.Repeat([]byte{1}, 32)
	if _, err := o.enrol(dir, tok.String()); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("another root than the token names: %v", err)
	}
}

func TestRenewal(t *testing.T) {
	o := newOffice(t)
	dir := t.TempDir()
	id, err := o.enrol(dir, o.token())
	if err != nil {
		t.Fatal(err)
	}
	o.later(48 * time.Hour) // certificates live for an hour here
	if _, status := o.who(id); status != http.StatusForbidden {
		t.Errorf("an expired certificate: status %d", status)
	}
	// The key alone is what renews, however long ago the certificate expired.
	b, err := os.ReadFile(filepath.Join(dir, "host.key"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	serial := o.hosts[id.Host].Serial
	if err := o.renew(key); err != nil || o.hosts[id.Host].Serial == serial {
		t.Errorf("the key of the host: %v", err)
	}
	if err := o.renew(o.key()); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("a key that nobody enrolled: %v", err)
	}
	o.mu.Lock()
	h := o.hosts[id.Host]
	h.Revoked = true
	o.hosts[id.Host] = h
	o.mu.Unlock()
	for range 20 { // which costs its neighbours none of their patience
		if err := o.renew(key); holdfast.KindOf(err) != holdfast.Denied {
			t.Fatalf("the key of a revoked host: %v", err)
		}
	}
	if _, err := o.enrol(t.TempDir(), o.token()); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("a used-up token: %v", err)
	}
}

func (o *office) key() *ecdsa.PrivateKey {
	o.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		o.Fatal(err)
	}
	return k
}

// renew asks for a certificate for key, as anybody could.
func (o *office) renew(key any) error {
	o.Helper()
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		o.Fatal(err)
	}
	return o.post(wire.RenewPath, wire.RenewRequest{CSR: csr})
}

func (o *office) post(path string, v any) error {
	o.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		o.Fatal(err)
	}
	pool := x509.NewCertPool()
	c, err := x509.ParseCertificate(o.ca.DER())
	if err != nil {
		o.Fatal(err)
	}
	pool.AddCert(c)
	client := pinned(pool)
	defer client.CloseIdleConnections()
	resp, err := client.Post(o.url+path, "application/json", bytes.NewReader(b))
	if err != nil {
		o.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return wire.ReadProblem(resp)
	}
	return nil
}

func TestHostileRequests(t *testing.T) {
	o := newOffice(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr := func(key any) []byte {
		b, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	forged := csr(o.key())
	forged[len(forged)-5] ^= 1
	for name, c := range map[string]struct {
		req  wire.EnrolRequest
		kind holdfast.Kind
	}{
		"no csr":        {wire.EnrolRequest{Secret: secret}, holdfast.Invalid},
		"rsa":           {wire.EnrolRequest{Secret: secret, CSR: csr(rsaKey)}, holdfast.Invalid},
		"p384":          {wire.EnrolRequest{Secret: secret, CSR: csr(p384)}, holdfast.Invalid},
		"forged":        {wire.EnrolRequest{Secret: secret, CSR: forged}, holdfast.Invalid},
		"wrong secret":  {wire.EnrolRequest{Secret: secret + "x", CSR: csr(o.key())}, holdfast.Denied},
		"no secret":     {wire.EnrolRequest{CSR: csr(o.key())}, holdfast.Denied},
		"terminal name": {wire.EnrolRequest{Secret: secret, CSR: csr(o.key()), Attributes: holdfast.Attributes{Hostname: "\x1b[2J"}}, holdfast.Invalid},
		"too long":      {wire.EnrolRequest{Secret: strings.Repeat("x", wire.MaxEnrolBody)}, holdfast.Invalid},
	} {
		if err := o.post(wire.EnrolPath, c.req); holdfast.KindOf(err) != c.kind {
			t.Errorf("%s: %v; want %v", name, err, c.kind)
		}
	}
	if len(o.hosts) != 0 || o.uses[secret] != 1 {
		t.Errorf("%d hosts, %d uses left", len(o.hosts), o.uses[secret])
	}
	// Those were eight failures; two more and this address has to wait.
	for range 2 {
		_ = o.post(wire.EnrolPath, wire.EnrolRequest{})
	}
	if err := o.post(wire.EnrolPath, wire.EnrolRequest{Secret: secret, CSR: csr(o.key())}); holdfast.KindOf(err) != holdfast.Unavailable {
		t.Errorf("after ten failures: %v; want Unavailable", err)
	}
	o.later(time.Minute)
	if err := o.post(wire.EnrolPath, wire.EnrolRequest{Secret: secret, CSR: csr(o.key())}); err != nil {
		t.Errorf("a minute later: %v", err)
	}
}

func TestAStoreThatIsAwayCostsNothing(t *testing.T) {
	o := newOffice(t)
	o.away = holdfast.Errorf(holdfast.Unavailable, "the database is away")
	dir := t.TempDir()
	if _, err := o.enrol(dir, o.token()); holdfast.KindOf(err) != holdfast.Unavailable {
		t.Errorf("%v; want Unavailable", err)
	}
	o.away = nil
	if _, err := o.enrol(dir, o.token()); err != nil {
		t.Error(err)
	}
}

func TestCA(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	// Several processes start at once and agree on one authority.
	var wg sync.WaitGroup
	cas := make([]*enrol.CA, 8)
	for i := range cas {
		wg.Go(func() {
			var err error
			if cas[i], err = enrol.OpenCA(dir, now); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, ca := range cas[1:] {
		if ca.Fingerprint() != cas[0].Fingerprint() {
			t.Fatal("two authorities")
		}
	}
	file := filepath.Join(dir, "hosts-ca.pem")
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".hosts-ca-*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	// A damaged authority is never replaced by a new one.
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b[:len(b)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := enrol.OpenCA(dir, now); err == nil || !strings.Contains(err.Error(), "backup") {
		t.Errorf("a damaged authority: %v", err)
	}
}

// A server that was restarted knows the sessions of the hosts that were there
// before, for a day, and no longer than two.
func TestSessionsSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	ca, err := enrol.OpenCA(dir, now)
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.ParseCertificate(ca.DER())
	if err != nil {
		t.Fatal(err)
	}
	client := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "localhost", ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	client.RootCAs.AddCert(root)
	resumed := func(at time.Time) bool {
		t.Helper()
		ca, err := enrol.OpenCA(dir, at) // as after a restart
		if err != nil {
			t.Fatal(err)
		}
		cfg, err := ca.TLSConfig([]string{"localhost"}, func() time.Time { return at })
		if err != nil {
			t.Fatal(err)
		}
		a, b := net.Pipe()
		defer a.Close()
		go func() {
			s := tls.Server(b, cfg)
			_, _ = s.Write([]byte{1}) // shakes hands, and sends a ticket
			s.Close()
		}()
		its := client.Clone()
		its.Time = func() time.Time { return at }
		c := tls.Client(a, its)
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		return c.ConnectionState().DidResume
	}
	if resumed(now) {
		t.Error("resumed a session that never was")
	}
	if !resumed(now.Add(time.Second)) || !resumed(now.Add(23*time.Hour)) {
		t.Error("not resumed after a restart")
	}
	if resumed(now.Add(5 * 24 * time.Hour)) {
		t.Error("resumed with a key that should be forgotten")
	}
}
