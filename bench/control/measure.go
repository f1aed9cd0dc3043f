//go:build linux

package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-security/holdfast/internal/endpoint/uplink"
)

// measure connects the fleet to a server and lets it live through the steps.
func (p plan) measure(dir, kind string, fleet []*uplink.Identity) (figures, error) {
	f := figures{Server: kind, Hosts: len(fleet)}
	say("%s: starting", kind)
	if kind == "holdfastd" {
		if err := furnish(context.Background(), dir, fleet); err != nil {
			return f, err
		}
	}
	at, err := newSite(kind, dir, p.bin, p.heartbeat)
	if err != nil {
		return f, err
	}
	server, err := at.start()
	if err != nil {
		return f, err
	}
	defer func() { server.kill() }()
	time.Sleep(3 * time.Second) // it loads what it knows
	var before gauge
	if err := before.read(server, nil); err != nil {
		return f, err
	}

	say("%s: connecting %d hosts, %d at once", kind, len(fleet), p.atOnce)
	began := time.Now()
	hosts := connect(fleet, at.address, p)
	defer hosts.stop()
	f.Connected, f.ConnectS = hosts.since(time.Time{}), time.Since(began).Seconds()
	var connected gauge
	if err := connected.read(server, hosts); err != nil {
		return f, err
	}
	f.ConnectCPU = (connected.cpu - before.cpu) * 1000 / float64(len(fleet))
	f.EmptyMB = before.resident / 1e6

	if err := f.live(p, server, hosts, before); err != nil {
		return f, err
	}
	say("%s: %.1f KB resident per connection, %.0f MB in all; %.0f heartbeats/s take %.2f cores", kind, f.KBEach, f.MB, f.BeatsPerSecond, f.BeatCores)
	if server.in != nil {
		say("%s: offering a release", kind)
		if err := f.offer(server, hosts.links, p.limit); err != nil {
			return f, err
		}
	}
	server.kill()
	killed := time.Now()
	say("%s: killed; starting again", kind)
	again, err := at.start()
	if err != nil {
		return f, err
	}
	server = again
	f.StormBack = hosts.wait(p.limit, killed)
	f.StormS = time.Since(killed).Seconds()
	var back gauge
	if err := back.read(server, hosts); err != nil {
		return f, err
	}
	f.StormCPU, f.StormMB = back.cpu, back.resident/1e6
	say("%s: %d back after %.1f s", kind, f.StormBack, f.StormS)
	return f, nil
}

// gauge is what can be read off a server and its hosts at one moment.
type gauge struct {
	at            time.Time
	cpu, resident float64 // seconds, bytes
	said          uint64  // messages
}

func (g *gauge) read(server *process, hosts *connections) (err error) {
	if g.cpu, err = server.cpu(); err != nil {
		return err
	}
	if hosts != nil {
		g.said = hosts.said.Load()
	}
	g.at = time.Now()
	g.resident, err = server.resident()
	return err
}

// live reads what connections cost that only beat: first memory, then
// heartbeats.
func (f *figures) live(p plan, server *process, hosts *connections, before gauge) error {
	say("%s: %d connected after %.1f s; leaving it alone", f.Server, f.Connected, f.ConnectS)
	time.Sleep(p.settle)
	n := float64(len(hosts.links))
	var first, last gauge
	if err := first.read(server, hosts); err != nil {
		return err
	}
	f.MB, f.KBEach = first.resident/1e6, (first.resident-before.resident)/1000/n
	time.Sleep(p.beats)
	if err := last.read(server, hosts); err != nil {
		return err
	}
	seconds, beats := last.at.Sub(first.at).Seconds(), float64(last.said-first.said)
	f.BeatsPerSecond = beats / seconds
	f.BeatCPU = (last.cpu - first.cpu) * 1e6 / max(1, beats)
	f.BeatCores = (last.cpu - first.cpu) / seconds
	if server.in == nil {
		return nil
	}
	if err := server.tell("collect"); err != nil {
		return err
	}
	if err := last.read(server, hosts); err != nil {
		return err
	}
	rest := (last.resident - before.resident) / 1000 / n
	f.RestKBEach = &rest
	return nil
}

// offer tells every host of one release and times its arrival.
func (f *figures) offer(server *process, links []*uplink.Link, limit time.Duration) error {
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
	if err := server.tell("push release-1"); err != nil {
		return err
	}
	wg.Wait()
	close(times)
	var all []time.Duration
	for t := range times {
		all = append(all, t)
	}
	slices.Sort(all)
	if len(all) == 0 {
		return errors.New("no host got the offer")
	}
	ms := func(d time.Duration) *float64 {
		v := float64(d.Microseconds()) / 1000
		return &v
	}
	offered := len(all)
	f.Offered, f.OfferP50, f.OfferP99 = &offered, ms(all[offered/2]), ms(all[offered*99/100])
	if offered == len(links) {
		f.OfferAll = ms(all[offered-1])
	}
	return nil
}
