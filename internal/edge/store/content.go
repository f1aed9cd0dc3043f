package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/holdfast-security/holdfast"
)

// PutBuild registers a sensor build. Registering the same build again changes
// nothing; Conflict if its digest is known with another manifest.
func (s *Store) PutBuild(ctx context.Context, b holdfast.Build, at time.Time) error {
	manifest, err := json.Marshal(b.Manifest)
	if err != nil {
		return err
	}
	return s.Tx(ctx, func(tx *Store) error {
		n, err := tx.exec(ctx, `INSERT INTO builds (digest, version, platform, manifest, created) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (digest) DO NOTHING`,
			string(b.Digest), b.Manifest.Version, b.Manifest.Platform, string(manifest), nanos(at))
		if err != nil || n == 1 {
			return err
		}
		var known string
		err = tx.row(ctx, "build", `SELECT manifest FROM builds WHERE digest = $1`, []any{string(b.Digest)}, &known)
		if err == nil && known != string(manifest) {
			err = &holdfast.Error{
				Kind: holdfast.Conflict, What: "this build is registered with another manifest", Where: b.Digest.Short(),
				Do: "one binary exports one manifest: rebuild it, or find out which of the two is false",
			}
		}
		return err
	})
}

// Builds lists the sensor builds with how many hosts run each, by digest.
func (s *Store) Builds(ctx context.Context) ([]holdfast.Build, error) {
	var all []holdfast.Build
	err := s.rows(ctx, `SELECT b.digest, b.manifest, (SELECT COUNT(*) FROM hosts h WHERE h.build = b.digest AND h.revoked = FALSE)
		FROM builds b ORDER BY b.digest`, nil, func(scan func(...any) error) error {
		var b holdfast.Build
		var manifest string
		if err := scan(&b.Digest, &manifest, &b.Hosts); err != nil {
			return err
		}
		all = append(all, b)
		return json.Unmarshal([]byte(manifest), &all[len(all)-1].Manifest)
	})
	return all, err
}

// BuildsInUse counts the hosts of each sensor build that some host runs,
// registered or not.
func (s *Store) BuildsInUse(ctx context.Context) (map[holdfast.Digest]int, error) {
	all := map[holdfast.Digest]int{}
	err := s.rows(ctx, `SELECT build, COUNT(*) FROM hosts WHERE revoked = FALSE AND build <> '' GROUP BY build`, nil, func(scan func(...any) error) error {
		var d holdfast.Digest
		var n int
		err := scan(&d, &n)
		all[d] = n
		return err
	})
	return all, err
}

// PutBundle registers a bundle. Registering it again changes nothing.
func (s *Store) PutBundle(ctx context.Context, org holdfast.OrgID, b holdfast.Bundle, by string) error {
	_, err := s.exec(ctx, `INSERT INTO bundles (digest, org, channel, version, size, created, by_name) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (digest) DO NOTHING`, string(b.Digest), string(org), string(b.Channel), b.Version, b.Size, nanos(b.Created), by)
	return err
}

const bundleColumns = `bundles.channel, bundles.version, bundles.digest, bundles.size, bundles.created`

func bundleInto(b *holdfast.Bundle, created *int64) []any {
	return []any{&b.Channel, &b.Version, &b.Digest, &b.Size, created}
}

// Bundle returns a bundle by digest.
func (s *Store) Bundle(ctx context.Context, d holdfast.Digest) (holdfast.Bundle, error) {
	var b holdfast.Bundle
	var created int64
	err := s.row(ctx, "bundle "+d.Short(), `SELECT `+bundleColumns+` FROM bundles WHERE digest = $1`, []any{string(d)}, bundleInto(&b, &created)...)
	b.Created = moment(created)
	return b, err
}

// Bundles lists the bundles of a channel, or of all if it is empty, newest
// first.
func (s *Store) Bundles(ctx context.Context, c holdfast.Channel) ([]holdfast.Bundle, error) {
	w := where{}
	w.equal("channel", string(c))
	var all []holdfast.Bundle
	err := s.rows(ctx, `SELECT `+bundleColumns+` FROM bundles`+w.sql()+` ORDER BY created DESC, digest LIMIT 1000`, w.args, func(scan func(...any) error) error {
		var b holdfast.Bundle
		var created int64
		err := scan(bundleInto(&b, &created)...)
		b.Created = moment(created)
		all = append(all, b)
		return err
	})
	return all, err
}

// PutCheck stores the result of a static check of bundle against build.
func (s *Store) PutCheck(ctx context.Context, bundle, build holdfast.Digest, problems []holdfast.RuleProblem, at time.Time) error {
	if problems == nil {
		problems = []holdfast.RuleProblem{}
	}
	j, err := json.Marshal(problems)
	if err != nil {
		return err
	}
	_, err = s.exec(ctx, `INSERT INTO checks (bundle, build, problems, at) VALUES ($1, $2, $3, $4)
		ON CONFLICT (bundle, build) DO UPDATE SET problems = excluded.problems, at = excluded.at`, string(bundle), string(build), string(j), nanos(at))
	return err
}

// Checks returns the problems the static check found in a bundle, by build. A
// build it was not checked against is absent.
func (s *Store) Checks(ctx context.Context, bundle holdfast.Digest) (map[holdfast.Digest][]holdfast.RuleProblem, error) {
	all := map[holdfast.Digest][]holdfast.RuleProblem{}
	err := s.rows(ctx, `SELECT build, problems FROM checks WHERE bundle = $1`, []any{string(bundle)}, func(scan func(...any) error) error {
		var build holdfast.Digest
		var j string
		if err := scan(&build, &j); err != nil {
			return err
		}
		var problems []holdfast.RuleProblem
		err := json.Unmarshal([]byte(j), &problems)
		all[build] = problems
		return err
	})
	return all, err
}

// PutVerdict stores a rehearsal verdict with the signed envelope it was read
// from. A newer one replaces it.
func (s *Store) PutVerdict(ctx context.Context, v holdfast.Verdict, envelope []byte) error {
	j, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = s.exec(ctx, `INSERT INTO verdicts (bundle, envelope, verdict, passed, at) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (bundle) DO UPDATE SET envelope = excluded.envelope, verdict = excluded.verdict, passed = excluded.passed, at = excluded.at
		WHERE excluded.at >= verdicts.at`, string(v.Bundle), envelope, string(j), v.Passed(), nanos(v.Finished))
	return err
}

// Verdict returns the verdict on a bundle, and the signed envelope.
func (s *Store) Verdict(ctx context.Context, bundle holdfast.Digest) (v holdfast.Verdict, envelope []byte, err error) {
	var j string
	err = s.row(ctx, "verdict on bundle "+bundle.Short(), `SELECT verdict, envelope FROM verdicts WHERE bundle = $1`, []any{string(bundle)}, &j, &envelope)
	if err == nil {
		err = json.Unmarshal([]byte(j), &v)
	}
	return v, envelope, err
}
