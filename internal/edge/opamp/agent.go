package opamp

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/open-telemetry/opamp-go/server/types"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/wire"
)

// agent is one connection of a host.
type agent struct {
	server *Server
	host   holdfast.HostID
	conn   *conn

	// Only the goroutine that reads the connection uses these.
	sequence  uint64
	described bool // since the connection was opened
	reported  bool
	greeted   bool
	ours      bool // it speaks wire.Capability
	allowance allowance

	mu      sync.Mutex
	ws      types.Connection // nil until connected
	gone    bool
	uid     []byte
	last    holdfast.Offer // sent last on this connection; its Expires is zero
	pushing bool           // it is in the pusher's queue
}

func (a *agent) connected(_ context.Context, ws types.Connection) {
	a.mu.Lock()
	a.ws = ws
	gone := a.gone
	a.mu.Unlock()
	if gone {
		_ = ws.Disconnect() // a newer connection replaced this one meanwhile
	}
}

// disconnect closes the connection. The reading goroutine then ends it.
func (a *agent) disconnect() {
	a.mu.Lock()
	ws := a.ws
	a.gone = true
	a.mu.Unlock()
	if ws != nil {
		_ = ws.Disconnect() // it is gone either way
	}
}

// message answers one message of the host; nil answers nothing.
func (a *agent) message(ctx context.Context, _ types.Connection, m *protobufs.AgentToServer) *protobufs.ServerToAgent {
	s := a.server
	now := s.cfg.Now()
	a.conn.extend()
	if wait := a.allowance.spend(now); wait > 0 {
		time.Sleep(wait) // nobody reads from it meanwhile: it slows itself down
	}
	if m.AgentDisconnect != nil {
		return nil
	}
	if len(m.InstanceUid) != 16 {
		return refusal(m, "the instance uid is not 16 bytes")
	}
	a.mu.Lock()
	a.uid = m.InstanceUid
	a.mu.Unlock()

	answer := &protobufs.ServerToAgent{InstanceUid: m.InstanceUid}
	speak := false
	if caps := m.GetCustomCapabilities().GetCapabilities(); caps != nil {
		a.ours = slices.Contains(caps[:min(len(caps), 64)], wire.Capability)
	}
	if m.AgentDescription != nil {
		attributes, err := wire.AttributesOf(m.AgentDescription)
		if err != nil {
			return refusal(m, err.Error())
		}
		a.described = true
		s.cfg.Control.Described(ctx, a.host, attributes, now)
	}
	if c := m.CustomMessage; c != nil && c.Capability == wire.Capability {
		reply, err := a.custom(ctx, c, now)
		if err != nil {
			return refusal(m, err.Error())
		}
		answer.CustomMessage = reply
		speak = reply != nil
	}
	s.cfg.Control.Beat(ctx, a.host, now)

	// A host that reconnects says only what has changed since it spoke last, and
	// that may have been to another server.
	missed := a.greeted && m.SequenceNum != a.sequence+1
	a.sequence = m.SequenceNum
	if missed || !a.described || a.ours && !a.reported {
		answer.Flags = uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportFullState)
		speak = speak || !a.greeted || missed
	}
	if !a.greeted {
		a.greeted, speak = true, true
		answer.Capabilities = uint64(protobufs.ServerCapabilities_ServerCapabilities_AcceptsStatus |
			protobufs.ServerCapabilities_ServerCapabilities_OffersPackages |
			protobufs.ServerCapabilities_ServerCapabilities_AcceptsPackagesStatus |
			protobufs.ServerCapabilities_ServerCapabilities_OffersConnectionSettings)
		if s.cfg.Heartbeat >= time.Second { // OpAMP cannot say less
			answer.ConnectionSettings = heartbeat(s.cfg.Heartbeat)
		}
	}
	if a.described && (a.reported || !a.ours) {
		if o, ok := a.poll(ctx, now); ok {
			answer.PackagesAvailable, speak = wire.Packages(o), true
		}
	}
	if !speak {
		return nil
	}
	return answer
}

// custom handles one of our own messages.
func (a *agent) custom(ctx context.Context, m *protobufs.CustomMessage, now time.Time) (*protobufs.CustomMessage, error) {
	switch m.Type {
	case wire.ReportType:
		r, err := wire.ReportOf(m)
		if err != nil {
			return nil, err
		}
		a.reported, a.ours = true, true
		a.server.cfg.Control.Reported(ctx, a.host, r, now)
	case wire.RenewType:
		r, err := wire.LeaseRequestOf(m)
		if err != nil {
			return nil, err
		}
		answer := wire.Lease{Lease: r.Lease}
		if answer.Expires, err = a.server.cfg.Control.RenewLease(ctx, a.host, r.Lease, now); err == nil {
			answer.Granted = true
		} else if answer.Reason = err.Error(); holdfast.KindOf(err) == holdfast.Internal {
			answer.Reason = "internal error"
		}
		return wire.Custom(wire.LeaseType, answer)
	}
	return nil, nil // newer hosts may say more
}

// poll asks Control what the host should do, and reports whether the host has
// to be told.
func (a *agent) poll(ctx context.Context, now time.Time) (holdfast.Offer, bool) {
	o, ok := a.server.cfg.Control.Desired(ctx, a.host, now)
	a.mu.Lock()
	defer a.mu.Unlock()
	if !ok {
		a.last = holdfast.Offer{}
		return o, false
	}
	same := o
	same.Expires = time.Time{}
	if same == a.last {
		return o, false
	}
	a.last = same
	return o, true
}

// pushed brings the host what Control wants of it now.
func (a *agent) pushed(ctx context.Context) {
	a.mu.Lock()
	a.pushing = false
	ws, uid := a.ws, a.uid
	a.mu.Unlock()
	if ws == nil || uid == nil { // its first message will ask
		return
	}
	o, ok := a.poll(ctx, a.server.cfg.Now())
	if !ok {
		return
	}
	if err := ws.Send(ctx, &protobufs.ServerToAgent{InstanceUid: uid, PackagesAvailable: wire.Packages(o)}); err != nil {
		a.disconnect() // half of a message may have been written
	}
}

// heartbeat is the only connection setting we offer. An offer without an
// interval would turn the heartbeats of opamp-go's client off.
func heartbeat(every time.Duration) *protobufs.ConnectionSettingsOffers {
	seconds := uint64(every / time.Second)
	return &protobufs.ConnectionSettingsOffers{
		Hash:  fmt.Appendf(nil, "heartbeat %d", seconds),
		Opamp: &protobufs.OpAMPConnectionSettings{HeartbeatIntervalSeconds: seconds},
	}
}

func refusal(m *protobufs.AgentToServer, why string) *protobufs.ServerToAgent {
	return &protobufs.ServerToAgent{InstanceUid: m.InstanceUid, ErrorResponse: &protobufs.ServerErrorResponse{
		Type: protobufs.ServerErrorResponseType_ServerErrorResponseType_BadRequest, ErrorMessage: why,
	}}
}

// allowance lets a host send a hundred messages at once and thirty a second,
// which is three times what the fastest clock needs.
type allowance struct {
	debt float64
	at   time.Time
}

const (
	burst  = 100
	perSec = 30
)

func (l *allowance) spend(now time.Time) (wait time.Duration) {
	l.debt = max(0, l.debt-now.Sub(l.at).Seconds()*perSec) + 1
	l.at = now
	return time.Duration(max(0, l.debt-burst) / perSec * float64(time.Second))
}
