package console

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"regexp"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/holdfast-security/holdfast"
)

// Accounts keeps who may sign in, and who is signed in. Tokens are stored only
// as hashes: who reads the store can sign in as nobody.
type Accounts interface {
	// User returns holdfast.NotFound if there is none of that name.
	User(ctx context.Context, name string) (User, error)
	// Users returns everybody, by name.
	Users(ctx context.Context) ([]User, error)
	// PutUser adds or replaces a user, and records by as having done it.
	PutUser(ctx context.Context, u User, by string) error
	// DeleteUser also ends the user's sessions.
	DeleteUser(ctx context.Context, name, by string) error
	Sessions
}

// Sessions keeps sessions until they end or expire.
type Sessions interface {
	PutSession(ctx context.Context, s Session) error
	// Session returns holdfast.NotFound if there is none, or it has expired.
	Session(ctx context.Context, hash string) (Session, error)
	// EndSession removes a session. Of two calls with the same hash exactly one
	// returns nil, the other holdfast.NotFound: a one-time link works once.
	EndSession(ctx context.Context, hash string) error
}

// User is a person who may sign in here.
type User struct {
	Name     string
	Role     Role
	Password string // PHC string of an argon2id hash; empty: cannot sign in by password
	Created  time.Time
}

// Session is a sign-in that lasts, or (Once) a link that makes one.
type Session struct {
	Hash    string // of the token, hexadecimal SHA-256
	User    string
	Once    bool
	Created time.Time
	Expires time.Time
}

const (
	sessionLife  = 12 * time.Hour
	linkLife     = time.Hour
	minPassword  = 12
	maxPassword  = 256
	tokenEntropy = 32
)

var userName = regexp.MustCompile(`^[a-z][a-z0-9._-]{0,31}$`)

func checkUserName(name string) error {
	if !userName.MatchString(name) {
		return &holdfast.Error{Kind: holdfast.Invalid, What: "that is not a name people can sign in with", Where: "name", Do: "use 1 to 32 lower-case letters, digits, dots and dashes, a letter first"}
	}
	return nil
}

// newToken returns a token for the bearer and its hash for the store.
func newToken() (token, hash string) {
	b := make([]byte, tokenEntropy)
	rand.Read(b) // never fails
	token = base64.RawURLEncoding.EncodeToString(b)
	return token, hashToken(token)
}

func hashToken(token string) string {
	sum := sha256.Sum256([]byte("holdfast session v1\n" + token))
	return hex.EncodeToString(sum[:])
}

// The cost of a password guess: OWASP's minimum for argon2id, some 30 ms here.
const argonTime, argonMemory, argonThreads = 2, 19 * 1024, 1

// HashPassword makes what User.Password holds.
func HashPassword(password string) (string, error) {
	if len(password) < minPassword || len(password) > maxPassword {
		return "", &holdfast.Error{Kind: holdfast.Invalid, What: fmt.Sprintf("a password has %d to %d characters", minPassword, maxPassword), Where: "password", Do: "a few words in a row are easy to remember and hard to guess"}
	}
	salt := make([]byte, 16)
	rand.Read(salt)
	key := argon2.IDKey([]byte(password), salt, argonTime, argonMemory, argonThreads, 32)
	b64 := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonThreads, b64(salt), b64(key)), nil
}

var phc = regexp.MustCompile(`^\$argon2id\$v=19\$m=(\d{1,6}),t=(\d),p=(\d)\$([A-Za-z0-9+/]{22})\$([A-Za-z0-9+/]{43})$`)

// nobody is a hash no password has: guessing the name of a user who does not
// exist costs the same time.
var nobody = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// passwordMatches compares in constant time. A hash it cannot read matches
// nothing.
func passwordMatches(hash, password string) bool {
	m := phc.FindStringSubmatch(hash)
	if m == nil || len(password) > maxPassword {
		return false
	}
	var memory uint32
	var passes, threads uint8
	fmt.Sscan(m[1], &memory)
	fmt.Sscan(m[2], &passes)
	fmt.Sscan(m[3], &threads)
	if passes == 0 || threads == 0 || memory > 1<<18 {
		return false
	}
	salt, err := base64.RawStdEncoding.DecodeString(m[4])
	if err != nil {
		return false
	}
	want, err := base64.RawStdEncoding.DecodeString(m[5])
	if err != nil {
		return false
	}
	got := argon2.IDKey([]byte(password), salt, uint32(passes), memory, threads, uint32(len(want)))
	return subtle.ConstantTimeCompare(got, want) == 1
}
