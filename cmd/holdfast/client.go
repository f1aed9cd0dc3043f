package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast-security/holdfast"
)

// cliConfig is the file cli.json: which server, and the token to show it. It
// is looked for in ./.holdfast (where the demo writes it), then in the user's
// configuration directory under holdfast.
type cliConfig struct {
	Server string `json:"server"`
	Token  string `json:"token"`
}

func findConfig() (cliConfig, error) {
	places := []string{filepath.Join(".holdfast", "cli.json")}
	if dir, err := os.UserConfigDir(); err == nil {
		places = append(places, filepath.Join(dir, "holdfast", "cli.json"))
	}
	for _, p := range places {
		raw, err := os.ReadFile(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return cliConfig{}, err
		}
		var c cliConfig
		if err := json.Unmarshal(raw, &c); err != nil {
			return cliConfig{}, &holdfast.Error{Kind: holdfast.Invalid, Where: p, Err: err}
		}
		return c, nil
	}
	return cliConfig{}, nil
}

// client speaks to the API of one server.
type client struct {
	base, token string
	http        http.Client
}

func (a *app) client() (*client, error) {
	c, err := findConfig()
	if err != nil {
		return nil, err
	}
	if a.server != "" {
		c.Server = a.server
	}
	if a.tokenFile != "" {
		raw, err := os.ReadFile(a.tokenFile)
		if err != nil {
			return nil, &holdfast.Error{Kind: holdfast.Invalid, What: "cannot read the API token", Err: err}
		}
		c.Token = strings.TrimSpace(string(raw))
	}
	if c.Server == "" {
		return nil, &holdfast.Error{
			Kind: holdfast.Invalid, What: "no server is known",
			Do: "start one with make run and stay in its folder, or give --server and --token-file",
		}
	}
	return &client{base: strings.TrimSuffix(c.Server, "/"), token: c.Token}, nil
}

// maxAnswer bounds what the client reads of one answer.
const maxAnswer = 64 << 20

func (c *client) do(ctx context.Context, method, path string, in, out any) error {
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
			return holdfast.Errorf(holdfast.Internal, "the server's answer to %s %s is not what this version reads: %w", method, path, err)
		}
		return nil
	}
}

// send returns the answer if it is a success, else its error as the server
// told it.
func (c *client) send(ctx context.Context, method, path, contentType string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, &holdfast.Error{Kind: holdfast.Invalid, What: "not a server address", Where: c.base, Err: err}
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	if body != nil {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &holdfast.Error{Kind: holdfast.Unavailable, What: "cannot reach the server at " + c.base, Err: err, Do: "is holdfastd running?"}
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var told apiError
	if json.Unmarshal(raw, &told) != nil || told.What == "" {
		told = apiError{Kind: "internal", What: fmt.Sprintf("%s %s: the server answered %s", method, path, resp.Status)}
	}
	return nil, told.err()
}

// apiError is how the API tells an error (package api, Problem).
type apiError struct {
	Kind  string `json:"kind"`
	What  string `json:"what"`
	Where string `json:"where,omitempty"`
	Do    string `json:"do,omitempty"`
}

func (e apiError) err() error {
	kind := holdfast.Internal
	for k := holdfast.Internal; k <= holdfast.Unavailable; k++ {
		if k.String() == e.Kind {
			kind = k
		}
	}
	return &holdfast.Error{Kind: kind, What: e.What, Where: e.Where, Do: e.Do}
}
