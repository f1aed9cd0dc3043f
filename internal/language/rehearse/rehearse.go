// Package rehearse is how rehearsal talks to a sensor build: the agent's command
// "rehearse --bundle FILE" loads the bundle as a worker would, evaluates the
// events it reads on standard input, one JSON object a line, and answers each
// with a line on standard output.
//
// Before an event is evaluated the build says which one it is, so that a build
// that dies or hangs tells by its last line what it died of. Whoever asks holds
// the clock and the limits: the build evaluates what it is given.
package rehearse

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/bundle"
	"github.com/holdfast-security/holdfast/internal/language/detect"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/ruletest"
)

// MaxLine bounds a line, in both directions.
const MaxLine = 1 << 20

// maxRepeat bounds how often one event is evaluated.
const maxRepeat = 1 << 20

// Request is one event.
type Request struct {
	N      int               `json:"n"`                // from 1; echoed
	Class  string            `json:"class,omitempty"`  // "process_activity" if empty
	Fields map[string]string `json:"fields"`           // as people write them: Sigma's names or OCSF paths
	Raw    map[string][]byte `json:"raw,omitempty"`    // more of them, whose values are not UTF-8
	At     time.Time         `json:"at,omitzero"`      // when it happened, by the event's own clock
	Fresh  bool              `json:"fresh,omitempty"`  // evaluate it as the first event of a host, so that no other counts
	Repeat int               `json:"repeat,omitempty"` // evaluate it as often as this, to measure it
}

// Answer is one line from a build. The first is Loaded, the last is End; in
// between each event has two, Begin and the answer with its N.
type Answer struct {
	Loaded  *Loaded  `json:"loaded,omitempty"`
	Begin   int      `json:"begin,omitempty"` // this event is about to be evaluated
	N       int      `json:"n,omitempty"`     // this one has been
	Matches []string `json:"matches,omitempty"`
	Ns      int64    `json:"ns,omitempty"`    // for one evaluation
	Error   string   `json:"error,omitempty"` // the event cannot happen on this build
	End     *End     `json:"end,omitempty"`
}

// Loaded says how the bundle was loaded.
type Loaded struct {
	Rules    int                    `json:"rules"`
	Millis   float64                `json:"ms"`
	Problems []holdfast.RuleProblem `json:"problems,omitempty"` // rules that do not run, and why
}

// End is what the build has to say after the last event.
type End struct {
	Events uint64 `json:"events"`
	Costs  []Cost `json:"costs,omitempty"` // the dearest rules first
}

// Cost is what a rule takes, as the build measures it on hosts.
type Cost struct {
	Rule       string  `json:"rule"`
	NsPerEvent float64 `json:"ns_per_event"`
	Sampled    uint64  `json:"sampled"` // events it is known from
}

// maxCosts bounds the list.
const maxCosts = 100

// Serve answers until in ends. supplied says, by class, how many inputs this
// build's sensor supplies: an event has these and no others, whatever the
// build's manifest promises.
func Serve(data []byte, supplied map[int]int, in io.Reader, out io.Writer) error {
	s := server{supplied: supplied, out: json.NewEncoder(out), classes: map[string]*ocsf.Class{}}
	for _, c := range ocsf.SensorClasses() {
		s.classes[c.Name] = c
	}
	if err := s.load(data); err != nil {
		return err
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, MaxLine)
	for lines.Scan() {
		var r Request
		d := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		d.DisallowUnknownFields()
		if err := d.Decode(&r); err != nil || r.N < 1 {
			return &holdfast.Error{Kind: holdfast.Invalid, What: "not an event to rehearse", Where: "standard input", Err: err}
		}
		if err := s.answer(r); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return &holdfast.Error{Kind: holdfast.Invalid, What: "the events cannot be read", Where: "standard input", Err: err}
	}
	return s.end()
}

type server struct {
	supplied  map[int]int
	classes   map[string]*ocsf.Class
	engine    *detect.Engine
	evaluator *detect.Evaluator
	events    uint64
	out       *json.Encoder
}

func (s *server) load(data []byte) error {
	start := time.Now()
	b, err := bundle.Open(data)
	if err != nil {
		return err
	}
	engine, _, problems := ruletest.Load(b)
	s.engine, s.evaluator = engine, engine.NewEvaluator()
	l := Loaded{Rules: len(engine.Rules()), Millis: float64(time.Since(start).Microseconds()) / 1000}
	for _, p := range problems {
		if !p.Warning {
			l.Problems = append(l.Problems, p.RuleProblem("load"))
		}
	}
	return s.out.Encode(Answer{Loaded: &l})
}

func (s *server) answer(r Request) error {
	e, err := s.event(r)
	if err != nil {
		return s.out.Encode(Answer{N: r.N, Error: err.Error()})
	}
	evaluator := s.evaluator
	if r.Fresh {
		evaluator = s.engine.NewEvaluator()
	}
	if err := s.out.Encode(Answer{Begin: r.N}); err != nil {
		return err
	}
	a := Answer{N: r.N}
	start := time.Now()
	evaluator.Evaluate(e, func(m *detect.Match) { a.Matches = append(a.Matches, m.Rule.ID) })
	more := min(max(r.Repeat, 1), maxRepeat) - 1
	for range more {
		evaluator.Evaluate(e, func(*detect.Match) {})
	}
	s.events += uint64(more) + 1
	a.Ns = time.Since(start).Nanoseconds() / int64(more+1)
	return s.out.Encode(a)
}

// event makes an event as this build's sensor makes them.
func (s *server) event(r Request) (*ocsf.Event, error) {
	if r.Class == "" {
		r.Class = "process_activity"
	}
	class := s.classes[r.Class]
	if class == nil {
		return nil, fmt.Errorf("this build supplies no %s", r.Class)
	}
	for name, value := range r.Raw {
		if r.Fields == nil {
			r.Fields = map[string]string{}
		}
		r.Fields[name] = string(value)
	}
	e, err := class.FromWritten(r.Fields)
	if err != nil {
		return nil, err
	}
	n, ok := s.supplied[class.UID]
	if !ok {
		return nil, errors.New("this build's sensor does not say what it supplies of " + r.Class)
	}
	e.Values = e.Values[:min(n, len(e.Values)):min(n, len(e.Values))]
	if !r.At.IsZero() {
		e.Time = r.At
		if i, ok := class.Ordinal("time"); ok && i < len(e.Values) && !e.Values[i].Present() {
			e.Values[i] = ocsf.TimeValue(r.At)
		}
	}
	return e, nil
}

func (s *server) end() error {
	end := End{Events: s.events}
	costs := s.evaluator.Costs()
	for _, c := range costs[:min(len(costs), maxCosts)] {
		end.Costs = append(end.Costs, Cost{Rule: c.Rule.ID, NsPerEvent: c.NsPerEvent, Sampled: c.Sampled})
	}
	return s.out.Encode(Answer{End: &end})
}
