package stage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/client"
	"github.com/holdfast-security/holdfast/internal/wire/apiv1"
)

// Config says what a stage is made of.
type Config struct {
	// State is the one folder that holds everything: keys, server, hosts, logs.
	State string
	// Bin is the folder of the four binaries.
	Bin string
	// HostsAt and ConsoleAt are the server's two addresses.
	HostsAt, ConsoleAt string
	// Heartbeat is the clock: every window scales with it.
	Heartbeat time.Duration
	// Domain is the trust domain, "production" or "drill".
	Domain string
	// Serve is flags of the server's, on top of the stage's.
	Serve []string
	// Say prints one line about what happens.
	Say func(format string, args ...any)
}

// Stage is a running Holdfast.
type Stage struct {
	Config
	*Troupe
	Server *Process
	// Admin speaks as the administrator.
	Admin *client.Client
}

// The people a stage plays. A release needs two.
const (
	Publisher = "publisher"
	Approver  = "approver"
)

// Open checks that the addresses are free, holds the ceremony if there are no
// keys yet, and starts the server.
func Open(ctx context.Context, c Config) (*Stage, error) {
	for name, addr := range map[string]string{"--console": c.ConsoleAt, "--hosts-address": c.HostsAt} {
		if err := free(name, addr); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(c.State, 0o700); err != nil {
		return nil, err
	}
	troupe, err := NewTroupe(filepath.Join(c.State, "logs"))
	if err != nil {
		return nil, err
	}
	s := &Stage{Config: c, Troupe: troupe}
	if err := s.raise(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Stage) raise(ctx context.Context) error {
	if _, err := os.Stat(s.Path("desk")); errors.Is(err, fs.ErrNotExist) {
		if err := s.Run(ctx, "", nil, "trust", "init", "--desk", s.Path("desk"), "--keys", s.Path("keys"), "--domain", s.Domain); err != nil {
			return err
		}
	}
	if err := s.StartServer(ctx, "holdfastd"); err != nil {
		return err
	}
	if err := s.hire(ctx); err != nil {
		return err
	}
	return s.Run(ctx, Publisher, nil, "trust", "publish", "--desk", s.Path("desk"))
}

// StartServer starts a server (again) and waits until it answers.
func (s *Stage) StartServer(ctx context.Context, program string) error {
	args := append([]string{
		"--state", s.Path("server"), "--keys", s.Path("keys/online"), "--hosts", s.HostsAt, "--console", s.ConsoleAt, "--heartbeat", s.Heartbeat.String(), "--demo",
	}, s.Serve...)
	p, err := s.Start("holdfastd", nil, s.Program(program), args...)
	if err != nil {
		return err
	}
	s.Server = p
	return Until(ctx, 30*time.Second, 50*time.Millisecond, "the server to answer", []*Process{p}, func() (bool, error) {
		if s.Admin == nil {
			token, err := os.ReadFile(s.Path("server/admin-token"))
			if err != nil {
				return false, nil
			}
			s.Admin = &client.Client{Base: "http://" + s.ConsoleAt, Token: strings.TrimSpace(string(token))}
		}
		var any json.RawMessage
		err := s.Admin.Get(ctx, "/api/v1/builds", &any)
		return err == nil, err
	})
}

// hire makes the two people whom a release takes, and writes cli.json so that
// commands typed in another terminal find the server.
func (s *Stage) hire(ctx context.Context) error {
	for name, role := range map[string]holdfast.Role{Publisher: holdfast.Publisher, Approver: holdfast.Operator} {
		file := s.tokenOf(name)
		if _, err := os.Stat(file); err == nil {
			continue
		}
		if err := s.Admin.Post(ctx, "/api/v1/users", apiv1.NewUser{Name: name, Role: role}, nil); err != nil && holdfast.KindOf(err) != holdfast.Conflict {
			return err
		}
		var a apiv1.TokenAnswer
		if err := s.Admin.Post(ctx, "/api/v1/users/"+name+"/tokens", nil, &a); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(a.Token+"\n"), 0o600); err != nil {
			return err
		}
	}
	raw, err := json.Marshal(map[string]string{"server": s.Admin.Base, "token": s.Admin.Token})
	if err != nil {
		return err
	}
	return os.WriteFile(s.Path("cli.json"), raw, 0o600)
}

func (s *Stage) tokenOf(person string) string { return s.Path("keys/" + person + ".token") }

// Run runs one command line of holdfast as a person ("" needs no server) and
// decodes its JSON into out, if out is not nil.
func (s *Stage) Run(ctx context.Context, person string, out any, args ...string) error {
	cmd := exec.CommandContext(ctx, s.Program("holdfast"), append(args, "--json")...)
	cmd.WaitDelay = time.Second
	cmd.Env = os.Environ()
	if person != "" {
		cmd.Env = append(cmd.Env, "HOLDFAST_SERVER="+s.Admin.Base, "HOLDFAST_TOKEN_FILE="+s.tokenOf(person))
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &holdfast.Error{
			Kind: kindOfExit(cmd.ProcessState.ExitCode()), What: strings.TrimSpace(strings.TrimPrefix(stderr.String(), "holdfast: ")),
			Where: "holdfast " + strings.Join(args, " "), Err: errOrNil(stderr.Len() == 0, err),
		}
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(stdout.Bytes(), out); err != nil {
		return fmt.Errorf("holdfast %s: not JSON: %w", args[0], err)
	}
	return nil
}

func errOrNil(tell bool, err error) error {
	if tell {
		return err
	}
	return nil
}

func kindOfExit(code int) holdfast.Kind {
	for k := holdfast.Internal; k <= holdfast.Unavailable; k++ {
		if k.ExitCode() == code {
			return k
		}
	}
	return holdfast.Internal
}

func (s *Stage) Path(p string) string { return filepath.Join(s.State, filepath.FromSlash(p)) }

func (s *Stage) Program(name string) string { return filepath.Join(s.Bin, name) }

// free reports an address that something else listens on.
func free(flag, addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return &holdfast.Error{Kind: holdfast.Conflict, What: addr + " is taken", Err: err, Do: "stop what uses it, or choose another with " + flag}
	}
	return l.Close()
}

// AnyAddress returns a loopback address that was free a moment ago.
func AnyAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// EnrolmentToken writes a token for n hosts to a file and returns its path.
func (s *Stage) EnrolmentToken(ctx context.Context, n int, simulated bool) (string, error) {
	var a apiv1.EnrolmentAnswer
	ask := apiv1.EnrolmentRequest{Role: "server", Uses: n, Valid: time.Hour, Simulated: simulated}
	if simulated {
		ask.Role = "" // each plays a role of its own
	}
	if err := s.Admin.Post(ctx, "/api/v1/enrolments", ask, &a); err != nil {
		return "", err
	}
	file := s.Path(fmt.Sprintf("enrol-%s.token", a.ID))
	return file, os.WriteFile(file, []byte(a.Token+"\n"), 0o600)
}

// CopyFile copies a file, keeping it executable if it was.
func CopyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, info.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
