package bundle

import (
	"bytes"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/holdfast-security/holdfast"
)

func sample() *Bundle {
	return &Bundle{
		Header: Header{Schema: 1, Channel: holdfast.Rules, Name: "sample", Version: "1"},
		Files:  map[string][]byte{"rules/a.yml": []byte("title: a\n"), "rules/b.yml": []byte("title: b\n"), "tests/a.yml": nil},
	}
}

func TestOpenReturnsWhatWasEncoded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := sample()
		b.Files = rapid.MapOf(rapid.StringMatching(`(rules|tests)/[a-z0-9_]{1,20}\.yml`), rapid.SliceOfN(rapid.Byte(), 0, 2000)).Draw(t, "files")
		data, err := b.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Open(data)
		if err != nil {
			t.Fatal(err)
		}
		if len(again.Files) != len(b.Files) {
			t.Fatalf("%d files became %d", len(b.Files), len(again.Files))
		}
		for p, want := range b.Files {
			if !bytes.Equal(again.Files[p], want) {
				t.Fatalf("%s changed", p)
			}
		}
	})
}

func TestEveryChangedByteIsRefusedOrChangesTheContent(t *testing.T) {
	data, err := sample().Encode()
	if err != nil {
		t.Fatal(err)
	}
	for i := range data {
		changed := bytes.Clone(data)
		changed[i] ^= 0x20
		b, err := Open(changed)
		if err == nil && cmp.Equal(b, sample()) {
			t.Fatalf("byte %d: another encoding of the same content was accepted", i)
		}
	}
	for n := range data {
		if _, err := Open(data[:n]); err == nil {
			t.Fatalf("cut to %d of %d bytes, it still opened", n, len(data))
		}
	}
	if _, err := Open(append(bytes.Clone(data), 0)); err == nil {
		t.Fatal("a trailing byte was accepted")
	}
}

func TestBadPathsAreRefused(t *testing.T) {
	for _, p := range []string{"", "/etc/passwd", "../x", "rules/../../x", "rules//x", "bundle.json", "rules/\x00", `rules\x`, "rules/ü.yml", strings.Repeat("a", 101)} {
		b := sample()
		b.Files[p] = nil
		if _, err := b.Encode(); holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("path %q: %v", p, err)
		}
	}
}

func TestFromRepository(t *testing.T) {
	repo := fstest.MapFS{
		"pack.yml":           {Data: []byte("name: demo\nchannel: rules\nversion: \"7\"\n")},
		"README.md":          {Data: []byte("hello")},
		"rules/x/a.yml":      {Data: []byte("title: a")},
		"rules/a.yml~":       {Data: []byte("backup")},
		"tests/x/a.yml":      {Data: []byte("match: []")},
		"benign/day.jsonl":   {Data: []byte("{}\n")},
		"benign/notes.txt":   {Data: []byte("no")},
		"elsewhere/rule.yml": {Data: []byte("no")},
	}
	b, err := FromRepository(repo, "")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"benign/day.jsonl", "rules/x/a.yml", "tests/x/a.yml"}
	got := append(append(b.Paths("benign"), b.Paths("rules")...), b.Paths("tests")...)
	if d := cmp.Diff(want, got); d != "" || b.Header.Version != "7" {
		t.Fatal(d, b.Header)
	}
	for name, spoil := range map[string]func(){
		"no pack":     func() { delete(repo, "pack.yml") },
		"bad yaml":    func() { repo["pack.yml"] = &fstest.MapFile{Data: []byte("name: [")} },
		"bad channel": func() { repo["pack.yml"] = &fstest.MapFile{Data: []byte("name: x\nchannel: agent\nversion: 1\n")} },
		"no rules": func() {
			repo["pack.yml"] = &fstest.MapFile{Data: []byte("name: x\nchannel: rules\nversion: 1\n")}
			delete(repo, "rules/x/a.yml")
		},
	} {
		spoil()
		if _, err := FromRepository(repo, ""); holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	data, err := sample().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(data[:600])
	f.Add([]byte("bundle.json"))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := Open(data)
		if err != nil {
			if holdfast.KindOf(err) != holdfast.Invalid {
				t.Fatalf("kind %v: %v", holdfast.KindOf(err), err)
			}
			return
		}
		again, err := b.Encode()
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("accepted, but not canonical: %v", err)
		}
	})
}
