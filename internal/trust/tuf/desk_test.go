package tuf_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

func wantError(t *testing.T, err error, kind holdfast.Kind, say string) {
	t.Helper()
	if err == nil || holdfast.KindOf(err) != kind || !strings.Contains(err.Error(), say) {
		t.Errorf("got %v (%v); want %v with %q", err, holdfast.KindOf(err), kind, say)
	}
}

func TestCeremonyWritesEachKeyToItsOwnFile(t *testing.T) {
	in := install(t, tuf.Production)
	var names []string
	err := filepath.WalkDir(in.keys, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		name, _ := filepath.Rel(in.keys, path)
		names = append(names, name)
		return err
	})
	in.must(err)
	want := []string{
		"online/director.key", "online/image.key", "online/ring-early.key", "online/ring-general.key", "online/ring-internal.key",
		"publisher-1.key", "publisher-2.key", "publisher-3.key", "rehearsal-1.key", "root-1.key", "root-2.key", "root-3.key",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	if _, err := tuf.Init(filepath.Join(t.TempDir(), "desk"), tuf.Ceremony{Domain: tuf.Drill, Keys: in.keys}, start); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("a second ceremony over the keys of the first: %v", err)
	}
}

func TestImpossibleCeremoniesAreRefused(t *testing.T) {
	for name, c := range map[string]tuf.Ceremony{
		"no domain":        {},
		"unknown domain":   {Domain: "staging"},
		"threshold of all": {Domain: tuf.Drill, Publishers: 2, Threshold: 3},
		"negative":         {Domain: tuf.Drill, Publishers: -1},
		"too many":         {Domain: tuf.Drill, Publishers: 1000},
		"ring name":        {Domain: tuf.Drill, Rings: []string{"../etc"}},
		"ring twice":       {Domain: tuf.Drill, Rings: []string{"all", "all"}},
		"no rehearsal":     {Domain: tuf.Drill, Rehearsals: 1, RehearsalThreshold: 2},
	} {
		t.Run(name, func(t *testing.T) {
			c.Keys = t.TempDir()
			_, err := tuf.Init(filepath.Join(t.TempDir(), "desk"), c, start)
			wantError(t, err, holdfast.Invalid, "")
			if left, _ := os.ReadDir(c.Keys); len(left) > 0 {
				t.Errorf("left keys: %v", left)
			}
		})
	}
}

func newContent(version string) tuf.Change {
	return tuf.AddRelease(tuf.NewRelease{Channel: holdfast.Rules, Digest: holdfast.DigestOf([]byte(version)), Size: int64(len(version)), Version: version})
}

func TestOneStagedChangeIsSignedByEachInTurn(t *testing.T) {
	in := install(t, tuf.Production)
	if _, err := in.desk.Pending(); !tuf.NothingStaged(err) {
		t.Errorf("pending on an empty desk: %v", err)
	}
	in.must(in.desk.Stage(in.now, newContent("1")))
	wantError(t, in.desk.Stage(in.now, newContent("2")), holdfast.Conflict, "staged already")

	p, err := in.desk.Pending()
	in.must(err)
	if len(p) != 1 || p[0].Role != "image/rules" || p[0].Want != 2 || len(p[0].Keys) != 3 || len(p[0].Signed) != 0 || len(p[0].Changes) != 1 || !strings.HasPrefix(p[0].Changes[0], "add rules/") {
		t.Errorf("pending: %+v", p)
	}
	_, err = in.desk.Sign(in.key("root-1"))
	wantError(t, err, holdfast.Denied, "root-1 has no part")
	for range 2 { // signing twice counts once
		roles, err := in.desk.Sign(in.key("publisher-1"))
		in.must(err)
		if !slices.Equal(roles, []string{"image/rules"}) {
			t.Errorf("signed %v", roles)
		}
	}
	_, err = in.desk.Complete()
	wantError(t, err, holdfast.Denied, "got 1, want 2")

	// The desk is carried to another publisher.
	carried := filepath.Join(t.TempDir(), "desk")
	in.must(os.CopyFS(carried, os.DirFS(filepath.Join(filepath.Dir(in.keys), "desk"))))
	other, err := tuf.OpenDesk(carried)
	in.must(err)
	_, err = other.Sign(in.key("publisher-3"))
	in.must(err)
	files, err := other.Complete()
	in.must(err)
	in.must(in.online.Accept(files, in.now))
	if v := in.refresh(in.client()); len(v.Releases) != 1 {
		t.Errorf("hosts see %+v", v.Releases)
	}
}

func TestBadChangesStageNothing(t *testing.T) {
	in := install(t, tuf.Production)
	a := in.release(1)
	fresh, err := tuf.GenerateKey(in.keys, "spare")
	in.must(err)
	for name, c := range map[string]struct {
		change tuf.Change
		kind   holdfast.Kind
		say    string
	}{
		"twice":               {tuf.AddRelease(tuf.NewRelease{Channel: holdfast.Rules, Digest: a, Size: 9}), holdfast.Conflict, "released already"},
		"unknown channel":     {tuf.AddRelease(tuf.NewRelease{Channel: "drivers", Digest: a, Size: 9}), holdfast.NotFound, "drivers"},
		"bad digest":          {tuf.AddRelease(tuf.NewRelease{Channel: holdfast.Rules, Digest: "sha256:../../etc", Size: 9}), holdfast.Invalid, "not a digest"},
		"no size":             {tuf.AddRelease(tuf.NewRelease{Channel: holdfast.Rules, Digest: holdfast.DigestOf(nil)}), holdfast.Invalid, "0 bytes"},
		"foreign ring":        {tuf.AddRelease(tuf.NewRelease{Channel: holdfast.Rules, Digest: holdfast.DigestOf(nil), Size: 1, Rings: holdfast.RingPlan{{Name: "elsewhere", Through: 1_000_000}}}), holdfast.Invalid, "no ring elsewhere"},
		"retry of nothing":    {tuf.AllowRetry(holdfast.Rules, holdfast.DigestOf(nil)), holdfast.NotFound, "no such release"},
		"minimum past newest": {tuf.SetMinimum(holdfast.Rules, 9), holdfast.Invalid, "can only be raised"},
		"revoke a stranger":   {tuf.ReplaceKey(tuf.Publishers, strings.Repeat("0", 64), fresh.Public()), holdfast.NotFound, "is not a key of"},
		"too few keys":        {tuf.Changes(tuf.ReplaceKey(tuf.Publishers, in.key("publisher-1").ID(), nil), tuf.ReplaceKey(tuf.Publishers, in.key("publisher-2").ID(), nil)), holdfast.Invalid, "1 keys for a threshold of 2"},
		"neither":             {tuf.ReplaceKey(tuf.Publishers, "", nil), holdfast.Invalid, "revoke"},
		"stranger":            {tuf.ReplaceKey("ring-elsewhere", "", fresh.Public()), holdfast.NotFound, "nobody is called that"},
		"no verdict keys":     {tuf.SetRehearsal(1), holdfast.Invalid, "threshold"},
	} {
		t.Run(name, func(t *testing.T) {
			wantError(t, in.desk.Stage(in.now, c.change), c.kind, c.say)
			if _, err := in.desk.Pending(); !tuf.NothingStaged(err) {
				t.Errorf("something is staged: %v", err)
			}
		})
	}
}

func TestPublisherKeyIsReplaced(t *testing.T) {
	in := install(t, tuf.Production)
	in.release(1)
	c := in.client()
	in.refresh(c)
	fresh, err := tuf.GenerateKey(in.keys, "publisher-4")
	in.must(err)
	in.change([]string{"root-1", "root-3", "publisher-2", "publisher-4"}, tuf.ReplaceKey(tuf.Publishers, in.key("publisher-1").ID(), fresh.Public()))
	if v := in.refresh(c); len(v.Releases) != 1 {
		t.Errorf("the releases did not outlive the key: %+v", v.Releases)
	}
	in.must(in.desk.Stage(in.now, newContent("2")))
	_, err = in.desk.Sign(in.key("publisher-1"))
	wantError(t, err, holdfast.Denied, "no part")
}

func TestOfficerKeyIsReplacedByOldAndNew(t *testing.T) {
	in := install(t, tuf.Production)
	c := in.client()
	in.refresh(c)
	fresh, err := tuf.GenerateKey(in.keys, "root-4")
	in.must(err)
	replace := tuf.ReplaceKey(tuf.Officers, in.key("root-1").ID(), fresh.Public())
	in.must(in.desk.Stage(in.now, replace))
	for _, k := range []string{"root-2", "root-4"} {
		_, err := in.desk.Sign(in.key(k))
		in.must(err)
	}
	_, err = in.desk.Complete() // a threshold of the new keys, but not of the old
	wantError(t, err, holdfast.Denied, "got 1, want 2")
	_, err = in.desk.Sign(in.key("root-3"))
	in.must(err)
	_, err = in.desk.Complete()
	in.must(err)
	in.accept()
	in.refresh(c)
	d := in.release(2)
	if _, ok := in.refresh(c).Releases[d]; !ok {
		t.Error("a host that saw the old root does not follow the new one")
	}
	if _, ok := in.refresh(in.client()).Releases[d]; !ok {
		t.Error("a host that starts with the new root sees nothing")
	}
}

// An online key is replaced by the officers; the server then needs the new one.
func TestOnlineKeyIsReplaced(t *testing.T) {
	in := install(t, tuf.Production)
	c := in.client()
	a := in.release(1)
	in.approve("internal", current(a))
	in.refresh(c)
	old := in.key("online/director")
	in.must(os.Rename(filepath.Join(in.keys, "online/director.key"), filepath.Join(in.keys, "stolen.key")))
	fresh, err := tuf.GenerateKey(filepath.Join(in.keys, "online"), "director")
	in.must(err)
	in.must(in.desk.Stage(in.now, tuf.ReplaceKey(tuf.DirectorOnline, old.ID(), fresh.Public())))
	for _, k := range []string{"root-1", "root-2"} {
		_, err := in.desk.Sign(in.key(k))
		in.must(err)
	}
	files, err := in.desk.Complete()
	in.must(err)
	wantError(t, in.online.Accept(files, in.now), holdfast.Denied, "not the one that the officers named")
	// With the new key the server starts again on what it published, and goes on.
	_, err = tuf.OpenOnline(in.public, filepath.Join(in.keys, "online"), tuf.Validity{})
	wantError(t, err, holdfast.Denied, "not the one that the officers named")
	in.must(files.Write(in.public))
	in.open()
	in.approve("internal", current(a))
	if got := in.refresh(c).Approved("internal"); len(got) != 1 {
		t.Errorf("approved: %+v", got)
	}
}

// Complete that was cut off after any of its files is finished by OpenDesk.
func TestCompleteSurvivesBeingCutOff(t *testing.T) {
	in := install(t, tuf.Production)
	dir := filepath.Join(filepath.Dir(in.keys), "desk")
	fresh, err := tuf.GenerateKey(in.keys, "publisher-4")
	in.must(err)
	in.must(in.desk.Stage(in.now, tuf.ReplaceKey(tuf.Publishers, in.key("publisher-1").ID(), fresh.Public())))
	for _, k := range []string{"root-1", "root-2", "publisher-2", "publisher-3"} {
		_, err := in.desk.Sign(in.key(k))
		in.must(err)
	}
	staged, err := tuf.ReadFiles(filepath.Join(dir, "staged"))
	in.must(err)
	if len(staged) < 3 {
		t.Fatalf("too few files to be cut off between: %d", len(staged))
	}
	for name, b := range staged {
		cut := filepath.Join(t.TempDir(), "desk")
		in.must(os.CopyFS(cut, os.DirFS(dir)))
		in.must(os.WriteFile(filepath.Join(cut, name), b, 0o644))
		d, err := tuf.OpenDesk(cut)
		if err != nil {
			t.Errorf("cut off after %s: %v", name, err)
			continue
		}
		files, err := d.Files()
		in.must(err)
		for name, b := range staged {
			if string(files[name]) != string(b) {
				t.Errorf("%s is not in force", name)
			}
		}
	}
}

func TestRehearsalKeysAreTheOfficersToName(t *testing.T) {
	in := install(t, tuf.Production)
	fresh, err := tuf.GenerateKey(in.keys, "rehearsal-2")
	in.must(err)
	both := tuf.SetRehearsal(2, in.key("rehearsal-1").Public(), fresh.Public())
	in.must(in.desk.Stage(in.now, both))
	_, err = in.desk.Sign(in.key("publisher-1"))
	wantError(t, err, holdfast.Denied, "no part")
	in.must(in.desk.Discard())
	in.change([]string{"root-1", "root-2"}, both)
	if p := in.refresh(in.client()).Policy; p.RehearsalThreshold != 2 || len(p.Rehearsal) != 2 {
		t.Errorf("policy %+v", p)
	}
}

// A channel keeps its newest releases; the director may forget the others too.
func TestLiveTargetsStayInTheHundreds(t *testing.T) {
	in := install(t, tuf.Production)
	next := 1
	for _, n := range []int{150, 55} {
		var changes []tuf.Change
		for range n {
			changes = append(changes, newContent(strings.Repeat("x", next)))
			next++
		}
		in.change(publishers, changes...)
	}
	v, err := in.client().Refresh(context.Background(), in.now)
	in.must(err)
	least := int64(1 << 60)
	for _, r := range v.Releases {
		least = min(least, r.Sequence)
	}
	if len(v.Releases) != 200 || least != 6 {
		t.Errorf("%d releases, from number %d on", len(v.Releases), least)
	}
}
