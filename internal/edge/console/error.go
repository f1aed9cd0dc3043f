package console

import (
	"errors"
	"strconv"
	"strings"

	"github.com/holdfast-security/holdfast"
)

func itoa(n int) string { return strconv.Itoa(n) }

// what says what went wrong. An internal error says nothing of its cause to the
// browser: the cause is in the server's log.
func (p errorPage) what() string {
	if p.Kind == holdfast.Internal {
		return "Something went wrong here"
	}
	var e *holdfast.Error
	if errors.As(p.Err, &e) && e.What != "" {
		return title(e.What)
	}
	if e != nil && e.Err != nil {
		return title(e.Err.Error())
	}
	return title(p.Kind.String())
}

func (p errorPage) where() string {
	var e *holdfast.Error
	if p.Kind != holdfast.Internal && errors.As(p.Err, &e) {
		return e.Where
	}
	return ""
}

func (p errorPage) do() string {
	var e *holdfast.Error
	switch {
	case p.Kind == holdfast.Internal:
		return "the server's log says more"
	case errors.As(p.Err, &e):
		return strings.TrimSuffix(e.Do, ".")
	}
	return ""
}
