// Package bundle reads and writes the canonical bundle: the one sequence of
// bytes for one set of content files, so that a digest names content and
// nothing else.
//
// A bundle is a POSIX ustar archive (IEEE Std 1003.1-1988) with every choice
// taken away: bundle.json first, then the content files in byte order of their
// paths, regular files only, mode 0644, no owner, no times, two closing zero
// blocks and nothing after. Open refuses any other encoding of the same files.
//
// The agent channel has no bundle: its content is the worker binary itself,
// because the guard, which starts it, parses nothing.
package bundle

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/holdfast-security/holdfast"
)

// Bounds on what Open reads and Encode writes.
const (
	MaxBytes = 64 << 20 // the whole archive
	MaxFiles = 20_000
	MaxFile  = 16 << 20
	maxPath  = 100 // ustar's name field; no prefix is used
)

const headerName = "bundle.json"

// Header is the first file of a bundle.
type Header struct {
	Schema  int              `json:"schema"` // 1
	Channel holdfast.Channel `json:"channel"`
	Name    string           `json:"name"`
	Version string           `json:"version"`
}

// Bundle is an open bundle: its header, and its files by slash-separated path.
type Bundle struct {
	Header Header
	Files  map[string][]byte
}

// Paths returns the paths of the files below dir ("rules"), in order.
func (b *Bundle) Paths(dir string) []string {
	var in []string
	for p := range b.Files {
		if strings.HasPrefix(p, dir+"/") {
			in = append(in, p)
		}
	}
	slices.Sort(in)
	return in
}

// Encode returns the canonical bytes of b.
func (b *Bundle) Encode() ([]byte, error) {
	if err := b.Header.validate(); err != nil {
		return nil, err
	}
	if len(b.Files) > MaxFiles {
		return nil, invalid("", fmt.Sprintf("%d files, and a bundle holds at most %d", len(b.Files), MaxFiles))
	}
	header, err := json.Marshal(b.Header)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	write := func(name string, data []byte) error {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(data)), Mode: 0o644, Format: tar.FormatUSTAR}); err != nil {
			return invalid(name, err.Error())
		}
		_, err := w.Write(data)
		return err
	}
	if err := write(headerName, header); err != nil {
		return nil, err
	}
	for _, p := range slices.Sorted(maps.Keys(b.Files)) {
		if err := checkPath(p); err != nil {
			return nil, err
		}
		if len(b.Files[p]) > MaxFile {
			return nil, invalid(p, fmt.Sprintf("%d bytes, and a file holds at most %d", len(b.Files[p]), MaxFile))
		}
		if err := write(p, b.Files[p]); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if out.Len() > MaxBytes {
		return nil, invalid("", fmt.Sprintf("%d bytes, and a bundle holds at most %d", out.Len(), MaxBytes))
	}
	return out.Bytes(), nil
}

// Open decodes untrusted bytes. It accepts exactly what Encode writes; the
// files it returns share data's memory.
func Open(data []byte) (*Bundle, error) {
	if len(data) > MaxBytes {
		return nil, invalid("", fmt.Sprintf("%d bytes, and a bundle holds at most %d", len(data), MaxBytes))
	}
	src := bytes.NewReader(data)
	r := tar.NewReader(src)
	b := &Bundle{Files: map[string][]byte{}}
	for last := ""; ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, invalid("", "not a bundle: "+err.Error())
		}
		at := len(data) - src.Len()
		if h.Typeflag != tar.TypeReg || h.Size < 0 || h.Size > int64(len(data)-at) || h.Size > MaxFile {
			return nil, invalid(h.Name, "not a regular file of a size a bundle can hold")
		}
		body := data[at : at+int(h.Size) : at+int(h.Size)]
		if b.Header.Schema == 0 {
			if h.Name != headerName {
				return nil, invalid(h.Name, headerName+" must come first")
			}
			if err := decodeHeader(body, &b.Header); err != nil {
				return nil, err
			}
			continue
		}
		if err := checkPath(h.Name); err != nil {
			return nil, err
		}
		if h.Name <= last {
			return nil, invalid(h.Name, "files are not in order, or one is there twice")
		}
		if len(b.Files) == MaxFiles {
			return nil, invalid(h.Name, fmt.Sprintf("more than %d files", MaxFiles))
		}
		last, b.Files[h.Name] = h.Name, body
	}
	if b.Header.Schema == 0 {
		return nil, invalid("", "not a bundle: it is empty")
	}
	canonical, err := b.Encode()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(canonical, data) {
		return nil, invalid("", "not the canonical encoding of its files")
	}
	return b, nil
}

func decodeHeader(body []byte, h *Header) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(h); err != nil {
		return invalid(headerName, err.Error())
	}
	return h.validate()
}

func (h Header) validate() error {
	switch {
	case h.Schema != 1:
		return invalid(headerName, fmt.Sprintf("schema %d is not one this version reads (1)", h.Schema))
	case h.Channel != holdfast.Rules:
		return invalid(headerName, fmt.Sprintf("channel %q has no bundles", h.Channel))
	case h.Version == "" || len(h.Version) > 100:
		return invalid(headerName, "a version of 1 to 100 bytes is needed")
	}
	return nil
}

func checkPath(p string) error {
	if p == "" || len(p) > maxPath || path.Clean(p) != p || strings.HasPrefix(p, "/") || strings.HasPrefix(p, "..") || p == "." || p == headerName || strings.ContainsFunc(p, func(r rune) bool { return r < 0x20 || r > 0x7e || r == '\\' }) {
		return invalid(p, fmt.Sprintf("not a path a bundle can hold: plain ASCII, relative, at most %d bytes", maxPath))
	}
	return nil
}

func invalid(where, what string) error {
	return &holdfast.Error{Kind: holdfast.Invalid, What: what, Where: where}
}
