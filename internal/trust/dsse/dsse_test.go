package dsse

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/holdfast-security/holdfast"
)

const kind, most = "application/vnd.holdfast.test+yaml", 1 << 16

func key(n int) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(n)}, ed25519.SeedSize))
}

func public(ns ...int) (keys []ed25519.PublicKey) {
	for _, n := range ns {
		keys = append(keys, key(n).Public().(ed25519.PublicKey))
	}
	return keys
}

func signed(t testing.TB, payload string, ns ...int) []byte {
	t.Helper()
	var keys []ed25519.PrivateKey
	for _, n := range ns {
		keys = append(keys, key(n))
	}
	env, err := Sign(kind, []byte(payload), keys...)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

// TestPAE: "DSSEv1", the length of the type, the type, the length of the body,
// the body, with one space between; lengths are of bytes, in decimal.
func TestPAE(t *testing.T) {
	for _, c := range []struct{ kind, body, want string }{
		{"", "", "DSSEv1 0  0 "},
		{"http://example.com/HelloWorld", "hello world", "DSSEv1 29 http://example.com/HelloWorld 11 hello world"},
		{"t", "6 héllo", "DSSEv1 1 t 8 6 héllo"},
		{"t 1 x", "", "DSSEv1 5 t 1 x 0 "},
		{"t", "\x00\n", "DSSEv1 1 t 2 \x00\n"},
	} {
		if got := string(pae(c.kind, []byte(c.body))); got != c.want {
			t.Errorf("%q, %q: %q, want %q", c.kind, c.body, got, c.want)
		}
	}
}

// TestPropertyPAEIsInjective: no two pairs of type and payload are signed alike.
func TestPropertyPAEIsInjective(t *testing.T) {
	some := rapid.StringOfN(rapid.SampledFrom([]rune("1 2\nDE")), 0, 12, -1)
	rapid.Check(t, func(t *rapid.T) {
		a, b := some.Draw(t, "a"), some.Draw(t, "b")
		x, y := some.Draw(t, "x"), some.Draw(t, "y")
		if (a != x || b != y) && bytes.Equal(pae(a, []byte(b)), pae(x, []byte(y))) {
			t.Fatalf("%q, %q and %q, %q", a, b, x, y)
		}
	})
}

// TestPropertyWhatIsSignedIsWhatIsOpened: every payload, byte for byte, if and
// only if at least the threshold of the keys signed it.
func TestPropertyWhatIsSignedIsWhatIsOpened(t *testing.T) {
	met := map[bool]int{}
	rapid.Check(t, func(t *rapid.T) {
		payload := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "payload")
		signers := rapid.SliceOfN(rapid.IntRange(1, 5), 0, 5).Draw(t, "signers")
		trusted := rapid.SliceOfNDistinct(rapid.IntRange(1, 5), 1, 5, rapid.ID[int]).Draw(t, "trusted")
		threshold := rapid.IntRange(1, len(trusted)).Draw(t, "threshold")
		var keys []ed25519.PrivateKey
		for _, n := range signers {
			keys = append(keys, key(n))
		}
		env, err := Sign(kind, payload, keys...)
		if err != nil {
			t.Fatal(err)
		}
		valid := map[int]bool{}
		for _, s := range signers {
			for _, k := range trusted {
				if s == k {
					valid[s] = true
				}
			}
		}
		got, err := Open(env, kind, most, public(trusted...), threshold)
		want := len(valid) >= threshold
		met[want]++
		if want != (err == nil) || want && !bytes.Equal(got, payload) || !want && (got != nil || holdfast.KindOf(err) != holdfast.Denied) {
			t.Fatalf("%v of %v, %d needed: %q, %v", signers, trusted, threshold, got, err)
		}
	})
	if met[true] == 0 || met[false] == 0 {
		t.Errorf("the generator never met a case: %v", met)
	}
}

// TestPropertyNoBitMayChange of what was signed: an envelope with another bit is
// refused, or still says the very same.
func TestPropertyNoBitMayChange(t *testing.T) {
	env := signed(t, "groups: []", 1, 2)
	rapid.Check(t, func(t *rapid.T) {
		bad := bytes.Clone(env)
		bad[rapid.IntRange(0, len(bad)-1).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		got, err := Open(bad, kind, most, public(1, 2), 2)
		if err == nil && string(got) != "groups: []" {
			t.Fatalf("%s was believed to say %q", bad, got)
		}
		if err != nil && holdfast.KindOf(err) != holdfast.Denied {
			t.Fatalf("%v is %s", err, holdfast.KindOf(err))
		}
	})
}

func TestWhatIsRefused(t *testing.T) {
	good := signed(t, "payload", 1, 2)
	edit := func(f func(*envelope)) []byte {
		var e envelope
		if err := json.Unmarshal(good, &e); err != nil {
			t.Fatal(err)
		}
		f(&e)
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	short := public(1)
	short[0] = short[0][:31]
	for _, c := range []struct {
		name      string
		env       []byte
		keys      []ed25519.PublicKey
		threshold int
		want      string
	}{
		{"another key", good, public(3), 1, "0 of the 1 signatures"},
		{"one signature of two", signed(t, "payload", 1), public(1, 2), 2, "1 of the 2 signatures"},
		{"one key that signed twice", signed(t, "payload", 1, 1), public(1, 2), 2, "1 of the 2 signatures"},
		{"one key that is listed twice", signed(t, "payload", 1), public(1, 1), 2, "1 of the 2 signatures"},
		{"nobody signed", edit(func(e *envelope) { e.Signatures = nil }), public(1), 1, "0 of the 1 signatures"},
		{"a threshold of none", good, public(1), 0, "which cannot be met"},
		{"a threshold below none", good, public(1), -1, "which cannot be met"},
		{"more than there are keys", good, public(1, 2), 3, "which cannot be met"},
		{"no keys", good, nil, 1, "which cannot be met"},
		{"a key that is too short", good, short, 1, "0 of the 1 signatures"},
		{"another payload", edit(func(e *envelope) { e.Payload = base64.StdEncoding.EncodeToString([]byte("payloae")) }), public(1), 1, "0 of the 1 signatures"},
		{"another type", edit(func(e *envelope) { e.PayloadType = "text/plain" }), public(1), 1, `is a "text/plain"`},
		{"a signature as another type", func() []byte {
			b, _ := Sign("text/plain", []byte("payload"), key(1))
			return bytes.Replace(b, []byte("text/plain"), []byte(kind), 1)
		}(), public(1), 1, "0 of the 1 signatures"},
		{"a payload that is no base64", edit(func(e *envelope) { e.Payload = "pay load" }), public(1), 1, "not base64"},
		{"a payload in the alphabet for addresses", edit(func(e *envelope) { e.Payload = "-_-_" }), public(1), 1, "not base64"},
		{"a signature that is no base64", edit(func(e *envelope) { e.Signatures[0].Sig, e.Signatures[1].Sig = "?", "?" }), public(1), 1, "0 of the 1 signatures"},
		{"a signature cut short", edit(func(e *envelope) { e.Signatures[0].Sig = e.Signatures[0].Sig[:40] }), public(1), 1, "0 of the 1 signatures"},
		{"too many signatures", edit(func(e *envelope) { e.Signatures = make([]signature, maxSignatures+1) }), public(1), 1, "33 signatures; the limit is 32"},
		{"too long", append(bytes.Repeat([]byte(" "), most), good...), public(1), 1, "the limit is 65536"},
		{"cut short", good[:len(good)-1], public(1), 1, "cannot be read"},
		{"something behind it", append(bytes.Clone(good), "{}"...), public(1), 1, "something behind its end"},
		{"empty", nil, public(1), 1, "cannot be read"},
		{"a list", []byte("[]"), public(1), 1, "cannot be read"},
		{"nothing", []byte("null"), public(1), 1, `is a ""`},
	} {
		got, err := Open(c.env, kind, most, c.keys, c.threshold)
		if got != nil || holdfast.KindOf(err) != holdfast.Denied || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: %q, %v; want …%s…", c.name, got, err, c.want)
		}
	}
}

// TestTheNameOfAKeyProvesNothing: a signature counts by what it is, not by the
// key it names.
func TestTheNameOfAKeyProvesNothing(t *testing.T) {
	env := signed(t, "payload", 1)
	right, wrong := []byte(KeyID(public(1)[0])), []byte(KeyID(public(2)[0]))
	swapped := bytes.Replace(env, right, wrong, 1)
	if bytes.Equal(env, swapped) {
		t.Fatal("the envelope does not name its key")
	}
	if _, err := Open(swapped, kind, most, public(2), 1); err == nil {
		t.Error("a signature was believed because of the key it names")
	}
	if _, err := Open(swapped, kind, most, public(1), 1); err != nil {
		t.Errorf("a signature of a trusted key: %v", err)
	}
}

func TestDecodeReadsOneValue(t *testing.T) {
	for in, ok := range map[string]bool{`{"a":1}`: true, " {} \n": true, "{}{}": false, "{} x": false, "{": false, "": false, `{"a":"1"}`: false} {
		var v struct{ A int }
		err := Decode([]byte(in), &v, "thing")
		if ok != (err == nil) || !ok && (holdfast.KindOf(err) != holdfast.Denied || !strings.Contains(err.Error(), "the thing")) {
			t.Errorf("%q: %v", in, err)
		}
	}
}

// FuzzOpen: whatever comes, it is refused as Denied, or it is what the trusted
// key signed. Nothing the fuzzer knows is signed but one payload.
func FuzzOpen(f *testing.F) {
	env := signed(f, "payload", 1)
	f.Add(env)
	f.Add(signed(f, "payload", 2))
	f.Add([]byte(`{"payloadType":"` + kind + `","payload":"","signatures":[{"sig":""}]}`))
	f.Add([]byte("null"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := Open(b, kind, most, public(1), 1)
		switch {
		case err == nil && string(got) != "payload":
			t.Fatalf("believed %q", got)
		case err != nil && (got != nil || holdfast.KindOf(err) != holdfast.Denied):
			t.Fatalf("%q, %v", got, err)
		}
	})
}
