package loader

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/consent"
	"github.com/holdfast-security/holdfast/internal/trust/dsse"
	"github.com/holdfast-security/holdfast/internal/wire"
)

// Consent is whose decisions a host keeps to. Without keys there are none.
type Consent struct {
	Org  holdfast.OrgID
	Keys []ed25519.PublicKey // of the organisation; one signature is enough
	// Attributes say which groups the host is in.
	Attributes holdfast.Attributes
	// File, if set, is a signed policy that came by another road than the
	// server's, which can then withhold nothing.
	File string
}

// consented is the newest policy that the organisation signed, as far as this
// host has seen. There is no way back from it to an older one or to none.
type consented struct {
	policy   *consent.Policy
	envelope []byte // of policy
	trouble  string // why what was offered last is not in force
}

const consentFile = "consent.json"

// Policy returns the version of the organisation's policy in force here, 0 if
// there is none, and why the one offered last is not.
func (l *Loader) Policy() (version int64, trouble string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.consent.version(), l.consent.trouble
}

func (c *consented) version() int64 {
	if c.policy == nil {
		return 0
	}
	return c.policy.Version
}

// restore reads the policy that was in force before the restart. One that its
// organisation's keys do not verify any more counts for nothing: the keys are
// the host's own configuration. Nor does one that cannot be read keep a worker
// from starting: the server's is fetched before anything is activated.
func (l *Loader) restore() {
	if len(l.cfg.Consent.Keys) == 0 || l.cfg.State == "" {
		return
	}
	env, err := readEnvelope(filepath.Join(l.cfg.State, consentFile))
	if err == nil && env == nil {
		return
	}
	var p *consent.Policy
	if err == nil {
		p, err = l.verify(env)
	}
	if err != nil {
		l.consent.trouble = "the policy kept here cannot be read or is not believed any more: " + err.Error()
		return
	}
	l.consent = consented{policy: p, envelope: env}
}

// learn asks the file and the server whether there is a newer policy. What
// cannot be reached or believed changes nothing; an error is of this host's disk.
func (l *Loader) learn(ctx context.Context) error {
	c := &l.consent
	if len(l.cfg.Consent.Keys) == 0 {
		return nil
	}
	c.trouble = ""
	if file := l.cfg.Consent.File; file != "" {
		env, err := readEnvelope(file)
		if err == nil {
			err = l.take(env)
		}
		if err != nil && holdfast.KindOf(err) != holdfast.Conflict { // the server's is newer
			c.trouble = file + ": " + err.Error()
		}
	}
	env, err := l.offeredPolicy(ctx)
	if err == nil {
		err = l.take(env)
	}
	switch holdfast.KindOf(err) {
	case holdfast.Denied, holdfast.Conflict, holdfast.Invalid:
		c.trouble = "the server's policy of organisation " + string(l.cfg.Consent.Org) + " is refused: " + err.Error()
	case holdfast.Internal:
		return err
	}
	return nil
}

// take puts a policy in force if the organisation signed it and it is newer. It
// is on disk before that, so that no restart forgets it.
func (l *Loader) take(env []byte) error {
	if len(env) == 0 || bytes.Equal(env, l.consent.envelope) {
		return nil
	}
	p, err := l.verify(env)
	if err != nil {
		return err
	}
	if l.cfg.State != "" {
		if err := replace(filepath.Join(l.cfg.State, consentFile), env); err != nil {
			return err
		}
	}
	l.consent.policy, l.consent.envelope = p, env
	return nil
}

func (l *Loader) verify(env []byte) (*consent.Policy, error) {
	payload, err := dsse.Open(env, consent.PayloadType, consent.MaxEnvelope, l.cfg.Consent.Keys, 1)
	if err != nil {
		return nil, err
	}
	p, err := consent.Accept("policy", payload, l.cfg.Consent.Org, l.consent.version())
	return &p, err
}

// offeredPolicy asks the server for the policy of the host's organisation; nil
// if it has none, or none but the one in force.
func (l *Loader) offeredPolicy(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.cfg.URL+wire.ConsentPath, nil)
	if err != nil {
		return nil, err
	}
	if p := l.consent.policy; p != nil {
		req.Header.Set("If-None-Match", wire.ConsentTag(p.Version))
	}
	res, err := l.cfg.HTTP.Do(req)
	if err != nil {
		return nil, holdfast.Errorf(holdfast.Unavailable, "%s: %w", wire.ConsentPath, err)
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK:
		return bounded(res.Body, wire.ConsentPath)
	case http.StatusNotModified, http.StatusNotFound:
		return nil, nil
	}
	return nil, holdfast.Errorf(holdfast.Unavailable, "%s: %s", wire.ConsentPath, res.Status)
}

// readEnvelope returns nil if there is no such file.
func readEnvelope(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return bounded(f, path)
}

func bounded(r io.Reader, where string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, consent.MaxEnvelope+1))
	if err != nil {
		return nil, holdfast.Errorf(holdfast.Unavailable, "%s: %w", where, err)
	}
	if len(b) > consent.MaxEnvelope {
		return nil, &holdfast.Error{Kind: holdfast.Denied, What: fmt.Sprintf("longer than the %d bytes a signed policy may have; stopped reading", consent.MaxEnvelope), Where: where}
	}
	return b, nil
}
