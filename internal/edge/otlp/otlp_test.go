package otlp_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/slim/otlp/collector/logs/v1"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/edge/otlp"
	"github.com/holdfast-security/holdfast/internal/wire"
)

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// shelf stores by id and can fail, or take its time.
type shelf struct {
	mu    sync.Mutex
	found map[string]holdfast.Finding
	err   error
	hold  chan struct{}
}

func (s *shelf) AddFindings(_ context.Context, _ holdfast.HostID, found []holdfast.Finding) (int, error) {
	if s.hold != nil {
		<-s.hold
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	added := 0
	for _, f := range found {
		if _, ok := s.found[f.ID]; !ok {
			added++
		}
		s.found[f.ID] = f
	}
	return added, nil
}

func handler(s *shelf) *otlp.Handler {
	identify := func(r *http.Request) (holdfast.HostID, error) {
		if h := r.Header.Get("Test-Host"); h != "" {
			return holdfast.HostID(h), nil
		}
		return "", holdfast.Errorf(holdfast.Denied, "no certificate")
	}
	return otlp.New(s, identify, func() time.Time { return now }, slog.New(slog.DiscardHandler))
}

func records(t *testing.T, n int) [][]byte {
	t.Helper()
	var all [][]byte
	for i := range n {
		b, err := wire.MarshalFinding(holdfast.Finding{ID: fmt.Sprintf("f%d", i), Severity: "high", At: now, Host: "forged", Org: "forged"})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

func packed(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func post(h http.Handler, body io.Reader, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, wire.LogsPath, body)
	r.Header.Set("Content-Type", "application/x-protobuf")
	r.Header.Set("Test-Host", "host-1")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestFindingsAreStoredUnderTheHostOfTheCertificate(t *testing.T) {
	s := &shelf{found: map[string]holdfast.Finding{}}
	h := handler(s)
	body := wire.ExportRequest(holdfast.Attributes{Hostname: "web-1"}, records(t, 3))
	for _, c := range []struct {
		body   []byte
		header []string
	}{{body, nil}, {packed(t, body), []string{"Content-Encoding", "gzip"}}} {
		w := post(h, bytes.NewReader(c.body), c.header...)
		var answer collector.ExportLogsServiceResponse
		if err := proto.Unmarshal(w.Body.Bytes(), &answer); w.Code != 200 || err != nil || answer.PartialSuccess != nil {
			t.Fatalf("status %d, %v, %v", w.Code, err, &answer)
		}
	}
	if len(s.found) != 3 {
		t.Errorf("%d stored", len(s.found))
	}
	for _, f := range s.found {
		if f.Host != "host-1" || f.Org != "" || !f.Received.Equal(now) {
			t.Errorf("stored %+v", f)
		}
	}
}

func TestWhatIsNoFindingIsCountedNotRetried(t *testing.T) {
	s := &shelf{found: map[string]holdfast.Finding{}}
	all := append(records(t, 2), []byte{}, []byte{0x2a, 0x04, 0x0a, 0x02, '{', '}'})
	w := post(handler(s), bytes.NewReader(wire.ExportRequest(holdfast.Attributes{}, all)))
	var answer collector.ExportLogsServiceResponse
	if err := proto.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != 200 {
		t.Fatal(w.Code, err)
	}
	if p := answer.GetPartialSuccess(); p.GetRejectedLogRecords() != 2 || p.GetErrorMessage() == "" || len(s.found) != 2 {
		t.Errorf("%v, %d stored", p, len(s.found))
	}
}

// For each way to fail, what the host is to do: send it again (503 with a time),
// or never (4xx).
func TestEachFailureSaysWhetherToRetry(t *testing.T) {
	good := wire.ExportRequest(holdfast.Attributes{}, records(t, 1))
	bomb := packed(t, make([]byte, 64<<20))
	if len(bomb) > 1<<20 {
		t.Fatalf("the bomb is %d bytes", len(bomb))
	}
	for name, c := range map[string]struct {
		body   io.Reader
		header []string
		err    error
		status int
		retry  bool
	}{
		"no certificate":         {bytes.NewReader(good), []string{"Test-Host", ""}, nil, 403, false},
		"another kind of body":   {bytes.NewReader(good), []string{"Content-Type", "application/json"}, nil, 400, false},
		"another encoding":       {bytes.NewReader(good), []string{"Content-Encoding", "zstd"}, nil, 400, false},
		"not gzip":               {bytes.NewReader(good), []string{"Content-Encoding", "gzip"}, nil, 400, false},
		"not protobuf":           {strings.NewReader("hello"), nil, nil, 400, false},
		"too long":               {bytes.NewReader(make([]byte, wire.MaxRequest+1)), nil, nil, 400, false},
		"a gzip bomb":            {bytes.NewReader(bomb), []string{"Content-Encoding", "gzip"}, nil, 400, false},
		"too many records":       {bytes.NewReader(wire.ExportRequest(holdfast.Attributes{}, make([][]byte, wire.MaxRecords+1))), nil, nil, 400, false},
		"broken off":             {io.MultiReader(bytes.NewReader(good), broken{}), nil, nil, 503, true},
		"broken off in gzip":     {bytes.NewReader(packed(t, good)[:30]), []string{"Content-Encoding", "gzip"}, nil, 503, true},
		"the store is away":      {bytes.NewReader(good), nil, holdfast.Errorf(holdfast.Unavailable, "away"), 503, true},
		"the store has a defect": {bytes.NewReader(good), nil, errors.New("secret detail"), 503, true},
		"the host was removed":   {bytes.NewReader(good), nil, holdfast.Errorf(holdfast.Denied, "removed"), 403, false},
	} {
		s := &shelf{found: map[string]holdfast.Finding{}, err: c.err}
		w := post(handler(s), c.body, c.header...)
		if w.Code != c.status || (w.Header().Get("Retry-After") != "") != c.retry {
			t.Errorf("%s: status %d, Retry-After %q; want %d, %v (%s)", name, w.Code, w.Header().Get("Retry-After"), c.status, c.retry, w.Body)
		}
		if strings.Contains(w.Body.String(), "secret detail") {
			t.Errorf("%s: tells the host %s", name, w.Body)
		}
		if len(s.found) != 0 {
			t.Errorf("%s: something was stored", name)
		}
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// A store that hangs costs a bounded number of requests in memory; the others
// are sent away.
func TestTooManyAtOnceAreSentAway(t *testing.T) {
	s := &shelf{found: map[string]holdfast.Finding{}, hold: make(chan struct{})}
	h := handler(s)
	body := wire.ExportRequest(holdfast.Attributes{}, records(t, 1))
	const n = 40
	codes := make(chan int, n)
	for range n {
		go func() { codes <- post(h, bytes.NewReader(body)).Code }()
	}
	away := 0
	for range n - 16 {
		if c := <-codes; c == 503 {
			away++
		}
	}
	close(s.hold)
	for range 16 {
		if c := <-codes; c != 200 {
			t.Errorf("status %d after the store came back", c)
		}
	}
	if away != n-16 {
		t.Errorf("%d sent away", away)
	}
}
