package main

import (
	"context"
	"net/http"
	"time"

	"github.com/holdfast-security/holdfast/internal/control/rollout"
	"github.com/holdfast-security/holdfast/internal/edge/api"
	"github.com/holdfast-security/holdfast/internal/edge/console"
	"github.com/holdfast-security/holdfast/internal/edge/live"
	"github.com/holdfast-security/holdfast/internal/view"
)

// consoleServer is what people and their programs connect to.
func (s *server) consoleServer() *http.Server {
	s.views = live.New(live.Config{
		Store: s.store, Driver: s.rollouts, Content: s.files, Trust: s.trust, LogKey: s.recordPublic,
		Checkpoint: func(ctx context.Context) ([]byte, error) {
			return s.store.SignRecord(ctx, s.record, time.Now().UTC())
		},
	})
	hints := live.Hints{Bus: s.bus}
	pages := console.New(console.Config{
		Source: s.views, Actions: s.rollouts, Hosts: s.people, Accounts: live.Accounts{Store: s.store, Now: time.Now}, Hints: hints,
		Version: version, Clock: s.clock(), SelfApproving: s.demo, PlainHTTP: !s.https, Log: s.log,
	})
	programs := &api.Server{
		Tokens: s.store, Read: s.views, Decide: s.rollouts, Publish: publishing{s.registry}, Admin: s.people,
		Changes: hints, Log: s.log, Now: time.Now,
	}
	mux := http.NewServeMux()
	mux.Handle("/api/", programs.Handler())
	mux.Handle("/", pages)
	return &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10}
}

// clock names the profile that is in force, for people.
func (s *server) clock() view.Clock {
	p := rollout.DefaultPolicy("").WithClock(s.heartbeat)
	c := view.Clock{Name: "production", Heartbeat: s.heartbeat, Window: p.Fast}
	if s.heartbeat < time.Minute {
		c.Name = "local"
	}
	return c
}
