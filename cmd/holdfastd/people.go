package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/edge/enrol"
	"github.com/holdfast-security/holdfast/internal/edge/live"
	"github.com/holdfast-security/holdfast/internal/edge/store"
	"github.com/holdfast-security/holdfast/internal/wire/apiv1"
)

const (
	firstAdmin = "admin"
	tokenLife  = 365 * 24 * time.Hour
	linkLife   = time.Hour
)

// people is what administrators do, over the store.
type people struct {
	store *store.Store
	ca    *enrol.CA
	url   string // of the hosts' listener
	root  func() []byte
	now   func() time.Time
	// changed tells whoever drives rollouts that a host's row is another, revoked
	// also whoever holds its connection.
	changed, revoked func(context.Context, holdfast.HostID) error
}

// DoNotCanary marks a host that must never be among the first of a release, or
// takes the mark away. Rollouts under way keep to it from now on.
func (p *people) DoNotCanary(ctx context.Context, host holdfast.HostID, no bool, by string) error {
	text := fmt.Sprintf("host %s goes last in every release", host)
	if !no {
		text = fmt.Sprintf("host %s takes its turn in releases again", host)
	}
	err := p.accounts().Recorded(ctx, by, text, func(tx *store.Store) error { return tx.SetNoCanary(ctx, host, no) })
	if err != nil {
		return err
	}
	return p.changed(ctx, host)
}

// Revoke implements view.HostActions. If it fails half way, the decision stands or
// does not, and calling it again does what is left.
func (p *people) Revoke(ctx context.Context, host holdfast.HostID, by, reason string) (stands holdfast.Revocation, err error) {
	reason = strings.TrimSpace(reason)
	if reason == "" || len(reason) > 2000 {
		return stands, &holdfast.Error{Kind: holdfast.Invalid, What: "a host is revoked for a reason, of up to 2,000 characters", Where: "reason", Do: "say why; it stands on the record beside your name"}
	}
	r := holdfast.Revocation{Host: host, At: p.now().UTC(), By: by, Reason: reason}
	err = p.store.Tx(ctx, func(tx *store.Store) error {
		h, err := tx.Host(ctx, host)
		if err != nil {
			return err
		}
		u, err := tx.User(ctx, by)
		if err != nil {
			return err
		}
		if u.Org != h.Org && u.Org != holdfast.DefaultOrg {
			return &holdfast.Error{Kind: holdfast.Denied, What: fmt.Sprintf("host %s belongs to organisation %s, and you to %s", host, h.Org, u.Org)}
		}
		var first bool
		if stands, first, err = tx.RevokeHost(ctx, r); err != nil || !first {
			return err
		}
		detail, err := json.Marshal(r)
		if err != nil {
			return err
		}
		_, err = tx.Append(ctx, holdfast.Entry{
			At: r.At, Kind: "revoke", Org: h.Org, By: by, Detail: detail,
			Text: fmt.Sprintf("host %s (%s) was revoked: %s", cmp.Or(h.Attributes.Hostname, "without a name"), host, reason),
		})
		return err
	})
	if err != nil {
		return stands, err
	}
	return stands, p.revoked(ctx, host)
}

// firstStart makes the default organisation and the first administrator, whose
// API token it leaves in the state folder, readable by its owner only. Later
// starts change nothing.
func (p *people) firstStart(ctx context.Context, state string) error {
	file := filepath.Join(state, "admin-token")
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	now := p.now().UTC()
	if err := p.store.PutOrg(ctx, holdfast.Organisation{ID: holdfast.DefaultOrg, Name: "default", Created: now}); err != nil {
		return err
	}
	err := p.accounts().CreateUser(ctx, holdfast.User{Name: firstAdmin, Org: holdfast.DefaultOrg, Role: holdfast.Administrator, Created: now}, "", "holdfast")
	if err != nil && holdfast.KindOf(err) != holdfast.Conflict {
		return err
	}
	token, err := p.store.CreateToken(ctx, firstAdmin, now, now.Add(tokenLife))
	if err != nil {
		return err
	}
	return os.WriteFile(file, []byte(token+"\n"), 0o600)
}

// Enrolment makes a token with which hosts enrol.
func (p *people) Enrolment(ctx context.Context, r apiv1.EnrolmentRequest, by string) (a apiv1.EnrolmentAnswer, err error) {
	now := p.now().UTC()
	e := holdfast.Enrolment{
		ID: rand.Text()[:12], Org: holdfast.DefaultOrg, Role: r.Role, Simulated: r.Simulated,
		Uses: r.Uses, Created: now, Expires: now.Add(r.Valid), By: by,
	}
	var secret string
	err = p.accounts().Recorded(ctx, by, fmt.Sprintf("enrolment %s for %d hosts, until %s", e.ID, e.Uses, e.Expires.Format(time.RFC3339)), func(tx *store.Store) error {
		secret, err = tx.CreateEnrolment(ctx, e)
		return err
	})
	if err != nil {
		return a, err
	}
	var pin []byte
	if root := p.root(); root != nil {
		sum := sha256.Sum256(root)
		pin = sum[:]
	}
	return apiv1.EnrolmentAnswer{ID: e.ID, Token: enrol.Token(p.url, p.ca, pin, secret), Expires: e.Expires}, nil
}

// Drill puts the result of a drill on the record.
func (p *people) Drill(ctx context.Context, d apiv1.Drill, by string) error {
	detail, err := json.Marshal(d)
	if err != nil {
		return err
	}
	_, err = p.store.Append(ctx, holdfast.Entry{At: p.now().UTC(), Kind: "drill", Org: holdfast.DefaultOrg, By: by, Text: d.Sentence(), Detail: detail})
	return err
}

// NewUser adds a person or a program.
func (p *people) NewUser(ctx context.Context, u apiv1.NewUser, by string) error {
	return p.accounts().CreateUser(ctx, holdfast.User{Name: u.Name, Org: holdfast.DefaultOrg, Role: u.Role, Created: p.now().UTC()}, u.Password, by)
}

func (p *people) accounts() live.Accounts { return live.Accounts{Store: p.store, Now: p.now} }

// NewToken makes an API token for a user.
func (p *people) NewToken(ctx context.Context, user, by string) (a apiv1.TokenAnswer, err error) {
	now := p.now().UTC()
	if _, err := p.store.User(ctx, user); err != nil {
		return a, err
	}
	a.Expires = now.Add(tokenLife)
	err = p.accounts().Recorded(ctx, by, "an API token was made for "+user, func(tx *store.Store) error {
		a.Token, err = tx.CreateToken(ctx, user, now, a.Expires)
		return err
	})
	return a, err
}

// NewLink makes a one-time sign-in link for a user.
func (p *people) NewLink(ctx context.Context, user, by string) (a apiv1.TokenAnswer, err error) {
	if _, err := p.store.User(ctx, user); err != nil {
		return a, err
	}
	a.Expires = p.now().UTC().Add(linkLife)
	err = p.accounts().Recorded(ctx, by, "a one-time sign-in was made for "+user, func(tx *store.Store) error {
		a.Token, err = tx.CreateSignIn(ctx, user, a.Expires)
		return err
	})
	return a, err
}
