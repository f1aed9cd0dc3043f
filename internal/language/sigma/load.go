package sigma

import (
	"io/fs"
	"path"
	"strings"
)

// Load reads every .yml and .yaml file below dir, in the order of their paths.
// A file that cannot be read is a problem like any other; only a directory that
// cannot be walked at all is an error.
func Load(fsys fs.FS, dir string) (Set, []Problem, error) {
	var (
		set      Set
		problems []Problem
	)
	err := fs.WalkDir(fsys, dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			if name == dir {
				return err
			}
			problems = append(problems, Problem{File: name, Reason: "cannot be read: " + err.Error()})
			return nil
		}
		if ext := strings.ToLower(path.Ext(name)); d.IsDir() || ext != ".yml" && ext != ".yaml" {
			return nil
		}
		data, p := readBounded(fsys, name)
		if p != nil {
			problems = append(problems, *p)
			return nil
		}
		s, ps := Parse(name, data)
		set.Add(s)
		problems = append(problems, ps...)
		return nil
	})
	return set, problems, err
}

func readBounded(fsys fs.FS, name string) ([]byte, *Problem) {
	if info, err := fs.Stat(fsys, name); err == nil && info.Size() > maxFile {
		p := problem(Pos{1, 1}, "the file has %d bytes, and %d is the most a file of rules may have", info.Size(), maxFile).
			do("split it into several files")
		p.File = name
		return nil, p
	}
	data, err := fs.ReadFile(fsys, name)
	if err != nil {
		return nil, &Problem{File: name, Reason: "cannot be read: " + err.Error()}
	}
	return data, nil
}

// FieldNames returns the fields a detection reads, in order, each once.
func (d *Detection) FieldNames() []string {
	var (
		names []string
		seen  = map[string]bool{"": true}
		add   = func(name string) {
			if !seen[name] {
				seen[name] = true
				names = append(names, name)
			}
		}
		walk func(n *Node)
	)
	walk = func(n *Node) {
		if n.Item != nil {
			add(n.Item.Field)
			for _, m := range n.Item.Modifiers {
				if m == "fieldref" {
					for _, l := range n.Item.Values {
						add(l.Text)
					}
				}
			}
		}
		for i := range n.Kids {
			walk(&n.Kids[i])
		}
	}
	for i := range d.Searches {
		walk(&d.Searches[i].Node)
	}
	return names
}
