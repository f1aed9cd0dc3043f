package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast"
)

const hostColumns = `id, org, attributes, report, simulated, connected, revoked, no_canary, serial, enrolled, last_seen`

// CreateHost adds a newly enrolled host; Conflict if its id exists.
func (s *Store) CreateHost(ctx context.Context, h holdfast.Host) error {
	attributes, report, err := hostJSON(h)
	if err != nil {
		return err
	}
	_, err = s.exec(ctx, `INSERT INTO hosts (id, org, hostname, stratum, build, attributes, report, simulated, connected, revoked, no_canary, safe_mode, serial, enrolled, last_seen)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)`,
		string(h.ID), string(h.Org), h.Attributes.Hostname, string(h.Attributes.Stratum()), string(h.Attributes.Build),
		attributes, report, h.Simulated, h.Connected, h.Revoked, h.NoCanary, h.Report.SafeMode, h.Serial, nanos(h.Enrolled), nanos(h.LastSeen))
	return err
}

// SaveHosts writes what changed about hosts in one transaction: attributes,
// report, connection and when they were last seen. It never changes what an
// operator or enrolment decided (organisation, certificate, revocation), and
// skips hosts that do not exist any more.
func (s *Store) SaveHosts(ctx context.Context, hosts []holdfast.Host) error {
	rows := make([][]any, 0, len(hosts))
	for _, h := range hosts {
		attributes, report, err := hostJSON(h)
		if err != nil {
			return err
		}
		rows = append(rows, []any{
			h.Attributes.Hostname, string(h.Attributes.Stratum()), string(h.Attributes.Build), attributes, report,
			h.Connected, h.Report.SafeMode, nanos(h.LastSeen), string(h.ID),
		})
	}
	return s.each(ctx, `UPDATE hosts SET hostname = $1, stratum = $2, build = $3, attributes = $4, report = $5, connected = $6, safe_mode = $7, last_seen = $8
		WHERE id = $9`, rows)
}

func hostJSON(h holdfast.Host) (attributes, report string, err error) {
	a, err := json.Marshal(h.Attributes)
	if err != nil {
		return "", "", err
	}
	r, err := json.Marshal(h.Report)
	return string(a), string(r), err
}

func scanHost(scan func(...any) error, h *holdfast.Host) error {
	var attributes, report string
	var enrolled, seen int64
	if err := scan(&h.ID, &h.Org, &attributes, &report, &h.Simulated, &h.Connected, &h.Revoked, &h.NoCanary, &h.Serial, &enrolled, &seen); err != nil {
		return err
	}
	h.Enrolled, h.LastSeen = moment(enrolled), moment(seen)
	if err := json.Unmarshal([]byte(attributes), &h.Attributes); err != nil {
		return fmt.Errorf("attributes of host %s: %w", h.ID, err)
	}
	if err := json.Unmarshal([]byte(report), &h.Report); err != nil {
		return fmt.Errorf("report of host %s: %w", h.ID, err)
	}
	return nil
}

// Host returns a host by id.
func (s *Store) Host(ctx context.Context, id holdfast.HostID) (holdfast.Host, error) {
	var h holdfast.Host
	err := scanHost(func(into ...any) error {
		return s.row(ctx, "host "+string(id), `SELECT `+hostColumns+` FROM hosts WHERE id = $1`, []any{string(id)}, into...)
	}, &h)
	return h, err
}

// HostFilter selects hosts; a zero field selects all.
type HostFilter struct {
	Org       holdfast.OrgID
	Stratum   holdfast.Stratum
	Build     holdfast.Digest
	Text      string // part of the host name or id
	Connected *bool
	SafeMode  *bool
	Simulated *bool
	After     holdfast.HostID // cursor: the last id of the page before
	Limit     int             // 0 means 100; at most 10,000
}

// Hosts lists hosts by id. Ask for the next page with After set to the last
// one's id.
func (s *Store) Hosts(ctx context.Context, f HostFilter) ([]holdfast.Host, error) {
	w := where{}
	w.equal("org", string(f.Org))
	w.equal("stratum", string(f.Stratum))
	w.equal("build", string(f.Build))
	w.flag("connected", f.Connected)
	w.flag("safe_mode", f.SafeMode)
	w.flag("simulated", f.Simulated)
	if f.Text != "" {
		pattern := "%" + likeEscaper.Replace(strings.ToLower(f.Text)) + "%"
		w.add(`(LOWER(hostname) LIKE ? ESCAPE '\' OR id LIKE ? ESCAPE '\')`, pattern, pattern)
	}
	if f.After != "" {
		w.add("id > ?", string(f.After))
	}
	var all []holdfast.Host
	err := s.rows(ctx, `SELECT `+hostColumns+` FROM hosts`+w.sql()+` ORDER BY id LIMIT `+w.arg(int64(limit(f.Limit))), w.args, func(scan func(...any) error) error {
		var h holdfast.Host
		err := scanHost(scan, &h)
		all = append(all, h)
		return err
	})
	return all, err
}

// EachHost calls each for every host. each must not use the store.
func (s *Store) EachHost(ctx context.Context, each func(holdfast.Host) error) error {
	return s.rows(ctx, `SELECT `+hostColumns+` FROM hosts ORDER BY id`, nil, func(scan func(...any) error) error {
		var h holdfast.Host
		if err := scanHost(scan, &h); err != nil {
			return err
		}
		return each(h)
	})
}

// HostCounts says how many hosts there are, and how they are.
type HostCounts struct {
	Hosts     int `json:"hosts"`
	Connected int `json:"connected"`
	SafeMode  int `json:"safe_mode"`
	Simulated int `json:"simulated"`
}

// CountHosts counts the hosts of an organisation, or of all if org is empty.
func (s *Store) CountHosts(ctx context.Context, org holdfast.OrgID) (HostCounts, error) {
	w := where{}
	w.equal("org", string(org))
	w.add("revoked = FALSE")
	var c HostCounts
	err := s.row(ctx, "count", `SELECT COUNT(*), COALESCE(SUM(CASE WHEN connected THEN 1 ELSE 0 END), 0),
		COALESCE(SUM(CASE WHEN safe_mode THEN 1 ELSE 0 END), 0), COALESCE(SUM(CASE WHEN simulated THEN 1 ELSE 0 END), 0) FROM hosts`+w.sql(), w.args,
		&c.Hosts, &c.Connected, &c.SafeMode, &c.Simulated)
	return c, err
}

// SetSerial records the serial of a host's current certificate.
func (s *Store) SetSerial(ctx context.Context, id holdfast.HostID, serial string) error {
	return s.onHost(ctx, id, `UPDATE hosts SET serial = $1 WHERE id = $2`, serial)
}

// RevokeHost makes the host's key worthless for ever, and returns what stands:
// r, or the earlier revocation if there is one, which nothing changes. NotFound if
// there is no such host.
func (s *Store) RevokeHost(ctx context.Context, r holdfast.Revocation) (stands holdfast.Revocation, first bool, err error) {
	err = s.Tx(ctx, func(tx *Store) error {
		if err := tx.onHost(ctx, r.Host, `UPDATE hosts SET revoked = $1, connected = FALSE WHERE id = $2`, true); err != nil {
			return err
		}
		n, err := tx.exec(ctx, `INSERT INTO revocations (host, at, by_name, reason) VALUES ($1, $2, $3, $4) ON CONFLICT (host) DO NOTHING`,
			string(r.Host), nanos(r.At), r.By, r.Reason)
		if err != nil {
			return err
		}
		first = n == 1
		stands, err = tx.Revocation(ctx, r.Host)
		return err
	})
	return stands, first, err
}

// Revocation returns why a host was revoked, when, and by whom; NotFound if it
// was not.
func (s *Store) Revocation(ctx context.Context, id holdfast.HostID) (holdfast.Revocation, error) {
	r := holdfast.Revocation{Host: id}
	var at int64
	err := s.row(ctx, "revocation of host "+string(id), `SELECT at, by_name, reason FROM revocations WHERE host = $1`, []any{string(id)}, &at, &r.By, &r.Reason)
	r.At = moment(at)
	return r, err
}

// SetNoCanary marks a host that must never be among the first of a release.
func (s *Store) SetNoCanary(ctx context.Context, id holdfast.HostID, no bool) error {
	return s.onHost(ctx, id, `UPDATE hosts SET no_canary = $1 WHERE id = $2`, no)
}

func (s *Store) onHost(ctx context.Context, id holdfast.HostID, query string, value any) error {
	n, err := s.exec(ctx, query, value, string(id))
	if err == nil && n == 0 {
		err = holdfast.Errorf(holdfast.NotFound, "there is no host %s", id)
	}
	return err
}

// Disconnected marks every host as not connected: what a server that has just
// started knows.
func (s *Store) Disconnected(ctx context.Context) error {
	_, err := s.exec(ctx, `UPDATE hosts SET connected = FALSE WHERE connected = TRUE`)
	return err
}

// PutCommand stores an order for a host.
func (s *Store) PutCommand(ctx context.Context, c holdfast.Command) error {
	_, err := s.exec(ctx, `INSERT INTO commands (id, host, kind, args, by_name, at, done, outcome) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		c.ID, string(c.Host), c.Kind, string(c.Args), c.By, nanos(c.At), nanos(c.Done), c.Outcome)
	return err
}

// PendingCommands lists a host's orders not yet carried out, oldest first.
func (s *Store) PendingCommands(ctx context.Context, id holdfast.HostID) ([]holdfast.Command, error) {
	var all []holdfast.Command
	err := s.rows(ctx, `SELECT id, host, kind, args, by_name, at, done, outcome FROM commands WHERE host = $1 AND done = 0 ORDER BY at, id LIMIT 1000`,
		[]any{string(id)}, func(scan func(...any) error) error {
			var c holdfast.Command
			var args string
			var at, done int64
			err := scan(&c.ID, &c.Host, &c.Kind, &args, &c.By, &at, &done, &c.Outcome)
			c.At, c.Done = moment(at), moment(done)
			if args != "" {
				c.Args = json.RawMessage(args)
			}
			all = append(all, c)
			return err
		})
	return all, err
}

// FinishCommand records what became of an order. The first outcome stands.
func (s *Store) FinishCommand(ctx context.Context, id, outcome string, at time.Time) error {
	_, err := s.exec(ctx, `UPDATE commands SET done = $1, outcome = $2 WHERE id = $3 AND done = 0`, nanos(at), outcome, id)
	return err
}
