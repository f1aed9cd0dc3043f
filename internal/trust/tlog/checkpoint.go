package tlog

import (
	"crypto/rand"
	"encoding/base64"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-security/holdfast"
)

// Checkpoint is a commitment to the whole record up to Size entries.
type Checkpoint struct {
	Origin string // names the log, for instance "holdfast.example/record"
	Size   int64
	Root   Hash
}

const maxCheckpoint = 64 << 10

// GenerateKey makes a log key for origin. secret is a private signing key, public
// the line to give to whoever verifies; both are in the format of signed notes.
func GenerateKey(origin string) (secret, public string, err error) {
	return note.GenerateKey(rand.Reader, origin)
}

// Sign returns the signed checkpoint. The origin is the key's name.
func Sign(size int64, root Hash, secret string) ([]byte, error) {
	s, err := note.NewSigner(secret)
	if err != nil {
		return nil, holdfast.Errorf(holdfast.Invalid, "record: not a log key")
	}
	text := s.Name() + "\n" + strconv.FormatInt(size, 10) + "\n" + base64.StdEncoding.EncodeToString(root[:]) + "\n"
	return note.Sign(&note.Note{Text: text}, s)
}

// Open verifies a signed checkpoint with the log's public key.
func Open(signed []byte, public string) (Checkpoint, error) {
	var c Checkpoint
	v, err := note.NewVerifier(strings.TrimSpace(public))
	if err != nil {
		return c, holdfast.Errorf(holdfast.Invalid, "record: not the public key of a log: %w", err)
	}
	if len(signed) > maxCheckpoint {
		return c, denied("checkpoint", "longer than %d bytes", maxCheckpoint)
	}
	n, err := note.Open(signed, note.VerifierList(v))
	if err != nil {
		return c, denied("checkpoint", "not signed by %s: %w", v.Name(), err)
	}
	// Lines after the third are extensions, which we do not use and may ignore.
	lines := strings.SplitN(n.Text, "\n", 4)
	if len(lines) < 4 {
		return c, denied("checkpoint", "has less than three lines")
	}
	c.Origin = lines[0]
	if c.Origin != v.Name() {
		return c, denied("checkpoint", "is of %q, but the key is of %q", c.Origin, v.Name())
	}
	if c.Size, err = strconv.ParseInt(lines[1], 10, 64); err != nil || c.Size < 0 || strconv.FormatInt(c.Size, 10) != lines[1] {
		return c, denied("checkpoint", "has %.40q for a size", lines[1])
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != len(c.Root) {
		return c, denied("checkpoint", "has %.80q for a root", lines[2])
	}
	copy(c.Root[:], root)
	return c, nil
}

// denied says that a file of the record is not to be believed.
func denied(where, format string, args ...any) error {
	err := holdfast.Errorf(holdfast.Denied, format, args...).(*holdfast.Error)
	err.Where = where
	return err
}
