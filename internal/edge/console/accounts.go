package console

import (
	"context"
	"regexp"
	"time"

	"github.com/holdfast-security/holdfast"
)

// Accounts keeps who may sign in, and who is signed in. Passwords and secrets
// are its to check; it stores neither as they are.
type Accounts interface {
	Directory
	SignIns
}

// Directory is who may sign in. Each change is on the record, under the name by,
// when it returns nil.
type Directory interface {
	User(ctx context.Context, name string) (holdfast.User, error)
	Users(ctx context.Context) ([]holdfast.User, error)
	// CreateUser returns holdfast.Conflict if the name is taken. Without a
	// password the user can sign in by a link only.
	CreateUser(ctx context.Context, u holdfast.User, password, by string) error
	// UpdateUser changes role and whether the user may sign in.
	UpdateUser(ctx context.Context, u holdfast.User, by string) error
	// SetPassword ends the user's sessions.
	SetPassword(ctx context.Context, name, password, by string) error
}

// SignIns is who is signed in. All that is refused is holdfast.Denied, without
// saying why.
type SignIns interface {
	// CheckPassword takes as long for a name that does not exist.
	CheckPassword(ctx context.Context, name, password string) (holdfast.User, error)
	CreateSession(ctx context.Context, name string, now, expires time.Time) (secret string, err error)
	Session(ctx context.Context, secret string, now time.Time) (holdfast.User, error)
	EndSession(ctx context.Context, secret string) error
	// CreateSignIn makes a secret that UseSignIn takes exactly once.
	CreateSignIn(ctx context.Context, name string, expires time.Time) (secret string, err error)
	UseSignIn(ctx context.Context, secret string, now time.Time) (holdfast.User, error)
}

const (
	sessionLife = 12 * time.Hour
	linkLife    = time.Hour
	minPassword = 12
	maxPassword = 256
)

var userName = regexp.MustCompile(`^[a-z][a-z0-9._-]{0,31}$`)

func checkUserName(name string) error {
	if !userName.MatchString(name) {
		return &holdfast.Error{Kind: holdfast.Invalid, What: "that is not a name people can sign in with", Where: "name", Do: "use 1 to 32 lower-case letters, digits, dots and dashes, a letter first"}
	}
	return nil
}

func checkPassword(password string) error {
	if len(password) < minPassword || len(password) > maxPassword {
		return &holdfast.Error{Kind: holdfast.Invalid, What: "a password has 12 to 256 characters", Where: "password", Do: "a few words in a row are easy to remember and hard to guess"}
	}
	return nil
}
