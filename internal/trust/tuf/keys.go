package tuf

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/holdfast-security/holdfast"
)

// Key is a private Ed25519 key with the name of its file.
type Key struct {
	Name    string
	Private ed25519.PrivateKey
}

// Public returns the public half.
func (k Key) Public() ed25519.PublicKey { return k.Private.Public().(ed25519.PublicKey) }

// ID returns the key's identifier, see KeyID.
func (k Key) ID() string { return KeyID(k.Public()) }

// GenerateKey makes a key and writes it to dir/name.key with mode 0600. It never
// overwrites a key.
func GenerateKey(dir, name string) (Key, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Key{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return Key{}, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Key{}, err
	}
	path := filepath.Join(dir, name+keySuffix)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		if os.IsExist(err) {
			return Key{}, &holdfast.Error{Kind: holdfast.Conflict, What: "the key exists already", Where: path, Do: "keys are never overwritten; choose another directory, or move the key away"}
		}
		return Key{}, err
	}
	err = pem.Encode(f, &pem.Block{Type: pemType, Bytes: der})
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(path)
		return Key{}, err
	}
	return Key{Name: name, Private: private}, nil
}

const (
	keySuffix  = ".key"
	pemType    = "PRIVATE KEY"
	publicType = "PUBLIC KEY"
)

// LoadKey reads a key that GenerateKey wrote, or any Ed25519 key in PKCS #8 PEM.
// The suffix ".key" may be left out.
func LoadKey(path string) (Key, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(path + keySuffix); err == nil {
			path += keySuffix
		}
	}
	bad := func(what string) error {
		return &holdfast.Error{Kind: holdfast.Invalid, What: what, Where: path, Do: "name a file with one Ed25519 private key, PEM, PKCS #8"}
	}
	b, err := readBounded(path, 16<<10)
	if err != nil {
		return Key{}, err
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != pemType {
		return Key{}, bad("not a private key in PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return Key{}, bad("not a private key in PKCS #8")
	}
	private, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return Key{}, bad(fmt.Sprintf("a %T, not an Ed25519 key", parsed))
	}
	return Key{Name: strings.TrimSuffix(filepath.Base(path), keySuffix), Private: private}, nil
}

// LoadPublic reads a public key in PEM (PKIX), or the public half of a private
// one that LoadKey reads.
func LoadPublic(path string) (ed25519.PublicKey, error) {
	if b, err := readBounded(path, 16<<10); err == nil {
		if block, _ := pem.Decode(b); block != nil && block.Type == publicType {
			parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
			if public, ok := parsed.(ed25519.PublicKey); ok && err == nil {
				return public, nil
			}
			return nil, &holdfast.Error{Kind: holdfast.Invalid, What: "not an Ed25519 public key", Where: path, Do: "`holdfast trust key show` prints one"}
		}
	}
	k, err := LoadKey(path)
	if err != nil {
		return nil, err
	}
	return k.Public(), nil
}

// PublicPEM writes what LoadPublic reads.
func PublicPEM(public ed25519.PublicKey) []byte {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		panic("tuf: an Ed25519 key has no PKIX form: " + err.Error())
	}
	return pem.EncodeToMemory(&pem.Block{Type: publicType, Bytes: der})
}

// KeyID returns the identifier that TUF metadata uses for a key: the SHA-256 of
// its canonical JSON form.
func KeyID(public ed25519.PublicKey) string { return tufKey(public).mustID() }

// tufKey is the TUF form of a public key. Neither step can fail for Ed25519.
func tufKey(pub ed25519.PublicKey) key {
	k, err := metadata.KeyFromPublicKey(pub)
	if err != nil {
		panic("tuf: an Ed25519 key has no TUF form: " + err.Error())
	}
	return key{k}
}

type key struct{ *metadata.Key }

func (k key) mustID() string {
	id, err := k.ID()
	if err != nil {
		panic("tuf: an Ed25519 key has no canonical form: " + err.Error())
	}
	return id
}

// sign replaces k's signature on m.
func sign[T metadata.Roles](m *metadata.Metadata[T], k Key) error {
	id := k.ID()
	kept := m.Signatures[:0]
	for _, s := range m.Signatures {
		if s.KeyID != id {
			kept = append(kept, s)
		}
	}
	m.Signatures = kept
	signer, err := signature.LoadED25519Signer(k.Private)
	if err != nil {
		return err
	}
	_, err = m.Sign(signer)
	return err
}
