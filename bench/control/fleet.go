//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/edge/enrol"
	"github.com/holdfast-security/holdfast/internal/endpoint/uplink"
)

// open lets everybody enrol, and knows nobody.
type open struct{}

func (open) Host(context.Context, holdfast.HostID) (holdfast.Host, error) {
	return holdfast.Host{}, holdfast.Errorf(holdfast.NotFound, "nobody")
}

func (open) EnrolHost(_ context.Context, _ string, _ time.Time, as func(holdfast.Enrolment) holdfast.Host) (holdfast.Host, error) {
	return as(holdfast.Enrolment{Org: holdfast.DefaultOrg}), nil
}

func (open) SetSerial(context.Context, holdfast.HostID, string) error { return nil }

// enrolAll gives each host an identity, in memory, from a server of its own in
// this process.
func enrolAll(dir string, n int) ([]*uplink.Identity, error) {
	ca, err := enrol.OpenCA(filepath.Join(dir, "ca"), time.Now())
	if err != nil {
		return nil, err
	}
	cfg, err := ca.TLSConfig([]string{"127.0.0.1"}, time.Now)
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.DiscardHandler)
	mux := http.NewServeMux()
	enrol.NewServer(ca, open{}, func() map[string][]byte { return nil }, 0, time.Now, log).Register(mux)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &http.Server{Handler: mux, TLSConfig: cfg, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	defer s.Close()
	go func() {
		if err := s.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
			fmt.Println(err)
		}
	}()
	token := enrol.Token("https://"+l.Addr().String(), ca, nil, rand.Text()+rand.Text())
	fleet := make([]*uplink.Identity, n)
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && failed.Load() == nil; i = int(next.Add(1)) - 1 {
				id, err := uplink.Enrol(context.Background(), uplink.Enrolment{Token: token, Attributes: attributes(i)})
				if err != nil {
					failed.Store(&err)
				}
				fleet[i] = id
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return nil, *err
	}
	return fleet, nil
}

func attributes(i int) holdfast.Attributes {
	return holdfast.Attributes{
		Hostname: fmt.Sprintf("host-%05d", i), OS: "linux", Arch: "amd64", Kernel: "6.1", Distro: "debian-12", Role: "server",
		Build: holdfast.DigestOf([]byte("worker")), Version: "1.0", Sensor: "ebpf",
	}
}

// measure connects the fleet to a server and lets it live through the steps.
func measure(dir, kind string, fleet []*uplink.Identity, beats, limit time.Duration) (figures, error) {
	f := figures{Server: kind, Hosts: len(fleet)}
	n := float64(len(fleet))
	server, address, err := startChild(dir, kind, "127.0.0.1:0")
	if err != nil {
		return f, err
	}
	defer func() { server.kill() }()
	var empty, full, before, after stats
	if err := server.ask("rest", &empty); err != nil {
		return f, err
	}

	began := time.Now()
	links := make([]*uplink.Link, len(fleet))
	for i, id := range fleet {
		id.Server = "https://" + address
		links[i] = uplink.Start(uplink.Config{Identity: id, Attributes: attributes(i), Log: slog.New(slog.DiscardHandler), Heartbeat: time.Second, Patience: 5 * time.Second})
	}
	defer func() {
		var wg sync.WaitGroup
		for _, l := range links {
			wg.Go(l.Stop)
		}
		wg.Wait()
	}()
	connected := func() int {
		c := 0
		for _, l := range links {
			if l.State().Connected {
				c++
			}
		}
		return c
	}
	f.Connected = wait(limit, len(fleet), connected)
	f.ConnectS = time.Since(began).Seconds()
	if err := server.ask("look", &full); err != nil {
		return f, err
	}
	f.ConnectCPU = (full.CPU - empty.CPU) * 1000 / n

	if err := server.ask("look", &before); err != nil {
		return f, err
	}
	counted := time.Now()
	time.Sleep(beats)
	if err := server.ask("look", &after); err != nil {
		return f, err
	}
	arrived := float64(after.Messages - before.Messages)
	f.BeatsPerSecond = arrived / time.Since(counted).Seconds()
	f.BeatCPU = (after.CPU - before.CPU) * 1e6 / max(1, arrived)
	if err := server.ask("rest", &full); err != nil {
		return f, err
	}
	f.KBEach = float64(full.Resident-min(full.Resident, empty.Resident)) / 1000 / n
	f.HeapKBEach = float64(full.Live-min(full.Live, empty.Live)) / 1000 / n

	if err := f.offer(server, links, limit); err != nil {
		return f, err
	}

	server.kill()
	again, _, err := startChild(dir, kind, address)
	if err != nil {
		return f, err
	}
	server = again
	storm := time.Now()
	f.StormBack = wait(limit, len(fleet), func() int {
		var s stats
		if server.ask("look", &s) != nil {
			return 0
		}
		return s.Connections
	})
	f.StormS = time.Since(storm).Seconds()
	if err := server.ask("look", &after); err != nil {
		return f, err
	}
	f.StormCPU = after.CPU
	return f, nil
}

// offer tells every host of one release and times its arrival.
func (f *figures) offer(server *child, links []*uplink.Link, limit time.Duration) error {
	times := make(chan time.Duration, len(links))
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var hinted atomic.Int64
	var wg sync.WaitGroup
	for _, l := range links {
		wg.Go(func() {
			select {
			case <-l.Offers():
				times <- time.Duration(time.Now().UnixNano() - hinted.Load())
			case <-ctx.Done():
			}
		})
	}
	hinted.Store(time.Now().UnixNano())
	var s stats
	if err := server.ask("push release-1", &s); err != nil {
		return err
	}
	wg.Wait()
	close(times)
	var all []time.Duration
	for t := range times {
		all = append(all, t)
	}
	slices.Sort(all)
	f.Offered = len(all)
	if len(all) == 0 {
		return errors.New("no host got the offer")
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	f.OfferP50, f.OfferP99 = ms(all[len(all)/2]), ms(all[len(all)*99/100])
	if len(all) == len(links) {
		f.OfferAll = ms(all[len(all)-1])
	}
	return nil
}

// wait waits until count reaches n or limit is over, and returns the last
// count.
func wait(limit time.Duration, n int, count func() int) int {
	for end := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		if c := count(); c >= n || time.Now().After(end) {
			return c
		}
	}
}
