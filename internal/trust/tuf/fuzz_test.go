package tuf

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/holdfast-security/holdfast"
)

// shelf answers requests from memory.
type shelf map[string][]byte

func (s shelf) RoundTrip(r *http.Request) (*http.Response, error) {
	b, ok := s[r.URL.Path[1:]]
	status := http.StatusOK
	if !ok {
		status = http.StatusNotFound
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(bytes.NewReader(b)), Header: http.Header{}, Request: r}, nil
}

// stocked is what a server publishes with one release, approved for one ring.
func stocked(f *testing.F, now time.Time) (shelf, Roots) {
	f.Helper()
	dir := f.TempDir()
	must := func(err error) {
		if err != nil {
			f.Fatal(err)
		}
	}
	desk, err := Init(filepath.Join(dir, "desk"), Ceremony{Domain: Production, Publishers: 1, Keys: filepath.Join(dir, "keys")}, now)
	must(err)
	d := holdfast.DigestOf([]byte("content"))
	must(desk.Stage(now, AddRelease(NewRelease{Channel: holdfast.Rules, Digest: d, Size: 7, Version: "1"})))
	k, err := LoadKey(filepath.Join(dir, "keys", "publisher-1"))
	must(err)
	_, err = desk.Sign(k)
	must(err)
	files, err := desk.Complete()
	must(err)
	o, err := OpenOnline(filepath.Join(dir, "public"), filepath.Join(dir, "keys", "online"), Validity{})
	must(err)
	must(o.Accept(files, now))
	must(o.Approve(map[string][]Approval{"internal": {{Channel: holdfast.Rules, Digest: d, State: Current}}}, now))
	s := shelf{}
	for _, repo := range []string{imageRepo, directorRepo} {
		paths, err := filepath.Glob(filepath.Join(dir, "public", repo, "*.json"))
		must(err)
		for _, p := range paths {
			b, err := os.ReadFile(p)
			must(err)
			s[repo+"/"+filepath.Base(p)] = b
		}
	}
	roots, err := desk.Roots()
	must(err)
	return s, roots
}

// FuzzClient replaces one file of the server. The client refuses, or what it
// believes is what it believed before.
func FuzzClient(f *testing.F) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	whole, roots := stocked(f, now)
	var names []string
	for n := range whole {
		names = append(names, n)
	}
	names = append(names, "image/2.root.json")
	slices.Sort(names)
	for i, n := range names {
		f.Add(byte(i), whole[n])
	}
	f.Add(byte(2), []byte(`{"signatures":[],"signed":{"_type":"root"}}`))
	f.Fuzz(func(t *testing.T, which byte, data []byte) {
		name := names[int(which)%len(names)]
		s := shelf{}
		for n, b := range whole {
			s[n] = b
		}
		s[name] = data
		c, err := NewClient(ClientConfig{Domain: Production, Roots: roots, URL: "http://server", HTTP: &http.Client{Transport: s}})
		if err != nil {
			t.Fatal(err)
		}
		v, err := c.Refresh(context.Background(), now)
		if err == nil && (len(v.Releases) != 1 || len(v.Approved("internal")) != 1) {
			t.Errorf("%s was replaced, and the client believes %+v", name, v)
		}
		if err != nil && holdfast.KindOf(err) != holdfast.Denied && holdfast.KindOf(err) != holdfast.Unavailable {
			t.Errorf("%s: %v is not about the metadata", name, err)
		}
	})
}

// FuzzTargets is what a threshold of publishers, or the server, can sign: any
// targets at all. Only whole releases come out.
func FuzzTargets(f *testing.F) {
	whole, _ := stocked(f, time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC))
	for n, b := range whole {
		if m, err := metadata.Targets().FromBytes(b); err == nil && len(m.Signed.Targets) > 0 {
			f.Add(whole[n])
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := metadata.Targets().FromBytes(data)
		if err != nil {
			return
		}
		all, _, err := releases(m, holdfast.Rules)
		if err != nil && holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%v is not about the input", err)
		}
		for _, r := range all {
			if _, err := holdfast.ParseDigest(string(r.Digest)); err != nil || r.Channel != holdfast.Rules || r.Rings.Validate() != nil {
				t.Errorf("half a release: %+v", r)
			}
		}
		list, err := approvals(m)
		for _, a := range list {
			if _, bad := holdfast.ParseDigest(string(a.Digest)); bad != nil || err != nil {
				t.Errorf("half an approval: %+v", a)
			}
		}
	})
}

// FuzzLoadKey is what may stand in a key file.
func FuzzLoadKey(f *testing.F) {
	dir := f.TempDir()
	if _, err := GenerateKey(dir, "k"); err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "k.key"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "k.key")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		k, err := LoadKey(path)
		var e *holdfast.Error
		if err != nil && !errors.As(err, &e) {
			t.Errorf("%v is not for a person", err)
		}
		if err == nil && len(k.ID()) != 64 {
			t.Errorf("key %+v", k)
		}
	})
}
