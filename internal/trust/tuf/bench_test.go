package tuf_test

import (
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

// counting counts the bytes of bodies.
type counting struct{ bytes, requests *int64 }

func (c counting) RoundTrip(r *http.Request) (*http.Response, error) {
	*c.requests++
	res, err := http.DefaultTransport.RoundTrip(r)
	if err == nil {
		res.Body = counted{res.Body, c.bytes}
	}
	return res, err
}

type counted struct {
	io.ReadCloser
	n *int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	*c.n += int64(n)
	return n, err
}

// BenchmarkRefresh is one host's refresh with the most releases that a channel
// keeps: while nothing changes, after its ring changed, and from nothing.
func BenchmarkRefresh(b *testing.B) {
	in := install(b, tuf.Production)
	var changes []tuf.Change
	for i := range 200 {
		changes = append(changes, newContent(time.Duration(i).String()))
	}
	in.change(publishers, changes...)
	a, d := holdfast.DigestOf([]byte(time.Duration(198).String())), holdfast.DigestOf([]byte(time.Duration(199).String()))
	in.approve("internal", current(a))
	var bytes, requests int64
	cfg := in.config()
	cfg.HTTP = &http.Client{Transport: counting{&bytes, &requests}}
	cfg.Host = "host-0" // general
	client := func() *tuf.Client {
		c, err := tuf.NewClient(cfg)
		in.must(err)
		return c
	}
	for _, c := range []struct {
		name   string
		before func() *tuf.Client
	}{
		{"idle", func() func() *tuf.Client {
			c := client()
			in.refresh(c)
			return func() *tuf.Client { return c }
		}()},
		{"ring-changed", func() func() *tuf.Client {
			c := client()
			in.refresh(c)
			return func() *tuf.Client {
				in.approve("general", current(d), previous(a))
				d, a = a, d
				return c
			}
		}()},
		{"first", client},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			bytes, requests = 0, 0
			for b.Loop() {
				b.StopTimer()
				cl := c.before()
				b.StartTimer()
				in.refresh(cl)
			}
			b.ReportMetric(float64(bytes)/float64(b.N), "body-B/op")
			b.ReportMetric(float64(requests)/float64(b.N), "requests/op")
		})
	}
}
