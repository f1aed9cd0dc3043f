package console

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/view"
)

// TestBrowser walks the main paths in Chromium (web/console.test.mjs): with and
// without JavaScript, wide and narrow, light and dark. HOLDFAST_SHOTS names a
// directory for screenshots.
func TestBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("a browser test; run without -short")
	}
	web, err := filepath.Abs("../../../web")
	if err != nil {
		t.Fatal(err)
	}
	chromium := os.Getenv("CHROMIUM")
	if chromium == "" {
		chromium = "/usr/bin/chromium"
	}
	for what, path := range map[string]string{"Chromium (apt install chromium, or set CHROMIUM)": chromium, "playwright-core (npm ci --prefix web)": filepath.Join(web, "node_modules", "playwright-core")} {
		if _, err := os.Stat(path); err != nil {
			t.Skipf("needs %s: %v", what, err)
		}
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skipf("needs node: %v", err)
	}
	if !readAssets().live() {
		t.Skip("needs the pages' scripts: make web (npm run --prefix web vendor)")
	}

	f := newFixture(time.Now().UTC().Truncate(time.Second))
	cfg := testConfig(f)
	cfg.Now, cfg.Version = time.Now, "0.1.0, showing test data"
	c := New(cfg)
	for name, role := range map[string]holdfast.Role{"olga": holdfast.Operator, "vic": holdfast.Viewer} {
		if err := f.CreateUser(t.Context(), holdfast.User{Name: name, Org: holdfast.DefaultOrg, Role: role, Created: f.now}, "correct horse battery", "test"); err != nil {
			t.Fatal(err)
		}
	}
	link, err := c.SignInLink(t.Context(), "root")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", c)
	// What the script asks the world to do while it watches.
	mux.HandleFunc("POST /test/finding", func(http.ResponseWriter, *http.Request) {
		f.mu.Lock()
		n := f.found[1]
		n.ID, n.Title, n.Severity, n.At = "fresh", ruleRows[6].Title, ruleRows[6].Level, time.Now()
		f.found = append([]holdfast.Finding{n}, f.found...)
		f.mu.Unlock()
		f.hint(view.TopicFindings)
	})
	s := httptest.NewServer(mux)
	defer s.Close()

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, "console.test.mjs", s.URL, link)
	cmd.Dir = web
	cmd.Env = append(os.Environ(), "CHROMIUM="+chromium)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}
