// Package otlp receives findings: OTLP/HTTP logs in protobuf whose bodies are
// OCSF detection findings.
//
// Its answers are what OTLP asks for, so that a host loses nothing and sends
// nothing for ever: 200 when everything is durable, 200 with a partial success
// that counts the records which are no findings and never will be, 503 with
// Retry-After when the same request may succeed later, and 400 when it cannot.
package otlp

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"time"

	collector "go.opentelemetry.io/proto/slim/otlp/collector/logs/v1"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/wire"
)

// Sink stores findings.
type Sink interface {
	// AddFindings stores what it has not stored yet, by id, and says how many
	// were new. Host and Received are filled in; Org is the store's to know.
	// When it returns nil all of them are durable; when it returns an error none
	// need be, and the host sends them again. A request that was stored although
	// it seemed to fail is therefore stored once.
	AddFindings(ctx context.Context, host holdfast.HostID, found []holdfast.Finding) (added int, err error)
}

// Handler answers POST wire.LogsPath.
type Handler struct {
	sink     Sink
	identify func(*http.Request) (holdfast.HostID, error)
	now      func() time.Time
	log      *slog.Logger
	room     chan struct{} // a token for each request being decoded and stored
}

// concurrent is how many requests are decoded and stored at once. Others wait
// for a moment and are then sent away: a host has a queue, and this process
// has only memory.
const concurrent = 16

const patience = 2 * time.Second

// New makes a handler. Identify says which host asks, from its client
// certificate.
func New(sink Sink, identify func(*http.Request) (holdfast.HostID, error), now func() time.Time, log *slog.Logger) *Handler {
	return &Handler{sink: sink, identify: identify, now: now, log: log, room: make(chan struct{}, concurrent)}
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host, err := h.identify(r)
	if err != nil {
		wire.WriteProblem(w, err, 0)
		return
	}
	if t := r.Header.Get("Content-Type"); t != "application/x-protobuf" {
		wire.WriteProblem(w, &holdfast.Error{Kind: holdfast.Invalid, What: "the body must be application/x-protobuf", Where: "Content-Type"}, 0)
		return
	}
	select {
	case h.room <- struct{}{}:
	default:
		timer := time.NewTimer(patience)
		defer timer.Stop()
		select {
		case h.room <- struct{}{}:
		case <-timer.C:
			h.later(w, &holdfast.Error{Kind: holdfast.Unavailable, What: "too many findings arrive at once"})
			return
		case <-r.Context().Done():
			return
		}
	}
	defer func() { <-h.room }()

	// A peer that sends slowly must not hold its place for ever.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(30 * time.Second)) // not supported by test recorders
	body, err := read(w, r)
	if holdfast.KindOf(err) == holdfast.Unavailable && err != nil {
		h.later(w, err)
		return
	}
	if err != nil {
		wire.WriteProblem(w, err, 0)
		return
	}
	found, rejected, reason, err := wire.Findings(body)
	if err != nil {
		h.log.Warn("findings refused", "host", host, "why", err)
		wire.WriteProblem(w, err, 0)
		return
	}
	if rejected > 0 {
		h.log.Warn("some findings refused", "host", host, "refused", rejected, "why", reason)
	}
	if len(found) > 0 {
		now := h.now()
		for i := range found {
			found[i].Host, found[i].Received = host, now
		}
		added, err := h.sink.AddFindings(r.Context(), host, found)
		if err != nil {
			if holdfast.KindOf(err) == holdfast.Denied { // it is not enrolled any more, or was revoked
				h.log.Warn("findings refused", "host", host, "why", err)
				wire.WriteProblem(w, err, 0)
				return
			}
			h.log.Error("findings not stored", "host", host, "findings", len(found), "why", err)
			// Whatever is wrong here, it is not the findings: they can be read. The
			// host keeps them.
			h.later(w, &holdfast.Error{Kind: holdfast.Unavailable, What: "the findings could not be stored now"})
			return
		}
		h.log.Debug("findings stored", "host", host, "new", added, "known", len(found)-added)
	}
	answer := &collector.ExportLogsServiceResponse{}
	if rejected > 0 {
		answer.PartialSuccess = &collector.ExportLogsPartialSuccess{RejectedLogRecords: int64(rejected), ErrorMessage: reason}
	}
	b, err := proto.Marshal(answer)
	if err != nil {
		wire.WriteProblem(w, holdfast.Errorf(holdfast.Internal, "encode answer: %w", err), 0)
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	_, _ = w.Write(b) // if it does not arrive the host sends the findings again
}

func (h *Handler) later(w http.ResponseWriter, err error) {
	wire.WriteProblem(w, err, time.Second+rand.N(4*time.Second))
}

// read returns the body, unpacked, at most wire.MaxRequest bytes of it on
// either side of the compression.
func read(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	var body io.Reader = http.MaxBytesReader(w, r.Body, wire.MaxRequest)
	switch e := r.Header.Get("Content-Encoding"); e {
	case "", "identity":
	case "gzip":
		z, err := gzip.NewReader(body)
		if err != nil {
			return nil, &holdfast.Error{Kind: holdfast.Invalid, Where: "body", Err: err}
		}
		body = z
	default:
		return nil, &holdfast.Error{Kind: holdfast.Invalid, What: "the encoding is not known here", Where: "Content-Encoding", Do: "use gzip or none"}
	}
	b, err := io.ReadAll(io.LimitReader(body, wire.MaxRequest+1))
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &tooLong) || len(b) > wire.MaxRequest:
		return nil, &holdfast.Error{Kind: holdfast.Invalid, What: "is longer than 4 MiB", Where: "body", Do: "send fewer findings at once"}
	case errors.Is(err, gzip.ErrChecksum) || errors.Is(err, gzip.ErrHeader):
		return nil, &holdfast.Error{Kind: holdfast.Invalid, Where: "body", Err: err}
	case err != nil: // the network's fault, or a damaged stream: not the findings'
		return nil, &holdfast.Error{Kind: holdfast.Unavailable, What: "the body did not arrive", Err: err}
	}
	return b, nil
}
