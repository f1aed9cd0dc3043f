package tuf

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/holdfast-security/holdfast"
)

// ErrDomain is in the chain of the error about metadata of another trust domain,
// ErrExpired of the one about metadata whose time has run out.
var (
	ErrDomain  = errors.New("another trust domain")
	ErrExpired = errors.New("expired")
)

// ClientConfig is what a host knows before it asks anybody.
type ClientConfig struct {
	Domain Domain
	Roots  Roots
	// URL is the base of image/ and director/, "https://host/tuf".
	URL string
	// HTTP fetches; nil means a client of its own. Each file is bounded in size
	// and in time (Timeout, 30 s if zero), whatever the client allows.
	HTTP    *http.Client
	Timeout time.Duration
	// Dir keeps the newest metadata over restarts, which is what makes a rollback
	// visible; empty keeps it in memory only.
	Dir string
	// Host, if set, limits the fetched rings to those that this host is in.
	Host holdfast.HostID
	// MaxAge lets a view be used again for so long without asking, which is for
	// clients that many simulated hosts share.
	MaxAge time.Duration
}

// Client is the host's half of trust. It refreshes both repositories and verifies
// them from the root down, in the order of TUF's client workflow. It is safe for
// concurrent use; of calls that come together one does the work.
//
// Every verification is go-tuf's (trustedmetadata). The walk around it is written
// here instead of using go-tuf's Updater, because that takes no context, chooses
// delegated roles by target path where we choose them by ring, and reads the clock.
type Client struct {
	cfg             ClientConfig
	image, director *repository

	mu      sync.Mutex
	view    *View
	from    [2]*verified // the image and director metadata that view says
	checked time.Time    // when view was last found to be the newest
}

// NewClient checks the configuration and reads what an earlier client left in Dir.
func NewClient(cfg ClientConfig) (*Client, error) {
	if cfg.Domain != Production && cfg.Domain != Drill {
		return nil, &holdfast.Error{Kind: holdfast.Invalid, What: `a trust domain is "production" or "drill"`, Where: "domain"}
	}
	if cfg.HTTP == nil {
		cfg.HTTP = &http.Client{}
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Second
	}
	c := &Client{cfg: cfg}
	var err error
	if c.image, err = openRepository(cfg, imageRepo, cfg.Roots.Image); err != nil {
		return nil, err
	}
	if c.director, err = openRepository(cfg, directorRepo, cfg.Roots.Director); err != nil {
		return nil, err
	}
	return c, nil
}

// Refresh returns the newest view of both repositories. If it fails, the error's
// kind is Unavailable when something could not be reached, and Denied when what
// came is not to be believed; an older view may still be used until it expires.
func (c *Client) Refresh(ctx context.Context, now time.Time) (*View, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now = now.UTC()
	if c.view != nil && c.cfg.MaxAge > 0 && now.Before(c.view.Expires) && !now.Before(c.checked) && now.Sub(c.checked) < c.cfg.MaxAge {
		return c.view, nil
	}
	image, err := c.image.refresh(ctx, now, delegated)
	if err != nil {
		return nil, err
	}
	v, err := c.readImage(image)
	if err != nil {
		return nil, c.image.wrong("", err)
	}
	director, err := c.director.refresh(ctx, now, func(top *targetsMeta) []string {
		have := delegated(top)
		return slices.DeleteFunc(c.rings(v), func(r string) bool { return !slices.Contains(have, r) })
	})
	if err != nil {
		return nil, err
	}
	c.checked = now
	if from := [2]*verified{image, director}; from == c.from {
		return c.view, nil
	}
	for role, m := range director.roles {
		list, err := approvals(m)
		if err != nil {
			return nil, c.director.wrong(role, err)
		}
		v.Approvals[strings.TrimPrefix(role, "ring-")] = list
	}
	v.Image, v.Director = image.version, director.version
	v.Expires = image.expires
	if director.expires.Before(v.Expires) {
		v.Expires = director.expires
	}
	c.view, c.from = v, [2]*verified{image, director}
	return v, nil
}

// readImage turns the image repository into plain data.
func (c *Client) readImage(image *verified) (*View, error) {
	if image == c.from[0] {
		v := *c.view
		v.Approvals = map[string][]Approval{}
		return &v, nil
	}
	v := &View{Releases: map[holdfast.Digest]Release{}, Approvals: map[string][]Approval{}, Minimum: map[holdfast.Channel]int64{}}
	if ok, err := custom(image.top, policyTarget, &v.Policy); err != nil {
		return nil, err
	} else if !ok {
		return nil, holdfast.Errorf(holdfast.Denied, "no policy")
	}
	p := v.Policy
	if p.Domain != c.cfg.Domain {
		return nil, wrongDomain(p.Domain, c.cfg.Domain)
	}
	if p.RehearsalThreshold < 1 || p.RehearsalThreshold > len(p.Rehearsal) || slices.ContainsFunc(p.Rehearsal, func(k ed25519.PublicKey) bool { return len(k) != ed25519.PublicKeySize }) {
		return nil, holdfast.Errorf(holdfast.Denied, "the policy names no usable rehearsal keys")
	}
	for role, m := range image.roles {
		all, least, err := releases(m, holdfast.Channel(role))
		if err != nil {
			return nil, err
		}
		v.Minimum[holdfast.Channel(role)] = least
		for _, r := range all {
			if r.Domain != c.cfg.Domain {
				return nil, wrongDomain(r.Domain, c.cfg.Domain)
			}
			v.Releases[r.Digest] = r
		}
	}
	return v, nil
}

// rings lists the ring roles to fetch: those that the host can be in under any
// release's plan, or all.
func (c *Client) rings(v *View) []string {
	names := map[string]bool{}
	if c.cfg.Host == "" {
		for _, r := range v.Policy.Rings {
			names[ringRole(r)] = true
		}
	} else {
		for _, r := range v.Releases {
			names[ringRole(r.Rings[r.Rings.Of(c.cfg.Host)].Name)] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

func wrongDomain(is, want Domain) error {
	return &holdfast.Error{
		Kind: holdfast.Denied, What: fmt.Sprintf("this host belongs to domain %q and believes nothing of domain %q", want, is),
		Do: "check which root the host was installed with", Err: ErrDomain,
	}
}

// verified is one repository at one moment.
type verified struct {
	top     *targetsMeta
	roles   map[string]*targetsMeta
	version int64 // of the timestamp
	root    int64 // of the root
	expires time.Time
}

func (v *verified) until(t time.Time) {
	if v.expires.IsZero() || t.Before(v.expires) {
		v.expires = t
	}
}

// explain makes an error for a person out of go-tuf's.
func explain(err error) error {
	switch {
	case errors.Is(err, &metadata.ErrExpiredMetadata{}):
		return holdfast.Errorf(holdfast.Denied, "%w: old metadata is being replayed, the server no longer signs, or this host's clock is wrong: %w", ErrExpired, err)
	case errors.Is(err, &metadata.ErrBadVersionNumber{}):
		return holdfast.Errorf(holdfast.Denied, "older than what this host has seen, or mixed from different moments: %w", err)
	case errors.Is(err, &metadata.ErrLengthOrHashMismatch{}):
		return holdfast.Errorf(holdfast.Denied, "not the file that the snapshot or timestamp names: %w", err)
	case errors.Is(err, &metadata.ErrUnsignedMetadata{}):
		return holdfast.Errorf(holdfast.Denied, "not signed by the threshold of its keys: %w", err)
	}
	return holdfast.Errorf(holdfast.Denied, "cannot be believed: %w", err)
}
