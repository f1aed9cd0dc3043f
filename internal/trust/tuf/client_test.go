package tuf_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

// What a host has seen outlives it: a rollback is refused after a restart too, for
// every file that was rolled back alone and for all of them together.
func TestRollbackIsSeenAfterARestart(t *testing.T) {
	in := install(t, tuf.Production)
	a := in.release(1)
	in.approve("internal", current(a))
	old := in.published()
	in.now = in.now.Add(time.Minute)
	in.approve("internal")
	in.release(2)

	cfg := in.config()
	cfg.Dir = t.TempDir()
	c, err := tuf.NewClient(cfg)
	in.must(err)
	in.refresh(c)
	for _, repo := range []string{"image", "director"} {
		for name, b := range old {
			if strings.HasPrefix(name, repo) {
				in.must(os.WriteFile(filepath.Join(in.public, filepath.FromSlash(name)), []byte(b), 0o644))
			}
		}
		c, err := tuf.NewClient(cfg)
		in.must(err)
		_, err = c.Refresh(context.Background(), in.now)
		wantError(t, err, holdfast.Denied, "older than what this host has seen")
	}
	// Without its memory the host cannot know: the metadata has not expired.
	cfg.Dir = ""
	c, err = tuf.NewClient(cfg)
	in.must(err)
	in.refresh(c)
}

// Spoilt files in the host's own directory cost a download, nothing else.
func TestSpoiltMemoryIsFetchedAgain(t *testing.T) {
	in := install(t, tuf.Production)
	in.approve("internal", current(in.release(1)))
	cfg := in.config()
	cfg.Dir = t.TempDir()
	c, err := tuf.NewClient(cfg)
	in.must(err)
	in.refresh(c)
	paths, err := filepath.Glob(filepath.Join(cfg.Dir, "*", "*.json"))
	in.must(err)
	if len(paths) < 10 {
		t.Fatalf("the host keeps only %v", paths)
	}
	for _, p := range paths {
		whole, err := os.ReadFile(p)
		in.must(err)
		for _, spoilt := range []string{"", string(whole[:len(whole)/2]), "{}"} {
			in.must(os.WriteFile(p, []byte(spoilt), 0o644))
			c, err := tuf.NewClient(cfg)
			in.must(err)
			if v := in.refresh(c); len(v.Approved("internal")) != 1 {
				t.Errorf("with %s spoilt: %+v", p, v.Approvals)
			}
		}
	}
}

// Whichever request of a refresh is cut off, the next refresh sees what is new.
func TestARefreshThatWasCutOffIsMadeUpFor(t *testing.T) {
	in := install(t, tuf.Production)
	in.approve("internal", current(in.release(1)))
	for cut, reached := 0, true; reached; cut++ {
		if cut == 100 {
			t.Fatal("a refresh has no end")
		}
		n, failing := 0, false
		cfg := in.config()
		cfg.HTTP = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			if n++; failing && n > cut {
				return nil, errors.New("connection reset by peer")
			}
			return http.DefaultTransport.RoundTrip(r)
		})}
		c, err := tuf.NewClient(cfg)
		in.must(err)
		in.refresh(c)
		in.now = in.now.Add(time.Minute)
		d := in.release(2 + cut)
		in.approve("internal", current(d))

		n, failing = 0, true
		_, err = c.Refresh(context.Background(), in.now)
		reached, failing = err != nil, false
		v := in.refresh(c)
		if _, signed := v.Releases[d]; !signed || len(v.Approved("internal")) != 1 || v.Approved("internal")[0].Digest != d {
			t.Errorf("cut off at request %d (%v): the next refresh sees the release: %t, and approved: %v", cut, err, signed, v.Approvals)
		}
	}
}

// A server that accepts connections and says nothing is given up.
func TestSilentServerIsGivenUp(t *testing.T) {
	in := install(t, tuf.Production)
	cfg := in.config()
	cfg.Timeout = 20 * time.Millisecond
	cfg.HTTP = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done() // as long as it takes
		return nil, r.Context().Err()
	})}
	c, err := tuf.NewClient(cfg)
	in.must(err)
	_, err = c.Refresh(context.Background(), in.now)
	wantError(t, err, holdfast.Unavailable, "2.root.json")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v is not about time", err)
	}
}

// Expired metadata is told apart, so that it can be shown as what it is.
func TestFreezeIsToldApart(t *testing.T) {
	in := install(t, tuf.Production)
	c := in.client()
	in.refresh(c)
	in.now = in.now.Add(25 * time.Hour)
	_, err := c.Refresh(context.Background(), in.now)
	if !errors.Is(err, tuf.ErrExpired) {
		t.Errorf("a day without signatures: %v", err)
	}
	in.must(in.online.Refresh(in.now))
	in.refresh(c)
}
