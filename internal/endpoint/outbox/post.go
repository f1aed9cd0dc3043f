package outbox

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"time"

	collector "go.opentelemetry.io/proto/slim/otlp/collector/logs/v1"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/wire"
)

// Post delivers to an OTLP/HTTP receiver at server (https://host:port). The
// client presents the host's certificate (uplink.Link.HTTP).
func Post(client *http.Client, server string, attributes func() holdfast.Attributes) Deliver {
	return func(ctx context.Context, records [][]byte) (int, time.Duration, error) {
		body := wire.ExportRequest(attributes(), records)
		packed, err := pack(body)
		if err != nil {
			return 0, 0, err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, server+wire.LogsPath, bytes.NewReader(packed))
		if err != nil {
			return 0, 0, err
		}
		req.Header.Set("Content-Type", "application/x-protobuf")
		req.Header.Set("Content-Encoding", "gzip")
		resp, err := client.Do(req)
		if err != nil {
			return 0, 0, &holdfast.Error{Kind: holdfast.Unavailable, What: "the server cannot be reached", Err: err}
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return 0, wire.RetryAfter(resp.Header, time.Now()), wire.ReadProblem(resp)
		}
		b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		var answer collector.ExportLogsServiceResponse
		if err == nil {
			err = proto.Unmarshal(b, &answer)
		}
		if err != nil { // it was probably stored; sending it again does no harm
			return 0, 0, &holdfast.Error{Kind: holdfast.Unavailable, What: "the server's answer cannot be read", Err: err}
		}
		rejected := answer.GetPartialSuccess().GetRejectedLogRecords()
		return int(min(max(rejected, 0), int64(len(records)))), 0, nil
	}
}

func pack(body []byte) ([]byte, error) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(body); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
