package holdfast_test

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/holdfast-security/holdfast"

// wings says what each wing, or a room of its own line, may import from this
// module besides itself. The longest matching prefix decides.
var wings = map[string][]string{
	"":                           {},
	"internal/language":          {""},
	"internal/trust":             {""},
	"internal/wire":              {""},
	"internal/endpoint":          {"", "internal/language", "internal/trust", "internal/wire"},
	"internal/endpoint/lifeline": {""},
	"internal/endpoint/guard":    {"", "internal/endpoint/lifeline"},
	"internal/control":           {"", "internal/language", "internal/trust"},
	"internal/control/rollout":   {""},
	"internal/control/fleet":     {"", "internal/language/consent"},
	"internal/view":              {""},
	"internal/edge":              {"", "internal/view", "internal/language", "internal/trust", "internal/wire", "internal/control"},
	"internal/sim":               {"", "internal/language", "internal/trust", "internal/wire", "internal/control", "internal/endpoint"},
	"internal/client":            {"", "internal/wire"},
	"internal/stage":             {"", "internal/language", "internal/trust", "internal/wire", "internal/client", "internal/view"},
	"content":                    {""},
	"cmd":                        {"", "internal", "content"},
	"bench":                      {"", "internal", "content"},
}

// soleImporters lists dependencies that only one place may import.
var soleImporters = map[string][]string{
	"github.com/cilium/ebpf":                  {"internal/endpoint/sensor"},
	"github.com/theupdateframework/go-tuf/v2": {"internal/trust/tuf"},
	"modernc.org/sqlite":                      {"internal/edge/store"},
	"github.com/jackc/pgx/v5":                 {"internal/edge/store"},
	"github.com/pressly/goose/v3":             {"internal/edge/store"},

	"go.yaml.in/yaml/v3":                        {"internal/language", "internal/sim", "cmd/holdfast"},
	"github.com/open-telemetry/opamp-go/client": {"internal/endpoint/uplink"},
	"github.com/open-telemetry/opamp-go/server": {"internal/edge/opamp", "bench/control"}, // the bench measures it plainly, beside ours
}

type listed struct {
	ImportPath string
	Imports    []string
	Deps       []string
	Standard   bool
}

func list(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports,Deps,Standard"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var all []listed
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var p listed
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

func within(pkg, prefix string) bool {
	return pkg == prefix || prefix != "" && strings.HasPrefix(pkg, prefix+"/")
}

func ours(importPath string) (string, bool) {
	if importPath == module {
		return "", true
	}
	return strings.CutPrefix(importPath, module+"/")
}

func lineFor(pkg string) (string, []string, bool) {
	best, ok := "", false
	for w := range wings {
		if (within(pkg, w) || pkg == w) && (!ok || len(w) > len(best)) {
			best, ok = w, true
		}
	}
	return best, wings[best], ok
}

func TestImportTable(t *testing.T) {
	for _, p := range list(t, "./...") {
		pkg, ok := ours(p.ImportPath)
		if !ok {
			continue
		}
		wing, may, ok := lineFor(pkg)
		if !ok {
			t.Errorf("%s stands in no wing: give it a line in the import table, or move it", pkg)
			continue
		}
		for _, imp := range p.Imports {
			if dep, isOurs := ours(imp); isOurs {
				allowed := within(dep, wing) || slices.ContainsFunc(may, func(m string) bool { return within(dep, m) })
				if !allowed {
					t.Errorf("%s imports %s, which its line does not allow", pkg, dep)
				}
				continue
			}
			for dep, importers := range soleImporters {
				if within(imp, dep) && !slices.ContainsFunc(importers, func(m string) bool { return within(pkg, m) }) {
					t.Errorf("%s imports %s; only %v may", pkg, imp, importers)
				}
			}
		}
	}
}

// closure returns the non-standard dependencies of a command, ours by room and
// others by import path.
func closure(t *testing.T, cmd string) (rooms, others []string) {
	t.Helper()
	std := map[string]bool{}
	for _, p := range list(t, "-deps", "./cmd/"+cmd) {
		if p.Standard {
			std[p.ImportPath] = true
		}
	}
	for _, p := range list(t, "./cmd/"+cmd) {
		for _, d := range p.Deps {
			if dep, ok := ours(d); ok {
				rooms = append(rooms, dep)
			} else if !std[d] {
				others = append(others, d)
			}
		}
	}
	return rooms, others
}

func TestGuardIsStandardLibraryAndLeafRooms(t *testing.T) {
	rooms, others := closure(t, "holdfast-guard")
	for _, r := range rooms {
		if r != "" && r != "internal/endpoint/guard" && r != "internal/endpoint/lifeline" {
			t.Errorf("holdfast-guard depends on room %s", r)
		}
	}
	for _, o := range others {
		t.Errorf("holdfast-guard depends on %s, which is not the standard library", o)
	}
}

func TestAgentHasNoServerInIt(t *testing.T) {
	rooms, others := closure(t, "holdfast-agent")
	for _, r := range rooms {
		if within(r, "internal/control") || within(r, "internal/edge") || within(r, "internal/sim") {
			t.Errorf("holdfast-agent depends on room %s", r)
		}
	}
	for _, o := range others {
		if base := path.Base(o); strings.Contains(o, "sql") || base == "templ" || strings.HasPrefix(o, "google.golang.org/grpc") {
			t.Errorf("holdfast-agent depends on %s", o)
		}
	}
}
