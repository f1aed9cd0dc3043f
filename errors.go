package holdfast

import (
	"errors"
	"fmt"
)

// Kind says what sort of failure an error is. The set is closed: HTTP statuses
// and exit codes are mapped from it in one table each.
type Kind uint8

// The kinds of error.
const (
	Internal    Kind = iota // a defect of ours, or an I/O failure; the zero value, so that an unclassified error is never blamed on the user
	Invalid                 // the input is wrong; trying again unchanged cannot help
	NotFound                // the thing named does not exist
	Conflict                // the state moved on, or forbids this; reload and decide again
	Denied                  // the caller may not do this
	Unavailable             // something needed is away; trying again later may help
)

var kindNames = [...]string{"internal", "invalid", "not found", "conflict", "denied", "unavailable"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "internal"
}

// ExitCode maps a kind to a process exit code. 0 is success and 1 is Internal,
// as Go programs use them.
func (k Kind) ExitCode() int { return [...]int{1, 2, 3, 4, 5, 6}[min(int(k), len(kindNames)-1)] }

// Error is an error meant for a person: what is wrong, where, and what to do.
type Error struct {
	Kind  Kind
	What  string // what is wrong, one sentence without a full stop; empty if Err says it
	Where string // file:line:column, a field's path, a rule id; empty if it has no place
	Do    string // what to do about it; empty if What already says so
	Err   error  // the cause, or nil
}

func (e *Error) Error() string {
	s := e.What
	if e.Err != nil {
		if s != "" {
			s += ": "
		}
		s += e.Err.Error()
	}
	if e.Where != "" {
		s = e.Where + ": " + s
	}
	if e.Do != "" {
		s += " (" + e.Do + ")"
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error of a kind; %w wraps a cause as in fmt.Errorf.
func Errorf(kind Kind, format string, args ...any) error {
	return &Error{Kind: kind, Err: fmt.Errorf(format, args...)}
}

// KindOf returns the kind of the first Error in err's chain, else Internal.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}
