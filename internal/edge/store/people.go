package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/holdfast-security/holdfast"
)

// PutOrg creates or renames an organisation.
func (s *Store) PutOrg(ctx context.Context, o holdfast.Organisation) error {
	_, err := s.exec(ctx, `INSERT INTO orgs (id, name, created) VALUES ($1, $2, $3)
		ON CONFLICT (id) DO UPDATE SET name = excluded.name`, string(o.ID), o.Name, nanos(o.Created))
	return err
}

// Orgs lists the organisations by id.
func (s *Store) Orgs(ctx context.Context) ([]holdfast.Organisation, error) {
	var all []holdfast.Organisation
	err := s.rows(ctx, `SELECT id, name, created FROM orgs ORDER BY id`, nil, func(scan func(...any) error) error {
		var o holdfast.Organisation
		var created int64
		err := scan(&o.ID, &o.Name, &created)
		o.Created = moment(created)
		all = append(all, o)
		return err
	})
	return all, err
}

// CreateUser adds a user; Conflict if the name is taken. With an empty
// password the user can sign in by a sign-in token only.
func (s *Store) CreateUser(ctx context.Context, u holdfast.User, password string) error {
	hash, err := hashPassword(password)
	if err != nil {
		return err
	}
	_, err = s.exec(ctx, `INSERT INTO users (name, org, role, password, created, disabled) VALUES ($1, $2, $3, $4, $5, $6)`,
		u.Name, string(u.Org), string(u.Role), hash, nanos(u.Created), u.Disabled)
	return err
}

// SetPassword replaces a user's password and ends every session of theirs.
func (s *Store) SetPassword(ctx context.Context, name, password string) error {
	hash, err := hashPassword(password)
	if err != nil {
		return err
	}
	return s.Tx(ctx, func(tx *Store) error {
		n, err := tx.exec(ctx, `UPDATE users SET password = $1 WHERE name = $2`, hash, name)
		if err == nil && n == 0 {
			err = holdfast.Errorf(holdfast.NotFound, "there is no user %s", name)
		}
		if err == nil {
			_, err = tx.exec(ctx, `DELETE FROM sessions WHERE name = $1`, name)
		}
		return err
	})
}

// UpdateUser changes a user's role, organisation and whether they may sign in.
// Disabling ends their sessions.
func (s *Store) UpdateUser(ctx context.Context, u holdfast.User) error {
	return s.Tx(ctx, func(tx *Store) error {
		n, err := tx.exec(ctx, `UPDATE users SET org = $1, role = $2, disabled = $3 WHERE name = $4`,
			string(u.Org), string(u.Role), u.Disabled, u.Name)
		if err == nil && n == 0 {
			err = holdfast.Errorf(holdfast.NotFound, "there is no user %s", u.Name)
		}
		if err == nil && u.Disabled {
			_, err = tx.exec(ctx, `DELETE FROM sessions WHERE name = $1`, u.Name)
		}
		return err
	})
}

const userColumns = `users.name, users.org, users.role, users.created, users.disabled`

func scanUser(scan func(...any) error, u *holdfast.User, more ...any) error {
	var created int64
	err := scan(append([]any{&u.Name, &u.Org, &u.Role, &created, &u.Disabled}, more...)...)
	u.Created = moment(created)
	return err
}

// User returns a user by name.
func (s *Store) User(ctx context.Context, name string) (holdfast.User, error) {
	var u holdfast.User
	err := scanUser(func(into ...any) error {
		return s.row(ctx, "user "+name, `SELECT `+userColumns+` FROM users WHERE name = $1`, []any{name}, into...)
	}, &u)
	return u, err
}

// Users lists the users by name.
func (s *Store) Users(ctx context.Context) ([]holdfast.User, error) {
	var all []holdfast.User
	err := s.rows(ctx, `SELECT `+userColumns+` FROM users ORDER BY name`, nil, func(scan func(...any) error) error {
		var u holdfast.User
		err := scanUser(scan, &u)
		all = append(all, u)
		return err
	})
	return all, err
}

// CheckPassword returns the user if the password is theirs, else Denied. It
// takes as long for a name that does not exist.
func (s *Store) CheckPassword(ctx context.Context, name, password string) (holdfast.User, error) {
	var u holdfast.User
	var hash string
	err := scanUser(func(into ...any) error {
		return s.row(ctx, "user", `SELECT `+userColumns+`, password FROM users WHERE name = $1`, []any{name}, into...)
	}, &u, &hash)
	if err != nil && holdfast.KindOf(err) != holdfast.NotFound {
		return holdfast.User{}, err
	}
	if !passwordMatches(hash, password) || u.Disabled || err != nil {
		return holdfast.User{}, &holdfast.Error{Kind: holdfast.Denied, What: "the name or the password is wrong"}
	}
	return u, nil
}

// CreateSession starts a session for a user and returns its secret, which only
// the caller has: the store keeps a hash.
func (s *Store) CreateSession(ctx context.Context, name string, now, expires time.Time) (secret string, err error) {
	return s.createSecret(ctx, "sessions", name, now, expires)
}

// CreateToken makes an API token for a user, as CreateSession does. A change of
// password leaves it valid.
func (s *Store) CreateToken(ctx context.Context, name string, now, expires time.Time) (secret string, err error) {
	return s.createSecret(ctx, "api_tokens", name, now, expires)
}

func (s *Store) createSecret(ctx context.Context, table, name string, now, expires time.Time) (secret string, err error) {
	secret, hash := newSecret()
	err = s.Tx(ctx, func(tx *Store) error {
		if _, err := tx.exec(ctx, `DELETE FROM `+table+` WHERE expires <= $1`, nanos(now)); err != nil {
			return err
		}
		_, err := tx.exec(ctx, `INSERT INTO `+table+` (token, name, created, expires) VALUES ($1, $2, $3, $4)`, hash, name, nanos(now), nanos(expires))
		return err
	})
	return secret, err
}

// Session returns the user of a session, or Denied if it ended, expired or
// never was.
func (s *Store) Session(ctx context.Context, secret string, now time.Time) (holdfast.User, error) {
	return s.holder(ctx, "sessions", secret, now, "not signed in, or the session has ended", "sign in again")
}

// Token returns the user of an API token, or Denied if it expired, never was,
// or its user may not sign in any more.
func (s *Store) Token(ctx context.Context, secret string, now time.Time) (holdfast.User, error) {
	return s.holder(ctx, "api_tokens", secret, now, "the API token is unknown, or has expired", "ask an administrator for a new one")
}

func (s *Store) holder(ctx context.Context, table, secret string, now time.Time, denied, do string) (u holdfast.User, err error) {
	err = scanUser(func(into ...any) error {
		return s.row(ctx, "session", `SELECT `+userColumns+` FROM `+table+` AS t JOIN users ON users.name = t.name
			WHERE t.token = $1 AND t.expires > $2`, []any{hashSecret(secret), nanos(now)}, into...)
	}, &u)
	if holdfast.KindOf(err) == holdfast.NotFound || err == nil && u.Disabled {
		return holdfast.User{}, &holdfast.Error{Kind: holdfast.Denied, What: denied, Do: do}
	}
	return u, err
}

// EndSession forgets a session. Ending one that does not exist is no error.
func (s *Store) EndSession(ctx context.Context, secret string) error {
	_, err := s.exec(ctx, `DELETE FROM sessions WHERE token = $1`, hashSecret(secret))
	return err
}

// CreateSignIn makes a one-time sign-in for a user and returns its secret.
func (s *Store) CreateSignIn(ctx context.Context, name string, expires time.Time) (secret string, err error) {
	secret, hash := newSecret()
	_, err = s.exec(ctx, `INSERT INTO sign_ins (token, name, expires) VALUES ($1, $2, $3)`, hash, name, nanos(expires))
	return secret, err
}

// UseSignIn spends a one-time sign-in. It works once; Denied afterwards, and
// for one that expired or never was.
func (s *Store) UseSignIn(ctx context.Context, secret string, now time.Time) (u holdfast.User, err error) {
	denied := &holdfast.Error{Kind: holdfast.Denied, What: "this sign-in link was used, has expired, or never existed", Do: "ask for a new one"}
	var name string
	var expires int64
	// Spent whatever follows: a link that expired is gone as well.
	err = s.Tx(ctx, func(tx *Store) error {
		return tx.row(ctx, "sign-in", `DELETE FROM sign_ins WHERE token = $1 RETURNING name, expires`, []any{hashSecret(secret)}, &name, &expires)
	})
	if holdfast.KindOf(err) == holdfast.NotFound || err == nil && expires <= nanos(now) {
		return u, denied
	}
	if err != nil {
		return u, err
	}
	if u, err = s.User(ctx, name); err == nil && u.Disabled {
		return holdfast.User{}, denied
	}
	return u, err
}

// newSecret draws 256 random bits, and the hash they are stored as.
func newSecret() (secret, hash string) {
	var b [32]byte
	rand.Read(b[:])
	secret = base64.RawURLEncoding.EncodeToString(b[:])
	return secret, hashSecret(secret)
}

// hashSecret needs no salt or stretching: a secret has 256 random bits. Rows
// are found by the hash, so a comparison leaks nothing about the secret.
func hashSecret(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// Argon2id with the parameters OWASP's password storage cheat sheet names
// first (19 MiB, 2 passes, 1 lane), written in PHC form.
const (
	argonMemory = 19 * 1024
	argonPasses = 2
	argonForm   = "$argon2id$v=19$m=19456,t=2,p=1$"
	maxPassword = 1024
)

// hashing bounds how many passwords are hashed at once, so that a flood of
// sign-ins costs a queue and not all memory.
var hashing = make(chan struct{}, 2)

func argon(password string, salt []byte) []byte {
	hashing <- struct{}{}
	defer func() { <-hashing }()
	return argon2.IDKey([]byte(password), salt, argonPasses, argonMemory, 1, 32)
}

func hashPassword(password string) (string, error) {
	switch {
	case password == "":
		return "", nil
	case len(password) < 10 || len(password) > maxPassword:
		return "", &holdfast.Error{Kind: holdfast.Invalid, What: "the password must have between 10 and 1024 bytes", Where: "password"}
	}
	var salt [16]byte
	rand.Read(salt[:])
	e := base64.RawStdEncoding
	return fmt.Sprintf("%s%s$%s", argonForm, e.EncodeToString(salt[:]), e.EncodeToString(argon(password, salt[:]))), nil
}

func passwordMatches(stored, password string) bool {
	if len(password) > maxPassword {
		return false
	}
	rest, ok := strings.CutPrefix(stored, argonForm)
	salt64, hash64, _ := strings.Cut(rest, "$")
	salt, err1 := base64.RawStdEncoding.DecodeString(salt64)
	hash, err2 := base64.RawStdEncoding.DecodeString(hash64)
	got := argon(password, salt)
	return ok && err1 == nil && err2 == nil && len(hash) == len(got) && subtle.ConstantTimeCompare(got, hash) == 1
}
