package loader

import (
	"context"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/trust/attest"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

// Loader drives the decisions of one host. It is safe for concurrent use, but
// works on one thing at a time.
type Loader struct {
	cfg     Config
	mu      sync.Mutex
	memory  memory
	consent consented
}

// New checks the configuration, and reads what the loader remembered.
func New(cfg Config) (*Loader, error) {
	missing := func(what string) error {
		return &holdfast.Error{Kind: holdfast.Invalid, What: "the loader needs it", Where: what}
	}
	switch {
	case cfg.Host == "":
		return nil, missing("host id")
	case cfg.Trust == nil:
		return nil, missing("trust")
	case cfg.Content == "":
		return nil, missing("content directory")
	case cfg.TestLoad == nil || cfg.Renew == nil:
		return nil, missing("test load and lease renewal")
	case cfg.Domain != tuf.Production && cfg.Domain != tuf.Drill:
		return nil, missing("trust domain")
	}
	if _, err := holdfast.ParseDigest(string(cfg.Build)); err != nil {
		return nil, missing("sensor build")
	}
	if cfg.HTTP == nil {
		cfg.HTTP = &http.Client{}
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 256 << 20
	}
	if cfg.Patience == 0 {
		cfg.Patience = 10 * time.Minute
	}
	cfg.URL = strings.TrimSuffix(cfg.URL, "/")
	if err := os.MkdirAll(cfg.Content, 0o755); err != nil {
		return nil, err
	}
	l := &Loader{cfg: cfg}
	l.restore()
	return l, l.memory.load(cfg.State)
}

// Consider decides about an offer. If the answer is Propose, the content is on
// disk, verified and test-loaded, and the lease was renewed a moment ago: give it
// to the guard now. An error means that this host itself failed (a full disk);
// everything else is an answer.
func (l *Loader) Consider(ctx context.Context, host State, o holdfast.Offer, now time.Time) (Decision, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := Decision{Channel: o.Channel, Digest: o.Digest, Lease: o.Lease}
	if o.Recall != "" {
		return l.giveBack(ctx, host, o, now)
	}
	if o.Lease == "" || !now.Before(o.Expires) {
		d.Action, d.Cause, d.Reason = Wait, NoLease, "the offer's lease is over; ask again"
		return d, nil
	}
	if err := l.learn(ctx); err != nil {
		return d, err
	}
	view, err := l.cfg.Trust.Refresh(ctx, now)
	if err != nil {
		return refusal(d, err), nil
	}
	f := l.facts(host, view, o.Channel, o.Digest)
	if o.Arm == holdfast.Placebo {
		return l.placebo(ctx, f, d, now)
	}
	d, err = l.fetch(ctx, f, now)
	d.Lease = o.Lease
	if err != nil || d.Action != Propose {
		return d, err
	}
	return l.renew(ctx, d), nil
}

// Poll asks the signed metadata, without any offer: whether what runs is still
// approved, and what the publishers marked. An error says why there is no answer;
// the host then keeps what it has.
func (l *Loader) Poll(ctx context.Context, host State, now time.Time) (Orders, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var orders Orders
	if err := l.learn(ctx); err != nil { // a full disk must not keep a recall away
		l.consent.trouble = err.Error()
	}
	view, err := l.cfg.Trust.Refresh(ctx, now)
	if err != nil {
		return orders, err
	}
	for _, c := range slices.Sorted(maps.Keys(host.Current)) {
		digest := host.Current[c]
		r, known := view.Releases[digest]
		if known && r.Final && len(host.Previous) > 0 {
			orders.Final = append(orders.Final, digest)
		}
		f := l.facts(host, view, c, digest)
		if known && f.fit(r) {
			continue
		}
		d, err := l.back(ctx, f, now)
		if err != nil {
			return orders, err
		}
		if d.Action == Recall || d.Action == Propose {
			d.Lease = "return-" + digest.Short()
			orders.Returns = append(orders.Returns, d)
		}
	}
	if err := l.owed(ctx, host, view, now, &orders); err != nil {
		return orders, err
	}
	for _, digest := range host.Shunned {
		if n := view.Releases[digest].Retry; n > l.memory.Retried[digest] {
			l.memory.retried(digest, n)
			orders.Retry = append(orders.Retry, digest)
		}
	}
	return orders, l.memory.save(l.cfg.State)
}

// owed decides about what this host was admitted to, activated, and took back
// without having tried it. A release that was halted meanwhile is no longer
// approved. What else must be given back comes first.
func (l *Loader) owed(ctx context.Context, host State, view *tuf.View, now time.Time, orders *Orders) error {
	o := host.Owed
	if o.Digest == "" || now.Before(o.After) || len(orders.Returns) > 0 {
		return nil
	}
	d, err := l.fetch(ctx, l.facts(host, view, o.Channel, o.Digest), now)
	if err == nil && d.Action == Propose {
		d.Lease = o.Lease
		orders.Owed = d
	}
	return err
}

// giveBack answers an offer that recalls. If the repositories cannot be asked, the
// guard's own way back is still open: it needs no network.
func (l *Loader) giveBack(ctx context.Context, host State, o holdfast.Offer, now time.Time) (Decision, error) {
	d := Decision{Channel: o.Channel, From: o.Recall, Lease: o.Lease}
	if host.Current[o.Channel] != o.Recall {
		d.Action, d.Reason = Nothing, "it does not run"
		return d, nil
	}
	view, err := l.cfg.Trust.Refresh(ctx, now)
	if err != nil {
		if before := host.Previous[o.Channel]; before != "" && before != o.Recall {
			d.Action, d.Cause, d.Digest, d.Reason = Recall, Unreachable, before, "recalled by the server; back to what ran before"
			return d, nil
		}
		return refusal(d, err), nil
	}
	d, err = l.back(ctx, l.facts(host, view, o.Channel, o.Recall), now)
	d.Lease = o.Lease
	return d, err
}

// back decides about a return, and fetches what it returns to.
func (l *Loader) back(ctx context.Context, f Facts, now time.Time) (Decision, error) {
	remembered := l.memory.release(f.Digest)
	d := Return(f, remembered, now)
	if d.Cause != NoVerdict {
		return d, nil
	}
	f.Digest, f.Consent = d.Digest, nil
	from := d.From
	d, err := l.fetch(ctx, f, now)
	d.From = from
	return d, err
}

// fetch checks the candidate, and brings its verdict and its bytes.
func (l *Loader) fetch(ctx context.Context, f Facts, now time.Time) (Decision, error) {
	d := Check(f, now)
	if d.Cause == NoVerdict {
		for _, p := range f.Proofs() {
			env, err := l.get(ctx, "/verdicts/"+p.Bundle.Hex()+".json", attest.MaxEnvelope)
			if holdfast.KindOf(err) == holdfast.NotFound {
				continue
			} else if err != nil {
				d = refusal(d, err)
				if d.Action == Refuse {
					d.Cause = NoVerdict
				}
				return d, nil
			}
			f.Verdicts[p.Bundle] = env
		}
		d = Check(f, now)
	}
	if d.Action != Propose {
		return d, nil
	}
	r := f.View.Releases[f.Digest]
	path, err := l.content(ctx, r)
	switch holdfast.KindOf(err) {
	case holdfast.Unavailable, holdfast.NotFound:
		d.Action, d.Cause, d.Reason = Wait, Unreachable, err.Error()
		return d, nil
	case holdfast.Denied:
		d.Action, d.Cause, d.Reason = Refuse, BadContent, err.Error()
		return d, nil
	}
	if err != nil {
		return d, err
	}
	if err := l.cfg.TestLoad(ctx, f.Channel, path); err != nil {
		d.Action, d.Cause, d.Reason = Refuse, TestLoad, "a throw-away child could not load it: "+err.Error()
		return d, nil
	}
	l.memory.accept(r)
	return d, l.memory.save(l.cfg.State)
}

// placebo is the other arm: the same work as for new content, and then the content
// that runs, once more. It restarts the worker, so it keeps to the organisation's
// maintenance windows.
func (l *Loader) placebo(ctx context.Context, f Facts, d Decision, now time.Time) (Decision, error) {
	if f.Consent != nil {
		if at, ok := f.Consent.Window(f.Host, &f.Attributes, now); !ok || at.After(now) {
			d.Action, d.Cause, d.Until, d.Reason = Wait, Forbidden, at, "waits for its maintenance window"
			return d, nil
		}
	}
	d.Action, d.Digest = Reactivate, f.State.Current[f.Channel]
	if d.Digest != "" {
		path := l.path(d.Digest)
		if err := l.cfg.TestLoad(ctx, f.Channel, path); err != nil {
			d.Action, d.Cause, d.Reason = Refuse, TestLoad, "a throw-away child could not load what runs: "+err.Error()
			return d, nil
		}
	}
	return l.renew(ctx, d), nil
}

// renew asks for the lease once more, so that a halt reaches what is under way.
func (l *Loader) renew(ctx context.Context, d Decision) Decision {
	err := l.cfg.Renew(ctx, d.Lease)
	if err == nil {
		return d
	}
	d.Action, d.Cause, d.Reason = Refuse, NoLease, "the lease was not renewed: "+err.Error()
	if holdfast.KindOf(err) == holdfast.Unavailable {
		d.Action = Wait
	}
	return d
}

func (l *Loader) facts(host State, view *tuf.View, c holdfast.Channel, d holdfast.Digest) Facts {
	return Facts{
		Host: l.cfg.Host, Domain: l.cfg.Domain, Build: l.cfg.Build, State: host, View: view,
		Channel: c, Digest: d, MaxBytes: l.cfg.MaxBytes, Verdicts: map[holdfast.Digest][]byte{},
		Consent: l.consent.policy, Attributes: l.cfg.Consent.Attributes,
	}
}
