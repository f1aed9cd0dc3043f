package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/client"
	"github.com/holdfast-security/holdfast/internal/endpoint/outbox"
	"github.com/holdfast-security/holdfast/internal/endpoint/uplink"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
	"github.com/holdfast-security/holdfast/internal/view"
	"github.com/holdfast-security/holdfast/internal/wire"
	"github.com/holdfast-security/holdfast/internal/wire/apiv1"
)

// site is a whole server in this process, with hosts that reach it over TLS.
type site struct {
	*testing.T
	options
	server *server
	admin  *client.Client
	stop   func()
}

func newSite(t *testing.T) *site {
	t.Helper()
	dir := t.TempDir()
	if _, err := tuf.Init(filepath.Join(dir, "desk"), tuf.Ceremony{Domain: "drill", Keys: filepath.Join(dir, "keys")}, time.Now()); err != nil {
		t.Fatal(err)
	}
	s := &site{T: t, options: options{state: filepath.Join(dir, "state"), keys: filepath.Join(dir, "keys", "online"), heartbeat: time.Second}}
	for _, a := range []*string{&s.hosts, &s.console} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		*a = l.Addr().String()
		l.Close()
	}
	s.start()
	t.Cleanup(func() { s.stop() })
	return s
}

// start starts the server, again on the same state if it ran before.
func (s *site) start() {
	s.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	server, err := open(ctx, s.options, slog.New(slog.DiscardHandler))
	if err != nil {
		s.Fatal(err)
	}
	s.server = server
	ended := make(chan error, 1)
	go func() { ended <- server.serve(ctx, io.Discard) }()
	s.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			s.Error(err)
		}
		server.close()
		s.stop = func() {}
	}
	token, err := os.ReadFile(filepath.Join(s.state, "admin-token"))
	if err != nil {
		s.Fatal(err)
	}
	s.admin = &client.Client{Base: "http://" + s.console, Token: strings.TrimSpace(string(token))}
	s.until("the server to answer", func() bool {
		var o view.Overview
		return s.admin.Get(s.Context(), "/api/v1/status", &o) == nil
	})
}

func (s *site) until(what string, cond func() bool) {
	s.Helper()
	for range 600 {
		if cond() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.Fatalf("waited for %s in vain", what)
}

func (s *site) enrol(dir string) (*uplink.Identity, error) {
	s.Helper()
	var a apiv1.EnrolmentAnswer
	if err := s.admin.Post(s.Context(), "/api/v1/enrolments", apiv1.EnrolmentRequest{Role: "laptop", Uses: 1, Valid: time.Hour}, &a); err != nil {
		s.Fatal(err)
	}
	return uplink.Enrol(s.Context(), uplink.Enrolment{Dir: dir, Token: a.Token, Attributes: attributes})
}

var attributes = holdfast.Attributes{Hostname: "lost-laptop", OS: "linux", Arch: "amd64", Kernel: "6.1", Distro: "debian-12"}

func (s *site) link(id *uplink.Identity) *uplink.Link {
	l := uplink.Start(uplink.Config{Identity: id, Attributes: attributes, Log: slog.New(slog.DiscardHandler), Heartbeat: time.Second})
	s.Cleanup(l.Stop)
	return l
}

// renew asks for a certificate with the key in an identity's directory, as its
// thief could.
func (s *site) renew(l *uplink.Link, dir string) error {
	s.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "host.key"))
	if err != nil {
		s.Fatal(err)
	}
	block, _ := pem.Decode(raw)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		s.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		s.Fatal(err)
	}
	body, err := json.Marshal(wire.RenewRequest{CSR: csr})
	if err != nil {
		s.Fatal(err)
	}
	return s.ask(l, http.MethodPost, wire.RenewPath, body)
}

// ask sends a request with the host's certificate.
func (s *site) ask(l *uplink.Link, method, path string, body []byte) error {
	s.Helper()
	req, err := http.NewRequestWithContext(s.Context(), method, "https://"+s.hosts+path, bytes.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	resp, err := l.HTTP().Do(req)
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	return wire.ReadProblem(resp)
}

func (s *site) deliver(l *uplink.Link, id string) error {
	s.Helper()
	f, err := wire.MarshalFinding(holdfast.Finding{ID: id, Title: "T", Severity: "high", At: time.Now()})
	if err != nil {
		s.Fatal(err)
	}
	_, _, err = outbox.Post(l.HTTP(), "https://"+s.hosts, func() holdfast.Attributes { return attributes })(s.Context(), [][]byte{f})
	return err
}

// TestARevokedHostIsOut of everything from that moment on, over real connections:
// and nobody else is, and a new key lets its machine in again.
func TestARevokedHostIsOut(t *testing.T) {
	s := newSite(t)
	dirs := []string{t.TempDir(), t.TempDir()}
	var hosts []*uplink.Identity
	var links []*uplink.Link
	for _, dir := range dirs {
		id, err := s.enrol(dir)
		if err != nil {
			t.Fatal(err)
		}
		hosts, links = append(hosts, id), append(links, s.link(id))
	}
	connected := func(want int) func() bool {
		return func() bool {
			var p view.HostPage
			n := 0
			if err := s.admin.Get(t.Context(), "/api/v1/hosts", &p); err != nil {
				t.Fatal(err)
			}
			for _, h := range p.Hosts {
				if h.Connected {
					n++
				}
			}
			return n == want && p.Total == want
		}
	}
	s.until("both hosts to be connected", connected(2))
	gone, stays := links[0], links[1]
	path := "/api/v1/hosts/" + string(hosts[0].Host) + "/revoke"
	for _, l := range links {
		if err := s.deliver(l, fmt.Sprintf("before-%p", l)); err != nil {
			t.Fatal(err)
		}
	}

	for _, bad := range []string{"", " \n", strings.Repeat("x", 2001)} {
		if err := s.admin.Post(t.Context(), path, apiv1.RevokeRequest{Reason: bad}, nil); holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("for the reason %.10q: %v", bad, err)
		}
	}
	if err := s.admin.Post(t.Context(), "/api/v1/hosts/nobody/revoke", apiv1.RevokeRequest{Reason: "stolen"}, nil); holdfast.KindOf(err) != holdfast.NotFound {
		t.Errorf("nobody: %v", err)
	}
	// Who runs another organisation's hosts runs no others.
	foreign := holdfast.User{Name: "emil", Org: "emca", Role: holdfast.Operator, Created: time.Now()}
	if err := s.server.store.CreateUser(t.Context(), foreign, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.server.people.Revoke(t.Context(), hosts[0].Host, "emil", "stolen"); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("by another organisation's operator: %v", err)
	}
	var first, second holdfast.Revocation
	if err := s.admin.Post(t.Context(), path, apiv1.RevokeRequest{Reason: "stolen"}, &first); err != nil {
		t.Fatal(err)
	}
	if err := s.admin.Post(t.Context(), path, apiv1.RevokeRequest{Reason: "retired"}, &second); err != nil {
		t.Fatal(err)
	}
	if first.Host != hosts[0].Host || first.By != firstAdmin || first.Reason != "stolen" || second != first {
		t.Errorf("%+v, and revoked again %+v", first, second)
	}

	refused := func() bool {
		st := gone.State()
		return !st.Connected && holdfast.KindOf(st.Err) == holdfast.Denied
	}
	s.until("its connection to be closed, and refused anew", refused)
	for what, err := range map[string]error{
		"findings":    s.deliver(gone, "after"),
		"certificate": s.renew(gone, dirs[0]),
		"consent":     s.ask(gone, http.MethodGet, wire.ConsentPath, nil),
	} {
		if holdfast.KindOf(err) != holdfast.Denied {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := s.renew(stays, dirs[1]); err != nil || s.deliver(stays, "other") != nil {
		t.Errorf("another host: certificate %v, findings %v", err, s.deliver(stays, "other"))
	}
	s.until("one host to be left", connected(1))
	var page view.HostPage
	var detail view.HostDetail
	var record view.RecordPage
	var findings view.FindingPage
	for path, into := range map[string]any{
		"/api/v1/hosts?state=revoked": &page, "/api/v1/hosts/" + string(hosts[0].Host): &detail, "/api/v1/record?kind=revoke": &record, "/api/v1/findings": &findings,
	} {
		if err := s.admin.Get(t.Context(), path, into); err != nil {
			t.Fatal(err)
		}
	}
	if page.Total != 1 || page.Hosts[0].ID != hosts[0].Host || detail.Revocation == nil || *detail.Revocation != first || detail.State != view.Revoked {
		t.Errorf("listed %+v, its page %+v", page, detail)
	}
	if e := record.Entries; len(e) != 1 || e[0].By != firstAdmin || e[0].Summary != "host lost-laptop ("+string(hosts[0].Host)+") was revoked: stolen" {
		t.Errorf("on the record: %+v", e)
	}
	if findings.Total != 3 {
		t.Errorf("%d findings, want one of it and two of the other", findings.Total)
	}

	s.stop()
	s.start()
	s.until("the other host to be back", connected(1))
	s.until("it to be refused by the next server", refused)
	if err := s.deliver(gone, "later"); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("findings, later: %v", err)
	}

	// The machine is found again.
	gone.Stop()
	if _, err := s.enrol(dirs[0]); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("enrolled over its old identity: %v", err)
	}
	if err := os.RemoveAll(dirs[0]); err != nil {
		t.Fatal(err)
	}
	again, err := s.enrol(dirs[0])
	if err != nil || again.Host == hosts[0].Host {
		t.Fatalf("with a new key it is %+v: %v", again, err)
	}
	s.link(again)
	s.until("it to be connected as another host", connected(2))
}
