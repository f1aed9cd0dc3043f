package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// rulesBelow is where the rules of a folder are: of a content repository, which
// holds tests too, its folder rules.
func rulesBelow(path string) string {
	if _, err := os.Stat(filepath.Join(path, "pack.yml")); err == nil {
		return filepath.Join(path, "rules")
	}
	return path
}

// readRules reads the rules of a folder or file. Files are named as seen from
// here.
func readRules(path string) (sigma.Set, []sigma.Problem, error) {
	path = rulesBelow(path)
	info, err := os.Stat(path)
	if err != nil {
		return sigma.Set{}, nil, &holdfast.Error{Kind: holdfast.NotFound, What: "there are no rules", Where: path, Err: err}
	}
	dir, name := path, "."
	if !info.IsDir() {
		dir, name = filepath.Split(filepath.Clean(path))
		dir = filepath.Clean(dir + ".")
	}
	set, problems, err := sigma.Load(os.DirFS(dir), name)
	if err != nil {
		return set, nil, &holdfast.Error{Kind: holdfast.Invalid, Where: path, Err: err}
	}
	for i := range problems {
		problems[i].File = filepath.Join(dir, problems[i].File)
	}
	for _, r := range set.Rules {
		r.File = filepath.Join(dir, r.File)
	}
	for _, c := range set.Correlations {
		c.File = filepath.Join(dir, c.File)
	}
	for _, f := range set.Filters {
		f.File = filepath.Join(dir, f.File)
	}
	return set, problems, nil
}

// loadRules reads folders and files. Rules that cannot be read are reported and
// left out.
func loadRules(paths []string, warn io.Writer) (sigma.Set, error) {
	var set sigma.Set
	for _, path := range paths {
		s, problems, err := readRules(path)
		if err != nil {
			return set, err
		}
		for _, p := range problems {
			fmt.Fprintln(warn, p)
		}
		set.Add(s)
	}
	if len(set.Rules)+len(set.Correlations) == 0 {
		return set, &holdfast.Error{Kind: holdfast.Invalid, What: "there is no rule in any .yml file", Where: strings.Join(paths, ", "), Do: "name a folder of Sigma rules"}
	}
	return set, nil
}
