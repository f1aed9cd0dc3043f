package detect

import (
	"encoding/binary"
	"math"

	"github.com/holdfast-security/holdfast/internal/language/ocsf"
)

// scratch is what evaluating one event at a time needs besides the programs.
// Nothing in it is cleared between events: what belongs to the current one
// carries its stamp. Once its texts have grown to the largest event's, it
// allocates nothing.
type scratch struct {
	*marks // of the event's program
	all    []marks
	event  *ocsf.Event
	stamp  uint32

	texts      []text
	arena      []byte
	found      []int32
	candidates []int32
	threads    threads // of the largest regular expression without a table
	suspended  []bool  // by rule of the engine; the evaluator's
}

// marks are what is known of the current event, by what a program has.
type marks struct {
	program *program
	truth   []uint32 // by predicate: stamp<<1, and 1 if it holds
	hit     []uint32 // by atom: stamp if it was found
	asked   []uint32 // by rule of the program: stamp if it is a candidate
	slots   []slot   // by field
}

// text is one text of a value, as it is and folded.
type text struct {
	raw    string
	folded []byte
}

func (t text) bytes() []byte { return bytesOf(t.raw) }

// slot says which texts a field has.
type slot struct {
	stamp        uint32
	first, count int32
}

func newScratch(programs ...*program) *scratch {
	s := &scratch{all: make([]marks, len(programs)), texts: make([]text, 0, 64), arena: make([]byte, 0, 8<<10)}
	instructions := 0
	for i, p := range programs {
		s.all[i] = marks{
			program: p,
			truth:   make([]uint32, len(p.preds)),
			hit:     make([]uint32, len(p.atoms)),
			asked:   make([]uint32, len(p.rules)),
			slots:   make([]slot, len(p.class.Fields)+1), // the last is for keywords
		}
		for i := range p.preds {
			if re := p.preds[i].re; re != nil {
				instructions = max(instructions, re.instructions())
			}
		}
	}
	if instructions > 0 {
		s.threads = newThreads(instructions)
	}
	return s
}

// begin turns to an event of program number n.
func (s *scratch) begin(n int, ev *ocsf.Event) {
	if s.stamp == math.MaxUint32>>1 {
		for _, m := range s.all {
			clear(m.truth)
			clear(m.hit)
			clear(m.asked)
			clear(m.slots)
		}
		s.stamp = 0
	}
	s.stamp++
	s.marks, s.event = &s.all[n], ev
	s.texts, s.arena, s.candidates = s.texts[:0], s.arena[:0], s.candidates[:0]
}

// holds evaluates a predicate at most once per event.
func (s *scratch) holds(pred int32) bool {
	t := s.truth[pred]
	if t>>1 == s.stamp {
		return t&1 != 0
	}
	b := s.program.preds[pred].holds(s)
	s.truth[pred] = s.stamp << 1
	if b {
		s.truth[pred]++
	}
	return b
}

// foundAny reports whether the index found one of the atoms.
func (s *scratch) foundAny(atoms []int32) bool {
	for _, a := range atoms {
		if s.hit[a] == s.stamp {
			return true
		}
	}
	return false
}

// textsOf returns the texts of a field: none if it is absent or null, several
// if it is a list. The slice is valid until the next call.
func (s *scratch) textsOf(field int) []text {
	if field == everything {
		return s.allTexts()
	}
	sl := &s.slots[field]
	if sl.stamp != s.stamp {
		sl.stamp, sl.first = s.stamp, int32(len(s.texts))
		if v := &s.event.Values[field]; v.Kind == ocsf.String {
			s.addText(v.Str)
		} else {
			s.fill(*v)
		}
		sl.count = int32(len(s.texts)) - sl.first
	}
	return s.texts[sl.first : sl.first+sl.count]
}

func (s *scratch) fill(v ocsf.Value) {
	switch v.Kind {
	case ocsf.Absent, ocsf.Null:
	case ocsf.List:
		for _, el := range s.event.Lists[v.Num] {
			if el.Kind != ocsf.List {
				s.fill(el)
			}
		}
	case ocsf.String:
		s.addText(v.Str)
	default:
		start := len(s.arena)
		s.arena = v.AppendText(s.arena)
		if raw := view(s.arena[start:]); v.Kind == ocsf.Int { // digits have no case
			s.pad(raw, start)
		} else {
			s.addText(raw)
		}
	}
}

func (s *scratch) addText(raw string) {
	start := len(s.arena)
	if cap(s.arena)-start < len(raw)+slack {
		s.arena = append(make([]byte, 0, 2*cap(s.arena)+len(raw)+1024), s.arena...)
	}
	end := start + foldInto(s.arena[start:start+len(raw)+slack], raw)
	s.arena = s.arena[:end+slack]
	behind := s.arena[end : end+slack] // zeros: nothing is found in them
	binary.LittleEndian.PutUint64(behind, 0)
	binary.LittleEndian.PutUint64(behind[8:], 0)
	s.texts = append(s.texts, text{raw, s.arena[start : end : end+slack]})
}

// pad makes what the arena has from start on the folded form of raw, with slack
// behind it.
func (s *scratch) pad(raw string, start int) {
	end := len(s.arena)
	s.arena = append(s.arena, make([]byte, slack)...)
	s.texts = append(s.texts, text{raw, s.arena[start:end:len(s.arena)]})
}

// allTexts returns what a keyword looks at: the message, or if the event has
// none, each text of each value.
func (s *scratch) allTexts() []text {
	sl := &s.slots[len(s.slots)-1]
	if sl.stamp == s.stamp {
		return s.texts[sl.first : sl.first+sl.count]
	}
	switch {
	case s.event.Message != "":
		sl.first = int32(len(s.texts))
		s.addText(s.event.Message)
	case s.event.Set != nil:
		sl.first = 0
		for _, field := range s.event.Set {
			s.textsOf(int(field))
		}
	default:
		sl.first = 0
		for field := range s.event.Values {
			s.textsOf(field)
		}
	}
	sl.stamp, sl.count = s.stamp, int32(len(s.texts))-sl.first
	return s.texts[sl.first : sl.first+sl.count]
}
