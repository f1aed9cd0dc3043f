//go:build linux

package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// site is where one server is measured: it may be started there again.
type site struct {
	kind      string // one of kinds
	dir       string
	bin       string
	address   string
	heartbeat time.Duration
}

func newSite(kind, dir, bin string, heartbeat time.Duration) (site, error) {
	address, err := freeAddress()
	return site{kind, dir, bin, address, heartbeat}, err
}

// freeAddress is a loopback address that was free a moment ago.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// process is a server under measurement.
type process struct {
	cmd *exec.Cmd
	// What is told to it, a line at a time, and its answers, a line each; nil for
	// holdfastd, which is told nothing.
	in  *bufio.Writer
	out *bufio.Scanner
}

func (s site) start() (p *process, err error) {
	if s.kind == "holdfastd" {
		p, err = s.startDaemon()
	} else {
		p, err = s.startServe()
	}
	if err == nil {
		if err = answers(s.address, time.Minute); err != nil {
			p.kill()
		}
	}
	return p, err
}

func (s site) startServe() (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(self, "serve", s.kind, filepath.Join(s.dir, "ca"), s.address, s.heartbeat.String())}
	p.cmd.Stderr = os.Stderr
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.in, p.out = bufio.NewWriter(in), bufio.NewScanner(out)
	return p, p.cmd.Start()
}

// tell has a command carried out, and returns when that is done.
func (p *process) tell(command string) error {
	if _, err := p.in.WriteString(command + "\n"); err != nil {
		return err
	}
	if err := p.in.Flush(); err != nil {
		return err
	}
	if !p.out.Scan() {
		return fmt.Errorf("the server process ended: %v", p.out.Err())
	}
	return nil
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	_ = p.cmd.Wait()
}

// cpu is the processor time the process has used, in seconds.
func (p *process) cpu() (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(b), ") ") // the name may hold spaces
	fields := strings.Fields(after)
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/PID/stat has %d fields", len(fields))
	}
	var ticks uint64
	for _, f := range fields[11:13] { // utime, stime: proc_pid_stat(5)
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return float64(ticks) / 100, nil // USER_HZ
}

// resident is the memory of the process that is in RAM, in bytes.
func (p *process) resident() (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	pages, err := strconv.ParseUint(strings.Fields(string(b))[1], 10, 64)
	return float64(pages * uint64(os.Getpagesize())), err
}

// answers waits until somebody listens at an address.
func answers(address string, limit time.Duration) error {
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", address)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(end) {
			return err
		}
	}
}
