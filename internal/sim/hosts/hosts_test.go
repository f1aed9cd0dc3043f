package hosts_test

import (
	"context"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/sim/hosts"
	"github.com/holdfast-security/holdfast/internal/wire"
)

const fleetSize = 12

func (p *plane) config() hosts.Config {
	return hosts.Config{
		Hosts: fleetSize, State: p.at("fleet"), Token: p.token, Agent: p.agent, Domain: "production",
		Heartbeat: 500 * time.Millisecond, Probation: time.Second, Seed: 7, Log: slog.New(slog.DiscardHandler),
	}
}

// play runs a fleet until stop is called.
func (p *plane) play(cfg hosts.Config) (stop func()) {
	p.Helper()
	fleet, err := hosts.Open(p.Context(), cfg, nil)
	p.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- fleet.Run(ctx, nil) }()
	return func() {
		p.Helper()
		cancel()
		p.must(<-done)
	}
}

// A rollout through the real code: enrolment, mutual TLS, OpAMP, TUF, the
// loader's checks, the guard's decisions. Good content settles everywhere; bad
// content reverts where it fails and is shunned there, over a restart too; what
// is recalled is given back.
func TestARolloutThroughRealCode(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the stand-in for the agent binary is a shell script")
	}
	p := newPlane(t)
	v1 := p.release("v1")
	bad := holdfast.DigestOf([]byte("v2"))
	cfg := p.config()
	half := 0.5
	cfg.Script = hosts.Script{{Digest: bad, Fault: hosts.Crash, After: "100ms", Share: &half}}
	stop := p.play(cfg)
	p.until("all are connected and marked as simulated", func(all map[holdfast.HostID]holdfast.Host) bool {
		n := 0
		for _, h := range all {
			if h.Connected && h.Simulated && h.Attributes.Build == p.build && h.Attributes.Kernel != "" && h.Report.Boot != "" {
				n++
			}
		}
		return n == fleetSize
	})

	settled := func(h holdfast.Host, d holdfast.Digest) bool {
		return h.Report.Running[holdfast.Rules] == d && !h.Report.Probation
	}
	everywhere := func(d holdfast.Digest) func(map[holdfast.HostID]holdfast.Host) bool {
		return func(all map[holdfast.HostID]holdfast.Host) bool {
			n := 0
			for _, h := range all {
				if settled(h, d) {
					n++
				}
			}
			return n == fleetSize
		}
	}
	p.offer("r1", v1)
	p.until("v1 has settled everywhere", everywhere(v1))

	v2 := p.release("v2", v1)
	p.offer("r2", v2)
	reverted := func(h holdfast.Host) bool {
		return settled(h, v1) && h.Report.Failed[holdfast.Rules] == v2 && slices.Contains(h.Report.Shunned, v2) && h.Report.Crashes == 1
	}
	var failed []holdfast.HostID
	p.until("v2 has settled or was reverted everywhere", func(all map[holdfast.HostID]holdfast.Host) bool {
		good := 0
		failed = nil
		for id, h := range all {
			switch {
			case settled(h, v2):
				good++
			case reverted(h):
				failed = append(failed, id)
			}
		}
		return good+len(failed) == fleetSize
	})
	if len(failed) == 0 || len(failed) == fleetSize {
		t.Fatalf("%d of %d hosts failed; the script says about half", len(failed), fleetSize)
	}

	// The whole process is stopped and started: nobody enrols anew, nobody
	// forgets what it shuns, and nobody took it for a reboot.
	stop()
	p.until("all are disconnected", func(all map[holdfast.HostID]holdfast.Host) bool {
		return !slices.ContainsFunc(values(all), func(h holdfast.Host) bool { return h.Connected })
	})
	before := p.uses
	cfg.Token = ""
	stop = p.play(cfg)
	p.until("those that failed are back, with v1", func(all map[holdfast.HostID]holdfast.Host) bool {
		for _, id := range failed {
			if h := all[id]; !h.Connected || !reverted(h) {
				return false
			}
		}
		return true
	})
	if p.uses != before {
		t.Error("hosts enrolled again")
	}

	// The signed metadata no longer approves v2: hosts find out by themselves.
	p.approve(v1)
	p.until("v2 is given back everywhere", everywhere(v1))
	stop()
}

// Hosts go where they are told to, whatever the token or their identity names,
// and believe only whom the token pinned.
func TestHostsConnectWhereTheyAreTold(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the stand-in for the agent binary is a shell script")
	}
	p := newPlane(t)
	p.release("v1")
	token, err := wire.ParseToken(p.token)
	p.must(err)
	real := token.Server
	token.Server = "https://127.0.0.1:1"
	cfg := p.config()
	cfg.Token, cfg.Server = token.String(), real
	stop := p.play(cfg)
	connected := func(n int) func(map[holdfast.HostID]holdfast.Host) bool {
		return func(all map[holdfast.HostID]holdfast.Host) bool {
			c := 0
			for _, h := range all {
				if h.Connected {
					c++
				}
			}
			return c == n
		}
	}
	p.until("all are connected", connected(fleetSize))
	stop()
	p.until("all are gone", connected(0))
	cfg.Token = ""
	stop = p.play(cfg)
	p.until("all are connected again", connected(fleetSize))
	stop()

	cfg.State = p.at("more")
	if _, err := hosts.Open(t.Context(), cfg, nil); holdfast.KindOf(err) != holdfast.Invalid || !strings.Contains(err.Error(), "enrol-token") {
		t.Errorf("without a token: %v", err)
	}
	token.CA[0] ^= 1
	cfg.Token = token.String()
	if _, err := hosts.Open(t.Context(), cfg, nil); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("at a server whose authority is another: %v", err)
	}
}

func values(all map[holdfast.HostID]holdfast.Host) []holdfast.Host {
	var list []holdfast.Host
	for _, h := range all {
		list = append(list, h)
	}
	return list
}

// A machine that goes down says nothing, not even goodbye; one that reboots
// comes back with another boot id, on what it ran before.
func TestSilenceAndReboot(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the stand-in for the agent binary is a shell script")
	}
	p := newPlane(t)
	v1 := p.release("v1")
	cfg := p.config()
	cfg.Script = hosts.Script{{Digest: v1, Fault: hosts.Silence, Role: "server"}, {Digest: v1, Fault: hosts.Reboot, Role: "laptop"}}
	stop := p.play(cfg)
	boots := map[holdfast.HostID]string{}
	p.until("all are connected", func(all map[holdfast.HostID]holdfast.Host) bool {
		for id, h := range all {
			boots[id] = h.Report.Boot
		}
		return len(all) == fleetSize && !slices.ContainsFunc(values(all), func(h holdfast.Host) bool { return h.Report.Boot == "" })
	})
	p.offer("r1", v1)
	p.until("laptops came back and servers are silent", func(all map[holdfast.HostID]holdfast.Host) bool {
		for id, h := range all {
			switch h.Attributes.Role {
			case "laptop":
				if !h.Connected || h.Report.Boot == boots[id] || h.Report.Running[holdfast.Rules] == v1 {
					return false
				}
			default:
				// Nothing closed the connection; the server itself gave it up.
				if h.Connected || time.Since(h.LastSeen) < 5*time.Second {
					return false
				}
			}
		}
		return true
	})
	stop()
}

func TestBadScriptsAreRefused(t *testing.T) {
	d := string(holdfast.DigestOf(nil))
	for name, s := range map[string]string{
		"no list":        `{}`,
		"no digest":      `[{"digest":"v2","fault":"crash"}]`,
		"unknown fault":  `[{"digest":"` + d + `","fault":"explode"}]`,
		"no duration":    `[{"digest":"` + d + `","fault":"crash","after":"soon"}]`,
		"negative after": `[{"digest":"` + d + `","fault":"crash","after":"-1s"}]`,
		"share above 1":  `[{"digest":"` + d + `","fault":"crash","share":2}]`,
	} {
		if _, err := hosts.ParseScript([]byte(s)); holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%s: %v; want an Invalid error", name, err)
		}
	}
	if _, err := hosts.ParseScript([]byte(`[{"digest":"` + d + `","fault":"crash","after":"2s","share":0.5,"kernel":"6.1"}]`)); err != nil {
		t.Error(err)
	}
}
