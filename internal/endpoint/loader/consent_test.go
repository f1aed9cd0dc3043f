package loader_test

import (
	"crypto/ed25519"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/loader"
	"github.com/holdfast-security/holdfast/internal/language/consent"
	"github.com/holdfast-security/holdfast/internal/trust/attest"
	"github.com/holdfast-security/holdfast/internal/trust/dsse"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
	"github.com/holdfast-security/holdfast/internal/wire"
)

func orgKey(b byte) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = b
	return ed25519.NewKeyFromSeed(seed)
}

var acme = orgKey(1)

// says writes a policy with one group that every host is in.
func says(version int, group string) string {
	return fmt.Sprintf("organisation: acme\nversion: %d\ngroups:\n  - name: floor\n    %s\n", version, strings.ReplaceAll(group, "\n", "\n    "))
}

const (
	paused = "channels: {rules: {track: pause}, agent: {track: pause}}"
	early  = "channels: {rules: {track: early}, agent: {track: early}}"
)

func signedBy(k ed25519.PrivateKey, policy string) []byte {
	env, err := dsse.Sign(consent.PayloadType, []byte(policy), k)
	if err != nil {
		panic(err)
	}
	return env
}

// serve puts what the server gives as the organisation's policy.
func (w *world) serve(env []byte) {
	w.Helper()
	w.write("public"+wire.ConsentPath, env)
}

// owned returns a world whose host keeps to what acme signed.
func owned(t testing.TB) *world {
	w := newWorld(t, tuf.Production, inInternal)
	w.consent = loader.Consent{Org: "acme", Keys: []ed25519.PublicKey{acme.Public().(ed25519.PublicKey)}, Attributes: holdfast.Attributes{Role: "server"}}
	w.restart()
	return w
}

func (w *world) decides(d holdfast.Digest, action loader.Action, reason string) loader.Decision {
	w.Helper()
	got := w.consider(offer(d))
	if got.Action != action || !strings.Contains(got.Reason, reason) {
		w.Errorf("decided %s/%q because %q; want %s because …%s…", got.Action, got.Cause, got.Reason, action, reason)
	}
	return got
}

// TestServerCannotForgeConsent: a paused host stays paused, whatever the server
// gives it, also after a restart.
func TestServerCannotForgeConsent(t *testing.T) {
	w := owned(t)
	d := w.release(bundle)
	w.approve("internal", d)
	w.serve(signedBy(acme, says(3, paused)))
	w.decides(d, loader.Refuse, "organisation acme does not allow rules rules, second version here: floor: paused (its policy, version 3)")
	lift := says(4, early)
	for _, c := range []struct {
		name, trouble string
		give          func(w *world)
	}{
		{"forged: signed by nobody", "0 of the 1 signatures", func(w *world) {
			env, _ := dsse.Sign(consent.PayloadType, []byte(lift))
			w.serve(env)
		}},
		{"forged: another policy under the organisation's signature", "0 of the 1 signatures", func(w *world) {
			w.serve([]byte(strings.Replace(string(signedBy(acme, lift)), `"payload":"b3Jn`, `"payload":"b3Jm`, 1)))
		}},
		{"wrong key", "0 of the 1 signatures", func(w *world) { w.serve(signedBy(orgKey(2), lift)) }},
		{"signed as something else", "not a", func(w *world) {
			env, _ := dsse.Sign(attest.PayloadType, []byte(lift), acme)
			w.serve(env)
		}},
		{"older version", "version 2, and version 3 is in force", func(w *world) { w.serve(signedBy(acme, says(2, early))) }},
		{"the same version once more", "version 3, and version 3 is in force", func(w *world) { w.serve(signedBy(acme, says(3, early))) }},
		{"other organisation's", `of organisation "emca"`, func(w *world) {
			w.serve(signedBy(acme, strings.Replace(lift, "acme", "emca", 1)))
		}},
		{"truncated", "cannot be read", func(w *world) { w.serve(signedBy(acme, lift)[:100]) }},
		{"oversized (endless data)", "stopped reading", func(w *world) { w.tamper = endless(wire.ConsentPath) }},
		{"impossible", "policy:5: a delay on pause means nothing", func(w *world) {
			w.serve(signedBy(acme, says(4, "channels: {rules: {track: pause, delay: 1h}}")))
		}},
		{"withheld", "", func(w *world) {
			w.tamper = func(rw http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path == wire.ConsentPath {
					http.NotFound(rw, r)
					return true
				}
				return false
			}
		}},
	} {
		c.give(w)
		for range 2 {
			w.decides(d, loader.Refuse, "floor: paused")
			if v, trouble := w.loader.Policy(); v != 3 || !strings.Contains(trouble, c.trouble) || c.trouble == "" && trouble != "" {
				t.Errorf("%s: version %d, and %q; want 3, and …%s…", c.name, v, trouble, c.trouble)
			}
			w.restart()
		}
		w.tamper = nil
	}
}

// TestOrganisationDecides is what one group's words do to a host of the first
// ring, at a moment after the publishers signed.
func TestOrganisationDecides(t *testing.T) {
	signed := start // a Saturday, 12:00 UTC
	w := owned(t)
	const urgent = "rules, critical version"
	w.upload(bundle)
	w.upload(urgent)
	w.sign(two,
		tuf.AddRelease(tuf.NewRelease{Channel: holdfast.Rules, Digest: holdfast.DigestOf([]byte(urgent)), Size: int64(len(urgent)), Version: urgent, Critical: true}),
		newRelease(holdfast.Rules, bundle))
	for _, content := range []string{urgent, bundle} {
		w.rehearse(holdfast.Rules, holdfast.DigestOf([]byte(content)), "rehearsal-1", passed(w.build))
	}
	w.approve("internal", holdfast.DigestOf([]byte(bundle)), holdfast.DigestOf([]byte(urgent)))
	for i, c := range []struct {
		name, group string
		critical    bool
		after       time.Duration
		action      loader.Action
		reason      string
		until       time.Time
	}{
		{"a paused host refuses", paused, false, 0, loader.Refuse, "paused", time.Time{}},
		{"a critical release is not paused", paused, true, 0, loader.Propose, "", time.Time{}},
		{"a critical release is delayed", "critical: {rules: {track: delay, delay: 6h}}", true, 5 * time.Hour, loader.Wait, "delayed by 6h", signed.Add(6 * time.Hour)},
		{"and then is not", "critical: {rules: {track: delay, delay: 6h}}", true, 6 * time.Hour, loader.Propose, "", time.Time{}},
		{"delayed", "channels: {rules: {track: delay, delay: 20h}}", false, 19 * time.Hour, loader.Wait, "allows rules rules, second version here from 2026-11-22T08:00:00Z on", signed.Add(20 * time.Hour)},
		{"outside of the maintenance window", early + "\nwindows: [{days: [sun], from: \"02:00\", to: \"04:00\", zone: Europe/Berlin}]", false, 0, loader.Wait, "from 2026-11-22T01:00:00Z on: waits for its maintenance window", time.Date(2026, 11, 22, 1, 0, 0, 0, time.UTC)},
		{"inside of it", early + "\nwindows: [{days: [sun], from: \"02:00\", to: \"04:00\", zone: Europe/Berlin}]", false, 14 * time.Hour, loader.Propose, "", time.Time{}},
		{"pinned to another version", "channels: {rules: {track: pin, pin: \"1\"}}", false, 0, loader.Refuse, "pinned to 1", time.Time{}},
		{"pinned to this one", "channels: {rules: {track: pin, pin: \"rules, second version\"}}", false, 0, loader.Propose, "", time.Time{}},
		{"one behind the newest", "channels: {rules: {track: n-1}}", false, 5 * time.Hour, loader.Refuse, "one version behind the newest", time.Time{}},
		{"general goes with the last ring", "channels: {}", false, 0, loader.Wait, "follows with the last ring", signed.Add(4 * time.Hour)},
		{"in no group", "where: {role: laptop}", false, 0, loader.Wait, "in no group: goes last", signed.Add(4 * time.Hour)},
	} {
		d := holdfast.DigestOf([]byte(bundle))
		if c.critical {
			d = holdfast.DigestOf([]byte(urgent))
		}
		w.serve(signedBy(acme, says(i+1, c.group)))
		w.now = signed.Add(c.after)
		got := w.decides(d, c.action, c.reason)
		if c.action != loader.Propose && got.Cause != loader.Forbidden || !got.Until.Equal(c.until) {
			t.Errorf("%s: %+v; want until %s", c.name, got, c.until)
		}
	}
}

// TestOneBehindTakesTheOneBefore, as soon as the host could have a newer one.
func TestOneBehindTakesTheOneBefore(t *testing.T) {
	w := owned(t)
	older := w.release("rules, first version")
	w.approve("internal", older)
	w.serve(signedBy(acme, says(1, "channels: {rules: {track: n-1}}")))
	w.now = w.now.Add(5 * time.Hour)
	w.decides(older, loader.Refuse, "one version behind the newest")
	newer := w.release(bundle)
	w.decides(older, loader.Refuse, "one version behind the newest") // it is signed, but not out
	w.approve("internal", newer, older)
	w.decides(older, loader.Propose, "")
	w.now = w.now.Add(5 * time.Hour)
	w.decides(newer, loader.Refuse, "one version behind the newest")
}

// TestNewerPolicyIsFollowedAtOnce, whether the server gives it or a file does.
func TestNewerPolicyIsFollowedAtOnce(t *testing.T) {
	w := owned(t)
	d := w.release(bundle)
	w.approve("internal", d)
	w.decides(d, loader.Propose, "") // nobody said anything
	w.consent.File = w.at("etc/consent.json")
	w.restart()
	w.write("etc/consent.json", signedBy(acme, says(7, paused)))
	w.serve(signedBy(acme, says(6, early)))
	w.decides(d, loader.Refuse, "paused")
	w.serve(signedBy(acme, says(8, early)))
	w.decides(d, loader.Propose, "")
	if v, trouble := w.loader.Policy(); v != 8 || trouble != "" {
		t.Errorf("version %d, and %q", v, trouble)
	}
}

// TestPausedAndPinnedHostsAreRecalled: recall overrides consent, by an offer as
// by the director's word, to the guard's own way back as to one that has to be
// fetched.
func TestPausedAndPinnedHostsAreRecalled(t *testing.T) {
	for _, group := range []string{paused, "channels: {rules: {track: pin, pin: \"rules, second version\"}}\nwindows: [{days: [tue], from: \"02:00\", to: \"04:00\", zone: UTC}]"} {
		for _, fetched := range []bool{false, true} {
			w := owned(t)
			first := w.release("rules, first version")
			w.approve("internal", first)
			w.decides(first, loader.Propose, "")
			w.activate(first)
			halted := w.release(bundle)
			w.approve("internal", halted, first)
			w.decides(halted, loader.Propose, "")
			w.activate(halted)
			w.serve(signedBy(acme, says(1, group)))
			want := loader.Recall
			if fetched {
				w.state.Previous, want = holdfast.Generation{}, loader.Propose
			}
			w.approve("internal", first) // the rollout halted

			got := w.consider(holdfast.Offer{Channel: holdfast.Rules, Recall: halted, Digest: first})
			if got.Action != want || got.Digest != first || got.From != halted {
				t.Errorf("%s, told: %+v", group, got)
			}
			orders := w.poll()
			if v, _ := w.loader.Policy(); v != 1 {
				t.Fatal("the policy is not in force: the test proves nothing")
			}
			if len(orders.Returns) != 1 || orders.Returns[0].Action != want || orders.Returns[0].Digest != first {
				t.Errorf("%s, not told: %+v", group, orders.Returns)
			}
		}
	}
}

// TestPlaceboKeepsToTheWindow: it restarts the worker.
func TestPlaceboKeepsToTheWindow(t *testing.T) {
	w := owned(t)
	first := w.release("rules, first version")
	w.approve("internal", first)
	w.decides(first, loader.Propose, "")
	w.activate(first)
	w.serve(signedBy(acme, says(1, early+"\nwindows: [{days: [sun], from: \"02:00\", to: \"04:00\", zone: UTC}]")))
	o := offer(first)
	o.Arm = holdfast.Placebo
	if got := w.consider(o); got.Action != loader.Wait || got.Cause != loader.Forbidden {
		t.Errorf("%+v", got)
	}
	w.now = time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	if got := w.consider(o); got.Action != loader.Reactivate {
		t.Errorf("%+v", got)
	}
}

// TestPropertyConsentOnlyMakesLater: no policy lets a host do what it could not
// do without, and none keeps it from giving back.
func TestPropertyConsentOnlyMakesLater(t *testing.T) {
	forbidden := 0
	rapid.Check(t, func(t *rapid.T) {
		f := genFacts().Draw(t, "facts")
		now := start.Add(time.Duration(rapid.IntRange(-2, 25).Draw(t, "hours")) * time.Hour)
		free, back := loader.Check(f, now), loader.Return(f, nil, now)
		p, err := consent.Parse("p", []byte(says(1, rapid.SampledFrom([]string{
			paused, early, "channels: {rules: {track: delay, delay: 10h}, agent: {track: n-1}}", "channels: {rules: {track: n-1}, agent: {track: pause}}",
			early + "\nwindows: [{days: [sun], from: \"02:00\", to: \"04:00\", zone: UTC}]", "where: {role: laptop}",
		}).Draw(t, "policy"))))
		if err != nil {
			t.Fatal(err)
		}
		f.Consent = &p
		held := loader.Check(f, now)
		switch {
		case held == free:
		case held.Cause == loader.Forbidden && (free.Action == loader.Propose || free.Cause == loader.NoVerdict):
			forbidden++
		default:
			t.Fatalf("%+v without a policy, %+v with one", free, held)
		}
		if got := loader.Return(f, nil, now); got != back {
			t.Fatalf("the way back is %+v without a policy, %+v with one", back, got)
		}
	})
	if forbidden == 0 {
		t.Error("no policy ever forbade anything")
	}
}
