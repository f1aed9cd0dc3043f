package loader_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/loader"
	"github.com/holdfast-security/holdfast/internal/trust/attest"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

var start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// Hosts whose ids put them into the first and the last of the default rings.
var inInternal, inGeneral = hostIn(0), hostIn(2)

func hostIn(ring int) holdfast.HostID {
	for i := 0; ; i++ {
		if id := holdfast.HostID("host-" + strconv.Itoa(i)); holdfast.DefaultRings.Of(id) == ring {
			return id
		}
	}
}

// world is one trust root with a desk, a server that speaks HTTP, and one host.
type world struct {
	testing.TB
	now    time.Time
	domain tuf.Domain
	dir    string
	desk   *tuf.Desk
	online *tuf.Online
	server *httptest.Server
	// tamper answers a request in the server's place, and reports whether it did.
	tamper func(w http.ResponseWriter, r *http.Request) bool

	// The host.
	id      holdfast.HostID
	build   holdfast.Digest
	state   loader.State
	consent loader.Consent
	trust   *tuf.Client
	loader  *loader.Loader
	loads   []string // what was test-loaded
	loadErr error
	leases  map[string]error // what renewing says; absent means that it stands
}

// ceremony returns a directory with a desk, its keys and what a server publishes,
// nothing released. It is held once per domain; worlds are copies.
func ceremony(domain tuf.Domain) (string, error) {
	founding.Lock()
	defer founding.Unlock()
	dir := filepath.Join(founding.dir, string(domain))
	if founding.done[domain] {
		return dir, nil
	}
	desk, err := tuf.Init(filepath.Join(dir, "desk"), tuf.Ceremony{Domain: domain, Keys: filepath.Join(dir, "keys")}, start)
	if err != nil {
		return "", err
	}
	files, err := desk.Files()
	if err != nil {
		return "", err
	}
	online, err := tuf.OpenOnline(filepath.Join(dir, "public", "tuf"), filepath.Join(dir, "keys", "online"), tuf.Validity{})
	if err != nil {
		return "", err
	}
	if err := online.Accept(files, start); err != nil {
		return "", err
	}
	founding.done[domain] = true
	return dir, online.Approve(nil, start)
}

var founding = struct {
	sync.Mutex
	dir  string // TestMain's
	done map[tuf.Domain]bool
}{done: map[tuf.Domain]bool{}}

func newWorld(t testing.TB, domain tuf.Domain, id holdfast.HostID) *world {
	t.Helper()
	w := &world{
		TB: t, now: start, domain: domain, dir: t.TempDir(), id: id, build: holdfast.DigestOf([]byte("worker 1")), leases: map[string]error{},
		state: loader.State{Current: holdfast.Generation{}, Previous: holdfast.Generation{}},
	}
	founded, err := ceremony(domain)
	w.must(err)
	w.must(os.CopyFS(w.dir, os.DirFS(founded)))
	w.desk, err = tuf.OpenDesk(w.at("desk"))
	w.must(err)
	w.online, err = tuf.OpenOnline(w.at("public/tuf"), w.at("keys/online"), tuf.Validity{})
	w.must(err)
	files := http.FileServer(http.Dir(w.at("public")))
	w.server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if w.tamper == nil || !w.tamper(rw, r) {
			files.ServeHTTP(rw, r)
		}
	}))
	t.Cleanup(w.server.Close)
	roots, err := w.desk.Roots()
	w.must(err)
	w.trust, err = tuf.NewClient(w.client(roots))
	w.must(err)
	w.restart()
	return w
}

func (w *world) client(roots tuf.Roots) tuf.ClientConfig {
	return tuf.ClientConfig{Domain: w.domain, Roots: roots, URL: w.server.URL + "/tuf", Dir: w.at("host/trust"), Host: w.id}
}

// restart makes a new loader on what the old one left.
func (w *world) restart() {
	w.Helper()
	var err error
	w.loader, err = loader.New(loader.Config{
		Host: w.id, Domain: w.domain, Build: w.build, Trust: w.trust, Consent: w.consent, Content: w.at("host/content"), State: w.at("host/trust"), URL: w.server.URL,
		TestLoad: func(_ context.Context, _ holdfast.Channel, path string) error {
			w.loads = append(w.loads, filepath.Base(path))
			return w.loadErr
		},
		Renew: func(_ context.Context, lease string) error { return w.leases[lease] },
	})
	w.must(err)
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) at(path string) string { return filepath.Join(w.dir, filepath.FromSlash(path)) }

func (w *world) write(path string, b []byte) {
	w.Helper()
	w.must(os.MkdirAll(filepath.Dir(w.at(path)), 0o755))
	w.must(os.WriteFile(w.at(path), b, 0o644))
}

func (w *world) key(name string) tuf.Key {
	w.Helper()
	k, err := tuf.LoadKey(w.at("keys/" + name + ".key"))
	w.must(err)
	return k
}

func (w *world) publish() {
	w.Helper()
	files, err := w.desk.Files()
	w.must(err)
	w.must(w.online.Accept(files, w.now))
}

// stage prepares changes and has the named keys sign them.
func (w *world) stage(keys []string, changes ...tuf.Change) {
	w.Helper()
	w.must(w.desk.Stage(w.now, changes...))
	for _, k := range keys {
		_, err := w.desk.Sign(w.key(k))
		w.must(err)
	}
}

func (w *world) sign(keys []string, changes ...tuf.Change) {
	w.Helper()
	w.stage(keys, changes...)
	_, err := w.desk.Complete()
	w.must(err)
	w.publish()
}

var two = []string{"publisher-1", "publisher-2"}

// upload puts content on the server, without any signature.
func (w *world) upload(content string) holdfast.Digest {
	w.Helper()
	d := holdfast.DigestOf([]byte(content))
	w.write("public/content/"+d.Hex(), []byte(content))
	return d
}

func newRelease(c holdfast.Channel, content string) tuf.Change {
	return tuf.AddRelease(tuf.NewRelease{Channel: c, Digest: holdfast.DigestOf([]byte(content)), Size: int64(len(content)), Version: content})
}

// release uploads content, has it signed, and rehearsed on the host's build.
func (w *world) release(content string) holdfast.Digest {
	w.Helper()
	d := w.upload(content)
	w.sign(two, newRelease(holdfast.Rules, content))
	w.rehearse(holdfast.Rules, d, "rehearsal-1", passed(w.build))
	return d
}

func passed(builds ...holdfast.Digest) []holdfast.BuildVerdict {
	var all []holdfast.BuildVerdict
	for _, b := range builds {
		all = append(all, holdfast.BuildVerdict{Build: b, Version: "1.0", Passed: true})
	}
	return all
}

func (w *world) rehearse(c holdfast.Channel, bundle holdfast.Digest, key string, builds []holdfast.BuildVerdict) {
	w.Helper()
	env, err := attest.Sign(holdfast.Verdict{Bundle: bundle, Channel: c, Started: w.now, Finished: w.now, Builds: builds}, w.key(key).Private)
	w.must(err)
	w.write("public/verdicts/"+bundle.Hex()+".json", env)
}

// approve replaces what one ring may run: the first digest is current, the rest
// previous.
func (w *world) approve(ring string, digests ...holdfast.Digest) {
	w.Helper()
	w.must(w.online.Approve(map[string][]tuf.Approval{ring: w.list(digests)}, w.now))
}

func (w *world) list(digests []holdfast.Digest) []tuf.Approval {
	var list []tuf.Approval
	for i, d := range digests {
		state := tuf.Current
		if i > 0 {
			state = tuf.Previous
		}
		list = append(list, tuf.Approval{Channel: holdfast.Rules, Digest: d, State: state})
	}
	return list
}

func offer(d holdfast.Digest) holdfast.Offer {
	return holdfast.Offer{Lease: "lease-1", Expires: start.Add(1000 * time.Hour), Channel: holdfast.Rules, Digest: d, Arm: holdfast.New}
}

func (w *world) consider(o holdfast.Offer) loader.Decision {
	w.Helper()
	d, err := w.loader.Consider(w.Context(), w.state, o, w.now)
	w.must(err)
	return d
}

func (w *world) poll() loader.Orders {
	w.Helper()
	o, err := w.loader.Poll(w.Context(), w.state, w.now)
	w.must(err)
	return o
}

// activate is what the guard does with a proposal that proves itself.
func (w *world) activate(d holdfast.Digest) {
	w.state.Previous = w.state.Current
	w.state.Current = w.state.Current.With(holdfast.Rules, d)
}

// want fails unless the decision is what was expected, and its reason says why.
func (w *world) want(d loader.Decision, action loader.Action, cause loader.Cause, reason string) {
	w.Helper()
	if d.Action != action || d.Cause != cause || !strings.Contains(d.Reason, reason) {
		w.Errorf("decided %s/%q because %q; want %s/%q because …%s…", d.Action, d.Cause, d.Reason, action, cause, reason)
	}
	if action != loader.Propose && d.Action == loader.Propose {
		w.Error("content that must not run would have been proposed")
	}
}

// thief holds the server and all its online keys. It writes TUF metadata by its
// own means, so that nothing in package tuf stops it.
type thief struct {
	*world
	ahead int64 // of the versions that the server would use
}

// approve makes a ring role name digest, whatever was signed about it.
func (t thief) approve(ring string, digest holdfast.Digest, size int) {
	t.Helper()
	role := "ring-" + ring
	doc := t.read("director", role)
	signed := doc["signed"].(map[string]any)
	signed["targets"] = map[string]any{"rules/" + digest.Hex(): map[string]any{
		"length": size, "hashes": map[string]any{"sha256": digest.Hex()}, "custom": map[string]any{"state": "current"},
	}}
	t.put("director", role, doc, t.key("online/"+role), t.now.Unix()+t.ahead)
	t.stamp("director")
}

// slip replaces a role of the image repository by bytes that it has from elsewhere.
func (t thief) slip(role string, b []byte) {
	t.Helper()
	var doc map[string]any
	t.must(json.Unmarshal(b, &doc))
	version := int64(doc["signed"].(map[string]any)["version"].(float64))
	t.write(fmt.Sprintf("public/tuf/image/%d.%s.json", version, role), b)
	t.stamp("image")
}

// stamp makes snapshot and timestamp name the newest file of each role.
func (t thief) stamp(repo string) {
	t.Helper()
	snapshot := t.read(repo, "snapshot")
	meta := snapshot["signed"].(map[string]any)["meta"].(map[string]any)
	for name := range meta {
		meta[name] = t.describe(repo, strings.TrimSuffix(name, ".json"))
	}
	online := t.key("online/" + repo)
	t.put(repo, "snapshot", snapshot, online, t.now.Unix()+t.ahead)
	b, err := os.ReadFile(t.at("public/tuf/" + repo + "/timestamp.json"))
	t.must(err)
	var timestamp map[string]any
	t.must(json.Unmarshal(b, &timestamp))
	timestamp["signed"].(map[string]any)["meta"] = map[string]any{"snapshot.json": t.describe(repo, "snapshot")}
	t.write("public/tuf/"+repo+"/timestamp.json", t.seal(timestamp, online, t.now.Unix()+t.ahead))
}

func (t thief) newest(repo, role string) (string, int64) {
	t.Helper()
	paths, err := filepath.Glob(t.at("public/tuf/" + repo + "/*." + role + ".json"))
	t.must(err)
	var best int64
	for _, p := range paths {
		v, err := strconv.ParseInt(strings.SplitN(filepath.Base(p), ".", 2)[0], 10, 64)
		t.must(err)
		best = max(best, v)
	}
	return t.at(fmt.Sprintf("public/tuf/%s/%d.%s.json", repo, best, role)), best
}

func (t thief) read(repo, role string) map[string]any {
	t.Helper()
	path, _ := t.newest(repo, role)
	b, err := os.ReadFile(path)
	t.must(err)
	var doc map[string]any
	t.must(json.Unmarshal(b, &doc))
	return doc
}

func (t thief) describe(repo, role string) map[string]any {
	t.Helper()
	path, version := t.newest(repo, role)
	b, err := os.ReadFile(path)
	t.must(err)
	sum := sha256.Sum256(b)
	return map[string]any{"version": version, "length": len(b), "hashes": map[string]any{"sha256": hex.EncodeToString(sum[:])}}
}

func (t thief) put(repo, role string, doc map[string]any, k tuf.Key, version int64) {
	t.Helper()
	t.write(fmt.Sprintf("public/tuf/%s/%d.%s.json", repo, version, role), t.seal(doc, k, version))
}

// seal signs a document. With keys sorted, no floats and nothing to escape, JSON
// is OLPC canonical JSON.
func (t thief) seal(doc map[string]any, k tuf.Key, version int64) []byte {
	t.Helper()
	signed := doc["signed"].(map[string]any)
	signed["version"] = version
	canonical := t.encode(signed)
	doc["signatures"] = []any{map[string]any{"keyid": k.ID(), "sig": hex.EncodeToString(ed25519.Sign(k.Private, canonical))}}
	return t.encode(doc)
}

func (t thief) encode(v any) []byte {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	t.must(e.Encode(v))
	return slices.Clone(bytes.TrimSpace(b.Bytes()))
}

// copyTree copies a directory, for a thief who kept an old one.
func (w *world) copyTree(from, to string) {
	w.Helper()
	w.must(os.RemoveAll(w.at(to)))
	w.must(os.CopyFS(w.at(to), os.DirFS(w.at(from))))
}
