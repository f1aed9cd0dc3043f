package hosts

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/guard"
	"github.com/holdfast-security/holdfast/internal/endpoint/lifeline"
	"github.com/holdfast-security/holdfast/internal/endpoint/loader"
	"github.com/holdfast-security/holdfast/internal/endpoint/uplink"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

// host is one played host.
type host struct {
	number     int
	dir        string
	attributes holdfast.Attributes
	id         *uplink.Identity
	machine    *machine
	loader     *loader.Loader
	heartbeat  time.Duration
	cable      *cable
	link       *uplink.Link
	started    time.Time
	news       chan struct{} // the guard informs its workers

	mu     sync.Mutex
	reason string // why the latest offer was refused
	// declined is that offer (its lease), if it was refused for good.
	declined string
}

func (h *host) start(f *Fleet) error {
	policy := guard.DefaultPolicy
	policy.Probation, policy.ProbationEvents = f.cfg.Probation, uint64(f.cfg.Probation.Seconds()*perSecond/4)
	var err error
	if h.machine, err = newMachine(f.cfg.Seed, h.number, policy, f.cfg.Script, h.attributes, f.content, h.dir); err != nil {
		return err
	}
	h.heartbeat = f.cfg.Heartbeat
	h.news = make(chan struct{}, 1)
	h.machine.changed = func(lifeline.Status) {
		select {
		case h.news <- struct{}{}:
		default:
		}
	}
	h.machine.refused = h.refuse
	if h.id.Role != "" {
		h.attributes.Role = h.id.Role
	}
	h.cable = &cable{}
	h.machine.power = h.cable.power
	h.machine.start()
	report, _ := h.machine.report()
	h.started = time.Now()
	h.link = uplink.Start(uplink.Config{
		Identity: h.id, Attributes: h.attributes, Report: report, Log: f.cfg.Log, Heartbeat: h.heartbeat, Dial: h.cable.dial,
	})
	h.loader, err = loader.New(loader.Config{
		Host: h.id.Host, Domain: tuf.Domain(f.cfg.Domain), Build: f.build.Digest, Trust: f.trust,
		Content: f.content, URL: h.id.Server, HTTP: &http.Client{Transport: outlet{h.cable, f.http.Transport}, Timeout: f.http.Timeout}, TestLoad: f.test.load,
		Renew: func(ctx context.Context, lease string) error {
			ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			_, err := h.link.Renew(ctx, lease)
			return err
		},
	})
	return err
}

// pollEvery is how many heartbeats pass between two looks at the signed
// metadata without an offer.
const pollEvery = 5

// run plays the host until ctx ends: one goroutine for its time, one for what
// it is offered.
func (h *host) run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { h.follow(ctx) })
	every := max(h.heartbeat/2, 100*time.Millisecond)
	tick := time.NewTicker(every)
	defer tick.Stop()
	since, beats := time.Now(), 0
	for {
		select {
		case <-ctx.Done():
			wg.Wait()
			h.machine.stop()
			h.link.Stop()
			h.cable.power(true) // and so closes what a dead machine left open
			return
		case now := <-tick.C:
			h.machine.tick(now.Sub(since))
			since = now
			if beats++; beats%2 == 0 {
				h.say()
			}
		case <-h.news:
			h.say()
		}
	}
}

// say reports the host's state, unless its machine is down.
func (h *host) say() {
	r, up := h.machine.report()
	if !up {
		return
	}
	h.mu.Lock()
	if h.reason != "" {
		r.Declined, r.Reason = h.declined, h.reason
	}
	h.mu.Unlock()
	h.link.Report(r)
}

func (h *host) refuse(reason string) { h.decline("", reason) }

// decline notes that the host's own checks refused an offer for good.
func (h *host) decline(lease, reason string) {
	h.mu.Lock()
	h.declined, h.reason = lease, reason
	h.mu.Unlock()
}

// follow carries out offers and what the signed metadata asks, one at a time,
// as a worker does.
func (h *host) follow(ctx context.Context) {
	pause := func() time.Duration {
		return time.Duration(float64(pollEvery*h.heartbeat) * (0.8 + 0.4*rand.Float64()))
	}
	poll := time.NewTimer(pause())
	defer poll.Stop()
	retry := time.NewTimer(time.Hour)
	retry.Stop()
	defer retry.Stop()
	var offer holdfast.Offer
	looked := ""
	for {
		select {
		case <-ctx.Done():
			return
		case offer = <-h.link.Offers():
		case <-retry.C:
		case <-poll.C:
			poll.Reset(pause())
			h.poll(ctx)
			continue
		}
		retry.Stop()
		d, err := h.loader.Consider(ctx, h.host(), offer, time.Now())
		if err != nil {
			h.refuse(err.Error())
			continue
		}
		if d.Action == loader.Refuse && d.Cause == loader.Unsigned && looked != offer.Lease {
			looked = offer.Lease // what the fleet shares may be older than the offer: look again
			retry.Reset(2 * sharedFor)
			continue
		}
		h.act(d)
		if d.Action == loader.Wait && (offer.Recall != "" || time.Now().Before(offer.Expires)) {
			retry.Reset(max(h.heartbeat/2, 100*time.Millisecond))
		}
	}
}

func (h *host) host() loader.State {
	s := h.machine.status()
	return loader.State{Current: s.Running, Previous: s.Previous, Shunned: s.Shunned}
}

func (h *host) poll(ctx context.Context) {
	orders, err := h.loader.Poll(ctx, h.host(), time.Now())
	if err != nil {
		return // the host keeps what it has
	}
	for _, d := range orders.Retry {
		h.machine.tell(guard.Event{Kind: guard.RetryAllowed, Digest: d})
	}
	for _, d := range orders.Final {
		h.machine.tell(guard.Event{Kind: guard.Finalised, Digest: d})
	}
	for _, d := range orders.Returns {
		h.act(d)
	}
}

func (h *host) act(d loader.Decision) {
	if d.Action != loader.Refuse && d.Action != loader.Wait {
		h.refuse("")
	}
	switch d.Action {
	case loader.Propose:
		h.machine.tell(guard.Event{Kind: guard.Proposed, ID: d.Lease, Channel: d.Channel, Digest: d.Digest})
	case loader.Reactivate:
		h.machine.tell(guard.Event{Kind: guard.Reactivated, ID: d.Lease})
	case loader.Recall:
		h.machine.tell(guard.Event{Kind: guard.Recalled, Digest: d.From})
	case loader.Refuse:
		h.decline(d.Lease, "refused "+d.Digest.Short()+": "+d.Reason)
	}
	h.say()
}
