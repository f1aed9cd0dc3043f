package main

import (
	"context"
	"net/http"
	"time"

	"github.com/holdfast-security/holdfast/internal/control/rollout"
	"github.com/holdfast-security/holdfast/internal/edge/api"
	"github.com/holdfast-security/holdfast/internal/edge/console"
)

// consoleServer is what people and their programs connect to.
func (s *server) consoleServer() *http.Server {
	source := console.NewLive(console.Live{})
	pages := console.New(console.Config{
		Source: source, Actions: s.rollouts, Accounts: s.store, Hints: pageHints{s},
		Version: version, Clock: s.clock(), PlainHTTP: true, Log: s.log,
	})
	programs := &api.Server{
		Sessions: s.store, Read: source, Decide: s.rollouts, Publish: publishing{s.registry}, Admin: s.people,
		Changes: pageHints{s}, Log: s.log, Now: time.Now,
	}
	mux := http.NewServeMux()
	mux.Handle("/api/", programs.Handler())
	mux.Handle("/", pages)
	return &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10}
}

// clock names the profile that is in force, for people.
func (s *server) clock() console.Clock {
	p := rollout.DefaultPolicy("").WithClock(s.heartbeat)
	c := console.Clock{Name: "production", Heartbeat: s.heartbeat, Window: p.Fast}
	if s.heartbeat < time.Minute {
		c.Name = "local"
	}
	return c
}

// pageHints turns hints on the bus into topics of pages.
type pageHints struct{ s *server }

// Listen implements console.Hints.
func (p pageHints) Listen(ctx context.Context, f func(console.Topic)) {
	in, cancel := p.s.bus.Subscribe(64)
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return
		case h := <-in:
			switch {
			case h.Finding != 0:
				f(console.TopicFindings)
			case h.Record:
				f(console.TopicRecord)
			case h.Host != "":
				f(console.TopicFleet)
			default:
				f(console.TopicRollouts)
				f(console.TopicRecord)
			}
		}
	}
}
