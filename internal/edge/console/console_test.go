package console

import (
	"io"
	"log/slog"
	"time"
)

func testConfig(f *fixture) Config {
	return Config{
		Source: f, Actions: f, Accounts: f, Hints: f,
		Version: "0.1.0", Clock: Clock{Name: "local", Heartbeat: time.Second, Window: 15 * time.Second},
		SelfApproving: true, PlainHTTP: true,
		Now: func() time.Time { return f.now }, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}
