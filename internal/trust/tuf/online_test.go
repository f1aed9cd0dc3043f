package tuf_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

// published is what the server's directory holds.
func (in *installation) published() map[string]string {
	in.t.Helper()
	all := map[string]string{}
	for _, repo := range []string{"image", "director"} {
		entries, err := os.ReadDir(filepath.Join(in.public, repo))
		in.must(err)
		for _, e := range entries {
			b, err := os.ReadFile(filepath.Join(in.public, repo, e.Name()))
			in.must(err)
			all[repo+"/"+e.Name()] = string(b)
		}
	}
	return all
}

func TestPublishingTheSameTwiceChangesNothing(t *testing.T) {
	in := install(t, tuf.Production)
	a, b := in.release(1), in.release(2)
	in.approve("internal", current(b), previous(a))
	before := in.published()
	in.now = in.now.Add(time.Minute)
	in.accept()
	in.approve("internal", previous(a), current(b)) // the order does not matter
	in.must(in.online.Refresh(in.now))
	in.open() // nor does a restart
	in.accept()
	in.approve("internal", current(b), previous(a))
	if diff := cmp.Diff(before, in.published()); diff != "" {
		t.Errorf("published anew (-before +after):\n%s", diff)
	}
}

func TestRestartContinuesWhereItWas(t *testing.T) {
	in := install(t, tuf.Production)
	c := in.client()
	a := in.release(1)
	in.approve("early", current(a))
	before := in.refresh(c)
	in.open()
	want := map[string][]tuf.Approval{"internal": nil, "early": {current(a)}, "general": nil}
	if diff := cmp.Diff(want, in.online.Approvals()); diff != "" {
		t.Errorf("approvals after a restart (-want +got):\n%s", diff)
	}
	in.approve("internal", current(a))
	after := in.refresh(c)
	if after.Director <= before.Director || len(after.Approved("early")) != 1 || len(after.Approved("internal")) != 1 {
		t.Errorf("versions %d, %d; approved %+v", before.Director, after.Director, after.Approvals)
	}
}

// A server that lost its directory publishes again from what others keep, and
// hosts that saw the lost one follow.
func TestLostDirectoryIsMadeAnew(t *testing.T) {
	in := install(t, tuf.Production)
	c := in.client()
	a := in.release(1)
	for range 10 { // versions run ahead of the clock
		in.approve("internal", current(a))
		in.approve("internal")
	}
	in.refresh(c)
	in.must(os.RemoveAll(in.public))
	in.now = in.now.Add(2 * time.Minute)
	in.open()
	in.accept()
	in.approve("internal", current(a))
	if got := in.refresh(c).Approved("internal"); len(got) != 1 {
		t.Errorf("approved: %+v", got)
	}
}

// Whatever file is missing or spoilt, Accept and Approve repair the directory.
func TestDamagedDirectoryIsRepaired(t *testing.T) {
	in := install(t, tuf.Production)
	a := in.release(1)
	in.approve("internal", current(a))
	whole := in.published()
	for name := range whole {
		if strings.Contains(name, ".root.") || strings.Contains(name, ".targets.") || strings.Contains(name, "1.agent.") || strings.Contains(name, ".rules.") {
			continue // what was signed offline comes from the desk
		}
		for _, damage := range []string{"", whole[name][:len(whole[name])/2]} {
			t.Run(fmt.Sprintf("%s cut to %d bytes", name, len(damage)), func(t *testing.T) {
				path := filepath.Join(in.public, filepath.FromSlash(name))
				in.must(os.WriteFile(path, []byte(damage), 0o644))
				in.now = in.now.Add(time.Minute)
				in.open()
				in.accept()
				in.approve("internal", current(a))
				if got := in.refresh(in.client()).Approved("internal"); len(got) != 1 {
					t.Errorf("approved: %+v", got)
				}
			})
		}
	}
}

// A crash before timestamp.json leaves hosts with the moment before, whole.
func TestPublicationCutOffIsNotSeen(t *testing.T) {
	in := install(t, tuf.Production)
	a := in.release(1)
	old := in.published()["director/timestamp.json"]
	in.approve("internal", current(a))
	in.must(os.WriteFile(filepath.Join(in.public, "director/timestamp.json"), []byte(old), 0o644))
	c := in.client()
	if got := in.refresh(c).Approved("internal"); len(got) != 0 {
		t.Errorf("half a publication is seen: %+v", got)
	}
	in.now = in.now.Add(time.Minute)
	in.open() // the server comes back
	in.approve("internal", current(a))
	if got := in.refresh(c).Approved("internal"); len(got) != 1 {
		t.Errorf("approved: %+v", got)
	}
}

func TestSignaturesAreRenewedBeforeTheyExpire(t *testing.T) {
	in := install(t, tuf.Production)
	in.approve("internal", current(in.release(1)))
	c := in.client()
	in.refresh(c)
	for range 20 {
		in.now = in.now.Add(13 * time.Hour)
		in.must(in.online.Refresh(in.now))
		if v := in.refresh(c); len(v.Approved("internal")) != 1 || v.Expires.Sub(in.now) < 10*time.Hour {
			t.Fatalf("at %v: approved %+v, expires %v", in.now, v.Approved("internal"), v.Expires)
		}
	}
	// Files that were replaced long ago are gone.
	old := in.now.Add(-2 * time.Hour)
	for name := range in.published() {
		in.must(os.Chtimes(filepath.Join(in.public, filepath.FromSlash(name)), old, old))
	}
	in.now = in.now.Add(24 * time.Hour)
	in.must(in.online.Refresh(in.now))
	if n := len(in.published()); n > 20 {
		t.Errorf("%d files are left", n)
	}
	in.refresh(in.client())
}

func TestServerVouchesOnlyForWhatIsSigned(t *testing.T) {
	in := install(t, tuf.Production)
	a := in.release(1)
	before := in.published()
	for name, c := range map[string]struct {
		ring string
		list []tuf.Approval
		kind holdfast.Kind
		say  string
	}{
		"unsigned":      {"internal", []tuf.Approval{current(holdfast.DigestOf([]byte("forged")))}, holdfast.Denied, "have not signed this"},
		"other channel": {"internal", []tuf.Approval{{Channel: holdfast.Agent, Digest: a, State: tuf.Current}}, holdfast.Denied, "have not signed this"},
		"no such ring":  {"everybody", []tuf.Approval{current(a)}, holdfast.NotFound, "no such ring"},
		"no such state": {"internal", []tuf.Approval{{Channel: holdfast.Rules, Digest: a, State: "forced"}}, holdfast.Invalid, "not a state"},
	} {
		t.Run(name, func(t *testing.T) {
			wantError(t, in.online.Approve(map[string][]tuf.Approval{c.ring: c.list}, in.now), c.kind, c.say)
			if diff := cmp.Diff(before, in.published()); diff != "" {
				t.Errorf("published all the same:\n%s", diff)
			}
		})
	}
}

func TestServerAcceptsNothingUnsigned(t *testing.T) {
	in := install(t, tuf.Production)
	in.release(1)
	before := in.published()

	in.must(in.desk.Stage(in.now, newContent("2")))
	_, err := in.desk.Sign(in.key("publisher-1"))
	in.must(err)
	files, err := in.desk.Files()
	in.must(err)
	staged, err := tuf.ReadFiles(filepath.Join(filepath.Dir(in.keys), "desk", "staged"))
	in.must(err)
	for name, b := range staged {
		files[name] = b
	}
	wantError(t, in.online.Accept(files, in.now), holdfast.Denied, "got 1, want 2")

	foreign := install(t, tuf.Production)
	files, err = foreign.desk.Files()
	in.must(err)
	wantError(t, in.online.Accept(files, in.now), holdfast.Conflict, "another ceremony")
	wantError(t, in.online.Accept(tuf.Files{"image/9.rules.json": []byte("{}")}, in.now), holdfast.Invalid, "image/rules")
	if diff := cmp.Diff(before, in.published()); diff != "" {
		t.Errorf("published all the same:\n%s", diff)
	}
}

func TestServerWithoutARootSaysSo(t *testing.T) {
	in := install(t, tuf.Production)
	o, err := tuf.OpenOnline(t.TempDir(), filepath.Join(in.keys, "online"), tuf.Validity{})
	in.must(err)
	wantError(t, o.Approve(nil, start), holdfast.Unavailable, "ceremony")
	wantError(t, o.Refresh(start), holdfast.Unavailable, "ceremony")
	_, err = tuf.OpenOnline(t.TempDir(), t.TempDir(), tuf.Validity{})
	wantError(t, err, holdfast.NotFound, "image.key")
}

// New hosts pin the newest root: a key that the officers revoked is nothing to them.
func TestNewHostsPinTheNewestRoot(t *testing.T) {
	in := install(t, tuf.Production)
	fresh, err := tuf.GenerateKey(in.keys, "root-4")
	in.must(err)
	in.change([]string{"root-1", "root-2", "root-4"}, tuf.ReplaceKey(tuf.Officers, in.key("root-1").ID(), fresh.Public()))
	got, err := in.online.Roots()
	in.must(err)
	want, err := in.desk.Roots()
	in.must(err)
	if string(got["image"]) != string(want.Image) || string(got["director"]) != string(want.Director) || !strings.Contains(string(got["image"]), fresh.ID()) {
		t.Error("the server hands out another root than the officers'")
	}
	policy, err := in.online.Policy()
	if err != nil || policy.Domain != tuf.Production {
		t.Errorf("policy %+v, %v", policy, err)
	}
	d := in.release(1)
	if r, err := in.online.Released(d); err != nil || r.Version != "1" {
		t.Errorf("released %+v, %v", r, err)
	}
	_, err = in.online.Released(holdfast.DigestOf([]byte("forged")))
	wantError(t, err, holdfast.NotFound, "did not sign")
}
