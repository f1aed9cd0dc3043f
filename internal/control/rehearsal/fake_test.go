package rehearsal

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/rehearse"
)

// fake is a sensor build with a fault of its own: this test program, with the
// fault's name behind its last byte. It is the engine that hosts run, around
// which something goes wrong.
func fake(args []string) int {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return 3
	}
	_, fault, _ := strings.Cut(string(self[max(0, len(self)-100):]), "\nfault=")
	switch args[0] {
	case "manifest":
		_ = json.NewEncoder(os.Stdout).Encode(ocsf.Manifest("fake-"+fault, runtime.GOOS+"/"+runtime.GOARCH))
		return 0
	case "rehearse":
		data, err := os.ReadFile(args[2])
		if err != nil {
			return 3
		}
		in, out := io.Pipe()
		go meddle(fault, data, out)
		if err := rehearse.Serve(data, map[int]int{ocsf.ProcessActivityUID: ocsf.ProcessInputs}, in, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	return fakeRun(fault, args)
}

// meddle passes requests on, and has the fault when a rule that looks for nginx
// sees one.
func meddle(fault string, bundle []byte, out *io.PipeWriter) {
	defer out.Close()
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, rehearse.MaxLine)
	for lines.Scan() {
		line := lines.Bytes()
		if bytes.Contains(bundle, []byte("nginx")) && bytes.Contains(line, []byte("nginx")) {
			var r rehearse.Request
			_ = json.Unmarshal(line, &r)
			switch fault {
			case "hang":
				fmt.Printf("{\"begin\":%d}\n", r.N)
				time.Sleep(time.Hour) // not select {}: the runtime may see that as a deadlock, and die
			case "leak":
				var hoard [][]byte
				for {
					hoard = append(hoard, bytes.Repeat([]byte("x"), 16<<20))
					time.Sleep(time.Millisecond * time.Duration(len(hoard)%2))
				}
			case "exit":
				os.Exit(7)
			case "blind":
				for name := range r.Fields {
					if strings.HasPrefix(name, "process.parent_process.") {
						delete(r.Fields, name)
					}
				}
				line, _ = json.Marshal(r)
			}
		}
		if _, err := out.Write(append(line, '\n')); err != nil {
			return
		}
	}
}

// fakeRun is a worker that beats, and dies in probation if that is its fault.
func fakeRun(fault string, args []string) int {
	guard := os.NewFile(3, "lifeline")
	fmt.Fprintln(guard, `{"kind":"ready"}`)
	trial := strings.Contains(strings.Join(args, " "), "sha256:")
	go func() {
		for lines := bufio.NewScanner(os.NewFile(4, "lifeline")); lines.Scan(); {
			if strings.Contains(lines.Text(), `"drain"`) {
				os.Exit(0)
			}
		}
	}()
	for n := 0; ; n += 100 {
		if _, err := fmt.Fprintf(guard, "{\"kind\":\"beat\",\"evaluated\":%d}\n", n); err != nil {
			return 0
		}
		if trial && n == 200 && fault == "dies in probation" {
			return 9
		}
		time.Sleep(50 * time.Millisecond)
	}
}
