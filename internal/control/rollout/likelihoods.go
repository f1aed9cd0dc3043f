package rollout

import (
	"encoding/json"
	"slices"

	"github.com/holdfast-security/holdfast"
)

// Likelihoods holds, for every scope and signal, the log-likelihood ratios of
// the events so far under each alternative. It marshals sparsely.
//
// Likelihoods over the same strata and policy may be added: they are all that
// fleets too small to see a subtle fault alone need to share.
type Likelihoods struct {
	signals int
	fast    []fastL // [scope*signals + signal]
	slow    []slowL
}

type sparseL struct {
	Scopes  int       `json:"scopes"`
	Signals int       `json:"signals"`
	Fast    []sparseF `json:"fast,omitempty"`
	Slow    []sparseS `json:"slow,omitempty"`
}

type sparseF struct {
	At int   `json:"at"`
	L  fastL `json:"l"`
}

type sparseS struct {
	At int   `json:"at"`
	L  slowL `json:"l"`
}

// MarshalJSON writes only what is not zero.
func (l Likelihoods) MarshalJSON() ([]byte, error) {
	s := sparseL{Signals: l.signals}
	if l.signals > 0 {
		s.Scopes = len(l.fast) / l.signals
	}
	for i, v := range l.fast {
		if v != (fastL{}) {
			s.Fast = append(s.Fast, sparseF{i, v})
		}
	}
	for i, v := range l.slow {
		if v != (slowL{}) {
			s.Slow = append(s.Slow, sparseS{i, v})
		}
	}
	return json.Marshal(s)
}

const maxScopes, maxSignals = 1 << 18, 16

var errSize = holdfast.Errorf(holdfast.Invalid, "likelihoods: an index or a size is out of range")

// UnmarshalJSON refuses sizes beyond what a policy can have, and indices
// outside the stated size.
func (l *Likelihoods) UnmarshalJSON(b []byte) error {
	var s sparseL
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	if s.Scopes < 0 || s.Scopes > maxScopes || s.Signals < 0 || s.Signals > maxSignals {
		return errSize
	}
	*l = newLikelihoods(s.Scopes, s.Signals)
	for _, f := range s.Fast {
		if f.At < 0 || f.At >= len(l.fast) {
			return errSize
		}
		l.fast[f.At] = f.L
	}
	for _, f := range s.Slow {
		if f.At < 0 || f.At >= len(l.slow) {
			return errSize
		}
		l.slow[f.At] = f.L
	}
	return nil
}

func newLikelihoods(scopes, signals int) Likelihoods {
	return Likelihoods{signals: signals, fast: make([]fastL, scopes*signals), slow: make([]slowL, scopes*signals)}
}

func (l Likelihoods) clone() Likelihoods {
	l.fast, l.slow = slices.Clone(l.fast), slices.Clone(l.slow)
	return l
}

// Add adds the evidence of another installation, or refuses if it has another
// shape.
func (l *Likelihoods) Add(o Likelihoods) error {
	if l.signals != o.signals || len(l.fast) != len(o.fast) || len(l.slow) != len(o.slow) {
		return holdfast.Errorf(holdfast.Invalid, "likelihoods of different strata or signals cannot be added")
	}
	for i := range l.fast {
		for j := range l.fast[i] {
			l.fast[i][j] = min(l.fast[i][j]+o.fast[i][j], mostL)
		}
	}
	for i := range l.slow {
		for j := range l.slow[i] {
			l.slow[i][j] = min(l.slow[i][j]+o.slow[i][j], mostL)
		}
	}
	return nil
}
