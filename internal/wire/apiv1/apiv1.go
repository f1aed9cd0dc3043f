// Package apiv1 is the messages of the HTTP API, version 1, where they are not
// nouns or views already. Requests are decoded strictly: an unknown field is an
// error, so that a misspelt one is not a silent default.
package apiv1

import (
	"time"

	"github.com/holdfast-security/holdfast"
)

// Problem is how every error is told.
type Problem struct {
	Kind  string `json:"kind"` // holdfast.Kind.String
	What  string `json:"what"`
	Where string `json:"where,omitempty"`
	Do    string `json:"do,omitempty"`
}

// ProblemOf makes a Problem of an error. An Internal error is told without its
// cause: that is for the server's log.
func ProblemOf(err error) Problem {
	kind := holdfast.KindOf(err)
	if kind == holdfast.Internal {
		return Problem{Kind: kind.String(), What: "something went wrong in the server", Do: "the server's log says what"}
	}
	return Problem{Kind: kind.String(), What: err.Error()}
}

// Err makes an error of a Problem.
func (p Problem) Err() error {
	kind := holdfast.Internal
	for k := holdfast.Internal; k <= holdfast.Unavailable; k++ {
		if k.String() == p.Kind {
			kind = k
		}
	}
	return &holdfast.Error{Kind: kind, What: p.What, Where: p.Where, Do: p.Do}
}

// ReleaseRequest asks for a release of a bundle that is registered, rehearsed
// and signed.
type ReleaseRequest struct {
	Bundle  holdfast.Digest  `json:"bundle"`
	Profile holdfast.Profile `json:"profile"`
	Note    string           `json:"note,omitempty"`
}

// ConsentAnswer says which policy of an organisation is in force now.
type ConsentAnswer struct {
	Org     holdfast.OrgID `json:"org"`
	Version int64          `json:"version"`
}

// Reason comes with a decision about a rollout.
type Reason struct {
	Reason string `json:"reason,omitempty"`
	// Acknowledged is the number of harmed hosts that who overrides has seen.
	Acknowledged int `json:"acknowledged,omitempty"`
}

// RevokeRequest says why a host is revoked.
type RevokeRequest struct {
	Reason string `json:"reason"`
}

// EnrolmentRequest asks for permission to enrol hosts.
type EnrolmentRequest struct {
	Role      string        `json:"role"`
	Simulated bool          `json:"simulated,omitempty"`
	Uses      int           `json:"uses"`
	Valid     time.Duration `json:"valid_ns"`
}

// EnrolmentAnswer holds the token, which is shown only here.
type EnrolmentAnswer struct {
	ID      string    `json:"id"`
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}

// NewUser asks for a user. Password may be empty for a program, which signs in
// by token only.
type NewUser struct {
	Name     string        `json:"name"`
	Role     holdfast.Role `json:"role"`
	Password string        `json:"password,omitempty"`
}

// TokenAnswer holds an API token, which is shown only here.
type TokenAnswer struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}

// BuildRegistration adds a sensor build that rehearsal must cover.
type BuildRegistration struct {
	Build holdfast.Build `json:"build"`
}
