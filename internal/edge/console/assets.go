package console

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"
)

// assetFiles holds our own files, and below vendor what `make web` copied from
// npm packages. Without the latter, pages work and look alike, but are not live.
//
//go:embed all:assets
var assetFiles embed.FS

// assets maps a name below /assets/ to the file.
type assets map[string]asset

type asset struct {
	body    []byte
	version string // changes with the body
}

func readAssets() assets {
	all := assets{}
	_ = fs.WalkDir(assetFiles, "assets", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := assetFiles.ReadFile(p)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(b)
		all[strings.TrimPrefix(p, "assets/")] = asset{b, hex.EncodeToString(sum[:6])}
		return nil
	})
	return all
}

// has reports whether a file was embedded.
func (a assets) has(name string) bool { _, ok := a[name]; return ok }

// live reports whether everything a live page needs was embedded.
func (a assets) live() bool {
	return a.has("vendor/htmx.js") && a.has("vendor/sse.js") && a.has("vendor/morph.js") && a.has("vendor/uplot.js")
}

// url is the address of a file, which may be cached for ever.
func (a assets) url(name string) string { return "/assets/" + name + "?v=" + a[name].version }

// ServeHTTP serves /assets/<name>.
func (a assets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/assets/")
	f, ok := a[name]
	if !ok {
		http.Error(w, "no such file", http.StatusNotFound)
		return
	}
	if t := mime.TypeByExtension(path.Ext(name)); t != "" {
		w.Header().Set("Content-Type", t)
	}
	if path.Ext(name) == ".woff2" {
		w.Header().Set("Content-Type", "font/woff2")
	}
	if r.URL.Query().Get("v") == f.version {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	} else {
		w.Header().Set("Cache-Control", "no-cache")
	}
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(f.body))
}
