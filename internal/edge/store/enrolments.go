package store

import (
	"context"
	"time"

	"github.com/holdfast-security/holdfast"
)

// CreateEnrolment stores e and returns the secret a host enrols with.
func (s *Store) CreateEnrolment(ctx context.Context, e holdfast.Enrolment) (secret string, err error) {
	if e.Uses < 1 || e.ID == "" {
		return "", holdfast.Errorf(holdfast.Invalid, "an enrolment needs an id and at least one use")
	}
	secret, hash := newSecret()
	_, err = s.exec(ctx, `INSERT INTO enrolments (id, token, org, role, simulated, uses, created, expires, by_name)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		e.ID, hash, string(e.Org), e.Role, e.Simulated, int64(e.Uses), nanos(e.Created), nanos(e.Expires), e.By)
	return secret, err
}

// UseEnrolment spends one use of an enrolment and returns it with the uses
// that remain. Denied if it has none left, expired or never was. Call it in
// the transaction that creates the host, so that a failure spends nothing.
func (s *Store) UseEnrolment(ctx context.Context, secret string, now time.Time) (e holdfast.Enrolment, err error) {
	err = s.Tx(ctx, func(tx *Store) error {
		return scanEnrolment(func(into ...any) error {
			return tx.row(ctx, "enrolment", `UPDATE enrolments SET uses = uses - 1
				WHERE token = $1 AND uses > 0 AND expires > $2 RETURNING `+enrolmentColumns,
				[]any{hashSecret(secret), nanos(now)}, into...)
		}, &e)
	})
	if holdfast.KindOf(err) == holdfast.NotFound {
		err = &holdfast.Error{
			Kind: holdfast.Denied, What: "the enrolment token was used up, has expired, or never existed",
			Do: "ask an administrator for a new one",
		}
	}
	return e, err
}

// EnrolHost spends one use of the enrolment whose secret this is and stores
// the host that as makes for it, in one transaction: both or neither. Denied
// if the secret is wrong, used up or expired; Conflict if the host exists.
func (s *Store) EnrolHost(ctx context.Context, secret string, now time.Time, as func(holdfast.Enrolment) holdfast.Host) (h holdfast.Host, err error) {
	err = s.Tx(ctx, func(tx *Store) error {
		e, err := tx.UseEnrolment(ctx, secret, now)
		if err != nil {
			return err
		}
		h = as(e)
		return tx.CreateHost(ctx, h)
	})
	if err != nil {
		return holdfast.Host{}, err
	}
	return h, nil
}

const enrolmentColumns = `id, org, role, simulated, uses, created, expires, by_name`

func scanEnrolment(scan func(...any) error, e *holdfast.Enrolment) error {
	var created, expires int64
	err := scan(&e.ID, &e.Org, &e.Role, &e.Simulated, &e.Uses, &created, &expires, &e.By)
	e.Created, e.Expires = moment(created), moment(expires)
	return err
}

// Enrolments lists the enrolments, newest first.
func (s *Store) Enrolments(ctx context.Context) ([]holdfast.Enrolment, error) {
	var all []holdfast.Enrolment
	err := s.rows(ctx, `SELECT `+enrolmentColumns+` FROM enrolments ORDER BY created DESC, id LIMIT 1000`, nil, func(scan func(...any) error) error {
		var e holdfast.Enrolment
		err := scanEnrolment(scan, &e)
		all = append(all, e)
		return err
	})
	return all, err
}

// RevokeEnrolment takes an enrolment's remaining uses away.
func (s *Store) RevokeEnrolment(ctx context.Context, id string) error {
	n, err := s.exec(ctx, `UPDATE enrolments SET uses = 0 WHERE id = $1`, id)
	if err == nil && n == 0 {
		err = holdfast.Errorf(holdfast.NotFound, "there is no enrolment %s", id)
	}
	return err
}
