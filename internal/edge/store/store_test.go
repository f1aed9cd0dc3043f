package store_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast/internal/edge/store"
)

var t0 = time.Date(2026, 11, 21, 18, 0, 0, 123456789, time.UTC)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openSQLite(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), filepath.Join(scratch(t, "hfdb"), "holdfast.db"))
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// scratch is a directory with a short name, in memory where there is some: the
// suite syncs often, and what it tests is not the disk.
func scratch(t *testing.T, name string) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", name)
	if err != nil {
		dir, err = os.MkdirTemp("", name)
	}
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestSQLite(t *testing.T) {
	conformance(t, openSQLite)
}

// TestPostgreSQL runs the same suite on a server of its own, if PostgreSQL is
// installed here.
func TestPostgreSQL(t *testing.T) {
	url := startPostgreSQL(t)
	n := 0
	conformance(t, func(t *testing.T) *store.Store {
		t.Helper()
		n++
		schema := fmt.Sprintf("suite%d", n)
		admin, err := store.Open(t.Context(), url)
		must(t, err)
		must(t, admin.Exec(t.Context(), "CREATE SCHEMA "+schema))
		must(t, admin.Close())
		s, err := store.Open(t.Context(), url+"&search_path="+schema)
		must(t, err)
		t.Cleanup(func() { must(t, s.Close()) })
		return s
	})
}

// startPostgreSQL starts a server that listens on a socket in a directory of
// its own, and no port. initdb refuses root, so it runs as user postgres then.
func startPostgreSQL(t *testing.T) (url string) {
	t.Helper()
	initdb, err := exec.LookPath("initdb")
	if err != nil {
		found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
		if len(found) == 0 {
			t.Skip("PostgreSQL is not installed here: the suite ran on SQLite only")
		}
		initdb = found[len(found)-1]
	}
	if initdb, err = filepath.EvalSymlinks(initdb); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Dir(initdb)
	dir := scratch(t, "hfpg") // short: a socket's path has at most 107 bytes
	attr := &syscall.SysProcAttr{}
	if os.Geteuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Skip("root may not run PostgreSQL, and there is no user postgres")
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		must(t, os.Chown(dir, uid, gid))
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	run := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, name), args...)
		cmd.Dir, cmd.SysProcAttr = dir, attr
		cmd.Env = []string{"LC_ALL=C", "PATH=/usr/bin:/bin", "HOME=" + dir}
		return cmd
	}
	data := filepath.Join(dir, "data")
	if out, err := run("initdb", "-D", data, "-U", "holdfast", "--auth=trust", "--encoding=UTF8", "--no-sync").CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	server := run("postgres", "-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=100")
	var log strings.Builder
	server.Stderr = &log
	must(t, server.Start())
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGINT) // fast shutdown
		_ = server.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	url = fmt.Sprintf("postgres://holdfast@/postgres?host=%s&sslmode=disable", dir)
	for range 100 {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		s, err := store.Open(ctx, url)
		cancel()
		if err == nil {
			must(t, s.Close())
			return url
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("PostgreSQL did not start")
	return ""
}
