// Command finding measures how long a finding takes from the action on a host
// to the API that the console reads: it runs a harmless line that a default rule
// finds, again and again, on a Holdfast that is running (make run).
//
//	go run ./bench/finding [-n 50] [-config .holdfast/cli.json] [-json]
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/content"
	"github.com/holdfast-security/holdfast/internal/client"
)

func main() {
	n := flag.Int("n", 50, "how many findings")
	config := flag.String("config", ".holdfast/cli.json", "file that names the server, as the demo writes it")
	asJSON := flag.Bool("json", false, "print JSON")
	flag.Parse()
	took, err := measure(*config, *n)
	if err != nil {
		fmt.Fprintln(os.Stderr, "finding:", err)
		os.Exit(1)
	}
	slices.Sort(took)
	at := func(p float64) float64 { return took[min(len(took)-1, int(p*float64(len(took))))].Seconds() }
	if *asJSON {
		_ = json.NewEncoder(os.Stdout).Encode(map[string]any{"findings": len(took), "p50_s": at(.5), "p95_s": at(.95), "max_s": took[len(took)-1].Seconds()})
		return
	}
	fmt.Printf("action to console, %d findings: p50 %.3f s, p95 %.3f s, max %.3f s\n", len(took), at(.5), at(.95), took[len(took)-1].Seconds())
}

func measure(config string, n int) ([]time.Duration, error) {
	raw, err := os.ReadFile(config)
	if err != nil {
		return nil, err
	}
	var c struct{ Server, Token string }
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(n)*2*time.Second+30*time.Second)
	defer cancel()
	arrived := make(chan string, n)
	go func() {
		defer close(arrived)
		_ = (&client.Client{Base: c.Server, Token: c.Token}).Follow(ctx, "/api/v1/findings/follow", func(line json.RawMessage) error {
			var f holdfast.Finding
			if err := json.Unmarshal(line, &f); err != nil {
				return err
			}
			for _, fact := range f.Event {
				if _, mark, ok := strings.Cut(fact.Value, "measured-"); ok && fact.Field == "process.cmd_line" {
					arrived <- mark
				}
			}
			return nil
		})
	}()
	time.Sleep(time.Second) // the stream is open
	var took []time.Duration
	line := strings.Fields(content.Paste)
	for i := range n {
		mark := fmt.Sprintf("%d-%d", os.Getpid(), i)
		began := time.Now()
		if err := exec.Command(line[0], append(line[1:], "measured-"+mark)...).Run(); err != nil {
			return nil, err
		}
		for got := range arrived {
			if got == mark {
				took = append(took, time.Since(began))
				break
			}
		}
		if ctx.Err() != nil || len(took) != i+1 {
			return nil, errors.New("a finding did not arrive: is the host's sensor ebpf, and its content the default?")
		}
		time.Sleep(200 * time.Millisecond)
	}
	return took, nil
}
