package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/view"
)

// Reads is what the API shows: the same views as the console's pages.
type Reads = view.Source

// Changes hints that a view may have changed. A lost hint only delays.
type Changes interface {
	Listen(ctx context.Context, f func(view.Topic))
}

func (s *Server) status(c *call) (any, error) { return c.read.Overview(c.Context()) }
func (s *Server) builds(c *call) (any, error) { return c.read.Builds(c.Context()) }

func (s *Server) hosts(c *call) (any, error) {
	q := c.URL.Query()
	page, size, err := paging(c)
	if err != nil {
		return nil, err
	}
	return c.read.Hosts(c.Context(), view.HostQuery{
		Text: q.Get("q"), State: view.HostState(q.Get("state")), Ring: q.Get("ring"), Role: q.Get("role"),
		Build: q.Get("build"), Kind: q.Get("kind"), Page: page, Size: size,
	})
}

func (s *Server) host(c *call) (any, error) {
	return c.read.Host(c.Context(), holdfast.HostID(c.PathValue("id")))
}

func (s *Server) bundles(c *call) (any, error) { return c.read.Bundles(c.Context()) }

func (s *Server) bundle(c *call) (any, error) {
	d, err := c.digest()
	if err != nil {
		return nil, err
	}
	return c.read.Bundle(c.Context(), d)
}

func (s *Server) rollouts(c *call) (any, error) { return c.read.Rollouts(c.Context()) }
func (s *Server) rollout(c *call) (any, error)  { return c.read.Rollout(c.Context(), c.release()) }

func (s *Server) findings(c *call) (any, error) {
	q := c.URL.Query()
	page, size, err := paging(c)
	if err != nil {
		return nil, err
	}
	return c.read.Findings(c.Context(), view.FindingQuery{
		Text: q.Get("q"), Severity: holdfast.Severity(q.Get("severity")), Technique: q.Get("technique"),
		Host: holdfast.HostID(q.Get("host")), Page: page, Size: size,
	})
}

func (s *Server) finding(c *call) (any, error) {
	return c.read.Finding(c.Context(), c.PathValue("id"))
}

func (s *Server) record(c *call) (any, error) {
	_, size, err := paging(c)
	if err != nil {
		return nil, err
	}
	before, err := number(c, "before", 0)
	if err != nil {
		return nil, err
	}
	return c.read.Record(c.Context(), view.RecordQuery{Before: before, Kind: c.URL.Query().Get("kind"), Size: size})
}

func (s *Server) exportRecord(c *call) (any, error) { return c.read.ExportRecord(c.Context()) }

// How often a stream asks although no hint came, and how many findings it
// looks back over each time.
const (
	followEvery = 2 * time.Second
	followSize  = 200
)

// followFindings streams findings as JSON lines, oldest first, from those the
// query parameter since (RFC 3339, default now) leaves, until the caller hangs
// up. An empty line keeps the connection alive.
func (s *Server) followFindings(c *call) (any, error) {
	since := s.Now()
	if v := c.URL.Query().Get("since"); v != "" {
		var err error
		if since, err = time.Parse(time.RFC3339Nano, v); err != nil {
			return nil, &holdfast.Error{Kind: holdfast.Invalid, What: "since is not a time", Where: "since", Do: "write it as 2006-01-02T15:04:05Z"}
		}
	}
	ctx := c.Context()
	changed := make(chan struct{}, 1)
	go s.Changes.Listen(ctx, func(t view.Topic) {
		if t == view.TopicFindings {
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	})
	c.w.Header().Set("Content-Type", "application/x-ndjson")
	c.w.Header().Set("Cache-Control", "no-store")
	out, flush := json.NewEncoder(c.w), http.NewResponseController(c.w)
	_ = flush.SetWriteDeadline(time.Time{})
	seen := map[string]bool{}
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		page, err := c.read.Findings(ctx, view.FindingQuery{Page: 1, Size: followSize})
		if err != nil {
			return streamed{}, err
		}
		fresh := map[string]bool{}
		for i := len(page.Findings) - 1; i >= 0; i-- {
			f := page.Findings[i]
			fresh[f.ID] = true
			if seen[f.ID] || f.Received.Before(since) {
				continue
			}
			if err := out.Encode(f); err != nil {
				return streamed{}, err
			}
		}
		seen = fresh
		if _, err := c.w.Write([]byte("\n")); err != nil {
			return streamed{}, err
		}
		if err := flush.Flush(); err != nil {
			return streamed{}, err
		}
		select {
		case <-ctx.Done():
			return streamed{}, nil
		case <-changed:
		case <-tick.C:
		}
	}
}

func paging(c *call) (page, size int, err error) {
	p, err := number(c, "page", 1)
	if err != nil {
		return 0, 0, err
	}
	n, err := number(c, "size", 50)
	if err != nil {
		return 0, 0, err
	}
	return int(max(1, p)), int(min(max(1, n), 500)), nil
}

func number(c *call, name string, otherwise int64) (int64, error) {
	v := c.URL.Query().Get(name)
	if v == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 {
		return 0, &holdfast.Error{Kind: holdfast.Invalid, What: strconv.Quote(v) + " is not a number", Where: name}
	}
	return n, nil
}
