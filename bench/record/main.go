// Command record runs a program and writes what it and its descendants start,
// as this host's sensor sees it, in the form that the sensor replays and scan
// reads: one JSON object a line. It needs the rights of the sensor (root).
//
//	go run ./bench/record -o launches.jsonl make test
//
// The arguments of what runs are in the file: look at it before you give it away.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/sensor"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
)

func main() {
	out := flag.String("o", "launches.jsonl", "`file` to write")
	flag.Parse()
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: record -o FILE PROGRAM [ARGUMENT…]")
		os.Exit(2)
	}
	n, lost, err := record(*out, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "record:", err)
		os.Exit(1)
	}
	fmt.Fprintf(os.Stderr, "%d launches, %d events lost\n", n, lost)
}

// launch is what is kept of one event.
type launch struct {
	Image             string `json:"Image"`
	CommandLine       string `json:"CommandLine,omitempty"`
	CurrentDirectory  string `json:"CurrentDirectory,omitempty"`
	User              string `json:"User,omitempty"`
	ParentImage       string `json:"ParentImage,omitempty"`
	ParentCommandLine string `json:"ParentCommandLine,omitempty"`
	ParentUser        string `json:"ParentUser,omitempty"`
}

func record(out string, program []string) (n int, lost uint64, err error) {
	s, err := sensor.Open(sensor.Options{Tier: sensor.TierEBPF})
	if err != nil {
		return 0, 0, err
	}
	defer s.Close()
	f, err := os.Create(out)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()

	cmd := exec.Command(program[0], program[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	lines := json.NewEncoder(f)
	lines.SetEscapeHTML(false)
	var over time.Time // a moment after the end, for what is under way
	for over.IsZero() || time.Now().Before(over) {
		select {
		case <-ended:
			over = time.Now().Add(time.Second)
		default:
		}
		e, err := s.Next(time.Now().Add(50 * time.Millisecond))
		if err != nil {
			return n, 0, err
		}
		ours := func(p holdfast.Process) bool { return p.PID == cmd.Process.Pid }
		if e == nil || e.Values[ocsf.ActivityID].Num != ocsf.ActivityLaunch || !slices.ContainsFunc(s.Tree(64), ours) {
			continue
		}
		text := func(field int) string { return e.Values[field].Text() }
		err = lines.Encode(launch{
			text(ocsf.ProcessPath), text(ocsf.ProcessCmdLine), text(ocsf.ProcessDirectory), text(ocsf.ProcessUserName),
			text(ocsf.ParentPath), text(ocsf.ParentCmdLine), text(ocsf.ParentUserName),
		})
		if err != nil {
			return n, 0, err
		}
		n++
	}
	return n, s.Counters().Dropped, nil
}
