package tuf_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

var start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// installation is one trust root with its desk, its server and its keys.
type installation struct {
	t      testing.TB
	now    time.Time
	domain tuf.Domain
	desk   *tuf.Desk
	online *tuf.Online
	keys   string
	public string // what the server publishes
	server *httptest.Server
}

func install(t testing.TB, domain tuf.Domain) *installation {
	t.Helper()
	dir := t.TempDir()
	in := &installation{t: t, now: start, domain: domain, keys: filepath.Join(dir, "keys"), public: filepath.Join(dir, "public")}
	var err error
	in.desk, err = tuf.Init(filepath.Join(dir, "desk"), tuf.Ceremony{Domain: domain, Keys: in.keys}, in.now)
	in.must(err)
	in.open()
	in.accept()
	in.must(in.online.Approve(nil, in.now))
	in.server = httptest.NewServer(http.FileServer(http.Dir(in.public)))
	t.Cleanup(in.server.Close)
	return in
}

func (in *installation) must(err error) {
	in.t.Helper()
	if err != nil {
		in.t.Fatal(err)
	}
}

func (in *installation) open() {
	in.t.Helper()
	var err error
	in.online, err = tuf.OpenOnline(in.public, filepath.Join(in.keys, "online"), tuf.Validity{})
	in.must(err)
}

func (in *installation) accept() {
	in.t.Helper()
	files, err := in.desk.Files()
	in.must(err)
	in.must(in.online.Accept(files, in.now))
}

func (in *installation) key(name string) tuf.Key {
	in.t.Helper()
	k, err := tuf.LoadKey(filepath.Join(in.keys, name+".key"))
	in.must(err)
	return k
}

// change stages changes, signs them with the named keys, and completes.
func (in *installation) change(signers []string, changes ...tuf.Change) {
	in.t.Helper()
	in.must(in.desk.Stage(in.now, changes...))
	for _, s := range signers {
		_, err := in.desk.Sign(in.key(s))
		in.must(err)
	}
	_, err := in.desk.Complete()
	in.must(err)
	in.accept()
}

var publishers = []string{"publisher-1", "publisher-3"}

func (in *installation) release(n int) holdfast.Digest {
	in.t.Helper()
	content := []byte(fmt.Sprintf("content %d", n))
	d := holdfast.DigestOf(content)
	in.change(publishers, tuf.AddRelease(tuf.NewRelease{Channel: holdfast.Rules, Digest: d, Size: int64(len(content)), Version: fmt.Sprint(n)}))
	return d
}

func (in *installation) approve(ring string, list ...tuf.Approval) {
	in.t.Helper()
	in.must(in.online.Approve(map[string][]tuf.Approval{ring: list}, in.now))
}

func (in *installation) config() tuf.ClientConfig {
	in.t.Helper()
	roots, err := in.desk.Roots()
	in.must(err)
	return tuf.ClientConfig{Domain: in.domain, Roots: roots, URL: in.server.URL}
}

func (in *installation) client() *tuf.Client {
	in.t.Helper()
	c, err := tuf.NewClient(in.config())
	in.must(err)
	return c
}

func (in *installation) refresh(c *tuf.Client) *tuf.View {
	in.t.Helper()
	v, err := c.Refresh(context.Background(), in.now)
	in.must(err)
	return v
}

func current(d holdfast.Digest) tuf.Approval {
	return tuf.Approval{Channel: holdfast.Rules, Digest: d, State: tuf.Current}
}

func previous(d holdfast.Digest) tuf.Approval {
	return tuf.Approval{Channel: holdfast.Rules, Digest: d, State: tuf.Previous}
}

func TestReleaseReachesOnlyTheRingItIsApprovedFor(t *testing.T) {
	in := install(t, tuf.Production)
	c := in.client()
	if v := in.refresh(c); len(v.Releases) != 0 || len(v.Approved("internal")) != 0 || v.Policy.RehearsalThreshold != 1 {
		t.Fatalf("a new installation vouches for %+v", v)
	}
	a, b := in.release(1), in.release(2)
	in.approve("internal", current(b), previous(a))
	in.approve("general", current(a))

	v := in.refresh(c)
	got := v.Approved("internal")
	if len(got) != 2 || got[0].Digest != b || got[0].State != tuf.Current || got[0].Sequence != 2 || got[1].Digest != a || got[1].State != tuf.Previous {
		t.Errorf("internal may run %+v", got)
	}
	if got := v.Approved("general"); len(got) != 1 || got[0].Digest != a {
		t.Errorf("general may run %+v", got)
	}
	if got := v.Approved("early"); len(got) != 0 {
		t.Errorf("early may run %+v", got)
	}
	want := tuf.Release{Channel: holdfast.Rules, Digest: a, Size: 9, Version: "1", Sequence: 1, Rings: holdfast.DefaultRings, Signed: start, Domain: tuf.Production}
	if diff := cmp.Diff(want, v.Releases[a]); diff != "" {
		t.Errorf("release (-want +got):\n%s", diff)
	}
}

func TestRecallIsNewerMetadataNamingOlderContent(t *testing.T) {
	in := install(t, tuf.Production)
	c := in.client()
	a, b := in.release(1), in.release(2)
	in.approve("internal", current(b), previous(a))
	in.refresh(c)
	in.approve("internal", current(a))
	if got := in.refresh(c).Approved("internal"); len(got) != 1 || got[0].Digest != a {
		t.Errorf("after the recall internal may run %+v", got)
	}
}

func TestMarksAndMinimumAreSigned(t *testing.T) {
	in := install(t, tuf.Production)
	c := in.client()
	a, b := in.release(1), in.release(2)
	in.change(publishers, tuf.AllowRetry(holdfast.Rules, a), tuf.MarkFinal(holdfast.Rules, b), tuf.SetMinimum(holdfast.Rules, 2))
	v := in.refresh(c)
	if v.Releases[a].Retry != 1 || v.Releases[a].Final || !v.Releases[b].Final || v.Minimum[holdfast.Rules] != 2 {
		t.Errorf("releases %+v, minimum %v", v.Releases, v.Minimum)
	}
	if err := in.desk.Stage(in.now, tuf.SetMinimum(holdfast.Rules, 1)); holdfast.KindOf(err) != holdfast.Invalid {
		t.Errorf("lowering the minimum: %v", err)
	}
}

// A host fetches only the rings that it is in under some plan.
func TestHostFetchesItsOwnRings(t *testing.T) {
	in := install(t, tuf.Production)
	in.release(1)
	cfg := in.config()
	cfg.Host = "host-in-some-ring"
	c, err := tuf.NewClient(cfg)
	in.must(err)
	v := in.refresh(c)
	ring := holdfast.DefaultRings[holdfast.DefaultRings.Of(cfg.Host)].Name
	if _, ok := v.Approvals[ring]; !ok || len(v.Approvals) != 1 {
		t.Errorf("a host of ring %s has the approvals of %v", ring, v.Approvals)
	}
}

// An idle refresh asks four small questions and verifies nothing again.
func TestIdleRefreshReturnsTheSameView(t *testing.T) {
	in := install(t, tuf.Production)
	in.release(1)
	var asked []string
	cfg := in.config()
	cfg.HTTP = &http.Client{Transport: recording{&asked}}
	c, err := tuf.NewClient(cfg)
	in.must(err)
	first := in.refresh(c)
	asked = nil
	if in.refresh(c) != first {
		t.Error("an idle refresh made a new view")
	}
	if want := []string{"/image/2.root.json", "/image/timestamp.json", "/director/2.root.json", "/director/timestamp.json"}; !slices.Equal(asked, want) {
		t.Errorf("asked for %v", asked)
	}
}

type recording struct{ paths *[]string }

func (r recording) RoundTrip(req *http.Request) (*http.Response, error) {
	*r.paths = append(*r.paths, req.URL.Path)
	return http.DefaultTransport.RoundTrip(req)
}

// A director that failed once must not make the image repository's news be
// forgotten.
func TestViewIsWholeAfterHalfAFailure(t *testing.T) {
	in := install(t, tuf.Production)
	fail := false
	cfg := in.config()
	cfg.HTTP = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		if fail && r.URL.Path == "/director/timestamp.json" {
			return nil, fmt.Errorf("connection refused")
		}
		return http.DefaultTransport.RoundTrip(r)
	})}
	c, err := tuf.NewClient(cfg)
	in.must(err)
	in.refresh(c)
	d := in.release(1)
	fail = true
	if _, err := c.Refresh(context.Background(), in.now); holdfast.KindOf(err) != holdfast.Unavailable {
		t.Fatalf("director away: %v", err)
	}
	fail = false
	if v := in.refresh(c); v.Releases[d].Version != "1" {
		t.Errorf("the release is missing from %+v", v.Releases)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
