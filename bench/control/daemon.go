//go:build linux

package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/edge/store"
	"github.com/holdfast-security/holdfast/internal/endpoint/uplink"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

// furnish makes what holdfastd starts from: keys of a ceremony, the authority
// that enrolled the fleet, and a database that knows the hosts.
func furnish(ctx context.Context, dir string, fleet []*uplink.Identity) error {
	now := time.Now()
	if _, err := tuf.Init(filepath.Join(dir, "desk"), tuf.Ceremony{Domain: tuf.Drill, Keys: filepath.Join(dir, "keys")}, now); err != nil {
		return err
	}
	state := filepath.Join(dir, "state")
	if err := os.MkdirAll(state, 0o700); err != nil {
		return err
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca", "hosts-ca.pem"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(state, "hosts-ca.pem"), ca, 0o600); err != nil {
		return err
	}
	return enter(ctx, filepath.Join(state, "holdfast.db"), fleet, now)
}

// enter makes a database that knows the hosts. It is made in memory: each host
// is a transaction, and waiting for the disk as often is nothing to measure.
func enter(ctx context.Context, file string, fleet []*uplink.Identity, now time.Time) (err error) {
	shm := ""
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		shm = "/dev/shm"
	}
	dir, err := os.MkdirTemp(shm, "holdfast-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "holdfast.db")
	s, err := store.Open(ctx, name)
	if err != nil {
		return err
	}
	for i, id := range fleet {
		h := holdfast.Host{ID: id.Host, Org: id.Org, Attributes: attributes(i), Simulated: true, Enrolled: now, LastSeen: now}
		if err := s.CreateHost(ctx, h); err != nil {
			return errors.Join(err, s.Close())
		}
	}
	if err := s.Close(); err != nil {
		return err
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o600)
}

// startDaemon starts holdfastd on what furnish made.
func (s site) startDaemon() (*process, error) {
	console, err := freeAddress()
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "holdfastd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p := &process{cmd: exec.Command(filepath.Join(s.bin, "holdfastd"),
		"--state", filepath.Join(s.dir, "state"), "--keys", filepath.Join(s.dir, "keys", "online"),
		"--hosts", s.address, "--console", console, "--heartbeat", s.heartbeat.String(), "--log", "warn")}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	return p, p.cmd.Start()
}
