// Package client speaks to the HTTP API of a holdfastd.
package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/wire/apiv1"
)

// maxAnswer bounds what is read of one answer.
const maxAnswer = 256 << 20

// Client speaks to one server. It is safe for concurrent use.
type Client struct {
	Base  string // "http://127.0.0.1:8480"
	Token string // bearer token; empty for what needs none
	HTTP  http.Client
}

// Get decodes the answer to GET path into out, which may be a *[]byte.
func (c *Client) Get(ctx context.Context, path string, out any) error {
	return c.Do(ctx, http.MethodGet, path, nil, out)
}

// Post sends in as JSON and decodes the answer into out, which may be nil.
func (c *Client) Post(ctx context.Context, path string, in, out any) error {
	return c.Do(ctx, http.MethodPost, path, in, out)
}

// Do sends in (nil, []byte as it is, anything else as JSON) and decodes the
// answer into out (nil, *[]byte as it is, anything else from JSON). An error
// the server tells is returned with its kind.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	kind := "application/json"
	switch in := in.(type) {
	case nil:
	case []byte:
		body, kind = bytes.NewReader(in), "application/octet-stream"
	default:
		raw, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(raw)
	}
	resp, err := c.send(ctx, method, path, kind, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return &holdfast.Error{Kind: holdfast.Unavailable, What: "the server's answer broke off", Err: err}
	}
	switch out := out.(type) {
	case nil:
		return nil
	case *[]byte:
		*out = raw
		return nil
	default:
		if err := json.Unmarshal(raw, out); err != nil {
			return holdfast.Errorf(holdfast.Internal, "the answer to %s %s is not what this version reads: %w", method, path, err)
		}
		return nil
	}
}

// Follow calls f with each JSON object of a stream of lines until the stream or
// ctx ends, or f fails.
func (c *Client) Follow(ctx context.Context, path string, f func(json.RawMessage) error) error {
	resp, err := c.send(ctx, http.MethodGet, path, "", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue // keep-alive
		}
		if err := f(json.RawMessage(lines.Bytes())); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return &holdfast.Error{Kind: holdfast.Unavailable, What: "the server ended the stream", Err: lines.Err()}
}

func (c *Client) send(ctx context.Context, method, path, contentType string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.Base, "/")+path, body)
	if err != nil {
		return nil, &holdfast.Error{Kind: holdfast.Invalid, What: "not a server address", Where: c.Base, Err: err}
	}
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	if body != nil {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &holdfast.Error{Kind: holdfast.Unavailable, What: "cannot reach the server at " + c.Base, Err: err, Do: "is holdfastd running?"}
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var told apiv1.Problem
	if json.Unmarshal(raw, &told) != nil || told.What == "" {
		told = apiv1.Problem{Kind: holdfast.Internal.String(), What: fmt.Sprintf("%s %s: the server answered %s", method, path, resp.Status)}
	}
	return nil, told.Err()
}
