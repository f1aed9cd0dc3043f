package scan

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/detect"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// Options of a scan.
type Options struct {
	// LogSource, if not nil, is what every record is said to be of. Else the
	// format, or the record, says it; a record of which nobody knows what it
	// is meets every rule.
	LogSource    *ocsf.LogSource
	Placeholders map[string][]string
	// Progress, if not nil, hears of each file how many of its bytes are read.
	Progress func(file string, read, size int64)
}

// Scanner runs a set over files, one after the other. Correlations count across
// the files of one scanner.
type Scanner struct {
	options   Options
	layout    *Layout
	engine    *detect.Engine
	evaluator *detect.Evaluator
	event     ocsf.Event
	clock     time.Time
}

// Hit is one match in a file.
type Hit struct {
	RuleID    string          `json:"rule_id"`
	RuleTitle string          `json:"rule_title"`
	Level     string          `json:"level,omitempty"`
	Technique []string        `json:"techniques,omitempty"`
	RuleFile  string          `json:"rule_file,omitempty"`
	File      string          `json:"file"`
	Line      int             `json:"line"`
	Time      *time.Time      `json:"time,omitempty"`
	Matched   []holdfast.Fact `json:"matched"`
}

// Summary counts what a file held.
type Summary struct {
	File     string `json:"file"`
	Format   string `json:"format"`
	Records  int    `json:"records"`
	Unrouted int    `json:"unrouted"` // records that no rule wanted to see
	Hits     int    `json:"hits"`
	Bad      int    `json:"bad"` // lines that could not be read
}

// New compiles a set for files. Rules with problems are left out.
func New(set sigma.Set, o Options) (*Scanner, []sigma.Problem) {
	var also []ocsf.LogSource
	if o.LogSource != nil {
		also = append(also, *o.LogSource)
	}
	s := &Scanner{options: o, layout: NewLayout(set, also...)}
	var problems []sigma.Problem
	s.engine, problems = detect.Compile(set, detect.Options{Classes: s.layout.Classes, Placeholders: o.Placeholders})
	s.evaluator = s.engine.NewEvaluator()
	return s, problems
}

// Engine returns what the set was compiled to.
func (s *Scanner) Engine() *detect.Engine { return s.engine }

// File scans one file. A record that cannot be read is counted and reported
// through bad, and the scan goes on.
func (s *Scanner) File(path string, hit func(Hit) error, bad func(error)) (Summary, error) {
	f, err := os.Open(path)
	if err != nil {
		return Summary{File: path}, &holdfast.Error{Kind: holdfast.NotFound, Where: path, Err: err}
	}
	defer f.Close()
	var size int64
	if info, err := f.Stat(); err == nil {
		if info.IsDir() {
			return Summary{File: path}, &holdfast.Error{Kind: holdfast.Invalid, What: "this is a directory", Where: path, Do: "name the files in it"}
		}
		size = info.Size()
	}
	return s.Read(path, f, size, hit, bad)
}

// Read scans a stream that is called name and has size bytes (0 if unknown).
func (s *Scanner) Read(name string, r io.Reader, size int64, hit func(Hit) error, bad func(error)) (Summary, error) {
	counted := &countingReader{r: r}
	sum := Summary{File: name}
	d, format := open(counted, func(line int, err error) {
		sum.Bad++
		bad(&holdfast.Error{Kind: holdfast.Invalid, Where: fmt.Sprintf("%s:%d", name, line), Err: err})
	})
	sum.Format = format.name
	err := format.decode(d, func(rec *Record) error {
		sum.Records++
		if s.options.Progress != nil && sum.Records&1023 == 0 {
			s.options.Progress(name, counted.n, size)
		}
		return s.record(name, rec, &sum, hit)
	})
	if s.options.Progress != nil {
		s.options.Progress(name, counted.n, max(size, counted.n))
	}
	var e *holdfast.Error
	if errors.As(err, &e) && e.Where == "" {
		e.Where = name
	} else if err != nil && e == nil {
		err = &holdfast.Error{Kind: holdfast.Invalid, Where: name, Err: err}
	}
	return sum, err
}

// open recognises a stream.
func open(r io.Reader, bad func(line int, err error)) (*decoding, format) {
	in := bufio.NewReaderSize(r, 1<<16)
	head, _ := in.Peek(4096)
	return &decoding{in: in, bad: bad}, formatOf(head)
}

// Records reads the events of a stream, of any format.
func Records(r io.Reader, emit func(*Record) error, bad func(line int, err error)) error {
	d, format := open(r, bad)
	return format.decode(d, emit)
}

// Explain says of one rule and one record which parts match and which do not.
// The rule need not have been compiled.
func Explain(rule *sigma.Rule, rec *Record, placeholders map[string][]string) detect.Explanation {
	l := NewLayout(sigma.Set{Rules: []*sigma.Rule{rule}})
	class := l.ClassOf(rec.Sources)
	if class == nil {
		class = l.Unknown
	}
	var ev ocsf.Event
	Bind(&ev, class, rec, true)
	return detect.Explain(rule, class, &ev, placeholders)
}

// record evaluates one record.
func (s *Scanner) record(name string, rec *Record, sum *Summary, hit func(Hit) error) error {
	if s.options.LogSource != nil {
		rec.Sources = []ocsf.LogSource{*s.options.LogSource}
	}
	class := s.layout.ClassOf(rec.Sources)
	if class == nil {
		sum.Unrouted++
		return nil
	}
	if rec.Time.IsZero() {
		rec.Time = s.clock // undated records happen when the last dated one did
	}
	s.clock = rec.Time
	s.event.Reset()
	Bind(&s.event, class, rec, true)
	var failed error
	s.evaluator.Evaluate(&s.event, func(m *detect.Match) {
		if failed != nil {
			return
		}
		sum.Hits++
		h := Hit{
			RuleID: m.Rule.ID, RuleTitle: m.Rule.Title, Level: string(m.Rule.Severity), Technique: m.Rule.Techniques, RuleFile: m.Rule.File,
			File: name, Line: rec.Line, Matched: cutFacts(m.Facts()),
		}
		if !rec.Time.IsZero() {
			t := rec.Time
			h.Time = &t
		}
		failed = hit(h)
	})
	return failed
}

// cutFacts keeps hits of keyword rules readable.
func cutFacts(facts []holdfast.Fact) []holdfast.Fact {
	for i := range facts {
		if v := facts[i].Value; len(v) > mostShown {
			facts[i].Value = string(bytes.ToValidUTF8([]byte(v[:mostShown]), nil)) + "…"
		}
	}
	if facts == nil {
		facts = []holdfast.Fact{}
	}
	return facts
}

const mostShown = 4096

type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}
