package sigma

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Bounds of one file. They are far above any rule in the field (the largest of
// SigmaHQ has 60 KB, 2,000 nodes, and is 7 deep).
const (
	maxFile      = 1 << 20
	maxDocuments = 64
	maxNodes     = 50_000 // counting what aliases stand for
	maxDepth     = 32
)

// documents splits a file into its YAML documents. Documents before a syntax
// error are returned with it.
func documents(data []byte) ([]*yaml.Node, *Problem) {
	if len(data) > maxFile {
		return nil, problem(Pos{1, 1}, "the file has %d bytes, and %d is the most a file of rules may have", len(data), maxFile).
			do("split it into several files")
	}
	var docs []*yaml.Node
	for d := yaml.NewDecoder(bytes.NewReader(data)); len(docs) <= maxDocuments; {
		var n yaml.Node
		err := d.Decode(&n)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return docs, syntaxProblem(err)
		}
		if n.Kind == yaml.DocumentNode && len(n.Content) == 1 {
			docs = append(docs, n.Content[0])
		}
	}
	return docs[:maxDocuments], problem(at(docs[maxDocuments]), "the file has more than %d documents", maxDocuments)
}

var lineInMessage = regexp.MustCompile(`line (\d+): ?`)

func syntaxProblem(err error) *Problem {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	pos := Pos{1, 1}
	if m := lineInMessage.FindStringSubmatchIndex(text); m != nil {
		pos.Line, _ = strconv.Atoi(text[m[2]:m[3]])
		text = text[:m[0]] + text[m[1]:]
	}
	return problem(pos, "this is not YAML: %s", text)
}

func at(n *yaml.Node) Pos { return Pos{n.Line, n.Column} }

// checkShape bounds a document and refuses what would make its meaning depend
// on the reader: duplicate keys, merge keys, keys that are not plain text.
func checkShape(n *yaml.Node) *Problem {
	left := maxNodes
	return shape(n, maxDepth, &left)
}

func shape(n *yaml.Node, depth int, left *int) *Problem {
	if *left--; *left < 0 {
		return problem(at(n), "the document has more than %d nodes, counting what aliases stand for", maxNodes)
	}
	if depth == 0 {
		return problem(at(n), "the document is nested more than %d deep", maxDepth)
	}
	if n.Kind == yaml.AliasNode {
		return shape(n.Alias, depth-1, left)
	}
	if n.Kind != yaml.MappingNode {
		for _, kid := range n.Content {
			if p := shape(kid, depth-1, left); p != nil {
				return p
			}
		}
		return nil
	}
	seen := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := resolve(n.Content[i])
		if key.Kind != yaml.ScalarNode {
			return problem(at(n.Content[i]), "a key must be plain text")
		}
		if key.ShortTag() == "!!merge" {
			return problem(at(key), "merge keys (<<) are not supported").do("write the lines out")
		}
		if line, twice := seen[key.Value]; twice {
			return problem(at(key), "the key %q is there twice, first in line %d", key.Value, line).
				do("remove one, or make the two a list")
		}
		seen[key.Value] = key.Line
		if p := shape(n.Content[i+1], depth-1, left); p != nil {
			return p
		}
	}
	return nil
}

// resolve follows an alias. checkShape has made sure that following ends.
func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// child returns the value of a key of a mapping, or nil.
func child(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return resolve(n.Content[i+1])
		}
	}
	return nil
}

// text returns a scalar's text, or "".
func text(n *yaml.Node) string {
	if n == nil || n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null" {
		return ""
	}
	return strings.TrimSpace(n.Value)
}

// texts returns the scalars of a list, or the one scalar that stands for it.
func texts(n *yaml.Node) []string {
	if n == nil {
		return nil
	}
	if n.Kind == yaml.ScalarNode {
		if t := text(n); t != "" {
			return []string{t}
		}
		return nil
	}
	var all []string
	if n.Kind == yaml.SequenceNode {
		for _, kid := range n.Content {
			if t := text(resolve(kid)); t != "" {
				all = append(all, t)
			}
		}
	}
	return all
}
