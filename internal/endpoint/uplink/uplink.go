// Package uplink is the host's side of the connection to its control plane:
// enrolment, the client certificate, and OpAMP over WebSocket.
//
// It speaks OpAMP with the protocol's own messages (wire, from opamp-go) but
// not with opamp-go's client, which bounds neither what it reads nor how long
// it writes, reconnects at once and without jitter, and keeps what the server
// said about when to come back to itself. Docs/design tells more.
//
// A Link costs two goroutines and a few kilobytes, so that one process can
// play thousands of hosts.
package uplink

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/wire"
)

// Config is what a Link needs. Zero fields from Heartbeat on have defaults.
type Config struct {
	Identity   *Identity
	Attributes holdfast.Attributes
	Report     holdfast.HostReport
	Log        *slog.Logger

	// Heartbeat is how often to speak until the server says how often: 60 s. A
	// tenth of a second is the least.
	Heartbeat time.Duration
	// Patience is the longest pause between attempts to connect: four heartbeats,
	// at most five minutes. The server may ask for more. A server that was away
	// believes in silence six heartbeats after it is back.
	Patience time.Duration
	Dial     DialFunc // nil: the network
	// Contact is called when the server has answered on a new connection: both
	// sides know then who the other is. It must not wait. It may be nil.
	Contact func()
}

// State says how a Link is doing.
type State struct {
	Connected bool
	Since     time.Time // of being connected, or not
	Err       error     // why not connected; nil while it is
	Heartbeat time.Duration
}

// Link keeps a host connected.
type Link struct {
	cfg    Config
	id     *Identity
	uid    []byte
	http   *http.Client
	offers chan holdfast.Offer
	wake   chan struct{} // something is to be said
	cancel context.CancelFunc
	done   chan struct{}

	mu         sync.Mutex
	state      State
	attributes holdfast.Attributes
	report     holdfast.HostReport
	describe   bool // say the attributes
	tell       bool // say the report
	offered    []byte
	waiting    map[string][]chan wire.Lease // by lease
	ask        map[string]bool              // leases to ask for, still unsaid on this connection
}

// Start connects and stays connected until Stop.
func Start(cfg Config) *Link {
	if cfg.Heartbeat == 0 {
		cfg.Heartbeat = time.Minute
	}
	cfg.Heartbeat = max(cfg.Heartbeat, 100*time.Millisecond)
	ctx, cancel := context.WithCancel(context.Background())
	uid := sha256.Sum256([]byte(cfg.Identity.Host))
	l := &Link{
		cfg: cfg, id: cfg.Identity, uid: uid[:16], http: cfg.Identity.HTTP(cfg.Dial),
		offers: make(chan holdfast.Offer, 1), wake: make(chan struct{}, 1), cancel: cancel, done: make(chan struct{}),
		attributes: cfg.Attributes, report: cfg.Report,
		state:   State{Since: time.Now(), Err: errConnecting, Heartbeat: cfg.Heartbeat},
		waiting: map[string][]chan wire.Lease{}, ask: map[string]bool{},
	}
	go l.run(ctx)
	return l
}

var errConnecting = &holdfast.Error{Kind: holdfast.Unavailable, What: "not connected yet"}

// Stop says goodbye and ends the link.
func (l *Link) Stop() {
	l.cancel()
	<-l.done
	l.http.CloseIdleConnections()
}

// Offers delivers what the server wants of the host. Only the latest offer
// waits to be taken: an older one is out of date.
func (l *Link) Offers() <-chan holdfast.Offer { return l.offers }

// HTTP is a client for the control plane that presents the host's current
// certificate.
func (l *Link) HTTP() *http.Client { return l.http }

// State returns how the link is doing now.
func (l *Link) State() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// Describe sets the host's attributes and says them soon.
func (l *Link) Describe(a holdfast.Attributes) {
	l.mu.Lock()
	l.describe = l.describe || a != l.attributes
	l.attributes = a
	l.mu.Unlock()
	l.rouse()
}

// Report sets the host's state and says it soon. Reports that follow each
// other quickly become one. The link keeps r: do not change its maps.
func (l *Link) Report(r holdfast.HostReport) {
	l.mu.Lock()
	l.report, l.tell = r, true
	l.mu.Unlock()
	l.rouse()
}

// Renew asks whether the offer with this lease still stands, and until when.
// Denied means that it does not; Unavailable that no answer came before ctx
// ended. If the connection breaks meanwhile, the question is asked again.
func (l *Link) Renew(ctx context.Context, lease string) (time.Time, error) {
	answer := make(chan wire.Lease, 1)
	l.mu.Lock()
	l.waiting[lease] = append(l.waiting[lease], answer)
	l.ask[lease] = true
	l.mu.Unlock()
	l.rouse()
	select {
	case a := <-answer:
		if !a.Granted {
			return time.Time{}, &holdfast.Error{Kind: holdfast.Denied, What: "the offer does not stand any more", Where: lease, Err: reason(a.Reason)}
		}
		return a.Expires, nil
	case <-ctx.Done():
	case <-l.done:
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	rest := l.waiting[lease][:0]
	for _, w := range l.waiting[lease] {
		if w != answer {
			rest = append(rest, w)
		}
	}
	if l.waiting[lease] = rest; len(rest) == 0 {
		delete(l.waiting, lease)
		delete(l.ask, lease)
	}
	return time.Time{}, &holdfast.Error{Kind: holdfast.Unavailable, What: "the server did not say whether the offer still stands", Where: lease, Err: ctx.Err()}
}

type reason string

func (r reason) Error() string { return string(r) }

func (l *Link) rouse() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// next composes what is to be said now. A new connection starts with all of
// it, so that a server that never saw the host needs not ask.
func (l *Link) next(all bool) *protobufs.AgentToServer {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := &protobufs.AgentToServer{InstanceUid: l.uid, Capabilities: capabilities}
	if all {
		l.describe, l.tell = true, true
		m.CustomCapabilities = &protobufs.CustomCapabilities{Capabilities: []string{wire.Capability}}
		for lease := range l.waiting {
			l.ask[lease] = true
		}
	}
	if l.describe {
		m.AgentDescription = wire.Description(l.id.Host, l.attributes)
		l.describe = false
	}
	// One custom message fits into a message; the rest follows at once.
	if l.tell {
		m.CustomMessage, _ = wire.Custom(wire.ReportType, l.report) // plain data, always encodes
		m.PackageStatuses = wire.Statuses(l.report, nil)
		m.PackageStatuses.ServerProvidedAllPackagesHash = l.offered
		l.tell = false
	} else {
		for lease := range l.ask {
			m.CustomMessage, _ = wire.Custom(wire.RenewType, wire.LeaseRequest{Lease: lease})
			delete(l.ask, lease)
			break
		}
	}
	if len(l.ask) > 0 {
		l.rouse()
	}
	return m
}

const capabilities = uint64(protobufs.AgentCapabilities_AgentCapabilities_ReportsStatus |
	protobufs.AgentCapabilities_AgentCapabilities_AcceptsPackages |
	protobufs.AgentCapabilities_AgentCapabilities_ReportsPackageStatuses |
	protobufs.AgentCapabilities_AgentCapabilities_AcceptsOpAMPConnectionSettings |
	protobufs.AgentCapabilities_AgentCapabilities_ReportsHeartbeat)

// received handles one message of the server.
func (l *Link) received(m *protobufs.ServerToAgent) error {
	if c := m.CustomMessage; c != nil && c.Capability == wire.Capability && c.Type == wire.LeaseType {
		lease, err := wire.LeaseOf(c)
		if err != nil {
			return err
		}
		l.mu.Lock()
		for _, w := range l.waiting[lease.Lease] {
			w <- lease // one place each, and each is removed with its answer
		}
		delete(l.waiting, lease.Lease)
		delete(l.ask, lease.Lease)
		l.mu.Unlock()
	}
	if s := m.GetConnectionSettings().GetOpamp().GetHeartbeatIntervalSeconds(); s > 0 {
		l.mu.Lock()
		l.state.Heartbeat = time.Duration(min(s, 3600)) * time.Second
		l.mu.Unlock()
		l.rouse()
	}
	if m.Flags&uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportFullState) != 0 {
		l.mu.Lock()
		l.describe, l.tell = true, true
		l.mu.Unlock()
		l.rouse()
	}
	if m.PackagesAvailable != nil {
		o, err := wire.OfferOf(m.PackagesAvailable)
		if err != nil {
			return err
		}
		l.mu.Lock()
		l.offered = m.PackagesAvailable.AllPackagesHash[:min(len(m.PackagesAvailable.AllPackagesHash), 64)]
		l.mu.Unlock()
		for { // the older offer makes room; only this goroutine puts offers in
			select {
			case l.offers <- o:
				return nil
			default:
			}
			select {
			case <-l.offers:
			default:
			}
		}
	}
	return nil
}

func (l *Link) set(s State) {
	l.mu.Lock()
	s.Heartbeat = l.state.Heartbeat
	if s.Connected == l.state.Connected {
		s.Since = l.state.Since
	}
	l.state = s
	l.mu.Unlock()
}

func (l *Link) heartbeat() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.Heartbeat
}

// pause returns how long to wait before the attempt after n failures: a random
// part of a time that doubles, so that a fleet that lost its server does not
// come back as one.
func (l *Link) pause(failures int, retryAfter time.Duration) time.Duration {
	beat := l.heartbeat()
	most := l.cfg.Patience
	if most == 0 {
		most = min(4*beat, 5*time.Minute)
	}
	d := most
	if failures < 16 {
		d = min(most, beat<<failures)
	}
	return retryAfter + rand.N(max(d, time.Millisecond))
}
