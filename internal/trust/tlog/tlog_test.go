package tlog_test

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	sumdb "golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/trust/tlog"
)

const origin = "holdfast.example/record"

// rows is a store of the record. Its writes fail in pairs: not done, and done but
// reported as failed.
type rows struct {
	entries [][]byte
	hashes  []tlog.Hash
	fail    error
	done    bool // whether a failing write is carried out all the same
}

func (r *rows) Size() (int64, error) { return int64(len(r.entries)), nil }

func (r *rows) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var out []tlog.Hash
	for _, i := range indexes {
		if i >= int64(len(r.hashes)) {
			return nil, errors.New("no such row")
		}
		out = append(out, r.hashes[i])
	}
	return out, nil
}

func (r *rows) ReadEntries(from, to int64) ([][]byte, error) { return r.entries[from:to], nil }

func (r *rows) Append(seq int64, entry []byte, first int64, hashes []tlog.Hash) error {
	if r.fail != nil && !r.done {
		return r.fail
	}
	if seq != int64(len(r.entries)) || first != int64(len(r.hashes)) {
		return fmt.Errorf("entry %d at %d does not continue %d at %d", seq, first, len(r.entries), len(r.hashes))
	}
	r.entries = append(r.entries, entry)
	r.hashes = append(r.hashes, hashes...)
	return r.fail
}

func entry(i int) holdfast.Entry {
	kinds := []string{"release", "verdict", "approve", "admit", "promote", "hold", "halt", "recall", "complete"}
	return holdfast.Entry{
		Kind: kinds[i%len(kinds)], At: time.Date(2026, 11, 21, 12, 0, i, 0, time.UTC), Org: holdfast.DefaultOrg, By: "holdfast",
		Text: fmt.Sprintf("decision %d", i), Detail: json.RawMessage(`{"n":1}`),
	}
}

// log is a record with its key.
type log struct {
	testing.TB
	*rows
	secret, public string
}

func newLog(t testing.TB, n int) *log {
	t.Helper()
	secret, public, err := tlog.GenerateKey(origin)
	if err != nil {
		t.Fatal(err)
	}
	l := &log{t, &rows{}, secret, public}
	l.grow(n)
	return l
}

func (l *log) grow(n int) {
	l.Helper()
	for range n {
		if _, err := tlog.Append(l.rows, entry(len(l.entries))); err != nil {
			l.Fatal(err)
		}
	}
}

func (l *log) checkpoint() []byte {
	l.Helper()
	root, err := tlog.Root(int64(len(l.entries)), l.rows)
	if err != nil {
		l.Fatal(err)
	}
	signed, err := tlog.Sign(int64(len(l.entries)), root, l.secret)
	if err != nil {
		l.Fatal(err)
	}
	return signed
}

func (l *log) export() fstest.MapFS {
	l.Helper()
	files := fstest.MapFS{}
	err := tlog.Export(l.rows, l.checkpoint(), l.public, func(path string, data []byte) error {
		files[path] = &fstest.MapFile{Data: bytes.Clone(data)}
		return nil
	})
	if err != nil {
		l.Fatal(err)
	}
	return files
}

func wantDenied(t *testing.T, err error, say ...string) {
	t.Helper()
	if holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("got %v; want a denial", err)
		return
	}
	for _, s := range say {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%q does not say %q", err, s)
		}
	}
}

func TestExportOfEverySizeVerifies(t *testing.T) {
	for _, n := range []int{0, 1, 2, 255, 256, 257, 511, 512, 700} {
		l := newLog(t, n)
		var seen int64
		v, err := tlog.VerifyExport(l.export(), tlog.Against{Public: l.public}, func(e holdfast.Entry) error {
			if e.Seq != seen || e.Text != fmt.Sprintf("decision %d", seen) {
				t.Errorf("entry %d is %+v", seen, e)
			}
			seen++
			return nil
		})
		if err != nil || seen != int64(n) || v.Checkpoint.Size != int64(n) || v.Checkpoint.Origin != origin {
			t.Errorf("%d entries: saw %d, %+v, %v", n, seen, v, err)
		}
	}
}

func TestExportToDirectoryAndArchive(t *testing.T) {
	l := newLog(t, 300)
	dir := t.TempDir()
	for range 2 { // writing again is harmless
		if err := tlog.Export(l.rows, l.checkpoint(), l.public, tlog.ToDir(dir)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tlog.VerifyExport(os.DirFS(dir), tlog.Against{Public: l.public}, nil); err != nil {
		t.Errorf("directory: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "tile", "*", ".tmp-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
	for _, path := range []string{"checkpoint", "tile/0/000", "tile/0/001.p/44", "tile/1/000.p/1", "tile/entries/000", "tile/entries/001.p/44"} {
		if _, err := os.Stat(filepath.Join(dir, path)); err != nil {
			t.Errorf("C2SP file: %v", err)
		}
	}
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	if err := tlog.Export(l.rows, l.checkpoint(), l.public, tlog.ToZip(z)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := zip.NewReader(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tlog.VerifyExport(r, tlog.Against{Public: l.public}, nil); err != nil {
		t.Errorf("archive: %v", err)
	}
}

// The decision fails with its entry, and the entry with its decision: what a write
// that failed left behind is the transaction's to undo, and never half of it.
func TestFaultsInPairs(t *testing.T) {
	for _, done := range []bool{false, true} {
		l := newLog(t, 5)
		before := *l.rows
		l.fail, l.done = errors.New("disk full"), done
		if _, err := tlog.Append(l.rows, entry(5)); err == nil || err.Error() != "disk full" {
			t.Errorf("done=%v: %v", done, err)
		}
		*l.rows = before // the caller's rollback
		l.grow(3)
		if _, err := tlog.VerifyExport(l.export(), tlog.Against{Public: l.public}, nil); err != nil {
			t.Errorf("done=%v: after the rollback: %v", done, err)
		}
	}
}

func TestFlippedBitNamesItsEntry(t *testing.T) {
	l := newLog(t, 300)
	whole := l.export()
	rapid.Check(t, func(rt *rapid.T) {
		path := rapid.SampledFrom(slices.Sorted(maps.Keys(whole))).Draw(rt, "file")
		data := bytes.Clone(whole[path].Data)
		i := rapid.IntRange(0, len(data)-1).Draw(rt, "byte")
		data[i] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
		export := with(whole, path, data)
		_, err := tlog.VerifyExport(export, tlog.Against{Public: l.public}, nil)
		if holdfast.KindOf(err) != holdfast.Denied {
			rt.Fatalf("bit flipped in byte %d of %s: %v", i, path, err)
		}
		if path != "checkpoint" && !strings.Contains(err.Error(), "entry ") && !strings.Contains(err.Error(), "entries from") {
			rt.Fatalf("%q names no entry", err)
		}
	})
}

func with(files fstest.MapFS, path string, data []byte) fstest.MapFS {
	n := maps.Clone(files)
	if data == nil {
		delete(n, path)
	} else {
		n[path] = &fstest.MapFile{Data: data}
	}
	return n
}

func TestTruncatedTileNamesItsEntry(t *testing.T) {
	l := newLog(t, 300)
	whole := l.export()
	check := func(path string, keep int, say ...string) {
		t.Helper()
		var data []byte
		if keep >= 0 {
			data = whole[path].Data[:keep]
		}
		_, err := tlog.VerifyExport(with(whole, path, data), tlog.Against{Public: l.public}, nil)
		wantDenied(t, err, append(say, path)...)
	}
	check("tile/0/000", 100, "the hash of entry 3 is missing")
	check("tile/0/001.p/44", 32*40, "the hash of entry 296 is missing")
	check("tile/1/000.p/1", 31, "the entries from 0 on")
	check("tile/entries/001.p/44", 300, "breaks in entry 258")
	check("tile/entries/000", -1, "is missing")
	check("checkpoint", -1, "is missing")
	_, err := tlog.VerifyExport(with(whole, "tile/0/000", append(bytes.Clone(whole["tile/0/000"].Data), 0)), tlog.Against{Public: l.public}, nil)
	wantDenied(t, err, "tile/0/000", "longer")
}

// fork is a log with the same key whose entry n, and all after it, are others.
func (l *log) fork(n, size int) *log {
	l.Helper()
	f := &log{l.TB, &rows{}, l.secret, l.public}
	for i := range size {
		e := entry(i)
		if i >= n {
			e.Text = "nothing happened"
		}
		if _, err := tlog.Append(f.rows, e); err != nil {
			l.Fatal(err)
		}
	}
	return f
}

func TestForkedHistoryIsDetected(t *testing.T) {
	l := newLog(t, 400)
	old, oldExport := l.checkpoint(), l.export()
	f := l.fork(290, 700)
	against := tlog.Against{Public: l.public, Older: old}
	_, err := tlog.VerifyExport(f.export(), against, nil)
	wantDenied(t, err, "history was rewritten", "entry 0 to entry 399")
	against.OlderExport = oldExport
	_, err = tlog.VerifyExport(f.export(), against, nil)
	wantDenied(t, err, "history was rewritten", "entry 290 is not the one that the older export has")

	// Tiles of one history with the entries of another.
	mixed := oldExport
	for p, file := range l.fork(290, 400).export() {
		if strings.HasPrefix(p, "tile/entries/") {
			mixed = with(mixed, p, file.Data)
		}
	}
	_, err = tlog.VerifyExport(mixed, tlog.Against{Public: l.public}, nil)
	wantDenied(t, err, "entry 290 is not the one its tile commits to")

	// A checkpoint of one history with everything else of another.
	_, err = tlog.VerifyExport(with(l.fork(399, 400).export(), "checkpoint", old), tlog.Against{Public: l.public}, nil)
	wantDenied(t, err, "signs another history", "entry 399")

	_, err = tlog.VerifyExport(l.fork(300, 300).export(), tlog.Against{Public: l.public, Older: old}, nil)
	wantDenied(t, err, "entry 300 was taken away")
}

func TestOlderCheckpointIsContinued(t *testing.T) {
	l := newLog(t, 0)
	olds := [][]byte{l.checkpoint()}
	for _, n := range []int{1, 255, 1, 300} {
		l.grow(n)
		olds = append(olds, l.checkpoint())
	}
	for _, old := range olds {
		v, err := tlog.VerifyExport(l.export(), tlog.Against{Public: l.public, Older: old}, nil)
		if err != nil {
			t.Errorf("since %d entries: %v", v.Older.Size, err)
		}
	}
}

func TestCheckpointOfAnotherKeyOrForm(t *testing.T) {
	l, other := newLog(t, 3), newLog(t, 3)
	_, err := tlog.VerifyExport(other.export(), tlog.Against{Public: l.public}, nil)
	wantDenied(t, err, "not signed by "+origin)
	_, err = tlog.Open([]byte("no note"), l.public)
	wantDenied(t, err)
	if _, err = tlog.Open(l.checkpoint(), "no key"); holdfast.KindOf(err) != holdfast.Invalid {
		t.Errorf("no key: %v", err)
	}
	if _, err = tlog.Sign(1, tlog.Hash{}, "no key"); holdfast.KindOf(err) != holdfast.Invalid || strings.Contains(err.Error(), "no key") {
		t.Errorf("a bad secret must be refused and not be shown: %v", err)
	}
	root, err := tlog.Root(3, l.rows)
	if err != nil {
		t.Fatal(err)
	}
	want := origin + "\n3\n" + base64.StdEncoding.EncodeToString(root[:]) + "\n\n— " + origin + " "
	if !strings.HasPrefix(string(l.checkpoint()), want) {
		t.Errorf("checkpoint:\n%s", l.checkpoint())
	}
}

func TestProofs(t *testing.T) {
	l := newLog(t, 300)
	c, err := tlog.Open(l.checkpoint(), l.public)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int64{0, 1, 255, 256, 299} {
		proof, err := tlog.Inclusion(c.Size, n, l.rows)
		if err != nil {
			t.Fatal(err)
		}
		if err := tlog.CheckInclusion(c, n, l.entries[n], proof); err != nil {
			t.Error(err)
		}
		wantDenied(t, tlog.CheckInclusion(c, n, []byte("forged"), proof), fmt.Sprintf("entry %d is not in the checkpoint", n))
	}
	oldRoot, err := tlog.Root(100, l.rows)
	if err != nil {
		t.Fatal(err)
	}
	proof, err := tlog.Consistency(c.Size, 100, l.rows)
	if err != nil {
		t.Fatal(err)
	}
	old := tlog.Checkpoint{Origin: origin, Size: 100, Root: oldRoot}
	if err := tlog.CheckConsistency(c, old, proof); err != nil {
		t.Error(err)
	}
	old.Root[0] ^= 1
	wantDenied(t, tlog.CheckConsistency(c, old, proof), "history was rewritten")
}

func TestEntriesAreBounded(t *testing.T) {
	big := entry(0)
	big.Text = strings.Repeat("x", tlog.MaxEntry)
	for name, e := range map[string]holdfast.Entry{"too long": big, "no kind": {At: time.Now()}, "no time": {Kind: "halt"}} {
		r := &rows{}
		if _, err := tlog.Append(r, e); holdfast.KindOf(err) != holdfast.Invalid || len(r.entries) > 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEntryWithAnothersNumberIsRefused(t *testing.T) {
	l := newLog(t, 3)
	e := entry(3)
	e.Seq = 7
	data, err := tlog.Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	hashes, err := sumdb.StoredHashes(3, data, l.rows) // what Append would refuse
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Append(3, data, sumdb.StoredHashIndex(0, 3), hashes); err != nil {
		t.Fatal(err)
	}
	_, err = tlog.VerifyExport(l.export(), tlog.Against{Public: l.public}, nil)
	wantDenied(t, err, "entry 3 says that it is entry 7")
}

func FuzzDecode(f *testing.F) {
	for i := range 3 {
		b, err := tlog.Encode(entry(i))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"kind":"halt","at":"2026-11-21T12:00:00Z","detail":{"a":[1,2,{}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := tlog.Decode(b)
		if err != nil {
			return
		}
		again, err := tlog.Encode(e)
		if err != nil && len(b) < tlog.MaxEntry/8 {
			t.Fatalf("%q was read but cannot be written: %v", b, err)
		}
		if err == nil {
			if _, err := tlog.Decode(again); err != nil {
				t.Fatalf("%q was written but cannot be read: %v", again, err)
			}
		}
	})
}

// FuzzVerifyExport is what a stranger's archive can do to whoever verifies it.
func FuzzVerifyExport(f *testing.F) {
	l := newLog(f, 5)
	whole := l.export()
	f.Add([]byte("tile/0/000.p/5"), whole["tile/0/000.p/5"].Data)
	f.Add([]byte("tile/entries/000.p/5"), whole["tile/entries/000.p/5"].Data)
	f.Add([]byte("checkpoint"), whole["checkpoint"].Data)
	f.Fuzz(func(t *testing.T, path, data []byte) {
		if !fs.ValidPath(string(path)) {
			return
		}
		original, ours := whole[string(path)]
		if !ours {
			return
		}
		_, err := tlog.VerifyExport(with(whole, string(path), append([]byte{}, data...)), tlog.Against{Public: l.public}, nil)
		if err == nil && string(path) != "checkpoint" && !bytes.Equal(original.Data, data) {
			t.Errorf("%s was changed, and believed", path)
		}
	})
}
