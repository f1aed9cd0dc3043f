package wire

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/holdfast-security/holdfast"
)

// Problem is the body of a refusal, as JSON.
type Problem struct {
	Kind string `json:"kind"`
	What string `json:"error"`
}

// statuses is the one table between kinds of error and HTTP statuses on the
// hosts' listener.
var statuses = [...]int{
	holdfast.Internal:    http.StatusInternalServerError,
	holdfast.Invalid:     http.StatusBadRequest,
	holdfast.NotFound:    http.StatusNotFound,
	holdfast.Conflict:    http.StatusConflict,
	holdfast.Denied:      http.StatusForbidden,
	holdfast.Unavailable: http.StatusServiceUnavailable,
}

// Status returns the HTTP status of a kind of error.
func Status(k holdfast.Kind) int { return statuses[k] }

// WriteProblem refuses a request. What an internal error says stays here.
// A retryAfter above zero is sent with it, in whole seconds.
func WriteProblem(w http.ResponseWriter, err error, retryAfter time.Duration) {
	kind, what := holdfast.KindOf(err), err.Error()
	if kind == holdfast.Internal {
		what = "internal error"
	}
	body, encodeErr := json.Marshal(Problem{Kind: kind.String(), What: what})
	if encodeErr != nil { // two strings can always be encoded
		body = nil
	}
	if retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((retryAfter+time.Second-1)/time.Second)))
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(Status(kind))
	_, _ = w.Write(body)
}

// ReadProblem turns a refusal into an error of the same kind. Statuses that
// say "later" (429, 502, 503, 504) are Unavailable whoever sent them: a proxy
// in between is not the control plane's judgement.
func ReadProblem(resp *http.Response) error {
	e := &holdfast.Error{Kind: holdfast.Internal, What: "the server answered " + resp.Status}
	for kind, status := range statuses {
		if status == resp.StatusCode {
			e.Kind = holdfast.Kind(kind)
		}
	}
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		e.Kind = holdfast.Unavailable
	case http.StatusUnauthorized:
		e.Kind = holdfast.Denied
	case http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType:
		e.Kind = holdfast.Invalid
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	var p Problem
	if err == nil && json.Unmarshal(body, &p) == nil && p.What != "" && text("", p.What) == nil {
		e.What = p.What
	}
	return e
}

// RetryAfter reads the header of that name, at most an hour; zero if it says
// nothing that can be used.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	var d time.Duration
	if n, err := strconv.Atoi(v); err == nil {
		d = time.Duration(min(max(n, 0), 3600)) * time.Second
	} else if t, err := http.ParseTime(v); err == nil {
		d = t.Sub(now)
	}
	return min(max(d, 0), time.Hour)
}
