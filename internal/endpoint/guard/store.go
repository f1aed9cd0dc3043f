package guard

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/lifeline"
)

// The state file and what stands beside it.
const (
	stateFile = "state.json"
	newFile   = "state.json.new" // being written
	oldFile   = "state.json.old" // the state before, only to save shuns from if the other is unreadable
	badFile   = "state.json.bad" // an unreadable state file, kept for a person; a time follows
)

// maxState bounds the file.
const maxState = 256 << 10

// disk is one directory. Each method is one step that can fail alone.
type disk interface {
	// Read returns a file's bytes, at most limit, or an error if it has more.
	Read(name string, limit int64) ([]byte, error)
	// Write makes a file with these bytes, which are on the medium when it
	// returns; the file's name need not be.
	Write(name string, data []byte) error
	// Rename gives a file another name, and replaces what had it, at once.
	Rename(from, to string) error
	// Link gives a file a second name, which must be free.
	Link(from, to string) error
	Remove(name string) error
	// Sync puts the names of the directory on the medium.
	Sync() error
}

// store keeps the state in one file, which is the old one or the new one at any
// moment.
type store struct{ disk disk }

// save replaces the state. After an error either may be on disk; the caller
// saves again until it succeeds.
func (st store) save(s State) error {
	data, err := encode(s)
	if err != nil {
		return err
	}
	if err := st.disk.Write(newFile, data); err != nil {
		return err
	}
	// The old copy is a courtesy: without it the swap is as safe.
	_ = st.disk.Remove(oldFile)
	_ = st.disk.Link(stateFile, oldFile)
	if err := st.disk.Rename(newFile, stateFile); err != nil {
		return err
	}
	return st.disk.Sync()
}

// load returns the state on disk, that of a host on which nothing ran if there
// is none, or safe mode and the reason if there is one that cannot be read. The
// unreadable file is kept.
func (st store) load(now time.Time) (State, error) {
	s, err := st.read(stateFile)
	if err == nil {
		return s, nil
	}
	old, oldErr := st.read(oldFile)
	if errors.Is(err, fs.ErrNotExist) && errors.Is(oldErr, fs.ErrNotExist) {
		return Fresh(), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		kept := fmt.Sprintf("%s.%d", badFile, now.Unix())
		if e := st.disk.Rename(stateFile, kept); e != nil {
			err = fmt.Errorf("%w; it could not be kept either: %w", err, e)
		} else {
			err = fmt.Errorf("%w; kept as %s", err, kept)
		}
	}
	err = fmt.Errorf("the guard's state file is unreadable: %w", err)
	return Lost(err.Error(), old, now), err
}

func (st store) read(name string) (State, error) {
	data, err := st.disk.Read(name, maxState)
	if err != nil {
		return State{}, err
	}
	return decode(data)
}

// sealed is the file: the state, and the digest of its bytes, so that a bit that
// fell over on the medium is not taken for a decision.
type sealed struct {
	Sum   holdfast.Digest `json:"sum"`
	State json.RawMessage `json:"state"`
}

func encode(s State) ([]byte, error) {
	state, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(sealed{Sum: holdfast.DigestOf(state), State: state})
	if err != nil {
		return nil, err
	}
	if len(data) >= maxState {
		return nil, fmt.Errorf("a state of %d bytes", len(data))
	}
	return append(data, '\n'), nil
}

func decode(data []byte) (State, error) {
	var f sealed
	if err := json.Unmarshal(data, &f); err != nil {
		return State{}, fmt.Errorf("not JSON: %w", err)
	}
	if holdfast.DigestOf(f.State) != f.Sum {
		return State{}, errors.New("its bytes are not those that were written")
	}
	var s State
	d := json.NewDecoder(bytes.NewReader(f.State))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return State{}, err
	}
	if s.Schema == 1 {
		s.Schema = Schema
	}
	if err := s.check(); err != nil {
		return State{}, err
	}
	return s, nil
}

// check refuses a state that Decide could not have made.
func (s State) check() error {
	if s.Schema != Schema {
		return fmt.Errorf("schema %d, where this guard reads %d", s.Schema, Schema)
	}
	if len(s.Boot) > lifeline.MaxID || len(s.Reason) > maxDetail || len(s.Activation) > lifeline.MaxID {
		return errors.New("a text too long")
	}
	if len(s.Back) > maxBack || len(s.Shuns) > 2*maxShuns || len(s.Suspects) > maxSuspects || len(s.Deaths) > maxDeaths || len(s.Final) > maxChannels*(maxBack+2) {
		return errors.New("a list too long")
	}
	gs := append([]holdfast.Generation{s.Current, s.Attempted, s.Failed}, s.Back...)
	if t := s.Trial; t != nil {
		gs = append(gs, t.Generation)
		if t.Kind != Candidate && t.Kind != Placebo && t.Kind != Again {
			return errors.New("a trial of an unknown kind")
		}
	}
	if x := s.Doubt; x != nil {
		if len(x.ID) > lifeline.MaxID || x.Kind != Candidate && x.Kind != Placebo || x.Tries < 0 {
			return errors.New("a doubt that cannot be")
		}
		if x.Kind == Candidate {
			gs = append(gs, holdfast.Generation{x.Channel: x.Digest})
		}
	}
	for _, g := range gs {
		if len(g) > maxChannels {
			return errors.New("a generation with too many channels")
		}
		for c, d := range g {
			if err := (lifeline.Report{Kind: lifeline.Propose, ID: "-", Channel: c, Digest: d}).Check(); err != nil {
				return err
			}
		}
	}
	digests := s.Final
	for _, x := range s.Shuns {
		digests = append(digests[:len(digests):len(digests)], x.Digest)
	}
	for _, d := range digests {
		if _, err := holdfast.ParseDigest(string(d)); err != nil {
			return err
		}
	}
	for _, g := range append([]holdfast.Generation{s.Current}, s.Back...) {
		for _, d := range g {
			if s.Shunned(d) {
				return errors.New("a slot that runs what is shunned")
			}
		}
	}
	return nil
}
