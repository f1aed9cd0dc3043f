package guard

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/holdfast-security/holdfast"
)

// maxContent bounds a file of content. Larger ones are not run.
const maxContent = 512 << 20

// verify opens the content that a generation runs and checks that each file's
// bytes are what its name says. It returns the agent channel's file, if there is
// one, open: what is executed is what was checked.
func verify(content string, g holdfast.Generation) (agent *os.File, err error) {
	for c, d := range g {
		f, err := openVerified(content, d)
		if err != nil {
			if agent != nil {
				agent.Close()
			}
			return nil, fmt.Errorf("channel %s: %w", c, err)
		}
		if c == holdfast.Agent {
			agent = f
		} else {
			f.Close()
		}
	}
	return agent, nil
}

func openVerified(content string, d holdfast.Digest) (_ *os.File, err error) {
	if _, err := holdfast.ParseDigest(string(d)); err != nil {
		return nil, err // it names a file
	}
	f, err := os.Open(filepath.Join(content, d.Hex()))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxContent {
		return nil, fmt.Errorf("%s is not a regular file of at most %d bytes", f.Name(), maxContent)
	}
	if err := onlyOurs(info); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, maxContent)); err != nil {
		return nil, err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != d.Hex() {
		return nil, fmt.Errorf("%s is corrupt: its digest is sha256:%s", f.Name(), got)
	}
	return f, nil
}
