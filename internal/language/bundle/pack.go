package bundle

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/holdfast-security/holdfast"
)

// packFile is the one file every content repository has at its top.
const packFile = "pack.yml"

// parts are the folders of a content repository, and the file name endings that
// belong to the bundle. Anything else (a README, an editor's backup) stays out.
var parts = map[string][]string{
	"rules":  {".yml", ".yaml"},
	"tests":  {".yml", ".yaml"},
	"benign": {".jsonl"},
}

type pack struct {
	Name    string           `yaml:"name"`
	Channel holdfast.Channel `yaml:"channel"`
	Version string           `yaml:"version"`
}

// FromRepository gathers a content repository into a bundle: pack.yml (name,
// channel, version), rules, tests, and benign events. version, if not empty,
// takes the place of pack.yml's.
func FromRepository(repo fs.FS, version string) (*Bundle, error) {
	raw, err := fs.ReadFile(repo, packFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &holdfast.Error{Kind: holdfast.Invalid, What: "not a content repository: it has no " + packFile, Do: "make one with: holdfast content new DIR"}
	}
	if err != nil {
		return nil, err
	}
	if len(raw) > 64<<10 {
		return nil, invalid(packFile, "longer than 64 KiB")
	}
	var p pack
	if err := yaml.Unmarshal(raw, &p); err != nil {
		return nil, invalid(packFile, err.Error())
	}
	if version != "" {
		p.Version = version
	}
	b := &Bundle{Header: Header{Schema: 1, Channel: p.Channel, Name: p.Name, Version: p.Version}, Files: map[string][]byte{}}
	if err := b.Header.validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", packFile, err)
	}
	for dir, endings := range parts {
		err := fs.WalkDir(repo, dir, func(p string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) && p == dir {
				return fs.SkipDir
			}
			if err != nil || d.IsDir() || !slices.Contains(endings, path.Ext(p)) {
				return err
			}
			b.Files[p], err = fs.ReadFile(repo, p)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if len(b.Paths("rules")) == 0 {
		return nil, &holdfast.Error{Kind: holdfast.Invalid, What: "no rules: nothing ends in .yml below rules/", Do: "add one, as holdfast content new shows"}
	}
	return b, nil
}
