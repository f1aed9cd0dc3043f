package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	sigmago "github.com/bradleyjkemp/sigma-go"
	"github.com/bradleyjkemp/sigma-go/evaluator"
	ruleengine "github.com/markuskont/go-sigma-rule-engine"

	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/scan"
)

const (
	sigmaGo    = "sigma-go v0.6.6"
	ruleEngine = "go-sigma-rule-engine v0.3.0"
)

var peerNames = []string{sigmaGo, ruleEngine}

// peer is what another engine does with the same rules and events, each event
// against every rule: neither routes by log source.
type peer struct {
	All         float64 `json:"events_per_second_all"`
	Linux       float64 `json:"events_per_second_linux"`
	AllRules    int     `json:"rules"`
	LinuxRules  int     `json:"rules_linux"`
	Sample      int     `json:"sample"`
	LinuxSample int     `json:"sample_linux"`
	CompileS    float64 `json:"compile_s"`
	HeapMB      float64 `json:"heap_mb"`
	Allocs      float64 `json:"allocs_per_event"`
}

// matcher evaluates one event and says how many rules match.
type matcher func(map[string]any) int

func (r *report) peers(dir string, generate func(bool) *generator, sample int) error {
	log.SetOutput(io.Discard) // one of them logs rules it cannot use
	for name, compile := range map[string]func(string, func(string) bool) (matcher, int, error){
		sigmaGo: compileSigmaGo, ruleEngine: compileRuleEngine,
	} {
		var p peer
		var before, after runtime.MemStats
		debug.FreeOSMemory()
		runtime.ReadMemStats(&before)
		start := time.Now()
		match, n, err := compile(dir, func(string) bool { return true })
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		p.AllRules, p.CompileS = n, time.Since(start).Seconds()
		debug.FreeOSMemory()
		runtime.ReadMemStats(&after)
		p.HeapMB = float64(after.HeapAlloc-before.HeapAlloc) / 1e6
		p.Sample = sample
		p.All, p.Allocs = speed(match, generate(false), sample)
		match, p.LinuxRules, err = compile(dir, func(path string) bool {
			return strings.Contains(path, filepath.FromSlash("linux/process_creation/")) || strings.Contains(filepath.Base(path), "proc_creation_lnx")
		})
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		p.LinuxSample = 5 * sample
		p.Linux, _ = speed(match, generate(true), p.LinuxSample)
		r.Peers[name] = p
	}
	return nil
}

// speed evaluates events that were generated, and put into the map the peer
// reads, beforehand.
func speed(match matcher, g *generator, n int) (perSecond, allocs float64) {
	var events []map[string]any
	for range n {
		events = append(events, asMap(g.next()))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	for _, e := range events {
		match(e)
	}
	elapsed := time.Since(start)
	runtime.ReadMemStats(&after)
	return float64(n) / elapsed.Seconds(), float64(after.Mallocs-before.Mallocs) / float64(n)
}

func asMap(r *scan.Record) map[string]any {
	m := map[string]any{}
	for _, f := range r.Fields {
		if f.Value.Kind == ocsf.Int {
			m[f.Name] = int(f.Value.Num)
		} else {
			m[f.Name] = f.Value.Text()
		}
	}
	return m
}

// ruleFiles walks the rules that want takes.
func ruleFiles(dir string, want func(string) bool, each func(path string, data []byte)) error {
	for _, sub := range ruleDirs {
		err := filepath.WalkDir(filepath.Join(dir, sub), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(path) != ".yml" || !want(path) {
				return err
			}
			data, err := os.ReadFile(path)
			if err == nil {
				each(path, data)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func compileSigmaGo(dir string, want func(string) bool) (matcher, int, error) {
	var rules []sigmago.Rule
	err := ruleFiles(dir, want, func(_ string, data []byte) {
		if rule, err := sigmago.ParseRule(data); err == nil {
			rules = append(rules, rule)
		}
	})
	placeholders := evaluator.WithPlaceholderExpander(func(context.Context, string) ([]string, error) { return nil, nil })
	bundle := evaluator.ForRules(rules, placeholders)
	return func(e map[string]any) int {
		n := 0
		results, _ := bundle.Matches(context.Background(), e)
		for _, r := range results {
			if r.Match {
				n++
			}
		}
		return n
	}, len(rules), err
}

// selector is an event as go-sigma-rule-engine reads it.
type selector map[string]any

func (s selector) Keywords() ([]string, bool) {
	var all []string
	for _, v := range s {
		if t, ok := v.(string); ok {
			all = append(all, t)
		}
	}
	return all, true
}

func (s selector) Select(key string) (any, bool) {
	v, ok := s[key]
	return v, ok
}

func compileRuleEngine(dir string, want func(string) bool) (matcher, int, error) {
	var paths []string
	if err := ruleFiles(dir, want, func(path string, _ []byte) { paths = append(paths, path) }); err != nil {
		return nil, 0, err
	}
	rules, err := ruleengine.NewRuleList(paths, true, false)
	if _, some := err.(ruleengine.ErrBulkParseYaml); err != nil && !some {
		return nil, 0, err
	}
	var trees []*ruleengine.Tree
	for _, rule := range rules {
		if tree := newTree(rule); tree != nil {
			trees = append(trees, tree)
		}
	}
	return func(e map[string]any) int {
		n := 0
		for _, t := range trees {
			if ok, _ := t.Match(selector(e)); ok {
				n++
			}
		}
		return n
	}, len(trees), nil
}

// newTree compiles a rule, or returns nil: some rules of the set make it panic.
func newTree(rule ruleengine.RuleHandle) (tree *ruleengine.Tree) {
	defer func() {
		if recover() != nil {
			tree = nil
		}
	}()
	tree, err := ruleengine.NewTree(rule)
	if err != nil {
		return nil
	}
	return tree
}
