package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/client"
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

// client returns a client of the server that flags, environment or cli.json name.
func (a *app) client() (*client.Client, error) {
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
	return &client.Client{Base: c.Server, Token: c.Token}, nil
}
