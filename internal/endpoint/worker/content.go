package worker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/bundle"
	"github.com/holdfast-security/holdfast/internal/language/detect"
	"github.com/holdfast-security/holdfast/internal/language/ruletest"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// ParseGeneration reads what the guard writes on the command line:
// "agent=sha256:…,rules=sha256:…". Empty is no content.
func ParseGeneration(s string) (holdfast.Generation, error) {
	g := holdfast.Generation{}
	if s == "" {
		return g, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		channel, digest, ok := strings.Cut(part, "=")
		d, err := holdfast.ParseDigest(digest)
		if !ok || channel == "" || err != nil {
			return nil, &holdfast.Error{Kind: holdfast.Invalid, What: fmt.Sprintf("%q is not a channel and a digest", part), Where: "--generation", Do: "write rules=sha256:…,agent=sha256:…"}
		}
		g[holdfast.Channel(channel)] = d
	}
	return g, nil
}

// contentFile is where a digest's bytes are.
func contentFile(state string, d holdfast.Digest) string {
	return filepath.Join(state, "content", d.Hex())
}

// readContent reads a bundle and checks that it is the one its name says. The
// guard has checked it too; reading it again costs less than trusting the time
// in between.
func readContent(path string, d holdfast.Digest) ([]byte, error) {
	data, err := readBounded(path, bundle.MaxBytes)
	if err != nil {
		return nil, err
	}
	if got := holdfast.DigestOf(data); d != "" && got != d {
		return nil, &holdfast.Error{Kind: holdfast.Denied, What: "the file is not what its name says: it is " + got.Short(), Where: path}
	}
	return data, nil
}

func readBounded(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, &holdfast.Error{Kind: holdfast.NotFound, What: "the content cannot be read", Err: err}
	}
	if !info.Mode().IsRegular() || info.Size() > limit {
		return nil, &holdfast.Error{Kind: holdfast.Invalid, What: fmt.Sprintf("not a file of at most %d bytes", limit), Where: path}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, &holdfast.Error{Kind: holdfast.Internal, Err: err, Where: path}
	}
	return data, nil
}

// readBundle reads a bundle's file, bounded.
func readBundle(path string) ([]byte, error) { return readContent(path, "") }

// Compile makes an engine of a bundle's rules. Rules with a problem are left
// out of it, and the problems say why; an error means that there is no engine.
func Compile(data []byte) (*detect.Engine, []sigma.Problem, error) {
	b, err := bundle.Open(data)
	if err != nil {
		return nil, nil, err
	}
	engine, _, problems := ruletest.Load(b)
	return engine, problems, nil
}

// TestLoad loads a bundle as a worker would, and returns what is wrong with it.
// It is for a process that may be thrown away. It evaluates nothing: what
// content does with events is rehearsal's to find out before, and the guard's
// to watch after.
func TestLoad(path string) error {
	data, err := readBundle(path)
	if err != nil {
		return err
	}
	_, problems, err := Compile(data)
	if err != nil {
		return err
	}
	var wrong []error
	for _, p := range problems {
		if !p.Warning {
			wrong = append(wrong, p)
		}
	}
	if len(wrong) > 0 {
		return &holdfast.Error{Kind: holdfast.Invalid, What: fmt.Sprintf("%d problems, by which rules cannot run on this sensor build", len(wrong)), Err: errors.Join(wrong...)}
	}
	return nil
}
