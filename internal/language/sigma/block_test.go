package sigma

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"
)

type errorer interface {
	Errorf(format string, args ...any)
}

// The property: what blockDocuments reads, it reads as the library does.
func sameAsLibrary(t errorer, data []byte) (read bool) {
	docs, ok := blockDocuments(data)
	if !ok {
		return false
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	for i, doc := range docs {
		var n yaml.Node
		if err := d.Decode(&n); err != nil {
			t.Errorf("document %d: the library says %v\n%s", i, err, data)
			return true
		}
		if diff := difference(doc, n.Content[0]); diff != "" {
			t.Errorf("document %d: %s\n%s", i, diff, data)
		}
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		t.Errorf("after %d documents the library says %v\n%s", len(docs), err, data)
	}
	return true
}

func difference(a, b *yaml.Node) string {
	name := func(n *yaml.Node) string {
		return fmt.Sprintf("%d:%d kind %d, style %d, %s %q of %d", n.Line, n.Column, n.Kind, n.Style, n.ShortTag(), n.Value, len(n.Content))
	}
	if name(a) != name(b) {
		return "read " + name(a) + ", by the library " + name(b)
	}
	for i := range a.Content {
		if d := difference(a.Content[i], b.Content[i]); d != "" {
			return d
		}
	}
	return ""
}

const block = `# A comment
title: Some rule of é
id: "x y" # a comment
description: |
    First line: of it
      more indented # no comment

    Third

---
tags:
- attack.t1059
-   'it''s'
detection:
  s:
    Image|endswith:
      - -a
      # another
      - '/b: #'   #  one more
    'k|all': 5
    Néw\x|re: C:\new:x#y
  list:
  - a: b
    c:
    - d
  -   e: |
        f
      g: null
  condition: 1 of s* and not "x"
`

// What rules have most, and what it must leave to the library.
func TestBlockDocuments(t *testing.T) {
	if !sameAsLibrary(t, []byte(block)) {
		t.Error("left to the library")
	}
	for _, text := range []string{
		"", "a", "a:", "a: ", "- a\n", "a: b\n  c\n", "a: [b]\n", "a: {b: c}\n", "a: &x b\n", "a: *x\n", "a: !!str b\n", "a: >\n  b\n", "a: |-\n  b\n", "a: |2\n   b\n",
		"a: |\n\n  b\n", "a: |\n  b", "a: |\nb: c\n", "a: 'b\n  c'\n", "a: \"\\n\"\n", "a: b\n...\n", "--- a\n", "a: b\n---\n", "%YAML 1.1\n---\na: b\n", "? a\n: b\n", "a: b: c\n",
		"a:\tb\n", "a: b\r\n", "\ufeffa: b\n", "a: \u2028b\n", "a: \x00\n", "a: \xff\n", "a: @b\n", "a: `b\n", "a: - b\n", "a:\n  b\n", "a:\n  - - b\n", "a:\n  -\n", "a : b\n", "a: 'b' c\n", "a: 'b'#c\n",
		" a: b\nc: d\n", "a: b\n c: d\n", "a:\n  b: c\n d: e\n", "a:\n  - b\n c: d\n", strings.Repeat("k", 2000) + ": b\n", nested(40), strings.Repeat("a: b\n---\n", 70) + "a: b\n",
	} {
		if sameAsLibrary(t, []byte(text)) {
			t.Errorf("%.40q was not left to the library", text)
		}
	}
}

func nested(depth int) string {
	var s strings.Builder
	for i := range depth {
		fmt.Fprintf(&s, "%s- a:\n", strings.Repeat("    ", i))
	}
	return "a:\n" + s.String() + strings.Repeat("    ", depth) + "x: y\n"
}

func TestBlockDocumentsReadSigmaHQ(t *testing.T) {
	data := os.Getenv("HOLDFAST_DATA")
	if data == "" {
		t.Skip("HOLDFAST_DATA is not set: it names a directory with sigmahq/rules")
	}
	files, read := 0, 0
	err := filepath.WalkDir(filepath.Join(data, "sigmahq"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".yml" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		if sameAsLibrary(t, text) {
			read++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d of %d files", read, files)
	if read*10 < files*9 {
		t.Errorf("only %d of %d files are not left to the library", read, files)
	}
}

// Documents as rules have them, with an oddity here and there.
func TestBlockDocumentsOfAnyShapeAreTheLibrarys(t *testing.T) {
	read, files := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		g := blockGenerator{rt}
		data := g.mapping("", 4)
		for rapid.IntRange(0, 3).Draw(rt, "more") == 3 {
			data += g.some("---\n", "--- \n/...\n/--- # c\n/\n") + g.mapping("", 3)
		}
		if rapid.IntRange(0, 3).Draw(rt, "cut") == 3 {
			data = strings.TrimRight(data, "\n")
		}
		files++
		if sameAsLibrary(rt, []byte(data)) {
			read++
		}
	})
	t.Logf("%d of %d files", read, files)
	if read < files/10 {
		t.Errorf("only %d of %d files are not left to the library", read, files)
	}
}

type blockGenerator struct{ *rapid.T }

// some draws one of the usual pieces, rarely one of the rare.
func (g blockGenerator) some(usual, rare string) string {
	if rapid.IntRange(0, 60).Draw(g.T, "rare") == 60 {
		usual = rare
	}
	return rapid.SampledFrom(strings.Split(usual, "/")).Draw(g.T, "piece")
}

func (g blockGenerator) mapping(indent string, depth int) string {
	var s string
	for i := range rapid.IntRange(1, 3).Draw(g.T, "entries") {
		if i > 0 {
			s += indent
		}
		s += g.some("a:/b:/c|re:/'d e':/\"f\":/é:/1:/x y:/<<:/null:", "a :/'':/-x:/.y:/~:/'g' :/--- a:/? a:/- a:/:/'h'i:/!k:") + g.value(indent, depth-1)
	}
	return s
}

func (g blockGenerator) list(indent string, depth int) string {
	var s string
	for i := range rapid.IntRange(1, 3).Draw(g.T, "items") {
		if i > 0 {
			s += indent
		}
		s += "-"
		if gap := g.some(" / /   ", "/  # c\n"); depth > 0 && rapid.Bool().Draw(g.T, "compact") {
			s += gap + g.mapping(indent+" "+gap, depth-1)
		} else {
			s += g.value(indent, 0)
		}
	}
	return s
}

// value draws what follows a colon or a dash.
func (g blockGenerator) value(indent string, depth int) string {
	end := g.some("\n/\n/ \n/ # c\n/\n# c\n/\n\n/\n   \n/\n      # c\n", "#c\n/ 'z'\n/:\n/ # c: d\n/\n ...\n/\n  x\n")
	deeper := indent + g.some("  /    / ", "/   x: /      ")
	switch n := rapid.IntRange(0, 5).Draw(g.T, "kind"); {
	case depth > 0 && n == 0:
		return end + deeper + g.mapping(deeper, depth)
	case depth > 0 && n == 1:
		return end + deeper + g.list(deeper, depth)
	case depth > 0 && n == 2:
		return end + indent + g.list(indent, depth)
	case n == 3:
		s := " |" + g.some("/ ", " # c/-/+/2/x") + "\n"
		for range rapid.IntRange(1, 3).Draw(g.T, "lines") {
			s += deeper + g.some("x/# c/  y: z/- 'k'/\"/é", "\n/  \n/      \n/...") + "\n"
		}
		return s + g.some("//\n/\n\n/ \n", "      \n/# c\n")
	}
	return g.some(" /  ", "/\t") + g.some("x/x y/'it''s'/\"q\"/-1/C:\\x/-a/null/~/0x1f/1.5/on/x:y/x#y/''/<</=/2024-01-02/*.x", "- b/x: y/x:/'/\"\\\\\"/*/[/{/é: é/!/%/?/? x/&a b/>/x,y]") + end
}

func FuzzBlockDocuments(f *testing.F) {
	f.Add([]byte(block))
	f.Add([]byte("a: 'b'\nc:\n- d\n# e\n- f: |\n   g\n# h\n  i: j"))
	f.Fuzz(func(t *testing.T, data []byte) { sameAsLibrary(t, data) })
}
