package loader_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/loader"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

const bundle = "rules, second version"

// Each case is a story about one host, told to a real HTTP server. It ends with
// what the host decides about the offer of bundle; before that, the host has
// accepted and runs an honest first version.
var refused = []struct {
	name   string
	host   holdfast.HostID
	story  func(w *world, d holdfast.Digest)
	offer  func(o *holdfast.Offer)
	action loader.Action
	cause  loader.Cause
	reason string
}{
	{
		name: "unsigned", host: inInternal,
		story: func(w *world, d holdfast.Digest) {
			w.upload(bundle)
			thief{w, 1000}.approve("internal", d, len(bundle)) // the server vouches for it, and nobody else
		},
		action: loader.Refuse, cause: loader.Unsigned, reason: "the publishers have signed no content",
	},
	{
		name: "one signature short", host: inInternal,
		story: func(w *world, d holdfast.Digest) {
			w.upload(bundle)
			w.rehearse(holdfast.Rules, d, "rehearsal-1", passed(w.build))
			w.stage([]string{"publisher-1"}, newRelease(holdfast.Rules, bundle))
			if _, err := w.desk.Complete(); holdfast.KindOf(err) != holdfast.Denied {
				w.Errorf("the desk completed with one signature: %v", err)
			}
			staged, err := os.ReadFile(w.at("desk/staged/image/3.rules.json"))
			w.must(err)
			thief{w, 1000}.slip("rules", staged)
			thief{w, 1000}.approve("internal", d, len(bundle))
		},
		action: loader.Refuse, cause: loader.BadMetadata, reason: "not enough signatures, got 1, want 2",
	},
	{
		name: "wrong ring", host: inGeneral,
		story: func(w *world, d holdfast.Digest) {
			w.release(bundle)
			w.approve("internal", d)
			w.now = w.now.Add(12 * time.Hour)
		},
		action: loader.Wait, cause: loader.NotApproved, reason: "for ring general, which this host is in",
	},
	{
		name: "too early", host: inGeneral,
		story: func(w *world, d holdfast.Digest) {
			w.release(bundle)
			w.approve("general", d) // the server would not wait
			w.now = w.now.Add(4*time.Hour - time.Second)
		},
		action: loader.Wait, cause: loader.Soaking, reason: "ring general may have",
	},
	{
		name: "expired timestamp (freeze)", host: inInternal,
		story: func(w *world, d holdfast.Digest) {
			w.release(bundle)
			w.approve("internal", d)
			w.now = w.now.Add(25 * time.Hour)
		},
		action: loader.Refuse, cause: loader.BadMetadata, reason: "timestamp.json is expired",
	},
	{
		name: "older metadata (rollback)", host: inInternal,
		story: func(w *world, d holdfast.Digest) {
			w.release(bundle)
			w.approve("internal", d)
			w.copyTree("public/tuf", "kept")
			w.approve("internal", holdfast.DigestOf([]byte("rules, first version"))) // recalled
			w.poll()                                                                 // and the host has seen it
			w.copyTree("kept", "public/tuf")
		},
		action: loader.Refuse, cause: loader.BadMetadata, reason: "older than what this host has seen",
	},
	{
		name: "mix-and-match", host: inInternal,
		story: func(w *world, d holdfast.Digest) {
			w.release(bundle)
			w.approve("internal", d)
			old, _ := thief{w, 1000}.newest("director", "ring-internal")
			w.now = w.now.Add(time.Minute)
			w.approve("internal", holdfast.DigestOf([]byte("rules, first version"))) // recalled
			w.tamper = func(rw http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, ".ring-internal.json") {
					return false
				}
				http.ServeFile(rw, r, old) // the ring of a minute ago, in the snapshot of now
				return true
			}
		},
		action: loader.Refuse, cause: loader.BadMetadata, reason: "director/ring-internal: not the file that the snapshot or timestamp names",
	},
	{
		name: "truncated", host: inInternal,
		story: func(w *world, d holdfast.Digest) {
			w.release(bundle)
			w.approve("internal", d)
			w.write("public/content/"+d.Hex(), []byte(bundle[:10]))
		},
		action: loader.Refuse, cause: loader.BadContent, reason: "truncated: 10 of the 21 bytes that were signed",
	},
	{
		name: "other bytes", host: inInternal,
		story: func(w *world, d holdfast.Digest) {
			w.release(bundle)
			w.approve("internal", d)
			w.write("public/content/"+d.Hex(), []byte(strings.ToUpper(bundle)))
		},
		action: loader.Refuse, cause: loader.BadContent, reason: "other bytes than those that were signed",
	},
	{
		name: "oversized (endless data)", host: inInternal,
		story: func(w *world, d holdfast.Digest) {
			w.release(bundle)
			w.approve("internal", d)
			w.tamper = endless("/content/")
		},
		action: loader.Refuse, cause: loader.BadContent, reason: "longer than the 21 bytes that were signed; stopped reading",
	},
	{
		name: "oversized metadata (endless data)", host: inInternal,
		story: func(w *world, d holdfast.Digest) {
			w.release(bundle)
			w.approve("internal", d)
			w.tamper = endless("/tuf/director/timestamp.json")
		},
		action: loader.Refuse, cause: loader.BadMetadata, reason: "director/timestamp.json: longer than the 16384 bytes it may have",
	},
	{
		name: "oversized verdict (endless data)", host: inInternal,
		story: func(w *world, d holdfast.Digest) {
			w.release(bundle)
			w.approve("internal", d)
			w.tamper = endless("/verdicts/")
		},
		action: loader.Refuse, cause: loader.NoVerdict, reason: "longer than the 4194304 bytes it may have",
	},
	{
		name: "no verdict", host: inInternal,
		story: func(w *world, d holdfast.Digest) {
			w.release(bundle)
			w.approve("internal", d)
			w.must(os.Remove(w.at("public/verdicts/" + d.Hex() + ".json")))
		},
		action: loader.Refuse, cause: loader.NoVerdict, reason: "no rehearsal verdict on",
	},
	{
		name: "verdict for another build", host: inInternal,
		story: func(w *world, d holdfast.Digest) {
			w.release(bundle)
			w.approve("internal", d)
			w.rehearse(holdfast.Rules, d, "rehearsal-1", passed(holdfast.DigestOf([]byte("worker 2"))))
		},
		action: loader.Refuse, cause: loader.NoVerdict, reason: "no verdict for sensor build",
	},
	{
		name: "verdict on another bundle", host: inInternal,
		story: func(w *world, d holdfast.Digest) {
			w.release(bundle)
			w.approve("internal", d)
			first := holdfast.DigestOf([]byte("rules, first version"))
			b, err := os.ReadFile(w.at("public/verdicts/" + first.Hex() + ".json"))
			w.must(err)
			w.write("public/verdicts/"+d.Hex()+".json", b)
		},
		action: loader.Refuse, cause: loader.NoVerdict, reason: "the verdict is about bundle",
	},
	{
		name: "failed verdict", host: inInternal,
		story: func(w *world, d holdfast.Digest) {
			w.release(bundle)
			w.approve("internal", d)
			failed := passed(w.build)
			failed[0].Passed = false
			failed[0].Failures = []holdfast.RuleProblem{{Rule: "r-21", Field: "process.file.hash", Stage: "exercise", Reason: "the worker died reading input 21"}}
			w.rehearse(holdfast.Rules, d, "rehearsal-1", failed)
		},
		action: loader.Refuse, cause: loader.NoVerdict, reason: `failed the rehearsal at exercise, rule "r-21", field "process.file.hash"`,
	},
	{
		name: "verdict signed by a publisher", host: inInternal,
		story: func(w *world, d holdfast.Digest) {
			w.release(bundle)
			w.approve("internal", d)
			w.rehearse(holdfast.Rules, d, "publisher-1", passed(w.build))
		},
		action: loader.Refuse, cause: loader.NoVerdict, reason: "0 of the 1 signatures",
	},
	{
		name: "revoked key", host: inInternal,
		story: func(w *world, d holdfast.Digest) {
			stolen := w.key("publisher-1")
			w.upload(bundle)
			w.rehearse(holdfast.Rules, d, "rehearsal-1", passed(w.build))
			// With the stolen key and a deceived publisher, the thief had a release
			// signed that was good until the officers revoked the key.
			w.stage([]string{"publisher-1", "publisher-2"}, newRelease(holdfast.Rules, bundle))
			staged, err := os.ReadFile(w.at("desk/staged/image/3.rules.json"))
			w.must(err)
			w.must(w.desk.Discard())
			fresh, err := tuf.GenerateKey(w.at("keys"), "publisher-4")
			w.must(err)
			w.sign([]string{"root-1", "root-2", "publisher-2", "publisher-3"}, tuf.ReplaceKey(tuf.Publishers, stolen.ID(), fresh.Public()))
			thief{w, 1000}.slip("rules", staged)
			thief{w, 1000}.approve("internal", d, len(bundle))
		},
		action: loader.Refuse, cause: loader.BadMetadata, reason: "not enough signatures, got 1, want 2",
	},
	{
		name: "below the signed minimum", host: inInternal,
		story: func(w *world, d holdfast.Digest) {
			w.release(bundle)
			w.release("rules, third version")
			w.sign(two, tuf.SetMinimum(holdfast.Rules, 3))
			w.approve("internal", d) // the server names old content in new metadata
		},
		action: loader.Refuse, cause: loader.TooOld, reason: "the publishers' minimum is 3",
	},
	{
		name: "shunned digest", host: inInternal,
		story: func(w *world, d holdfast.Digest) {
			w.release(bundle)
			w.approve("internal", d)
			w.state.Shunned = []holdfast.Digest{d}
		},
		action: loader.Refuse, cause: loader.Shunned, reason: "this host shuns",
	},
	{
		name: "lease revoked before activation", host: inInternal,
		story: func(w *world, d holdfast.Digest) {
			w.release(bundle)
			w.approve("internal", d)
			w.leases["lease-1"] = holdfast.Errorf(holdfast.Denied, "the rollout was halted")
		},
		action: loader.Refuse, cause: loader.NoLease, reason: "the rollout was halted",
	},
	{
		name: "lease expired", host: inInternal,
		story: func(w *world, d holdfast.Digest) {
			w.release(bundle)
			w.approve("internal", d)
		},
		offer:  func(o *holdfast.Offer) { o.Expires = start },
		action: loader.Wait, cause: loader.NoLease, reason: "lease is over",
	},
	{
		name: "wrong channel", host: inInternal,
		story: func(w *world, d holdfast.Digest) {
			w.release(bundle)
			w.approve("internal", d)
		},
		offer:  func(o *holdfast.Offer) { o.Channel = holdfast.Agent },
		action: loader.Refuse, cause: loader.WrongTarget, reason: "signed for channel rules, not for agent",
	},
	{
		name: "unknown channel", host: inInternal,
		story: func(w *world, d holdfast.Digest) {
			w.release(bundle)
			w.approve("internal", d)
		},
		offer:  func(o *holdfast.Offer) { o.Channel = "drivers" },
		action: loader.Refuse, cause: loader.WrongTarget, reason: `no channel "drivers"`,
	},
	{
		name: "a test load that fails", host: inInternal,
		story: func(w *world, d holdfast.Digest) {
			w.release(bundle)
			w.approve("internal", d)
			w.loadErr = holdfast.Errorf(holdfast.Invalid, "rule 3 does not compile")
		},
		action: loader.Refuse, cause: loader.TestLoad, reason: "rule 3 does not compile",
	},
	{
		name: "metadata of a drill, from the production server", host: inInternal,
		story: func(w *world, _ holdfast.Digest) {
			drill := newWorld(w.TB, tuf.Drill, inInternal)
			drill.approve("internal", drill.release(bundle))
			w.tamper = func(rw http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path == "/tuf/image/2.root.json" {
					http.ServeFile(rw, r, drill.at("public/tuf/image/1.root.json"))
				} else {
					http.ServeFile(rw, r, filepath.Join(drill.at("public"), r.URL.Path))
				}
				return true
			}
		},
		action: loader.Refuse, cause: loader.BadMetadata, reason: "not signed by the threshold",
	},
	{
		name: "server away", host: inInternal,
		story: func(w *world, d holdfast.Digest) {
			w.release(bundle)
			w.approve("internal", d)
			w.server.Close()
		},
		action: loader.Wait, cause: loader.Unreachable, reason: "cannot be fetched",
	},
}

// endless answers requests below prefix with data that does not end.
func endless(prefix string) func(http.ResponseWriter, *http.Request) bool {
	return func(rw http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, prefix) {
			return false
		}
		chunk := []byte(strings.Repeat("x", 64<<10))
		for range 16 << 10 { // a gigabyte, if the host lets it
			if _, err := rw.Write(chunk); err != nil {
				break
			}
		}
		return true
	}
}

func TestRefused(t *testing.T) {
	for _, c := range refused {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, tuf.Production, c.host)
			first := w.release("rules, first version")
			for _, ring := range []string{"internal", "general"} {
				w.approve(ring, first)
			}
			w.now = w.now.Add(5 * time.Hour)
			w.want(w.consider(offer(first)), loader.Propose, loader.OK, "")
			w.activate(first)

			d := holdfast.DigestOf([]byte(bundle))
			c.story(w, d)
			o := offer(d)
			if c.offer != nil {
				c.offer(&o)
			}
			w.want(w.consider(o), c.action, c.cause, c.reason)

			// Whatever was tried, nothing but what was signed is on the disk.
			entries, err := os.ReadDir(w.at("host/content"))
			w.must(err)
			for _, e := range entries {
				b, err := os.ReadFile(w.at("host/content/" + e.Name()))
				w.must(err)
				if holdfast.DigestOf(b).Hex() != e.Name() {
					t.Errorf("the content directory has %s with other bytes", e.Name())
				}
			}
		})
	}
}

// A host of one domain believes nothing of the other, whatever root it is given.
func TestDrillRootOnAProductionHost(t *testing.T) {
	for _, c := range []struct{ host, root tuf.Domain }{{tuf.Production, tuf.Drill}, {tuf.Drill, tuf.Production}} {
		t.Run(string(c.root)+" root, "+string(c.host)+" host", func(t *testing.T) {
			w := newWorld(t, c.root, inInternal)
			roots, err := w.desk.Roots()
			w.must(err)
			cfg := w.client(roots)
			cfg.Domain = c.host
			_, err = tuf.NewClient(cfg)
			if holdfast.KindOf(err) != holdfast.Denied || !strings.Contains(err.Error(), "belongs to domain") {
				t.Errorf("the host took the root: %v", err)
			}
			// Even a client that was made for the other domain helps nobody: the
			// loader checks for itself.
			l, err := loader.New(loader.Config{
				Host: inInternal, Domain: c.host, Build: w.build, Trust: w.trust, Content: w.at("other"), URL: w.server.URL,
				TestLoad: nothing, Renew: always,
			})
			w.must(err)
			d := w.release(bundle)
			w.approve("internal", d)
			got, err := l.Consider(t.Context(), w.state, offer(d), w.now)
			w.must(err)
			w.want(got, loader.Refuse, loader.WrongDomain, "signed for domain")
		})
	}
}

// A thief may use up the version numbers, so that hosts refuse the honest server
// for ever. The officers' new key ends that.
func TestHonestServerIsBelievedAgainAfterATheft(t *testing.T) {
	w := newWorld(t, tuf.Production, inInternal)
	a := w.release("rules, first version")
	w.approve("internal", a)
	thief{w, 1 << 40}.approve("internal", a, len("rules, first version"))
	w.want(w.consider(offer(a)), loader.Propose, loader.OK, "")
	w.activate(a)

	d := w.release(bundle)
	w.now = w.now.Add(time.Minute)
	w.approve("internal", d, a) // by the server that was taken back, and knows nothing of the thief's numbers
	w.want(w.consider(offer(d)), loader.Refuse, loader.BadMetadata, "older than what this host has seen")

	var changes []tuf.Change
	for _, k := range []string{"director", "ring-internal"} {
		old := w.key("online/" + k)
		w.must(os.Remove(w.at("keys/online/" + k + ".key")))
		fresh, err := tuf.GenerateKey(w.at("keys/online"), k)
		w.must(err)
		changes = append(changes, tuf.ReplaceKey(k, old.ID(), fresh.Public()))
	}
	w.stage([]string{"root-1", "root-2"}, changes...)
	_, err := w.desk.Complete()
	w.must(err)
	w.must(os.RemoveAll(w.at("public/tuf"))) // the thief's files go too
	w.online, err = tuf.OpenOnline(w.at("public/tuf"), w.at("keys/online"), tuf.Validity{})
	w.must(err)
	w.publish()
	w.approve("internal", d, a)
	w.want(w.consider(offer(d)), loader.Propose, loader.OK, "")
}
